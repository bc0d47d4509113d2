//! What a tenant's jobs may use at once and each by itself, as Launch and Shutdown see to it.

use super::LAUNCH;
use dragnet_pattern::{Advance, Claim, Failure, Next, Store, full_jitter};
use dragnet_tenant::slots::{self, Slot};
use dragnet_tenant::{Tenant, find};
use serde_json::json;
use std::time::Duration;

/// How long a job that waits for another to end leaves the store alone, at the most: it is told before.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// The tenant of a claimed work.
pub(super) async fn tenant(store: &dyn Store, claim: &Claim) -> Result<Tenant, Failure> {
    let id = &claim.work.tenant;
    let gone = || Failure::Park(format!("the tenant `{id}` is not in the store"));
    find(store, id).await?.ok_or_else(gone)
}

/// The step of a job that may not run yet. It is no dependency that is down: a tenant with many jobs waits as long as
/// they take, and none of them is parked for that.
pub(super) async fn wait_to_run(
    store: &dyn Store,
    claim: &Claim,
    tenant: &Tenant,
) -> Result<Option<Advance>, Failure> {
    let Some(most) = tenant.settings.jobs_running else { return Ok(None) };
    let Slot::Wait { running } = slots::take(store, &claim.work, most).await? else {
        return Ok(None);
    };
    // Evenly over the second half of the time, so that they don't all look at once.
    let after = LOOK_AGAIN / 2 + full_jitter((LOOK_AGAIN / 2, LOOK_AGAIN / 2), 0);
    let mut wait = Advance::to(Next::Again(after));
    wait.metrics = Some(json!({ "waits_for": "quota", "jobs_running": running, "jobs_running_max": most }));
    Ok(Some(wait))
}

/// Lets the next of the tenant's jobs run.
pub(super) async fn ends_to_run(store: &dyn Store, claim: &Claim) -> Result<(), Failure> {
    Ok(slots::give_back(store, &claim.work.tenant, &claim.work.id, LAUNCH).await?)
}

/// Why a plan of so many bytes is too large for the tenant, if it is.
pub(super) fn too_large(bytes: u64, tenant: &Tenant) -> Option<String> {
    let most = tenant.settings.job_bytes.filter(|most| bytes > *most)?;
    Some(format!(
        "it would read {bytes} bytes, and one job of the tenant `{}` may read {most}: set `limits.input_bytes` to that, \
         or search less",
        tenant.id
    ))
}
