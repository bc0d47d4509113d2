//! Where map tasks run.
//!
//! An engine takes a round of a run (a file of tasks in the run's output) and sees to it that mappers work
//! on it. It promises nothing about the result: commit records alone say what was done, so an engine may
//! lose tasks, run them twice or die, and whoever watches starts another round.

#[cfg(feature = "hadoop")]
mod hadoop;
mod local;
mod process;
mod slots;

#[cfg(feature = "hadoop")]
pub use hadoop::{Hadoop, HadoopPolicy, HostLimits, Submit};
pub use local::{Local, LocalPolicy, TOPIC as LOCAL_TOPIC};
pub use process::MapperCommand;

use async_trait::async_trait;
use dragnet_pattern::Failure;
use dragnet_run::Output;
use std::time::Duration;

/// One round of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// The run's id, which is the work's.
    pub run: String,
    /// The round's number, from 1.
    pub number: u32,
    /// The run's output folder.
    pub output: Output,
}

impl Round {
    /// The file of the round's tasks, a line each.
    pub fn tasks(&self) -> String {
        format!("tasks/{:03}.jsonl", self.number)
    }

    /// The mark that stops the round.
    pub fn stop_mark(&self) -> String {
        format!("tasks/{:03}.stop", self.number)
    }
}

/// What an engine knows of a round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Whether no task of it will run any more.
    pub ended: bool,
    /// Stored bytes that mappers have read so far, failed attempts too.
    pub bytes_read: u64,
    /// Tasks that are being worked on.
    pub running: u64,
    /// Attempts that failed.
    pub attempts_failed: u64,
}

/// Runs rounds; every verb is idempotent by run and round.
#[async_trait]
pub trait Engine: Send + Sync {
    /// The engine's name in a job's spec.
    fn name(&self) -> &'static str;

    /// Whether it can be reached now.
    ///
    /// # Errors
    /// See [`Error`].
    async fn reach(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Mappers that run in this process's hands now.
    fn mappers(&self) -> usize {
        0
    }

    /// Sees to it that the round runs, whether or not it was launched before.
    ///
    /// # Errors
    /// See [`Error`].
    async fn launch(&self, round: &Round) -> Result<(), Error>;

    /// What has become of the round.
    ///
    /// # Errors
    /// See [`Error`].
    async fn observe(&self, tenant: &str, round: &Round) -> Result<Observed, Error>;

    /// Ends the round; tasks that are under way may still commit.
    ///
    /// # Errors
    /// See [`Error`].
    async fn stop(&self, round: &Round) -> Result<(), Error>;

    /// Frees what the run took: after it no mapper starts or commits anything.
    ///
    /// # Errors
    /// See [`Error`].
    async fn release(&self, round: &Round) -> Result<(), Error>;
}

/// Why an engine could not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be reached now.
    #[error("engine `{engine}`: {reason}")]
    Down {
        /// The engine's name.
        engine: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// What it was set up with can't be used.
    #[error("`{path}`: {reason}")]
    Configuration {
        /// The file or folder.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The run's output failed.
    #[error(transparent)]
    Run(#[from] dragnet_run::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] dragnet_pattern::Error),
}

/// What a trouble with a run's files means for a controller: an output that can't be read or written now is
/// a dependency that is down, and not the job's failure.
pub fn failed(e: dragnet_run::Error) -> Failure {
    match e {
        dragnet_run::Error::Output { .. } => Failure::Down {
            dependency: "output".into(),
            reason: e.to_string(),
            after: Duration::from_secs(1),
        },
        dragnet_run::Error::Away { host, reason } => {
            Failure::Down { dependency: host, reason, after: Duration::from_secs(1) }
        }
        other => Failure::Failed(other.to_string()),
    }
}
