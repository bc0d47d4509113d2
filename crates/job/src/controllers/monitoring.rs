//! The Monitoring Controller: watches the run, publishes progress, settles what is anchored, starts further
//! rounds, and seals.
//!
//! It is a tick that is taken again and again, and each tick starts from what lies in the output and in the
//! Status DB, so that any process can take the next one.

use super::{Engines, Job, MONITORING, blocking, engine_failed, failed, is_late};
use crate::{stage, topic};
use async_trait::async_trait;
use dragnet_engine::{Observed, Round};
use dragnet_kernel::coverage::Reason;
use dragnet_pattern::{Advance, Claim, Controller, Failure, Next, Statement, Status, Store, crash};
use dragnet_run::{
    Anchored, Chain, CommitRecord, FailureNote, Gap, Output, Plan, Sealed, Summary, Task, follow,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Rounds after which the rest of an object whose seams don't meet runs as one shard.
const ROUNDS_BY_SHARD: u32 = 3;
/// Rounds in which a shard may fail before it is given up.
const FAILED_ROUNDS_MAX: u32 = 2;
/// How often the shard in which the limit on hits falls is tried again before it is given up.
const RERUNS_MAX: u32 = 5;
/// The time between two ticks while something changes, and the longest while nothing does.
const TICK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// The time between two ticks while a stopped round ends; its engine's word comes earlier.
const STOPPED_TICK: Duration = Duration::from_millis(200);
/// Shards that are settled in one transaction.
const SETTLE_MAX: usize = 1000;

/// Takes a job from its launch to its seal.
pub struct Monitoring {
    engines: Engines,
    /// What this process has read of runs that it watches; all of it can be read again.
    known: Mutex<HashMap<String, Arc<Known>>>,
}

/// A run's plan and its records as far as they have been read. Both never change once written.
struct Known {
    plan: Plan,
    records: BTreeMap<usize, Vec<Summary>>,
    /// Shards whose record has met its neighbour.
    anchored: BTreeSet<usize>,
}

/// What a tick leaves to the next one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
struct Memo {
    /// The round that runs.
    round: u32,
    /// In how many rounds a shard has failed.
    failed_rounds: BTreeMap<usize, u32>,
    /// Notes and records of a shard when its last round began: only what is new speaks of that round.
    seen: BTreeMap<usize, (usize, usize)>,
    /// How many objects of a bundle its last round left out.
    left_out: BTreeMap<usize, usize>,
    /// Shards that are not run again.
    given_up: BTreeSet<usize>,
    /// Those of them whose records don't count, as they have more hits than are left and can't be had with fewer.
    disowned: BTreeSet<usize>,
    /// Whether broken objects run on as one shard.
    to_end: bool,
    /// Why the run is to end before all is read. Once decided it holds.
    ends_by: Option<Reason>,
    /// Shards that have settled.
    settled: u64,
    /// Ticks in a row that saw nothing new.
    quiet: u32,
}

impl Default for Memo {
    fn default() -> Memo {
        Memo {
            round: 1,
            failed_rounds: BTreeMap::new(),
            seen: BTreeMap::new(),
            left_out: BTreeMap::new(),
            given_up: BTreeSet::new(),
            disowned: BTreeSet::new(),
            to_end: false,
            ends_by: None,
            settled: 0,
            quiet: 0,
        }
    }
}

impl Memo {
    /// What the last tick left; the first one finds nothing in it. What can't be understood is not forgotten: a decision may
    /// be in it.
    fn of(claim: &Claim) -> Result<Memo, Failure> {
        serde_json::from_value(claim.row.memo.clone()).map_err(|e| {
            Failure::Park(format!("what Monitoring remembers of the job is not understood: {e}"))
        })
    }
}

/// What a tick sees.
struct Sight {
    known: Arc<Known>,
    chain: Chain,
    notes: BTreeMap<usize, Vec<FailureNote>>,
}

impl Monitoring {
    /// A controller that watches runs on these engines.
    pub fn new(engines: Engines) -> Monitoring {
        Monitoring { engines, known: Mutex::default() }
    }

    /// Taken out, so that it can be added to without a copy.
    fn known(&self, run: &str) -> Option<Arc<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(run)
    }

    fn keep(&self, run: &str, known: Option<Arc<Known>>) {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known {
            Some(known) => drop(all.insert(run.to_owned(), known)),
            None => drop(all.remove(run)),
        }
    }

    async fn look(&self, claim: &Claim, job: &Job, memo: &Memo) -> Result<Sight, Failure> {
        let (output, memo, before) = (job.output.clone(), memo.clone(), self.known(&claim.work.id));
        let sight = blocking(move || look(&output, &memo, before)).await?.map_err(failed)?;
        self.keep(&claim.work.id, Some(sight.known.clone()));
        Ok(sight)
    }
}

