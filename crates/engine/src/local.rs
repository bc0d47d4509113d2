//! The engine of one machine: mappers as child processes, driven by a controller of the pattern.
//!
//! A local run is a row like any other: with owner, attempt and lease. Its owner feeds the mappers; any
//! process can observe it; when the owner dies another claims the row and runs what has no record yet.

use crate::process::{Mapper, MapperCommand};
use crate::slots::{Claimed, Slot, Slots};
use crate::{Engine, Error, Observed, Round, failed};
use async_trait::async_trait;
use dragnet_kernel::coverage::Reason;
use dragnet_pattern::{Advance, Claim, Controller, Failure, Next, Step, Store, crash};
use dragnet_run::{FailureNote, Outcome, Output, Task};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::Instrument as _;

/// The topic on which rounds are announced.
pub const TOPIC: &str = "run.local";
/// The controller's name, and the engine's.
const NAME: &str = "local";
/// How often the row is told how far the round is.
const REPORT: Duration = Duration::from_millis(500);
/// How long an idle mapper is kept.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// How mappers are run.
#[derive(Debug, Clone)]
pub struct LocalPolicy {
    /// How to start one.
    pub mapper: MapperCommand,
    /// Mappers at once, over all runs.
    pub mappers: usize,
    /// Attempts of one shard in one round; those lost with this process don't count.
    pub attempts_max: u32,
    /// How long a mapper may show no progress.
    pub silence_max: Duration,
    /// The topic that is told when a round has ended.
    pub ended_topic: &'static str,
}

/// The engine, as whoever launches and observes sees it.
pub struct Local {
    store: Arc<dyn Store>,
    pool: Arc<Pool>,
}

impl Local {
    /// The engine and the controller that drives it. `stop` becomes true when the process is to stop.
    pub fn new(
        store: Arc<dyn Store>,
        policy: LocalPolicy,
        stop: watch::Receiver<bool>,
    ) -> (Local, impl Controller) {
        let slots = Slots::new(policy.mappers.max(1));
        let pool = Arc::new(Pool { policy, slots, idle: Mutex::default(), stopped: Notify::new() });
        let driver = Driver { pool: pool.clone(), stop };
        (Local { store, pool }, driver)
    }
}

#[async_trait]
impl Engine for Local {
    fn name(&self) -> &'static str {
        NAME
    }

    fn mappers(&self) -> usize {
        self.pool.slots.held()
    }

    async fn launch(&self, round: &Round) -> Result<(), Error> {
        // The message only says "look": the driver finds the newest round by its file.
        Ok(self.store.send(&round.run, TOPIC).await?)
    }

    async fn observe(&self, tenant: &str, round: &Round) -> Result<Observed, Error> {
        let rows = self.store.work(tenant, &round.run).await?.map(|(_, rows)| rows).unwrap_or_default();
        let row = rows.into_iter().find(|row| row.controller == NAME);
        // A parked row runs nothing, and a stopped round has nothing left to run.
        let parked = row.as_ref().is_some_and(|row| row.step == Step::Parked);
        let stopped = parked && round.output.exists(&round.stop_mark())?;
        let report: Report = row.and_then(|row| serde_json::from_value(row.metrics).ok()).unwrap_or_default();
        let this = report.round == round.number;
        Ok(Observed {
            ended: stopped || this && report.ended || report.round > round.number,
            bytes_read: report.bytes_read,
            running: if this { report.running } else { 0 },
            attempts_failed: report.attempts_failed,
        })
    }

    async fn stop(&self, round: &Round) -> Result<(), Error> {
        round.output.mark(&round.stop_mark())?;
        self.pool.stopped.notify_waiters();
        Ok(())
    }

    async fn release(&self, round: &Round) -> Result<(), Error> {
        round.output.close()?;
        self.pool.stopped.notify_waiters();
        Ok(())
    }
}

/// The row's metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Report {
    round: u32,
    ended: bool,
    tasks: u64,
    tasks_done: u64,
    running: u64,
    bytes_read: u64,
    attempts_failed: u64,
}

/// Mappers, shared by all runs of this process: whoever has a slot may use one, and slots go to tenants in turn.
struct Pool {
    policy: LocalPolicy,
    slots: Slots,
    idle: Mutex<Vec<Mapper>>,
    stopped: Notify,
}

