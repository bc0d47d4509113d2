//! Objects on servers: what is there, and the stores by which they are reached.

mod ahead;
mod bucket;
mod polite;
mod prefix;
mod runtime;
mod vetted;

pub use ahead::Remote;
pub use polite::{Limits, set_limits};
pub use prefix::{Prefix, Upload};
pub use runtime::on_waiting;

use crate::{Error, Policy, uri};
use bucket::{Bucket, Place};
use futures_util::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use std::sync::Arc;

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Where it is.
    pub uri: String,
    /// Stored bytes.
    pub size: u64,
    /// Changes with the object: its ETag, else its size and time of change.
    pub version: String,
}

impl Head {
    fn of(bucket: &Bucket, meta: &ObjectMeta) -> Head {
        Head { uri: bucket.uri_of(&meta.location), size: meta.size, version: version(meta) }
    }
}

fn version(meta: &ObjectMeta) -> String {
    match &meta.e_tag {
        Some(tag) => tag.clone(),
        None => format!("{TIMED}{}-{}", meta.size, meta.last_modified.timestamp_millis()),
    }
}

/// How a version begins that is no ETag.
const TIMED: &str = "time:";

/// Asks for an object that the policy allows.
///
/// # Errors
/// See [`Error`].
pub fn head(policy: &Policy, uri: &str) -> Result<Head, Error> {
    policy.check(uri)?;
    let Place { bucket, path } = Place::of(policy, uri)?;
    let store = bucket.store.clone();
    let asked = vetted::under(Arc::new(policy.clone()), async move { store.head(&path).await });
    let meta = bucket.ask(asked).map_err(|e| bucket.failed(e))?;
    Ok(Head { uri: uri.to_owned(), size: meta.size, version: version(&meta) })
}

/// Every object below a prefix that ends with `/` and that the policy allows, by key.
///
/// # Errors
/// See [`Error`]; an HTTP server has no listing.
pub fn list(policy: &Policy, uri: &str) -> Result<Vec<Head>, Error> {
    policy.check(uri)?;
    if uri::scheme(uri).is_some_and(|scheme| scheme.starts_with("http")) {
        return Err(Error::Uri(format!(
            "`{uri}`: an HTTP server has no listing; name its objects, or a manifest of them"
        )));
    }
    let Place { bucket, path } = Place::of(policy, uri)?;
    let store = bucket.store.clone();
    let asked = async move { store.list(Some(&path)).try_collect::<Vec<ObjectMeta>>().await };
    let listed = bucket.ask(vetted::under(Arc::new(policy.clone()), asked));
    let mut found = listed.map_err(|e| bucket.failed(e))?;
    found.sort_unstable_by(|a, b| a.location.cmp(&b.location));
    Ok(found.iter().map(|meta| Head::of(&bucket, meta)).collect())
}
