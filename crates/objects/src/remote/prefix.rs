//! A folder of objects: where a job's output lies when it is not on this machine.

use super::bucket::{Bucket, Place};
use super::{Head, Remote, runtime, version};
use crate::{Error, Policy, Put};
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, WriteMultipart};
use std::time::Duration;

/// How often a put-if-absent is tried that the server answers with a conflict and does not store.
const CONFLICTS_MAX: u32 = 8;
/// Objects that are read at once.
const READS: usize = 16;
/// Of an object that is written piece by piece, the size of a piece: S3 wants 5 MiB and takes 10,000.
const PIECE_BYTES: usize = 8 << 20;

/// A folder of objects on a server.
#[derive(Debug, Clone)]
pub struct Prefix {
    bucket: Bucket,
    path: Path,
}

impl PartialEq for Prefix {
    fn eq(&self, other: &Prefix) -> bool {
        self.uri() == other.uri()
    }
}

impl Eq for Prefix {}

impl Prefix {
    /// The folder at a URI: the service's own, so that no policy limits it.
    ///
    /// # Errors
    /// [`Error::Uri`], also for what can only be read.
    pub fn at(uri: &str) -> Result<Prefix, Error> {
        let Place { bucket, path } = Place::of(&Policy::default(), uri)?;
        if bucket.name.starts_with("http") {
            return Err(Error::Uri(format!("`{uri}`: an HTTP server takes no output")));
        }
        Ok(Prefix { bucket, path })
    }

    /// A folder or object below this one.
    #[must_use]
    pub fn join(&self, name: &str) -> Prefix {
        Prefix { bucket: self.bucket.clone(), path: self.below(name) }
    }

    /// Its URI.
    pub fn uri(&self) -> String {
        self.bucket.uri_of(&self.path)
    }

    fn below(&self, name: &str) -> Path {
        name.split('/').filter(|part| !part.is_empty()).fold(self.path.clone(), |path, part| path.join(part))
    }

