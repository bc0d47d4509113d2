//! The Shutdown Controller: stops the run, frees what it took, deletes scratch and keeps the output.
//!
//! A mapper that was stopped, or cut off from everybody, may still write after that. So it comes a second
//! time, after the longest life of a task, and cleans again. Both are harmless to repeat.

use super::{Engines, Job, LAUNCH, MONITORING, SHUTDOWN, blocking, engine_failed, failed, noted_seal, quota};
use crate::{stage, topic};
use async_trait::async_trait;
use dragnet_pattern::{Advance, Claim, Controller, Failure, Next, Store, crash};
use dragnet_run::Output;
use serde_json::json;
use std::time::Duration;

/// Ends what a job holds.
pub struct Shutdown {
    /// Where runs may be.
    pub engines: Engines,
    /// The longest that a task can live on after its run: then the second sweep comes.
    pub task_life: Duration,
}

#[async_trait]
impl Controller for Shutdown {
    fn name(&self) -> &'static str {
        SHUTDOWN
    }

    fn topic(&self) -> &'static str {
        topic::SHUTDOWN
    }

    async fn step(&self, store: &dyn Store, claim: &Claim) -> Result<Advance, Failure> {
        if claim.work.stage != stage::FINISH {
            return Ok(Advance::to(Next::Idle));
        }
        let job = Job::of(claim)?;
        let rounds = claim.other(MONITORING).and_then(|row| row.metrics.get("round")?.as_u64()).unwrap_or(1);
        let last = job.round(claim, u32::try_from(rounds).unwrap_or(1));
        crash::point(SHUTDOWN, "before_release");
        match job.engine(&self.engines) {
            Ok(engine) => engine.release(&last).await.map_err(engine_failed)?,
            // A job that was never launched holds nothing of an engine that this service does not have.
            Err(_) if claim.other(LAUNCH).is_none_or(|row| row.metrics.get("shards").is_none()) => {}
            Err(missing) => return Err(missing),
        }
        crash::point(SHUTDOWN, "after_release");
        quota::ends_to_run(store, claim).await?;
        let life_ms = i64::try_from(self.task_life.as_millis()).unwrap_or(i64::MAX / 4);
        let again_ms =
            claim.row.memo.get("swept_ms").and_then(serde_json::Value::as_i64).map(|swept| swept + life_ms);
        if let Some(rest) = again_ms.map(|again| again - claim.now_ms).filter(|rest| *rest > 0) {
            // Somebody asked too early: what is cut off may still write.
            return Ok(Advance::to(Next::Again(Duration::from_millis(rest.unsigned_abs()))));
        }
        let output = job.output.clone();
        let of = claim.clone();
        let removed = blocking(move || sweep(&of, &output)).await??;
        crash::point(SHUTDOWN, "swept");
        if claim.row.settled {
            let mut advance =
                Advance::to(Next::Done).event("shutdown.swept_again", json!({ "files_removed": removed }));
            advance.metrics = Some(json!({ "sweeps": 2, "files_removed": removed }));
            return Ok(advance);
        }
        let metrics = json!({ "sweeps": 1, "files_removed": removed });
        let mut advance =
            Advance::to(Next::Again(self.task_life)).event("shutdown.released", metrics.clone());
        advance.settled = true;
        advance.metrics = Some(metrics);
        advance.memo = Some(json!({ "swept_ms": claim.now_ms }));
        Ok(advance)
    }
}

/// Removes what the seal does not name.
fn sweep(claim: &Claim, output: &Output) -> Result<usize, Failure> {
    let removed = match noted_seal(claim, output)? {
        Some(sealed) => output.clean(|name| sealed.keeps(name)),
        // A job that never came to a run keeps the mark alone.
        None => output.clean(|name| name == "closed" || name == "plan.json"),
    };
    removed.map_err(failed)
}