#[async_trait]
impl Controller for Monitoring {
    fn name(&self) -> &'static str {
        MONITORING
    }

    fn topic(&self) -> &'static str {
        topic::MONITOR
    }

    async fn step(&self, store: &dyn Store, claim: &Claim) -> Result<Advance, Failure> {
        if claim.work.stage == stage::FINISH {
            // The word that the last round has ended may come after the seal.
            self.keep(&claim.work.id, None);
            return Ok(Advance::to(Next::Done));
        }
        let job = Job::of(claim)?;
        let mut memo = Memo::of(claim)?;
        if let Some(sealed) = Sealed::read(&job.output).map_err(failed)? {
            return Ok(self.finish(claim, &memo, &sealed));
        }
        let engine = job.engine(&self.engines)?;
        let round = job.round(claim, memo.round);
        let observed = engine.observe(&claim.work.tenant, &round).await.map_err(engine_failed)?;
        let sight = self.look(claim, &job, &memo).await?;
        let plan = &sight.known.plan;
        let counted = count(plan, &job.output.uri(), &sight.chain);

        if memo.ends_by.is_none() {
            memo.ends_by = ends_by(claim, &counted);
        }
        let before = memo.settled;
        settle(store, claim, &counted, &mut memo).await?;
        let metrics = metrics(&memo, &counted, &observed);

        if memo.ends_by.is_some() || counted.missing.is_empty() {
            let under_way = !observed.ended && !plan.shards.is_empty();
            if under_way {
                engine.stop(&round).await.map_err(engine_failed)?;
                crash::point(MONITORING, "stopped");
            }
            // What is under way may still commit. Where all that counts is known, that changes nothing;
            // else the seal waits for the round's end, so as not to race with it.
            let all_known = matches!(memo.ends_by, None | Some(Reason::HitsCap));
            if under_way && !all_known {
                return Ok(again(memo, metrics, STOPPED_TICK));
            }
            return self.seal(store, claim, &job, sight, counted, memo).await;
        }
        if counted.rerun && !observed.ended {
            engine.stop(&round).await.map_err(engine_failed)?;
            return Ok(again(memo, metrics, STOPPED_TICK));
        }
        if observed.ended {
            return self.next_round(&job, claim, &sight, counted, memo, metrics).await;
        }
        memo.quiet = if memo.settled > before { 0 } else { memo.quiet + 1 };
        let wait = TICK.0.saturating_mul((1 << memo.quiet.min(8)) >> 2).clamp(TICK.0, TICK.1);
        Ok(again(memo, metrics, wait))
    }
}

fn again(memo: Memo, metrics: serde_json::Value, after: Duration) -> Advance {
    let mut advance = Advance::to(Next::Again(after));
    advance.memo = serde_json::to_value(&memo).ok();
    advance.metrics = Some(metrics);
    advance
}

/// Why the run must end now, apart from having read all.
fn ends_by(claim: &Claim, counted: &Counted) -> Option<Reason> {
    if counted.full {
        return Some(Reason::HitsCap);
    }
    if claim.work.cancel {
        return Some(Reason::Cancelled);
    }
    is_late(claim).then_some(Reason::Deadline)
}

