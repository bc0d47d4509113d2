//! Objects wherever they lie: files, and with features S3, Google Cloud Storage, Azure, HTTP and HDFS.
//!
//! Two things are asked of a storage: to read ranges of an object that must not have changed ([`Blob`]), and
//! to keep an output ([`Prefix`]), of which put-if-absent is the heart. Everything is a plain call that
//! blocks: what speaks to servers runs on a runtime of this crate's own, so that a mapper needs no async
//! and a controller may call from wherever it is.
//!
//! | scheme | read | output | put if absent by |
//! | --- | --- | --- | --- |
//! | `file:` | yes | in `dragnet-run` | a hard link |
//! | `s3:` | yes | yes | `If-None-Match: *` |
//! | `gs:` | yes | yes | `x-goog-if-generation-match: 0` |
//! | `az:` | yes | yes | `If-None-Match: *` |
//! | `http:`, `https:` | yes | no | |
//! | `hdfs:` | yes | yes | a rename that does not overwrite |
//!
//! Credentials and endpoints come from the variables that the makers' own tools read (`AWS_…`, `GOOGLE_…`,
//! `AZURE_…`, `HADOOP_…`). Without any, a bucket is asked as an anonymous.

mod blob;
mod error;
mod network;
mod policy;
#[cfg(feature = "remote")]
mod remote;
#[cfg(not(feature = "remote"))]
#[path = "absent.rs"]
mod remote;
pub mod uri;

pub use blob::{Blob, version_of};
pub use error::Error;
pub use network::{Network, is_public, set_network};
pub use policy::Policy;
pub use remote::{Head, Limits, Prefix, Remote, Upload, head, list, on_waiting, set_limits};

/// Whether an entry names an object beyond this machine's files, in a build that can read it or not.
pub fn is_remote(entry: &str) -> bool {
    matches!(uri::scheme(entry), Some("s3" | "gs" | "az" | "http" | "https" | "hdfs"))
}

/// Checks a URI of [`is_remote`] by its look: whether this build reaches its kind of server, and knows its parts.
///
/// # Errors
/// [`Error::Uri`].
pub fn check(uri: &str) -> Result<(), Error> {
    let is_reached = match uri::scheme(uri) {
        Some("hdfs") => cfg!(feature = "hdfs"),
        _ => cfg!(feature = "remote"),
    };
    if is_reached { uri::parts(uri).map(drop) } else { Err(uri::unknown_scheme(uri)) }
}

/// What became of a put-if-absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The file is there now, and it is ours.
    Won,
    /// There was one already.
    Exists,
}
