//! What a storage can fail with.

/// An error of a storage.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A URI that this build can't read.
    #[error("{0}")]
    Uri(String),
    /// There is no such object.
    #[error("it does not exist")]
    Missing,
    /// It may not be read or written.
    #[error("it may not be accessed: {0}")]
    Denied(String),
    /// It is not the version that was asked for.
    #[error("it has changed since the plan was made: {0}")]
    Changed(String),
    /// Its server is down, cut off or asks for patience: nobody's failure, and worth waiting for.
    #[error("`{host}` does not serve now: {reason}")]
    Away {
        /// The server, bucket or cluster.
        host: String,
        /// What it said.
        reason: String,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// The error inside of one that a read passed on.
    pub fn in_io(error: &std::io::Error) -> Option<&Error> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> std::io::Error {
        let kind = match &error {
            Error::Missing => std::io::ErrorKind::NotFound,
            Error::Denied(_) => std::io::ErrorKind::PermissionDenied,
            Error::Away { .. } => std::io::ErrorKind::HostUnreachable,
            _ => std::io::ErrorKind::Other,
        };
        std::io::Error::new(kind, error)
    }
}