/// Reads what is new in the output and follows the chains.
fn look(output: &Output, memo: &Memo, before: Option<Arc<Known>>) -> Result<Sight, dragnet_run::Error> {
    let missing = || dragnet_run::Error::Malformed { path: output.uri(), reason: "it has no plan".into() };
    let (plan, mut records, anchored) = match before {
        Some(known) => match Arc::try_unwrap(known) {
            Ok(known) => (known.plan, known.records, known.anchored),
            Err(shared) => (shared.plan.clone(), shared.records.clone(), shared.anchored.clone()),
        },
        None => (output.read_json("plan.json")?.ok_or_else(missing)?, BTreeMap::new(), BTreeSet::new()),
    };
    // What is anchored stays so, unless a limit on hits makes a shard run again.
    let anchored = if plan.hits_max.is_none() { &anchored } else { &BTreeSet::new() };
    let is_anchored = |shard: &str| shard.parse().is_ok_and(|shard: usize| anchored.contains(&shard));
    let mut new = Vec::new();
    for (shard, file) in output.list_below("records", &is_anchored)? {
        let Ok(number) = shard.parse::<usize>() else { continue };
        let name = format!("{}/{file}", CommitRecord::folder(number));
        let known = records.get(&number).map_or(&[][..], Vec::as_slice);
        if known.iter().all(|summary| summary.name != name) {
            new.push((number, name));
        }
    }
    let names: Vec<&str> = new.iter().map(|(_, name)| &**name).collect();
    for ((number, _), record) in new.iter().zip(output.read_all_json::<CommitRecord>(&names)) {
        // A listing is a hint: what can't be read is not there.
        if let Some(record) = record? {
            records.entry(*number).or_default().push(Summary::of(&record));
        }
    }
    let mut notes: BTreeMap<usize, Vec<FailureNote>> = BTreeMap::new();
    for name in output.list("failed")? {
        if let Some(note) = output.read_json::<FailureNote>(&format!("failed/{name}"))? {
            notes.entry(note.shard).or_default().push(note);
        }
    }
    let chain = {
        let mut have = Cow::Borrowed(&records);
        if !memo.disowned.is_empty() {
            have.to_mut().retain(|shard, _| !memo.disowned.contains(shard));
        }
        follow(&plan, &output.uri(), &have, &memo.given_up, memo.to_end)
    };
    let anchored = chain.anchored.keys().copied().collect();
    Ok(Sight { known: Arc::new(Known { plan, records, anchored }), chain, notes })
}

/// What counts under the limit on hits.
struct Counted {
    /// Shards that count, in the order in which they may settle.
    settled: Vec<(usize, Summary)>,
    /// What must run before all else is known.
    missing: Vec<Task>,
    /// Whether `missing` is the shard in which the limit falls, with what is left of it.
    rerun: bool,
    /// Whether the limit is reached and all before it has settled.
    full: bool,
    bytes: u64,
    records: u64,
    hits: u64,
}

/// Without a limit every anchored shard counts. With one they count in the dataset's order, up to the shard
/// in which it falls; that one is run again with what is left, whatever it had found before.
fn count(plan: &Plan, output: &str, chain: &Chain) -> Counted {
    let mut counted = Counted {
        settled: Vec::new(),
        missing: chain.missing.clone(),
        rerun: false,
        full: false,
        bytes: 0,
        records: 0,
        hits: 0,
    };
    for shard in 0..plan.shards.len() {
        match (chain.anchored.get(&shard), plan.hits_max) {
            (Some(Anchored::Record(summary)), Some(max)) => {
                let left = max - counted.hits;
                if summary.hits > left {
                    let begin = summary.first;
                    counted.missing = vec![Task {
                        begin,
                        to_end: summary.to_end,
                        hits_max: Some(left),
                        leave_out: summary.leave_out.clone(),
                        ..plan.task(output, shard)
                    }];
                    counted.rerun = true;
                    return counted;
                }
                counted.add(shard, summary);
                if counted.hits == max || summary.capped {
                    counted.missing.clear();
                    counted.full = shard + 1 < plan.shards.len() || summary.capped;
                    return counted;
                }
            }
            (Some(Anchored::Record(summary)), None) => counted.add(shard, summary),
            (Some(Anchored::Passed | Anchored::Lost { .. }), _) => {}
            (None, Some(_)) => return counted,
            (None, None) => {}
        }
    }
    counted
}

