//! What stands in for servers in a build without the feature `remote`: nothing that could be made.

use crate::{Error, Policy, Put, uri};
use dragnet_kernel::ReadAt;
use std::io;

/// Nothing: this build reaches no server.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Never {}

/// An object on a server, which this build does not reach.
#[derive(Debug)]
pub struct Remote(Never);

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Where it is.
    pub uri: String,
    /// Stored bytes.
    pub size: u64,
    /// Changes with the object.
    pub version: String,
}

/// What one process may ask of one server.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Requests under way at once.
    pub connections: Option<usize>,
    /// Bytes per second.
    pub bytes_per_s: Option<u64>,
    /// A folder by which processes tell each other of a server's rest.
    pub manners: Option<std::path::PathBuf>,
}

/// Does nothing.
pub fn on_waiting(_tell: fn()) {}

/// Does nothing.
pub fn set_limits(_limits: Limits) {}

/// Says which feature is missing.
///
/// # Errors
/// Always [`Error::Uri`].
pub fn head(_policy: &Policy, uri: &str) -> Result<Head, Error> {
    Err(uri::unknown_scheme(uri))
}

/// Says which feature is missing.
///
/// # Errors
/// Always [`Error::Uri`].
pub fn list(_policy: &Policy, uri: &str) -> Result<Vec<Head>, Error> {
    Err(uri::unknown_scheme(uri))
}

impl Remote {
    /// Says which feature is missing.
    ///
    /// # Errors
    /// Always [`Error::Uri`].
    pub fn open(_policy: &Policy, head: &Head, _until: u64) -> Result<Remote, Error> {
        Err(uri::unknown_scheme(&head.uri))
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn check(&self) -> Result<(), Error> {
        match self.0 {}
    }
}

impl ReadAt for Remote {
    fn read_at(&self, _offset: u64, _buf: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }
}

/// A folder of objects on a server, which this build does not reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(Never);

/// An object that is being written, which this build can't.
pub struct Upload(Never);

#[expect(clippy::missing_errors_doc, reason = "there is no value that these could be called on")]
impl Prefix {
    /// Says which feature is missing.
    ///
    /// # Errors
    /// Always [`Error::Uri`].
    pub fn at(uri: &str) -> Result<Prefix, Error> {
        Err(uri::unknown_scheme(uri))
    }

    /// Never called.
    #[must_use]
    pub fn join(&self, _name: &str) -> Prefix {
        match self.0 {}
    }

    /// Never called.
    pub fn uri(&self) -> String {
        match self.0 {}
    }

    /// Never called.
    pub fn put(&self, _name: &str, _bytes: &[u8]) -> Result<Put, Error> {
        match self.0 {}
    }

    /// Never called.
    pub fn read(&self, _name: &str) -> Result<Option<Vec<u8>>, Error> {
        match self.0 {}
    }

    /// Never called.
    pub fn read_many(&self, _names: &[&str]) -> Vec<Result<Option<Vec<u8>>, Error>> {
        match self.0 {}
    }

    /// Never called.
    pub fn exists(&self, _name: &str) -> Result<bool, Error> {
        match self.0 {}
    }

    /// Never called.
    pub fn list(&self, _folder: &str) -> Result<Vec<String>, Error> {
        match self.0 {}
    }

    /// Never called.
    pub fn tree(&self, _folder: &str) -> Result<Vec<String>, Error> {
        match self.0 {}
    }

    /// Never called.
    pub fn remove(&self, _name: &str) -> Result<(), Error> {
        match self.0 {}
    }

    /// Never called.
    pub fn open(&self, _name: &str) -> Result<(Remote, u64), Error> {
        match self.0 {}
    }

    /// Never called.
    pub fn upload(&self, _name: &str) -> Result<Upload, Error> {
        match self.0 {}
    }
}

#[expect(clippy::missing_errors_doc, reason = "there is no value that these could be called on")]
impl Upload {
    /// Never called.
    pub fn write(&mut self, _bytes: &[u8]) -> Result<(), Error> {
        match self.0 {}
    }

    /// Never called.
    pub fn finish(self) -> Result<(), Error> {
        match self.0 {}
    }
}