    /// Writes an object unless there is one.
    ///
    /// # Errors
    /// See [`Error`]: whether it is there is then unknown, and a read tells.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<Put, Error> {
        let path = self.below(name);
        for conflict in 0..CONFLICTS_MAX {
            let (store, to, payload) = (self.bucket.store.clone(), path.clone(), bytes.to_vec().into());
            let options = PutOptions::from(PutMode::Create);
            match self.bucket.ask(async move { store.put_opts(&to, payload, options).await }) {
                Ok(_) => return Ok(Put::Won),
                // S3 answers 409 when two puts meet, and may have stored neither (its documentation of conditional
                // writes): only a read tells.
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    match self.read(name)? {
                        // A put whose answer was lost is tried again by the store, and meets itself.
                        Some(there) if there == bytes => return Ok(Put::Won),
                        Some(_) => return Ok(Put::Exists),
                        None => runtime::wait(tokio::time::sleep(Duration::from_millis(20 << conflict))),
                    }
                }
                Err(e) => return Err(self.bucket.failed(e)),
            }
        }
        let reason = format!("it refuses `{path}` as already there, and has no such object");
        Err(Error::Away { host: self.bucket.name.clone(), reason })
    }

    /// An object's bytes; `None` when there is none.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let (store, path) = (self.bucket.store.clone(), self.below(name));
        let got = self.bucket.ask(async move { store.get(&path).await?.bytes().await });
        match got {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(e) => absent(self.bucket.failed(e)),
        }
    }

    /// Many objects' bytes, in order; some are on their way at once.
    pub fn read_many(&self, names: &[&str]) -> Vec<Result<Option<Vec<u8>>, Error>> {
        let store = self.bucket.store.clone();
        let paths: Vec<Path> = names.iter().map(|name| self.below(name)).collect();
        let got = runtime::wait(async move {
            let read = |path: Path| {
                let store = store.clone();
                async move { store.get(&path).await?.bytes().await }
            };
            futures_util::stream::iter(paths.into_iter().map(read)).buffered(READS).collect::<Vec<_>>().await
        });
        got.into_iter()
            .map(|got| match got {
                Ok(bytes) => Ok(Some(bytes.to_vec())),
                Err(e) => absent(self.bucket.failed(e)),
            })
            .collect()
    }

    /// Whether there is an object of that name.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn exists(&self, name: &str) -> Result<bool, Error> {
        Ok(self.meta(name)?.is_some())
    }

    fn meta(&self, name: &str) -> Result<Option<ObjectMeta>, Error> {
        let (store, path) = (self.bucket.store.clone(), self.below(name));
        match self.bucket.ask(async move { store.head(&path).await }) {
            Ok(meta) => Ok(Some(meta)),
            Err(e) => absent(self.bucket.failed(e)),
        }
    }

    /// Names in a folder, sorted: of objects, and of folders below it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn list(&self, folder: &str) -> Result<Vec<String>, Error> {
        let (store, path) = (self.bucket.store.clone(), self.below(folder));
        let listed = self.bucket.ask(async move { store.list_with_delimiter(Some(&path)).await });
        let listed = listed.map_err(|e| self.bucket.failed(e))?;
        let objects = listed.objects.iter().map(|meta| &meta.location);
        let names = objects.chain(&listed.common_prefixes).filter_map(|path| path.filename());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).map(str::to_owned).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Names of all objects below a folder, relative to this one, sorted.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn tree(&self, folder: &str) -> Result<Vec<String>, Error> {
        let (store, path) = (self.bucket.store.clone(), self.below(folder));
        let listed = self.bucket.ask(async move {
            store.list(Some(&path)).map_ok(|meta| meta.location).try_collect::<Vec<Path>>().await
        });
        let listed = listed.map_err(|e| self.bucket.failed(e))?;
        let root = format!("{}/", self.path);
        let mut names: Vec<String> =
            listed.iter().filter_map(|path| path.as_ref().strip_prefix(&root).map(str::to_owned)).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Removes an object; harmless when there is none.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let (store, path) = (self.bucket.store.clone(), self.below(name));
        let removed = self.bucket.ask(async move {
            let one = futures_util::stream::iter([Ok(path)]).boxed();
            store.delete_stream(one).try_collect::<Vec<Path>>().await
        });
        match removed {
            Ok(_) => Ok(()),
            Err(e) => absent::<()>(self.bucket.failed(e)).map(drop),
        }
    }

    /// An object for reading, and its size.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(&self, name: &str) -> Result<(Remote, u64), Error> {
        let meta = self.meta(name)?.ok_or(Error::Missing)?;
        let head = Head { uri: format!("{}/{name}", self.uri()), size: meta.size, version: version(&meta) };
        Ok((Remote::open(&Policy::default(), &head, meta.size)?, meta.size))
    }

    /// A new object that is written piece by piece and is there at its end. Its name must be nobody else's.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn upload(&self, name: &str) -> Result<Upload, Error> {
        let (store, path) = (self.bucket.store.clone(), self.below(name));
        let begun = self.bucket.ask(async move { store.put_multipart(&path).await });
        let upload = begun.map_err(|e| self.bucket.failed(e))?;
        let writer = WriteMultipart::new_with_chunk_size(upload, PIECE_BYTES);
        Ok(Upload { bucket: self.bucket.clone(), writer: Some(writer) })
    }
}

fn absent<T>(e: Error) -> Result<Option<T>, Error> {
    if matches!(e, Error::Missing) { Ok(None) } else { Err(e) }
}

/// Pieces of an upload that are on their way at once.
const UPLOADS: usize = 2;

/// An object that is being written.
pub struct Upload {
    bucket: Bucket,
    writer: Option<WriteMultipart>,
}

impl Upload {
    /// Adds bytes.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(mut writer) = self.writer.take() else { return Err(gone()) };
        let bytes = bytes.to_vec();
        let (writer, result) = runtime::wait(async move {
            let result = writer.wait_for_capacity(UPLOADS).await;
            writer.write(&bytes);
            (writer, result)
        });
        self.writer = Some(writer);
        result.map_err(|e| self.bucket.failed(e))
    }

    /// Makes the object be there.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn finish(mut self) -> Result<(), Error> {
        let Some(writer) = self.writer.take() else { return Err(gone()) };
        self.bucket.ask(writer.finish()).map(drop).map_err(|e| self.bucket.failed(e))
    }
}

fn gone() -> Error {
    Error::Other("an earlier piece of it could not be written".into())
}