impl Counted {
    fn add(&mut self, shard: usize, summary: &Summary) {
        self.bytes += summary.bytes;
        self.records += summary.records;
        self.hits += summary.hits;
        self.settled.push((shard, summary.clone()));
    }
}

/// Writes down what newly counts, so that it is shown and never taken back.
async fn settle(store: &dyn Store, claim: &Claim, counted: &Counted, memo: &mut Memo) -> Result<(), Failure> {
    if counted.settled.len() as u64 == memo.settled {
        return Ok(());
    }
    let id = claim.work.id.as_str();
    let sql = "select shard from settled where work_id = ?1";
    let rows = store.query(Statement::new(sql, vec![id.into()])).await?;
    let before: BTreeSet<i64> = rows.iter().map(|row| row[0].int()).collect();
    let mut n = before.len() as i64;
    let new: Vec<&(usize, Summary)> =
        counted.settled.iter().filter(|(shard, _)| !before.contains(&(*shard as i64))).collect();
    for batch in new.chunks(SETTLE_MAX) {
        let mut advance = Advance::to(Next::Stay);
        for (shard, summary) in batch {
            let sql = "insert into settled (work_id, n, shard, record, hits, bytes, records) values (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let numbers = [summary.hits, summary.bytes, summary.records].map(|n| (n as i64).into());
            let [hits, bytes, records] = numbers;
            let values = vec![
                id.into(),
                n.into(),
                (*shard as i64).into(),
                summary.name.as_str().into(),
                hits,
                bytes,
                records,
            ];
            advance.side.push(Statement::new(sql, values));
            n += 1;
        }
        memo.settled = n as u64;
        advance.memo = serde_json::to_value(&*memo).ok();
        crash::point(MONITORING, "before_settle");
        store.advance(&claim.fence, advance).await?;
        crash::point(MONITORING, "after_settle");
    }
    memo.settled = n as u64;
    Ok(())
}

fn metrics(memo: &Memo, counted: &Counted, observed: &Observed) -> serde_json::Value {
    json!({
        "round": memo.round,
        "shards_done": counted.settled.len(),
        "bytes_done": counted.bytes,
        "records": counted.records,
        "hits": counted.hits,
        "tasks_running": observed.running,
        "bytes_read": observed.bytes_read,
        "attempts_failed": observed.attempts_failed,
        "given_up": memo.given_up.len(),
    })
}

impl Monitoring {
    /// The engine has nothing left to do and something is missing: another round, or it is given up.
    async fn next_round(
        &self,
        job: &Job,
        claim: &Claim,
        sight: &Sight,
        counted: Counted,
        mut memo: Memo,
        metrics: serde_json::Value,
    ) -> Result<Advance, Failure> {
        if memo.round >= ROUNDS_BY_SHARD && !memo.to_end {
            memo.to_end = true;
            return Ok(again(memo, metrics, Duration::ZERO));
        }
        let mut tasks = counted.missing;
        if let Some(task) = tasks.first().filter(|_| counted.rerun) {
            let reruns = memo.failed_rounds.entry(task.shard).or_default();
            *reruns += 1;
            if *reruns > RERUNS_MAX {
                // Its object changed since: it is a gap, and what is behind it counts.
                memo.given_up.insert(task.shard);
                memo.disowned.insert(task.shard);
                return Ok(again(memo, metrics, Duration::ZERO));
            }
        } else {
            for task in &mut tasks {
                let notes = sight.notes.get(&task.shard).map_or(&[][..], Vec::as_slice);
                let records = sight.known.records.get(&task.shard).map_or(0, Vec::len);
                let (notes_before, records_before) =
                    memo.seen.insert(task.shard, (notes.len(), records)).unwrap_or_default();
                if notes.len() > notes_before && records == records_before {
                    let failed = memo.failed_rounds.entry(task.shard).or_default();
                    *failed += 1;
                    if *failed >= FAILED_ROUNDS_MAX {
                        memo.given_up.insert(task.shard);
                    }
                }
                // Objects of a bundle that could not be had are the seal's to name; the others are searched.
                if matches!(sight.known.plan.shards[task.shard], dragnet_run::Shard::Bundle { .. }) {
                    let mut objects: Vec<usize> = notes.iter().filter_map(|note| note.object).collect();
                    objects.sort_unstable();
                    objects.dedup();
                    let before = memo.left_out.insert(task.shard, objects.len()).unwrap_or(0);
                    if objects.len() > before {
                        memo.given_up.remove(&task.shard);
                    }
                    task.leave_out = objects;
                }
            }
            tasks.retain(|task| !memo.given_up.contains(&task.shard));
        }
        if tasks.is_empty() {
            // All that was missing has been given up: the next look sees the chains go on behind it.
            return Ok(again(memo, metrics, Duration::ZERO));
        }
        memo.round += 1;
        let round: Round = job.round(claim, memo.round);
        let lines: Vec<String> = tasks.iter().filter_map(|task| serde_json::to_string(task).ok()).collect();
        let text = lines.join("\n") + "\n";
        crash::point(MONITORING, "before_round");
        job.output.put(&round.tasks(), text.as_bytes()).map_err(failed)?;
        job.engine(&self.engines)?.launch(&round).await.map_err(engine_failed)?;
        crash::point(MONITORING, "after_round");
        let event = json!({ "round": memo.round, "shards": tasks.len() });
        Ok(again(memo, metrics, TICK.0).event("monitor.round", event))
    }

