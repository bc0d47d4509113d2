//! What a run's files can fail with.

use dragnet_kernel::coverage::Reason;

/// An error of the run layer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the output could not be read or written; another attempt may.
    #[error("{action} `{path}`: {source}")]
    Output {
        /// `read`, `write`, …
        action: &'static str,
        /// The file.
        path: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file of the output is not what was written there.
    #[error("`{path}` is not readable as what it should be: {reason}")]
    Malformed {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// An object can't be had, or is not the planned one.
    #[error("`{uri}`: {detail}")]
    Object {
        /// The object.
        uri: String,
        /// `unreadable` or `changed`.
        reason: Reason,
        /// More, for a person.
        detail: String,
    },
    /// A server of objects is down or asks for patience; the job waits for it.
    #[error("`{host}` does not serve now: {reason}")]
    Away {
        /// The server, bucket or cluster.
        host: String,
        /// What it said.
        reason: String,
    },
    /// The run is over: nothing more may be written.
    #[error("the run is closed")]
    Closed,
    /// The kernel failed.
    #[error(transparent)]
    Kernel(#[from] dragnet_kernel::Error),
    /// Output that had been put aside in a temporary file could not be read back.
    #[error("read back what was found from a temporary file: {0}")]
    Spilled(std::io::Error),
    /// A URI that this build can't read.
    #[error("{0}")]
    Uri(String),
}

impl From<dragnet_objects::Error> for Error {
    fn from(e: dragnet_objects::Error) -> Error {
        match e {
            dragnet_objects::Error::Away { host, reason } => Error::Away { host, reason },
            other => Error::Uri(other.to_string()),
        }
    }
}
