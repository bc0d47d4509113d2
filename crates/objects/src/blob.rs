//! An open object, wherever it lies, and what must stay the same of it from plan to read.

use crate::remote::Remote;
use dragnet_kernel::ReadAt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;

/// The stored bytes of an object.
#[derive(Debug)]
pub enum Blob {
    /// A file.
    File(File),
    /// An object on a server.
    Remote(Remote),
}

impl ReadAt for Blob {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Blob::File(file) => file.read_at(offset, buf),
            Blob::Remote(remote) => remote.read_at(offset, buf),
        }
    }
}

/// What must stay the same of a file from plan to read.
pub fn version_of(metadata: &Metadata) -> String {
    format!("{}-{}.{:09}", metadata.size(), metadata.mtime(), metadata.mtime_nsec())
}
