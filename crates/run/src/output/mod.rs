//! Where a job's output lies, and how files come into it.
//!
//! A file is either put if absent (plan, records, manifest, mark) or has a random name (parts), so that no
//! two writers can disturb each other, on whatever storage: a folder of this machine, or objects on a server.

mod folder;

use crate::{Error, uri};
use dragnet_kernel::ReadAt;
use dragnet_objects::{Prefix, Put, Remote, Upload, is_remote};
use folder::{Folder, PartFile};
use serde::{Serialize, de::DeserializeOwned};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

/// A job's output folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output(Place);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Folder(Folder),
    Remote(Prefix),
}

/// The mark that ends a run for every mapper that may still live.
const CLOSED: &str = "closed";
/// Files that are read together.
const READ_AT_ONCE: usize = 256;

impl Output {
    /// The output at a URI.
    ///
    /// # Errors
    /// [`Error::Uri`] for a scheme that takes no output.
    pub fn at(uri: &str) -> Result<Output, Error> {
        Ok(Output(match is_remote(uri) {
            true => Place::Remote(Prefix::at(uri)?),
            false => Place::Folder(Folder(uri::to_path(uri)?)),
        }))
    }

    /// The folder of one job below this one.
    pub fn of_job(&self, tenant: &str, job: &str) -> Output {
        Output(match &self.0 {
            Place::Folder(Folder(root)) => Place::Folder(Folder(root.join(tenant).join(job))),
            Place::Remote(prefix) => Place::Remote(prefix.join(tenant).join(job)),
        })
    }

    /// The folder's URI.
    pub fn uri(&self) -> String {
        match &self.0 {
            Place::Folder(Folder(root)) => uri::of_path(root),
            Place::Remote(prefix) => prefix.uri(),
        }
    }

    /// A file of it, for a person.
    pub fn name_of(&self, name: &str) -> String {
        match &self.0 {
            Place::Folder(folder) => folder.path(name).display().to_string(),
            Place::Remote(prefix) => format!("{}/{name}", prefix.uri()),
        }
    }

    fn wrong(&self, action: &'static str, name: &str, source: impl Into<io::Error>) -> Error {
        Error::Output { action, path: self.name_of(name), source: source.into() }
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
        match &self.0 {
            Place::Folder(folder) => folder.put(name, bytes).map_err(|e| self.wrong("write", name, e)),
            Place::Remote(prefix) => prefix.put(name, bytes).map_err(|e| self.wrong("write", name, e)),
        }
    }

    /// [`Output::put`] of a value as JSON.
    ///
    /// # Errors
    /// Those of [`Output::put`].
    pub fn put_json(&self, name: &str, value: &impl Serialize) -> Result<Put, Error> {
        let malformed =
            |e: serde_json::Error| Error::Malformed { path: self.name_of(name), reason: e.to_string() };
        self.put(name, &serde_json::to_vec(value).map_err(malformed)?)
    }