impl Pool {
    fn take(&self) -> std::io::Result<Mapper> {
        let kept = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain_mut(|mapper| mapper.idle_since.elapsed() < IDLE_MAX && mapper.lives());
            idle.pop()
        };
        kept.map_or_else(|| Mapper::start(&self.policy.mapper), Ok)
    }

    fn put_back(&self, mapper: Mapper) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(mapper);
    }

    /// One attempt of one task in one mapper; a mapper that failed it by its own end is not used again.
    async fn attempt(&self, task: &Task, bytes_read: &Arc<AtomicU64>) -> Result<Outcome, String> {
        let mut mapper = match self.take() {
            Ok(mapper) => mapper,
            // No fault of the shard's: this machine is short of something.
            Err(e) => {
                return Ok(Outcome::Blocked { path: "a mapper's process".into(), reason: e.to_string() });
            }
        };
        let outcome = mapper.run(task, self.policy.silence_max, bytes_read).await?;
        self.put_back(mapper);
        Ok(outcome)
    }
}

struct Driver {
    pool: Arc<Pool>,
    stop: watch::Receiver<bool>,
}

#[async_trait]
impl Controller for Driver {
    fn name(&self) -> &'static str {
        NAME
    }

    fn topic(&self) -> &'static str {
        TOPIC
    }

    fn can_crash(&self) -> bool {
        // What reads the world's bytes is the mapper, a process of its own.
        false
    }

    async fn step(&self, store: &dyn Store, claim: &Claim) -> Result<Advance, Failure> {
        if claim.work.outcome.is_some() {
            // The run was sealed: a word that comes late starts nothing.
            return Ok(Advance::to(Next::Idle));
        }
        let output = match claim.work.spec.get("output").and_then(|uri| uri.as_str()) {
            Some(uri) => Output::at(uri).map_err(failed)?.of_job(&claim.work.tenant, &claim.work.id),
            None => return Err(Failure::Park("the job has no output".into())),
        };
        let before: Report = serde_json::from_value(claim.row.metrics.clone()).unwrap_or_default();
        let newest = output
            .list("tasks")
            .map_err(failed)?
            .into_iter()
            .rev()
            .find_map(|name| name.strip_suffix(".jsonl")?.parse().ok());
        let Some(number) = newest.filter(|n| *n > before.round || !before.ended) else {
            return Ok(Advance::to(Next::Idle));
        };
        let round = Round { run: claim.work.id.clone(), number, output };
        let report = Report { round: number, ended: false, ..before };
        let report = self.run(store, claim, &round, report).await?;
        crash::point(NAME, "round_ended");
        let mut advance = Advance::to(Next::Idle).publish(self.pool.policy.ended_topic);
        advance.metrics = serde_json::to_value(&report).ok();
        Ok(advance)
    }
}

impl Driver {
    async fn run(
        &self,
        store: &dyn Store,
        claim: &Claim,
        round: &Round,
        mut report: Report,
    ) -> Result<Report, Failure> {
        let text = round.output.read(&round.tasks()).map_err(failed)?.unwrap_or_default();
        let tasks = tasks_of(&text).map_err(|e| Failure::Failed(format!("`{}`: {e}", round.tasks())))?;
        report.tasks = tasks.len() as u64;
        let progress = Arc::new(Progress::default());
        progress.bytes_read.store(report.bytes_read, Ordering::Relaxed);
        progress.attempts_failed.store(report.attempts_failed, Ordering::Relaxed);
        let by = Claimed {
            tenant: claim.work.tenant.clone(),
            priority: claim.work.priority,
            run: round.run.clone(),
        };
        let mut tasks: VecDeque<Task> = tasks.into();
        let mut running = JoinSet::new();
        let mut stop = self.stop.clone();
        let (mut reported, mut away) = (Instant::now(), None);
        loop {
            if self.is_stopped(round).map_err(failed)? {
                // Dropping the set drops the mappers, and that kills them.
                running.abort_all();
                break;
            }
            tokio::select! {
                biased;
                _ = stop.wait_for(|stopped| *stopped) => return Err(Failure::Stopped),
                Some(ended) = running.join_next() => match ended {
                    // What is under way may still get its bytes: it is not thrown away.
                    Ok(Err(e @ dragnet_run::Error::Away { .. })) => {
                        tasks.clear();
                        away = Some(e);
                    }
                    Ok(Err(e)) => return Err(failed(e)),
                    Ok(Ok(())) | Err(_) => {}
                },
                slot = self.pool.slots.acquire(&by), if !tasks.is_empty() => {
                    let Some(task) = tasks.pop_front() else { break };
                    let (pool, output, progress) = (self.pool.clone(), round.output.clone(), progress.clone());
                    let by = by.clone();
                    let attempts = async move { run_task(&pool, &by, slot, &output, &task, &progress).await };
                    running.spawn(attempts.in_current_span());
                }
                () = self.pool.stopped.notified() => {}
                () = tokio::time::sleep(REPORT) => {}
            }
            if tasks.is_empty() && running.is_empty() {
                break;
            }
            if reported.elapsed() >= REPORT {
                reported = Instant::now();
                progress.fill(&mut report, running.len());
                let mut advance = Advance::to(Next::Stay);
                advance.metrics = serde_json::to_value(&report).ok();
                // Fenced means that another process runs this now: ours must end.
                match store.advance(&claim.fence, advance).await {
                    Err(e) if e.is_transient() => tracing::warn!(error = %e, "could not report progress"),
                    other => drop(other?),
                }
            }
        }
        progress.fill(&mut report, 0);
        if let Some(e) = away {
            return Err(failed(e));
        }
        report.ended = true;
        Ok(report)
    }

