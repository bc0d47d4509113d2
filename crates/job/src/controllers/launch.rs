//! The Launch Controller: resolves the dataset, freezes the plan, starts the run.
//!
//! The run's id is the job's, so it is reserved by acceptance itself; the plan is put if absent, so a second
//! attempt runs the first one's plan.

use super::{Engines, Job, LAUNCH, blocking, engine_failed, failed, is_late, quota};
use crate::budget;
use crate::dataset::{self, Resolved};
use crate::guard::{Guard, outputs};
use crate::rates::Rates;
use crate::spec::{JobSpec, SHARD_BYTES};
use crate::{stage, topic};
use async_trait::async_trait;
use dragnet_kernel::coverage::{Class, Reason, Skip};
use dragnet_objects::Policy;
use dragnet_pattern::{Advance, Claim, Controller, Failure, Next, Status, Store, crash};
use dragnet_run::{Output, Plan};
use dragnet_tenant::Tenant;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// The most that one job may cost, so that a month's sum of them can be kept: a billion, in millionths.
const COST_MICROS_MAX: u64 = 1_000_000_000_000_000;

/// Takes an accepted job to a run that has been launched.
pub struct Launch {
    /// Where runs can go.
    pub engines: Engines,
    /// By which a limit on the cost becomes one on bytes.
    pub rates: Rates,
    /// What jobs may read.
    pub guard: Guard,
}

#[async_trait]
impl Controller for Launch {
    fn name(&self) -> &'static str {
        LAUNCH
    }

    fn topic(&self) -> &'static str {
        topic::LAUNCH
    }

    async fn step(&self, store: &dyn Store, claim: &Claim) -> Result<Advance, Failure> {
        if claim.work.stage != stage::LAUNCH {
            // A wish that came while the run was launched is Monitoring's to see.
            return Ok(Advance::to(Next::Done));
        }
        if claim.work.cancel {
            return Ok(end(Status::Cancelled).event("launch.cancelled", json!({})));
        }
        if is_late(claim) && budget::reservation(store, &claim.work.id).await?.is_none() {
            // Once it has reserved something it may run: then its end is Monitoring's.
            let mut advance = refused(json!({
                "type": "/problems/deadline", "title": "The deadline passed before the job could begin",
                "detail": "it waited for its turn or for a server until then: give it more time, or try again later",
            }));
            advance.metrics = Some(json!({ "cut_by": [Reason::Deadline] }));
            return Ok(advance);
        }
        let job = Job::of(claim)?;
        let engine = job.engine(&self.engines)?;
        let tenant = quota::tenant(store, claim).await?;
        if tenant.removed_ms.is_some_and(|removed| claim.work.created_ms >= removed) {
            // Its key was believed a moment longer.
            return Ok(end(Status::Cancelled).event("launch.cancelled", json!({ "tenant": "removed" })));
        }
        if let Some(wait) = quota::wait_to_run(store, claim, &tenant).await? {
            return Ok(wait);
        }
        let held = budget::reservation(store, &claim.work.id).await?;
        // What an earlier attempt reserved holds, its rates too.
        let rates = held.as_ref().map_or_else(|| self.rates.clone(), |held| held.rates.clone());
        let (spec, by, output, of) = (job.spec.clone(), rates.clone(), job.output.clone(), tenant.clone());
        let mut policy = self.guard.policy(&tenant);
        if !policy.is_open() {
            // Other processes may have made others since this one started.
            let outputs = outputs(store).await?;
            policy.never.extend(outputs.into_iter().filter(|output| !self.guard.own.contains(output)));
        }
        let plan = match blocking(move || plan_of(&spec, &by, &output, &of, policy)).await? {
            Ok(plan) => plan,
            Err(NoPlan::Problem(problem)) => return Ok(refused(problem)),
            Err(NoPlan::Failed(failure)) => return Err(failure),
        };
        let cost = rates.most_micros(plan.bytes(), plan.hits_max);
        if held.is_none()
            && let Some(detail) = too_dear(&job.spec, &tenant, &rates, &plan, cost)
        {
            let title = "A limit can't be kept";
            return Ok(refused(json!({ "type": "/problems/limits", "title": title, "detail": detail })));
        }
        if held.is_none()
            && let Some(problem) = reserve(store, claim, &tenant, cost, &rates).await?
        {
            return Ok(refused(problem));
        }
        let round = job.round(claim, 1);
        let tasks: String = (0..plan.shards.len()).map(|n| line(&plan.task(&job.output.uri(), n))).collect();
        job.output.put(&round.tasks(), tasks.as_bytes()).map_err(failed)?;
        crash::point(LAUNCH, "before_engine");
        engine.launch(&round).await.map_err(engine_failed)?;
        crash::point(LAUNCH, "after_engine");
        let cut = plan.skipped.iter().filter(|(_, skip)| skip.class == Class::Cut);
        let metrics = json!({
            "objects": plan.objects.len(), "shards": plan.shards.len(), "bytes": plan.bytes(), "reserved_micros": cost,
            "cut_by": cut.map(|(_, skip)| skip.reason).collect::<BTreeSet<_>>(),
        });
        let mut advance = Advance::to(Next::Done).publish(topic::MONITOR).publish(topic::BILLING);
        advance.stage = Some(stage::MONITOR);
        advance.metrics = Some(metrics.clone());
        Ok(advance.event("launch.launched", metrics))
    }
}

