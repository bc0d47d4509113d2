//! What a store or a controller's write can fail with.

/// An error of the pattern layer; each says whether trying again can help.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Somebody else owns the row by now: stop, and write nothing.
    #[error("fenced: `{controller}` of work `{work}` has a newer attempt than {attempt}")]
    Fenced {
        /// The work's id.
        work: String,
        /// The controller's name.
        controller: String,
        /// The attempt that has been overtaken.
        attempt: i64,
    },
    /// The idempotency key was used with another request.
    #[error("the idempotency key was used before with another request")]
    KeyReused,
    /// The tenant has as many works that have not ended as it may have; nothing of the request was done.
    #[error(
        "the tenant `{tenant}` has {limit} works that have not ended, which is its limit: wait until some have"
    )]
    Quota {
        /// The tenant.
        tenant: String,
        /// The limit.
        limit: i64,
    },
    /// There is no such work for this tenant.
    #[error("no work `{0}`")]
    NoSuchWork(String),
    /// The machine has no such transition.
    #[error("{0}")]
    Transition(String),
    /// The store can't be reached or written now; nothing of the request was done.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// Nobody has registered for the topic yet, so the request would wait for nobody; nothing of it was done.
    #[error("nobody has registered for the topic `{0}` yet")]
    Unregistered(String),
    /// The store refused the request: a broken statement or a violated constraint.
    #[error("the store refused: {0}")]
    Refused(String),
    /// The store can't be opened as it is configured.
    #[error("{0}")]
    Open(String),
}

impl Error {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Unavailable(_) | Error::Unregistered(_))
    }
}
