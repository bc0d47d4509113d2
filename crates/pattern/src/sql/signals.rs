//! Who waits in this process for a group to have something to do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// The signals by which workers of this process learn of messages.
#[derive(Clone, Default)]
pub(crate) struct Signals(Arc<SignalMap>);

pub(crate) type SignalMap = Mutex<HashMap<String, Arc<Notify>>>;

#[cfg(feature = "postgres")]
impl From<Arc<SignalMap>> for Signals {
    fn from(map: Arc<SignalMap>) -> Signals {
        Signals(map)
    }
}

impl Signals {
    pub(super) fn of(&self, group: &str) -> Arc<Notify> {
        self.lock().entry(group.to_owned()).or_default().clone()
    }

    /// Wakes the workers of a group.
    pub(crate) fn wake(&self, group: &str) {
        if let Some(signal) = self.lock().get(group) {
            signal.notify_one();
        }
    }

    /// The signals for somebody who must not keep the store alive.
    #[cfg(feature = "postgres")]
    pub(crate) fn weak(&self) -> std::sync::Weak<SignalMap> {
        Arc::downgrade(&self.0)
    }

    /// Wakes all of them: what was sent meanwhile may not have been heard.
    #[cfg(feature = "postgres")]
    pub(crate) fn wake_all(&self) {
        self.lock().values().for_each(|signal| signal.notify_one());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
