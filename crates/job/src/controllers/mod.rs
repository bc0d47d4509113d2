//! The four controllers. Each reads what is, does what is missing, and commits one step; none knows another.

mod billing;
mod launch;
mod monitoring;
mod quota;
mod shutdown;

pub use billing::Billing;
pub(crate) use billing::counted;
pub use launch::Launch;
pub(crate) use launch::drawn_up;
pub use monitoring::Monitoring;
pub use shutdown::Shutdown;

use crate::spec::JobSpec;
use dragnet_engine::{Engine, Round, failed};
use dragnet_pattern::{Claim, Failure, Work};
use dragnet_run::{Output, Sealed};
use std::sync::Arc;
use std::time::Duration;

/// The Launch Controller's name.
pub const LAUNCH: &str = "launch";
/// The Monitoring Controller's name.
pub const MONITORING: &str = "monitor";
/// The Billing Controller's name.
pub const BILLING: &str = "billing";
/// The Shutdown Controller's name.
pub const SHUTDOWN: &str = "shutdown";

/// The engines of this service.
pub type Engines = Vec<Arc<dyn Engine>>;

/// The seal of a job's run, if Monitoring has noted one: that another one is seen there, or none, means that the output
/// is away, as a disk that is not mounted, and not that there is nothing.
fn noted_seal(claim: &Claim, output: &Output) -> Result<Option<Sealed>, Failure> {
    let sealed = Sealed::read(output).map_err(failed)?;
    let noted = claim.other(MONITORING).and_then(|row| row.metrics.get("manifest_sha256")?.as_str());
    match noted {
        Some(noted) if sealed.as_ref().is_none_or(|sealed| sealed.sha256 != noted) => Err(Failure::Down {
            dependency: "output".into(),
            reason: format!("`{}` does not hold the seal that was noted", output.uri()),
            after: Duration::from_secs(1),
        }),
        _ => Ok(sealed),
    }
}

/// A claim seen as a job.
pub(crate) struct Job {
    spec: JobSpec,
    output: Output,
}

impl Job {
    fn of(claim: &Claim) -> Result<Job, Failure> {
        let spec: JobSpec = serde_json::from_value(claim.work.spec.clone())
            .map_err(|e| Failure::Park(format!("the job's spec can't be read: {e}")))?;
        let root = spec.output.as_deref().ok_or_else(|| Failure::Park("the job has no output".into()))?;
        let output = Output::at(root).map_err(failed)?.of_job(&claim.work.tenant, &claim.work.id);
        Ok(Job { spec, output })
    }

    /// The output of a job, whoever asks.
    pub(crate) fn of_work(work: &Work) -> Result<Output, String> {
        let root =
            work.spec.get("output").and_then(serde_json::Value::as_str).ok_or("the job has no output")?;
        Ok(Output::at(root).map_err(|e| e.to_string())?.of_job(&work.tenant, &work.id))
    }

    fn round(&self, claim: &Claim, number: u32) -> Round {
        Round { run: claim.work.id.clone(), number, output: self.output.clone() }
    }

    fn engine<'a>(&self, engines: &'a Engines) -> Result<&'a Arc<dyn Engine>, Failure> {
        let missing = || Failure::Park(format!("this service has no engine `{}`", self.spec.engine));
        engines.iter().find(|engine| engine.name() == self.spec.engine).ok_or_else(missing)
    }
}

/// Whether the job should be over by now.
fn is_late(claim: &Claim) -> bool {
    claim.work.deadline_ms.is_some_and(|deadline| claim.now_ms >= deadline)
}

fn engine_failed(e: dragnet_engine::Error) -> Failure {
    match e {
        dragnet_engine::Error::Down { engine, reason } => {
            Failure::Down { dependency: engine.into(), reason, after: Duration::from_secs(1) }
        }
        e @ dragnet_engine::Error::Configuration { .. } => Failure::Park(e.to_string()),
        dragnet_engine::Error::Store(e) => Failure::Store(e),
        dragnet_engine::Error::Run(e) => failed(e),
    }
}

/// Runs what waits for the disk where it holds up no other task.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Failure::Failed(e.to_string()))
}
