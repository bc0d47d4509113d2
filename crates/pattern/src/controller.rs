//! A controller: takes a work through one stage.

use crate::dependency::Down;
use crate::{Advance, Claim, Error, Store};
use async_trait::async_trait;
use std::time::Duration;

/// Takes works through one stage.
///
/// [`Controller::step`] rereads what is and does what is missing; it may be called again at any time for
/// the same state, after a crash between its effect and its commit as well. So every external effect has a
/// key that was decided, and committed, before it.
#[async_trait]
pub trait Controller: Send + Sync {
    /// Its name, its group and its row.
    fn name(&self) -> &'static str;

    /// The topic that its group listens to.
    fn topic(&self) -> &'static str;

    /// Whether a crash of the process can be blamed on this controller's own code. One that only watches
    /// other processes answers no, and is then never worked on alone.
    fn can_crash(&self) -> bool {
        true
    }

    /// Whether its works wait for a dependency that is down for however long, and are never parked for that.
    fn waits_without_end(&self) -> bool {
        false
    }

    /// One step for one work.
    ///
    /// # Errors
    /// See [`Failure`].
    async fn step(&self, store: &dyn Store, claim: &Claim) -> Result<Advance, Failure>;
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A dependency is down: the work waits, and it is nobody's failure.
    #[error("`{dependency}` is down: {reason}")]
    Down {
        /// The dependency.
        dependency: String,
        /// What is wrong with it.
        reason: String,
        /// When to look again.
        after: Duration,
    },
    /// The step failed; after some failures in a row the work is parked.
    #[error("{0}")]
    Failed(String),
    /// The work can't go on until somebody acts: it is parked at once.
    #[error("{0}")]
    Park(String),
    /// The process is to stop: another may go on at once.
    #[error("the process stops")]
    Stopped,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<Down> for Failure {
    fn from(down: Down) -> Failure {
        Failure::Down { dependency: down.name.into(), reason: down.reason, after: down.retry_after }
    }
}
