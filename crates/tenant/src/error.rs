//! What can be wrong with a tenant or a key, in words for who named it.

use dragnet_pattern as pattern;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] pattern::Error),
    /// The name can't be a tenant's.
    #[error(
        "`{0}` can't be a tenant's name: take 1 to 63 of a-z, 0-9 and `-`, the first of them a letter, as it \
         becomes a piece of paths"
    )]
    Name(String),
    /// There is one of this name.
    #[error("there is a tenant `{0}` already: `dragnet tenant set {0}` changes it")]
    TenantExists(String),
    /// There is none of this name.
    #[error("there is no tenant `{0}`: `dragnet tenant add {0}` makes it")]
    NoSuchTenant(String),
    /// It was removed.
    #[error(
        "the tenant `{0}` was removed; its name is kept, as it stands in jobs and invoices: take another one"
    )]
    TenantRemoved(String),
    /// There is no such key.
    #[error("there is no key `{0}`: `dragnet key list` shows them")]
    NoSuchKey(String),
    /// The key has ended.
    #[error("the key `{0}` has ended: make a new one with `dragnet key add`")]
    KeyEnded(String),
    /// A key that may do nothing.
    #[error("a key needs at least one scope")]
    NoScope,
    /// The kernel gave no randomness.
    #[error("no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}