/// Why a job is not launched whose plan was drawn up by an attempt that had other rates, or whose cost is out of reach.
fn too_dear(spec: &JobSpec, tenant: &Tenant, rates: &Rates, plan: &Plan, cost: u64) -> Option<String> {
    if cost > COST_MICROS_MAX {
        return Some(format!(
            "the job may cost {cost} millionths: {COST_MICROS_MAX} are the most of one job"
        ));
    }
    if let Some(detail) = budget::not_kept(tenant, rates, plan.hits_max) {
        return Some(detail);
    }
    match rates.bytes_for(spec.limits.cost_micros?) {
        Ok(Some(bytes)) if plan.bytes() > bytes => {
            Some("the rates changed while the job was launched: submit it again".into())
        }
        Ok(_) => None,
        Err(detail) => Some(detail),
    }
}

/// Reserves what the job costs at most, in a transaction of its own before anything runs: the problem of one that its
/// tenant's budget does not allow.
async fn reserve(
    store: &dyn Store,
    claim: &Claim,
    tenant: &Tenant,
    cost: u64,
    rates: &Rates,
) -> Result<Option<serde_json::Value>, Failure> {
    let mut advance = Advance::to(Next::Stay);
    advance.side = budget::reserve(&claim.work, cost, rates, tenant.settings.budget_micros);
    crash::point(LAUNCH, "before_reserve");
    match store.advance(&claim.fence, advance).await {
        Ok(_) => {
            crash::point(LAUNCH, "after_reserve");
            Ok(None)
        }
        Err(e) if budget::is_passed(&e) => {
            let month = budget::month_of(claim.work.created_ms);
            let left = budget::left(store, tenant, &month).await?.unwrap_or(0).max(0);
            let detail = format!(
                "the job may cost {cost} millionths of {}, and {left} are left of the budget of {month}: limit its \
                 cost or its bytes, wait until other jobs have ended, or ask for more",
                rates.currency
            );
            Ok(Some(json!({
                "type": "/problems/budget", "title": "The job may cost more than its budget has left",
                "detail": detail, "cost_micros": cost, "left_micros": left,
            })))
        }
        Err(e) => Err(e.into()),
    }
}

/// The job fails, for a reason that its client is told.
fn refused(problem: serde_json::Value) -> Advance {
    let mut advance = end(Status::Failed).event("launch.failed", problem.clone());
    advance.error = Some(problem);
    advance
}

fn line(task: &dragnet_run::Task) -> String {
    // A task is numbers and a URI: it always is JSON.
    serde_json::to_string(task).unwrap_or_default() + "\n"
}

/// The job ends here; it is still billed (for nothing) and cleaned up.
fn end(outcome: Status) -> Advance {
    let mut advance = Advance::to(Next::Done).publish(topic::BILLING).publish(topic::SHUTDOWN);
    advance.stage = Some(stage::FINISH);
    advance.outcome = Some(outcome);
    advance
}

enum NoPlan {
    /// The job can't be done, and its client is told why (RFC 9457).
    Problem(serde_json::Value),
    /// It could not be done now.
    Failed(Failure),
}

