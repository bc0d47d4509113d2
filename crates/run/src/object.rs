//! Objects as they are read: by the version that the plan froze, or not at all.

use crate::plan::Object;
use crate::{Error, uri, version_of};
use dragnet_kernel::coverage::Reason;
use dragnet_objects::{Blob, Head, Policy, Remote};
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// `O_NONBLOCK`.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

/// An object that is open and is the planned one.
#[derive(Debug)]
pub struct Opened {
    /// Its bytes.
    pub blob: Blob,
    uri: String,
    version: String,
}

/// Opens an object that the policy allows, conditional on its version; one on a server is read ahead up to `until`.
///
/// # Errors
/// [`Error::Object`] when it has gone, may not be read, or is another than the planned one; [`Error::Away`].
pub fn open(policy: &Policy, object: &Object, until: u64) -> Result<Opened, Error> {
    let blob = if dragnet_objects::is_remote(&object.uri) {
        let head = Head { uri: object.uri.clone(), size: object.size, version: object.version.clone() };
        // Every read of it is conditional, so that there is nothing to check yet.
        return Ok(Opened {
            blob: Blob::Remote(Remote::open(policy, &head, until).map_err(|e| of_server(&object.uri, e))?),
            uri: head.uri,
            version: head.version,
        });
    } else {
        policy.check(&object.uri).map_err(|e| of_server(&object.uri, e))?;
        let path = uri::to_path(&object.uri)?;
        Blob::File(policy.open_file(&path).map_err(|e| unreadable(&object.uri, &e))?)
    };
    let opened = Opened { blob, uri: object.uri.clone(), version: object.version.clone() };
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
        let file = match &self.blob {
            Blob::File(file) => file,
            Blob::Remote(remote) => return remote.check().map_err(|e| of_server(&self.uri, e)),
        };
        let metadata = file.metadata().map_err(|e| unreadable(&self.uri, &e))?;
        let now = version_of(&metadata);
        if now == self.version {
            return Ok(());
        }
        let detail =
            format!("it has changed since the plan was made (size-time was {}, is {now})", self.version);
        Err(Error::Object { uri: self.uri.clone(), reason: Reason::Changed, detail })
    }
}

/// What a server's answer says of an object.
pub(crate) fn of_server(uri: &str, e: dragnet_objects::Error) -> Error {
    let reason = match &e {
        dragnet_objects::Error::Away { .. } => return e.into(),
        dragnet_objects::Error::Changed(_) => Reason::Changed,
        _ => Reason::Unreadable,
    };
    Error::Object { uri: uri.to_owned(), reason, detail: e.to_string() }
}

/// Whether a read failed because a server has another version now.
pub(crate) fn is_changed(e: &std::io::Error) -> bool {
    matches!(dragnet_objects::Error::in_io(e), Some(dragnet_objects::Error::Changed(_)))
}

fn unreadable(uri: &str, e: &std::io::Error) -> Error {
    let detail = match e.kind() {
        ErrorKind::NotFound => "it does not exist any more".into(),
        ErrorKind::PermissionDenied => "it may not be read".into(),
        _ => e.to_string(),
    };
    Error::Object { uri: uri.to_owned(), reason: Reason::Unreadable, detail }
}