    /// A file's bytes; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        match &self.0 {
            Place::Folder(folder) => folder.read(name).map_err(|e| self.wrong("read", name, e)),
            Place::Remote(prefix) => prefix.read(name).map_err(|e| self.wrong("read", name, e)),
        }
    }

    /// A file as a value; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Output`] and [`Error::Malformed`].
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        self.read(name)?.map(|bytes| self.parsed(name, &bytes)).transpose()
    }

    /// Files as values, in order, each as [`Output::read_json`] gives it; of a server many are asked for at once.
    pub fn read_all_json<'a, T: DeserializeOwned + 'a>(
        &'a self,
        names: &'a [&str],
    ) -> impl Iterator<Item = Result<Option<T>, Error>> + 'a {
        names.chunks(READ_AT_ONCE).flat_map(move |names| -> Vec<Result<Option<T>, Error>> {
            let prefix = match &self.0 {
                Place::Folder(_) => return names.iter().map(|name| self.read_json(name)).collect(),
                Place::Remote(prefix) => prefix,
            };
            let read = prefix.read_many(names).into_iter().zip(names);
            read.map(|(read, name)| match read.map_err(|e| self.wrong("read", name, e))? {
                Some(bytes) => self.parsed(name, &bytes).map(Some),
                None => Ok(None),
            })
            .collect()
        })
    }

    fn parsed<T: DeserializeOwned>(&self, name: &str, bytes: &[u8]) -> Result<T, Error> {
        let malformed =
            |e: serde_json::Error| Error::Malformed { path: self.name_of(name), reason: e.to_string() };
        serde_json::from_slice(bytes).map_err(malformed)
    }

    /// A file's lines from a byte on.
    ///
    /// # Errors
    /// [`Error::Output`], also when there is no such file.
    pub fn lines(&self, name: &str, from: u64) -> Result<Lines, Error> {
        let wrong = |e: io::Error| self.wrong("read", name, e);
        let read: Box<dyn Read + Send> = match &self.0 {
            Place::Folder(folder) => {
                let mut file = File::open(folder.path(name)).map_err(wrong)?;
                file.seek(SeekFrom::Start(from)).map_err(wrong)?;
                Box::new(file)
            }
            Place::Remote(prefix) => {
                let (object, size) = prefix.open(name).map_err(|e| wrong(e.into()))?;
                Box::new(InOrder { object, at: from, size })
            }
        };
        Ok(Box::new(BufReader::with_capacity(256 << 10, read)))
    }

    /// Whether there is a file of that name.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn exists(&self, name: &str) -> Result<bool, Error> {
        match &self.0 {
            Place::Folder(folder) => folder.exists(name).map_err(|e| self.wrong("read", name, e)),
            Place::Remote(prefix) => prefix.exists(name).map_err(|e| self.wrong("read", name, e)),
        }
    }

    /// Names in a folder of the output, sorted; files that are still being written are left out.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn list(&self, folder: &str) -> Result<Vec<String>, Error> {
        match &self.0 {
            Place::Folder(here) => here.list(folder).map_err(|e| self.wrong("list", folder, e)),
            Place::Remote(prefix) => prefix.list(folder).map_err(|e| self.wrong("list", folder, e)),
        }
    }

    /// Files in the folders below a folder, as `(folder, file)`, sorted; of folders that `skip` names nothing.
    /// Where a listing is a request, it is one for all of them.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn list_below(
        &self,
        folder: &str,
        skip: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<(String, String)>, Error> {
        let mut found = Vec::new();
        match &self.0 {
            Place::Folder(_) => {
                for below in self.list(folder)?.into_iter().filter(|below| !skip(below)) {
                    let files = self.list(&format!("{folder}/{below}"))?;
                    found.extend(files.into_iter().map(|file| (below.clone(), file)));
                }
            }
            Place::Remote(prefix) => {
                for name in prefix.tree(folder).map_err(|e| self.wrong("list", folder, e))? {
                    let below = name.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/'));
                    let Some((below, file)) = below.and_then(|rest| rest.split_once('/')) else { continue };
                    if !file.starts_with('.') && !skip(below) {
                        found.push((below.to_owned(), file.to_owned()));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Removes a file; harmless when there is none.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        match &self.0 {
            Place::Folder(folder) => folder.remove(name).map_err(|e| self.wrong("remove", name, e)),
            Place::Remote(prefix) => prefix.remove(name).map_err(|e| self.wrong("remove", name, e)),
        }
    }

    /// A new file for hits, to be finished by [`Part::sync`].
    pub(crate) fn part(&self, name: &str) -> Result<Part, Error> {
        let writer = match &self.0 {
            Place::Folder(folder) => {
                Writer::File(folder.part(name).map_err(|e| self.wrong("write", name, e))?)
            }
            Place::Remote(prefix) => {
                Writer::Upload(prefix.upload(name).map_err(|e| self.wrong("write", name, e))?)
            }
        };
        Ok(Part { writer, path: self.name_of(name) })
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
        match &self.0 {
            Place::Folder(folder) => folder.mark(name).map_err(|e| self.wrong("write", name, e)),
            Place::Remote(prefix) => {
                prefix.put(name, b"").map(drop).map_err(|e| self.wrong("write", name, e))
            }
        }
    }

    /// Whether the run is over.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn is_closed(&self) -> Result<bool, Error> {
        self.exists(CLOSED)
    }

    /// Removes everything but what `keep` says, by names relative to the folder.
    ///
    /// # Errors
    /// [`Error::Output`]; what was removed before stays removed.
    pub fn clean(&self, keep: impl Fn(&str) -> bool) -> Result<usize, Error> {
        let prefix = match &self.0 {
            Place::Folder(folder) => return folder.clean(&keep).map_err(|e| self.wrong("clean", "", e)),
            Place::Remote(prefix) => prefix,
        };
        let mut removed = 0;
        for name in prefix.tree("").map_err(|e| self.wrong("list", "", e))? {
            if !keep(&name) {
                self.remove(&name)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// A file's bytes, to be read by lines.
pub type Lines = Box<dyn BufRead + Send>;

/// An object on a server, read from one byte on.
struct InOrder {
    object: Remote,
    at: u64,
    size: u64,
}

impl Read for InOrder {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = buf.len().min(self.size.saturating_sub(self.at) as usize);
        let n = self.object.read_at(self.at, &mut buf[..most])?;
        self.at += n as u64;
        Ok(n)
    }
}

/// A file of hits that is being written.
pub(crate) struct Part {
    writer: Writer,
    path: String,
}

enum Writer {
    File(PartFile),
    Upload(Upload),
}

impl Part {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.writer {
            Writer::File(file) => file.write(bytes),
            Writer::Upload(upload) => Ok(upload.write(bytes)?),
        }
    }

    /// After it the part survives a power cut.
    pub(crate) fn sync(self) -> Result<(), Error> {
        let synced = match self.writer {
            Writer::File(file) => file.sync(),
            Writer::Upload(upload) => upload.finish().map_err(io::Error::from),
        };
        synced.map_err(|source| Error::Output { action: "write", path: self.path, source })
    }
}
