//! Whether the disks of a service have room: with less than is configured new jobs are refused and those that run wait.
//!
//! Controllers that fill a disk are held back from outside: none of them knows of it. A run on this machine is
//! stopped and goes on where it was, as after any other interruption.

use crate::metrics::Metrics;
use async_trait::async_trait;
use dragnet_job::controllers::LAUNCH;
use dragnet_pattern::{Advance, Claim, Controller, Failure, Store};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The name under which works wait for room.
const DISK: &str = "disk";
/// How long a look holds: each new job would ask the file systems else, which takes a twentieth of its time.
const HOLDS: Duration = Duration::from_millis(250);
/// How often a run looks whether there still is room.
const LOOK: Duration = Duration::from_secs(1);
/// How long a work waits before it looks again.
const AGAIN: Duration = Duration::from_secs(3);

/// The local file systems that a service fills.
#[derive(Debug)]
pub(crate) struct Disk {
    /// What lies there, and where.
    folders: Vec<(&'static str, PathBuf)>,
    low_mib: u64,
    /// The last look, and when it was.
    seen: Mutex<Option<(Instant, Option<String>)>>,
}

impl Disk {
    pub(crate) fn new(folders: Vec<(&'static str, PathBuf)>, low_mib: u64) -> Disk {
        Disk { folders, low_mib, seen: Mutex::default() }
    }

    /// What is wrong, where there is too little room.
    pub(crate) fn is_low(&self) -> Option<String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, low)) = seen.as_ref().filter(|(at, _)| at.elapsed() < HOLDS) {
            return low.clone();
        }
        let low = self.look();
        *seen = Some((Instant::now(), low.clone()));
        low
    }

    fn look(&self) -> Option<String> {
        self.folders.iter().find_map(|(what, folder)| {
            // A folder that can't be asked fails when it is written to.
            let room = rustix::fs::statvfs(folder).ok()?;
            let free_mib = room.f_bavail.saturating_mul(room.f_frsize) >> 20;
            (free_mib < self.low_mib)
                .then(|| format!("{free_mib} MiB are free for {what}, and {} MiB have to be", self.low_mib))
        })
    }

    async fn runs_low(&self) -> String {
        loop {
            if let Some(reason) = self.is_low() {
                return reason;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A controller as the service drives it: its steps are counted, and what fills a disk waits for room.
pub(crate) struct Watched {
    pub(crate) inner: Arc<dyn Controller>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) disk: Arc<Disk>,
}

impl Watched {
    async fn step_with_room(&self, store: &dyn Store, claim: &Claim) -> Result<Advance, Failure> {
        let fills = [LAUNCH, "local"].contains(&self.inner.name());
        // To end needs no room.
        if !fills || claim.work.cancel || claim.work.outcome.is_some() {
            return self.inner.step(store, claim).await;
        }
        tokio::select! {
            biased;
            reason = self.disk.runs_low() => {
                Err(Failure::Down { dependency: DISK.into(), reason, after: AGAIN })
            }
            result = self.inner.step(store, claim) => result,
        }
    }
}

#[async_trait]
impl Controller for Watched {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn topic(&self) -> &'static str {
        self.inner.topic()
    }

    fn can_crash(&self) -> bool {
        self.inner.can_crash()
    }

    fn waits_without_end(&self) -> bool {
        self.inner.waits_without_end()
    }

    async fn step(&self, store: &dyn Store, claim: &Claim) -> Result<Advance, Failure> {
        let mut under_way = self.metrics.step_begins(self.inner.name());
        let result = self.step_with_room(store, claim).await;
        under_way.ended(&result);
        result
    }
}