fn problem(kind: &str, title: &str, detail: String) -> NoPlan {
    NoPlan::Problem(json!({ "type": format!("/problems/{kind}"), "title": title, "detail": detail }))
}

/// The job's plan: the one that lies there, or a new one.
fn plan_of(
    spec: &JobSpec,
    rates: &Rates,
    output: &Output,
    tenant: &Tenant,
    policy: Policy,
) -> Result<Plan, NoPlan> {
    let failed = |e: dragnet_run::Error| NoPlan::Failed(failed(e));
    if let Some(plan) = output.read_json::<Plan>("plan.json").map_err(failed)? {
        return Ok(plan);
    }
    let resolved = dataset::resolve(&policy, &spec.dataset, spec.sample).map_err(|e| match e {
        dataset::Error::Away { host, reason } => {
            NoPlan::Failed(Failure::Down { dependency: host, reason, after: Duration::from_secs(1) })
        }
        other => problem("dataset", "The dataset can't be searched", other.to_string()),
    })?;
    if resolved.objects.is_empty() {
        return Err(problem("dataset", "The dataset can't be searched", "it holds no file".into()));
    }
    let mut plan =
        drawn_up(spec, rates, resolved).map_err(|e| problem("limits", "A limit can't be kept", e))?;
    if let Some(detail) = quota::too_large(plan.bytes(), tenant) {
        return Err(problem("quota-bytes", "The job reads more than its tenant may", detail));
    }
    plan.policy = policy;
    crash::point(LAUNCH, "before_plan");
    output.put_json("plan.json", &plan).map_err(failed)?;
    crash::point(LAUNCH, "after_plan");
    // Another attempt may have been first: its plan is the plan.
    let missing = || NoPlan::Failed(Failure::Failed("the plan has gone".into()));
    output.read_json("plan.json").map_err(failed)?.ok_or_else(missing)
}

/// The plan over what a dataset came to: cut where a limit on bytes or money falls, then into shards.
///
/// # Errors
/// A sentence, when a limit can't be kept in advance.
pub(crate) fn drawn_up(spec: &JobSpec, rates: &Rates, resolved: Resolved) -> Result<Plan, String> {
    let mut plan = Plan {
        mapper: env!("CARGO_PKG_VERSION").into(),
        search: spec.search(),
        shards: Vec::new(),
        objects: resolved.objects,
        skipped: resolved.skipped,
        hits_max: spec.limits.hits,
        policy: Policy::default(),
    };
    let by_cost = match spec.limits.cost_micros {
        Some(micros) => rates.bytes_for(micros)?,
        None => None,
    };
    let ends = limited(&mut plan, spec.limits.input_bytes, by_cost);
    // What can't be read has no bytes to read, and needs no shard.
    plan.shards = Plan::cut(&plan.objects, &ends, spec.shard_bytes.unwrap_or(SHARD_BYTES));
    Ok(plan)
}

/// How far each object is read under a limit on bytes, in the dataset's order; the rest is a named cut.
fn limited(plan: &mut Plan, by_bytes: Option<u64>, by_cost: Option<u64>) -> Vec<u64> {
    let limit = match (by_bytes, by_cost) {
        (Some(bytes), Some(cost)) if cost < bytes => Some((cost, Reason::CostCap)),
        (None, Some(cost)) => Some((cost, Reason::CostCap)),
        (Some(bytes), _) => Some((bytes, Reason::BytesCap)),
        (None, None) => None,
    };
    let mut left = limit.map_or(u64::MAX, |(bytes, _)| bytes);
    let mut ends = Vec::with_capacity(plan.objects.len());
    for (place, object) in plan.objects.iter().enumerate() {
        // One document is read whole or not at all.
        let end = if object.kind.splits() {
            object.size.min(left)
        } else if object.size <= left {
            object.size
        } else {
            0
        };
        left -= end.min(left);
        if end < object.size
            && let Some((_, reason)) = limit
        {
            plan.skipped.push((place, Skip::new(end, object.size - end, reason)));
            // The next object would otherwise be read although it comes behind the limit.
            left = 0;
        }
        ends.push(end);
    }
    ends
}
