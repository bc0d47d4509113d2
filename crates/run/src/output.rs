//! The folder that holds a job's output, and how files come into it.
//!
//! A file is either put if absent (plan, records, manifest, mark) or has a random name (parts), so that no
//! two writers can disturb each other, on whatever storage. All is synced before it is relied on.

use crate::{Error, uri};
use serde::{Serialize, de::DeserializeOwned};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A job's output folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    root: PathBuf,
}

/// What became of a put-if-absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The file is there now, and it is ours.
    Won,
    /// There was one already.
    Exists,
}

/// The mark that ends a run for every mapper that may still live.
const CLOSED: &str = "closed";

impl Output {
    /// The output at a `file:` URI.
    ///
    /// # Errors
    /// [`Error::Uri`] for another scheme.
    pub fn at(uri: &str) -> Result<Output, Error> {
        Ok(Output { root: uri::to_path(uri)? })
    }

    /// The folder of one job below this one.
    pub fn of_job(&self, tenant: &str, job: &str) -> Output {
        Output { root: self.root.join(tenant).join(job) }
    }

    /// The folder's URI.
    pub fn uri(&self) -> String {
        uri::of_path(&self.root)
    }

    /// Where a file of it lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Checks that this storage keeps what the commit protocol needs: of two puts-if-absent of one name
    /// the second is refused, and what was written is read back.
    ///
    /// # Errors
    /// [`Error::Output`], or [`Error::Malformed`] when the storage lies.
    pub fn probe(&self) -> Result<(), Error> {
        let name = format!(".probe-{}", uuid::Uuid::new_v4().simple());
        let lies = |reason: &str| Error::Malformed { path: self.uri(), reason: reason.into() };
        let first = self.put(&name, b"first")?;
        let second = self.put(&name, b"second")?;
        let read = self.read(&name)?;
        self.remove(&name)?;
        match (first, second, read.as_deref()) {
            (Put::Won, Put::Exists, Some(b"first")) => Ok(()),
            _ => Err(lies("a second put-if-absent was not refused: output can't be committed safely there")),
        }
    }

    /// Writes a file unless there is one of that name. After a success it survives a power cut.
    ///
    /// # Errors
    /// [`Error::Output`]: whether the file is there is then unknown, and a read tells.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<Put, Error> {
        let path = self.path(name);
        let folder = path.parent().unwrap_or(&self.root);
        let failed = |e| wrong("write", &path, e);
        make_folder(folder).map_err(failed)?;
        let temporary = folder.join(format!(".{}", uuid::Uuid::new_v4().simple()));
        let written = write_synced(&temporary, bytes).and_then(|()| fs::hard_link(&temporary, &path));
        let removed = fs::remove_file(&temporary);
        match written {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(Put::Exists),
            Err(e) => return Err(failed(e)),
        }
        removed.map_err(failed)?;
        sync_folder(folder).map_err(failed)?;
        Ok(Put::Won)
    }

    /// [`Output::put`] of a value as JSON.
    ///
    /// # Errors
    /// Those of [`Output::put`].
    pub fn put_json(&self, name: &str, value: &impl Serialize) -> Result<Put, Error> {
        let bytes = serde_json::to_vec(value).map_err(|e| Error::Malformed {
            path: self.path(name).display().to_string(),
            reason: e.to_string(),
        })?;
        self.put(name, &bytes)
    }

    /// A file's bytes; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(wrong("read", &path, e)),
        }
    }

    /// A file as a value; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Output`] and [`Error::Malformed`].
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::Malformed {
            path: self.path(name).display().to_string(),
            reason: e.to_string(),
        })
    }

    /// Names in a folder of the output, sorted; files that are still being written are left out.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn list(&self, folder: &str) -> Result<Vec<String>, Error> {
        let path = self.path(folder);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(wrong("list", &path, e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(|e| wrong("list", &path, e))?.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes a file; harmless when there is none.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(wrong("remove", &path, e)),
            _ => Ok(()),
        }
    }

    /// A new file for hits, to be finished by [`Part::sync`].
    pub(crate) fn part(&self, name: &str) -> Result<Part, Error> {
        let path = self.path(name);
        let failed = |e| wrong("write", &path, e);
        make_folder(path.parent().unwrap_or(&self.root)).map_err(failed)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        Ok(Part { file: std::io::BufWriter::with_capacity(256 << 10, file), path })
    }

    /// Marks the run as over: no mapper starts or commits a shard from now on.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn close(&self) -> Result<(), Error> {
        self.mark(CLOSED)
    }

    /// Leaves a mark for mappers that live now. It need not survive a power cut, as they don't.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn mark(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name);
        let failed = |e| wrong("write", &path, e);
        make_folder(path.parent().unwrap_or(&self.root)).map_err(failed)?;
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.map(drop).map_err(failed)
    }

    /// Whether the run is over.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn is_closed(&self) -> Result<bool, Error> {
        let path = self.path(CLOSED);
        path.try_exists().map_err(|e| wrong("read", &path, e))
    }

    /// Removes everything but what `keep` says, by names relative to the folder.
    ///
    /// # Errors
    /// [`Error::Output`]; what was removed before stays removed.
    pub fn clean(&self, keep: impl Fn(&str) -> bool) -> Result<usize, Error> {
        let mut removed = 0;
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(path);
                    continue;
                }
                let name = path.strip_prefix(&self.root).unwrap_or(&path).to_string_lossy().into_owned();
                if !keep(&name) {
                    fs::remove_file(&path)
                        .or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })
                        .map_err(|e| wrong("remove", &path, e))?;
                    removed += 1;
                }
            }
            // Only an empty one goes.
            if folder != self.root {
                let _ = fs::remove_dir(&folder);
            }
        }
        Ok(removed)
    }
}

/// A file of hits that is being written.
pub(crate) struct Part {
    file: std::io::BufWriter<File>,
    path: PathBuf,
}

impl Part {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)
    }

    pub(crate) fn sync(mut self) -> Result<(), Error> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_data());
        let synced = synced.and_then(|()| sync_folder(self.path.parent().unwrap_or(&self.path)));
        synced.map_err(|e| wrong("write", &self.path, e))
    }
}

fn wrong(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::Output { action, path: path.display().to_string(), source }
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_data()
}

fn make_folder(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(Path::new("/"));
    make_folder(parent)?;
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
        // The folder's own name must survive as well.
        _ => sync_folder(parent),
    }
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}
