//! Files in HDFS for the cluster: put once, never changed, removed at the end.
//!
//! A create takes a name before there is content, so a file is written under another name and renamed
//! without overwriting: whoever staged it first has staged it for all.

use super::NAME;
use super::rest::{CALL_MAX, down};
use crate::Error;
use base16ct::lower;
use bytes::Bytes;
use hdfs_native::{Client, ClientBuilder, HdfsError, WriteOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// Bytes of one write.
const CHUNK: usize = 4 << 20;
/// The longest that one write may take: it waits for every replica.
const WRITE_MAX: Duration = Duration::from_secs(30);

/// A connection to the cluster's HDFS. Made anew for each use: one that has met a dead NameNode is not kept.
pub(crate) struct Staging {
    client: Client,
    fs: String,
}

/// A file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Staged {
    /// With scheme and host.
    pub(crate) uri: String,
    pub(crate) bytes: u64,
    /// YARN refuses a file whose time differs from what it was told.
    pub(crate) modified_ms: u64,
}

impl Staging {
    pub(crate) fn open(conf: &Path, fs: &str, user: &str) -> Result<Staging, Error> {
        let client = ClientBuilder::new()
            .with_config_dir(conf.to_string_lossy())
            .with_user(user)
            .build()
            .map_err(|e| down(format!("`{fs}`: {e}")))?;
        Ok(Staging { client, fs: fs.to_owned() })
    }

    /// A file's URI.
    pub(crate) fn uri(&self, path: &str) -> String {
        format!("{}{path}", self.fs)
    }

    /// Makes a folder and those above it.
    pub(crate) async fn folder(&self, path: &str, mode: u32) -> Result<(), Error> {
        self.within(self.client.mkdirs(path, mode, true)).await
    }

    /// The file of that name; `None` when there is none.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Staged>, Error> {
        let found = match tokio::time::timeout(CALL_MAX, self.client.get_file_info(path)).await {
            Ok(Err(HdfsError::FileNotFound(_))) => return Ok(None),
            Ok(found) => found.map_err(|e| self.wrong(&e))?,
            Err(_) => return Err(self.silent()),
        };
        let (bytes, modified_ms) = (found.length as u64, found.modification_time);
        Ok(Some(Staged { uri: self.uri(path), bytes, modified_ms }))
    }

    /// Puts a file unless there is one of that name.
    pub(crate) async fn put(&self, path: &str, bytes: Vec<u8>) -> Result<Staged, Error> {
        if let Some(staged) = self.find(path).await? {
            return Ok(staged);
        }
        let bytes = Bytes::from(bytes);
        let temporary = temporary(path);
        let mut writer = self.create(&temporary, 0o644).await?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let chunk = rest.split_to(rest.len().min(CHUNK));
            self.written(writer.write_bytes(chunk)).await?;
        }
        self.written(writer.close()).await?;
        self.settle(&temporary, path).await
    }

    /// [`Staging::put`] of a local file that others may run.
    pub(crate) async fn put_file(&self, path: &str, local: &Path) -> Result<Staged, Error> {
        if let Some(staged) = self.find(path).await? {
            return Ok(staged);
        }
        let unreadable = |e: std::io::Error| unreadable(local, &e);
        let mut file = tokio::fs::File::open(local).await.map_err(unreadable)?;
        let temporary = temporary(path);
        let mut writer = self.create(&temporary, 0o755).await?;
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            if (&mut file).take(CHUNK as u64).read_to_end(&mut chunk).await.map_err(unreadable)? == 0 {
                break;
            }
            self.written(writer.write_bytes(Bytes::from(chunk))).await?;
        }
        self.written(writer.close()).await?;
        self.settle(&temporary, path).await
    }

    async fn create(&self, path: &str, mode: u32) -> Result<hdfs_native::file::FileWriter, Error> {
        let options = WriteOptions::default().permission(mode).overwrite(false);
        self.within(self.client.create(path, options)).await
    }

    async fn settle(&self, temporary: &str, path: &str) -> Result<Staged, Error> {
        match tokio::time::timeout(CALL_MAX, self.client.rename(temporary, path, false)).await {
            Ok(Ok(())) => {}
            Ok(Err(HdfsError::AlreadyExists(_))) => self.remove(temporary).await?,
            Ok(Err(e)) => return Err(self.wrong(&e)),
            Err(_) => return Err(self.silent()),
        }
        let gone = || down(format!("`{path}` was staged and has gone"));
        self.find(path).await?.ok_or_else(gone)
    }

    /// Removes a file, or a folder and all in it; harmless when there is none.
    pub(crate) async fn remove(&self, path: &str) -> Result<(), Error> {
        match tokio::time::timeout(CALL_MAX, self.client.delete(path, true)).await {
            Ok(Ok(_) | Err(HdfsError::FileNotFound(_))) => Ok(()),
            Ok(Err(e)) => Err(self.wrong(&e)),
            Err(_) => Err(self.silent()),
        }
    }

    async fn within<T>(&self, call: impl Future<Output = hdfs_native::Result<T>>) -> Result<T, Error> {
        let answer = tokio::time::timeout(CALL_MAX, call).await;
        answer.map_err(|_| self.silent())?.map_err(|e| self.wrong(&e))
    }

    async fn written<T>(&self, call: impl Future<Output = hdfs_native::Result<T>>) -> Result<T, Error> {
        let answer = tokio::time::timeout(WRITE_MAX, call).await;
        answer.map_err(|_| self.silent())?.map_err(|e| self.wrong(&e))
    }

    fn wrong(&self, e: &HdfsError) -> Error {
        // A remote error brings its stack with it.
        let text = e.to_string();
        down(format!("`{}`: {}", self.fs, text.lines().next().unwrap_or_default()))
    }

    fn silent(&self) -> Error {
        down(format!("`{}`: no answer in time", self.fs))
    }
}

/// The SHA-256 of a local file, in hexadecimal: its name in HDFS, so that jobs share it and nodes keep it.
pub(crate) fn digest(local: &Path) -> Result<String, Error> {
    use sha2::{Digest, Sha256};
    let mut file = std::fs::File::open(local).map_err(|e| unreadable(local, &e))?;
    let mut sha = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = std::io::Read::read(&mut file, &mut buffer).map_err(|e| unreadable(local, &e))?;
        if n == 0 {
            return Ok(lower::encode_string(&sha.finalize()));
        }
        sha.update(&buffer[..n]);
    }
}

fn unreadable(local: &Path, e: &std::io::Error) -> Error {
    Error::Down { engine: NAME, reason: format!("`{}` can't be read: {e}", PathBuf::from(local).display()) }
}

fn temporary(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    format!("{folder}/.{name}-{}", uuid::Uuid::new_v4().simple())
}
