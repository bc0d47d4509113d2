//! Objects as they are read: by the version that the plan froze, or not at all.

use crate::plan::Object;
use crate::{Error, uri};
use dragnet_kernel::coverage::Reason;
use std::fs::{File, Metadata, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// `O_NONBLOCK`.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

/// An object that is open and is the planned one.
#[derive(Debug)]
pub struct Opened {
    /// Its bytes.
    pub file: File,
    uri: String,
    version: String,
}

/// What must stay the same of a file from plan to read.
pub fn version_of(metadata: &Metadata) -> String {
    format!("{}-{}.{:09}", metadata.size(), metadata.mtime(), metadata.mtime_nsec())
}

/// Opens an object, conditional on its version.
///
/// # Errors
/// [`Error::Object`] when it has gone, may not be read, or is another than the planned one.
pub fn open(object: &Object) -> Result<Opened, Error> {
    let path = uri::to_path(&object.uri)?;
    let file = open_file(&path).map_err(|e| unreadable(&object.uri, &e))?;
    let opened = Opened { file, uri: object.uri.clone(), version: object.version.clone() };
    opened.check()?;
    Ok(opened)
}

/// Opens a path that was a file when it was named: what is a FIFO by now must not hold a thread.
pub(crate) fn open_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path)
}

impl Opened {
    /// Checks that the object is still the planned one: after the read, what changed during it is found.
    ///
    /// # Errors
    /// [`Error::Object`].
    pub fn check(&self) -> Result<(), Error> {
        let metadata = self.file.metadata().map_err(|e| unreadable(&self.uri, &e))?;
        let now = version_of(&metadata);
        if now == self.version {
            return Ok(());
        }
        let detail =
            format!("it has changed since the plan was made (size-time was {}, is {now})", self.version);
        Err(Error::Object { uri: self.uri.clone(), reason: Reason::Changed, detail })
    }
}

fn unreadable(uri: &str, e: &std::io::Error) -> Error {
    let detail = match e.kind() {
        ErrorKind::NotFound => "it does not exist any more".into(),
        ErrorKind::PermissionDenied => "it may not be read".into(),
        _ => e.to_string(),
    };
    Error::Object { uri: uri.to_owned(), reason: Reason::Unreadable, detail }
}
