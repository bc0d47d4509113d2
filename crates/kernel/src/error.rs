//! What stops a scan: only what another attempt could mend, or what is wrong with the request itself.

/// An error of the kernel. Broken bytes are never one: they stand in the coverage.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object could not be read; another attempt may.
    #[error("read at byte {offset}: {source}")]
    Read {
        /// Where the read began, in stored bytes.
        offset: u64,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The object ended before the size that the plan froze.
    #[error("object ends at byte {end} of {size}: it has shrunk since the plan was made")]
    Shrunk {
        /// Where the object ends now.
        end: u64,
        /// Its size in the plan.
        size: u64,
    },
    /// A pattern that can't be searched for.
    #[error("pattern `{name}`: {reason}")]
    Pattern {
        /// The pattern's name.
        name: String,
        /// Why, and what to change.
        reason: String,
    },
    /// A search that asks for nothing or for what this version can't do.
    #[error("{0}")]
    Search(String),
    /// A filter that can't be asked.
    #[error("filter: {0}")]
    Filter(String),
    /// The sink that takes the hits failed.
    #[error("write a hit: {0}")]
    Sink(#[source] std::io::Error),
}