    async fn seal(
        &self,
        store: &dyn Store,
        claim: &Claim,
        job: &Job,
        sight: Sight,
        counted: Counted,
        memo: Memo,
    ) -> Result<Advance, Failure> {
        if memo.ends_by.is_some() {
            // Why it ends before its time is decided and committed before the seal says so.
            let mut advance = Advance::to(Next::Stay);
            advance.memo = serde_json::to_value(&memo).ok();
            store.advance(&claim.fence, advance).await?;
        }
        let counts: BTreeSet<usize> = counted.settled.iter().map(|(shard, _)| *shard).collect();
        let Sight { known, mut chain, notes } = sight;
        // Behind a limit nothing counts, also where it was read.
        chain
            .anchored
            .retain(|shard, anchored| !matches!(anchored, Anchored::Record(_)) || counts.contains(shard));
        if memo.ends_by == Some(Reason::HitsCap) {
            let last = counts.last().copied();
            chain.anchored.retain(|shard, _| Some(*shard) <= last);
        }
        let gap = Gap { rest: memo.ends_by.unwrap_or(Reason::ShardFailed), notes };
        let output = job.output.clone();
        crash::point(MONITORING, "before_seal");
        let sealed =
            blocking(move || Sealed::write(&output, &known.plan, &chain, &gap)).await?.map_err(failed)?;
        crash::point(MONITORING, "after_seal");
        Ok(self.finish(claim, &memo, &sealed))
    }

    fn finish(&self, claim: &Claim, memo: &Memo, sealed: &Sealed) -> Advance {
        self.keep(&claim.work.id, None);
        let manifest = &sealed.manifest;
        let mut advance = Advance::to(Next::Done).publish(topic::BILLING).publish(topic::SHUTDOWN);
        advance.stage = Some(stage::FINISH);
        let nothing = !manifest.searched && !manifest.complete;
        let outcome = match memo.ends_by {
            Some(Reason::Cancelled) => Status::Cancelled,
            _ if nothing => Status::Failed,
            _ if manifest.complete => Status::Completed,
            _ => Status::CompletedWithGaps,
        };
        if outcome == Status::Failed {
            let detail = "no byte of the dataset could be searched: the coverage says why";
            advance.error = Some(
                json!({ "type": "/problems/nothing-searched", "title": "Nothing could be searched", "detail": detail }),
            );
        }
        advance.outcome = Some(outcome);
        let result = json!({
            "round": memo.round,
            "hits": manifest.hits,
            "records": manifest.records_read,
            "bytes_done": manifest.bytes_read,
            "digest": manifest.digest,
            "complete": manifest.complete,
            "manifest": "manifest.json",
            "manifest_sha256": sealed.sha256,
            "ended_by": memo.ends_by,
            "cut_by": manifest.cut_by,
        });
        advance.metrics = Some(result.clone());
        advance.event("monitor.sealed", result)
    }
}