    fn is_stopped(&self, round: &Round) -> Result<bool, dragnet_run::Error> {
        Ok(round.output.is_closed()? || round.output.exists(&round.stop_mark())?)
    }
}

#[derive(Default)]
struct Progress {
    bytes_read: Arc<AtomicU64>,
    tasks_done: AtomicU64,
    attempts_failed: AtomicU64,
    closed: AtomicBool,
}

impl Progress {
    fn fill(&self, report: &mut Report, running: usize) {
        report.bytes_read = self.bytes_read.load(Ordering::Relaxed);
        report.tasks_done = self.tasks_done.load(Ordering::Relaxed);
        report.attempts_failed = self.attempts_failed.load(Ordering::Relaxed);
        report.running = running as u64;
    }
}

fn tasks_of(text: &[u8]) -> Result<Vec<Task>, serde_json::Error> {
    text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(serde_json::from_slice).collect()
}

/// All attempts of one task, of which each after the first waits for its turn again. An error is the engine's own: the
/// task's failure is a note in the output.
async fn run_task(
    pool: &Pool,
    by: &Claimed,
    slot: Slot,
    output: &Output,
    task: &Task,
    progress: &Progress,
) -> Result<(), dragnet_run::Error> {
    let mut slot = Some(slot);
    for attempt in 1..=pool.policy.attempts_max {
        let held = match slot.take() {
            Some(slot) => slot,
            None => pool.slots.acquire(by).await,
        };
        if progress.closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        match pool.attempt(task, &progress.bytes_read).await {
            Ok(Outcome::Committed(_)) => {
                progress.tasks_done.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Ok(Outcome::Closed) => {
                progress.closed.store(true, Ordering::Relaxed);
                return Ok(());
            }
            Ok(Outcome::Blocked { path, reason }) => {
                let source = std::io::Error::other(reason);
                return Err(dragnet_run::Error::Output { action: "write", path, source });
            }
            Ok(Outcome::Away { host, reason }) => return Err(dragnet_run::Error::Away { host, reason }),
            Ok(Outcome::Failed(note)) => {
                tracing::warn!(
                    shard = task.shard,
                    attempt,
                    reason = note.detail,
                    "an attempt could not get its bytes"
                );
            }
            Err(reason) => {
                tracing::warn!(shard = task.shard, attempt, reason, "an attempt was lost");
                if attempt == pool.policy.attempts_max {
                    let note = FailureNote {
                        shard: task.shard,
                        object: None,
                        reason: Reason::ShardFailed,
                        detail: reason,
                    };
                    output.put_json(&FailureNote::name(task.shard), &note)?;
                }
            }
        }
        progress.attempts_failed.fetch_add(1, Ordering::Relaxed);
        drop(held);
        tokio::time::sleep(Duration::from_millis(50 * u64::from(attempt))).await;
    }
    Ok(())
}
