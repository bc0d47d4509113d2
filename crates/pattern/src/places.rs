//! Places that tenants share: so many in all, and of them so many of one, so that nobody keeps all others from theirs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places of one kind in this process.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    of_one: usize,
    /// Of tenants that have a place or wait for one.
    own: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

/// A place, for as long as it is kept.
#[derive(Debug)]
pub struct Place {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Places {
    /// So many places in all, and of them so many of one tenant.
    pub fn new(all: usize, of_one: usize) -> Places {
        Places { all: Arc::new(Semaphore::new(all)), of_one, own: Mutex::default() }
    }

    /// Waits for a place. There always comes one, as places are never closed.
    pub async fn wait(&self, tenant: &str) -> Option<Place> {
        let own = self.own(tenant).acquire_owned().await.ok()?;
        Some(Place { _own: own, _all: self.all.clone().acquire_owned().await.ok()? })
    }

    /// A place, if one is free.
    pub fn take(&self, tenant: &str) -> Option<Place> {
        let own = self.own(tenant).try_acquire_owned().ok()?;
        Some(Place { _own: own, _all: self.all.clone().try_acquire_owned().ok()? })
    }

    fn own(&self, tenant: &str) -> Arc<Semaphore> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.retain(|_, places| Arc::strong_count(places) > 1);
        own.entry(tenant.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.of_one))).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_leaves_room_for_others() {
        let places = Places::new(3, 2);
        let mut held: Vec<Place> = (0..2).filter_map(|_| places.take("crowd")).collect();
        assert_eq!(held.len(), 2);
        assert!(places.take("crowd").is_none(), "it has its share");
        held.extend(places.take("small"));
        assert_eq!(held.len(), 3);
        assert!(places.take("other").is_none(), "there is none");
        held.remove(0);
        assert!(places.take("crowd").is_some());
    }
}
