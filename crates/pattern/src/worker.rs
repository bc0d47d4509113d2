//! What drives controllers: claims rows, renews leases, commits steps, frees what dead processes held.
//!
//! A worker sleeps until a message of its group falls due, is signalled by a commit of this process, or the
//! polling interval ends (another process may have sent it). Nothing is held while a work waits.

use crate::{
    Advance, Claim, Claimant, Controller, Error, Failure, Fence, Next, Owner, Release, Shares, Store, crash,
    full_jitter, owner,
};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, Semaphore, watch};
use tokio::task::JoinSet;
use tracing::Instrument as _;

/// How controllers are driven.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How long a claim lasts without renewal; it is renewed three times as often.
    pub lease: Duration,
    /// How often the queue is looked at, in case another process has sent something.
    pub poll: Duration,
    /// How often messages that were lost are sent again.
    pub sweep: Duration,
    /// How often the locks of other processes are tried.
    pub reap: Duration,
    /// Steps that one controller takes at once.
    pub at_once: usize,
    /// Failures in a row that park a work.
    pub failures_max: i64,
    /// How long a work waits for a dependency before it is parked.
    pub wait_max: Duration,
    /// How long a step may go on when the process is to stop; then its claim is given back as it is.
    pub grace: Duration,
    /// The first and the longest delay after a failure.
    pub backoff: (Duration, Duration),
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            lease: Duration::from_secs(12),
            poll: Duration::from_millis(250),
            sweep: Duration::from_secs(5),
            reap: Duration::from_millis(500),
            at_once: 16,
            failures_max: 8,
            wait_max: Duration::from_secs(24 * 3600),
            grace: Duration::from_secs(2),
            backoff: (Duration::from_millis(100), Duration::from_secs(30)),
        }
    }
}

/// One process's share of the work.
pub struct Worker {
    store: Arc<dyn Store>,
    policy: Policy,
    owner: Owner,
    claimant: Claimant,
    locks: PathBuf,
    /// Claims in hand, for the heartbeat.
    in_hand: Mutex<HashSet<Fence>>,
    /// What was in hand at a crash is tried with this held alone.
    gate: Arc<RwLock<()>>,
    /// Claims that others took over before they were done here.
    leases_lost: AtomicU64,
}

impl Worker {
    /// A worker whose owner lock lies in `locks`, a folder that all processes of the store on this machine
    /// share. With `only` it leaves all other works to others.
    ///
    /// # Errors
    /// Those of [`Owner::new`].
    pub fn new(
        store: Arc<dyn Store>,
        policy: Policy,
        locks: &Path,
        only: Option<String>,
    ) -> Result<Worker, Error> {
        let owner = Owner::new(locks)?;
        let claimant = Claimant {
            owner: owner.id().to_owned(),
            lease: policy.lease,
            only,
            shares: Shares::default(),
            takes_suspects: false,
        };
        Ok(Worker {
            store,
            policy,
            owner,
            claimant,
            locks: locks.to_owned(),
            in_hand: Mutex::default(),
            gate: Arc::default(),
            leases_lost: AtomicU64::new(0),
        })
    }

    /// Claims of this worker that others took over before it was done with them: it was too slow, or stood still.
    pub fn leases_lost(&self) -> u64 {
        self.leases_lost.load(Ordering::Relaxed)
    }

    fn hand(&self) -> std::sync::MutexGuard<'_, HashSet<Fence>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drives the controllers until `stop` becomes true, then ends the claims in hand at their next step.
///
/// # Errors
/// Those of the store while groups are registered, if they will not pass. Others are logged and tried again.
pub async fn run(
    worker: Arc<Worker>,
    controllers: Vec<Arc<dyn Controller>>,
    stop: watch::Receiver<bool>,
) -> Result<(), Error> {
    for controller in &controllers {
        let mut refusals = 0;
        while let Err(e) = worker.store.add_group(controller.name(), controller.topic(), true).await {
            // A message that is consumed just then takes the ground from under it, which passes.
            refusals += u32::from(!e.is_transient());
            if refusals > REFUSALS_MAX {
                return Err(e);
            }
            tracing::warn!(controller = controller.name(), error = %e, "could not register a group yet");
            tokio::time::sleep(worker.policy.poll).await;
        }
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(heartbeat(worker.clone(), stop.clone()));
    tasks.spawn(housekeeping(worker.clone(), stop.clone()));
    tasks.spawn(suspects(worker.clone(), controllers.clone(), stop.clone()));
    for controller in controllers {
        tasks.spawn(drive(worker.clone(), controller, stop.clone()));
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// How often a group is registered again that the store has refused.
const REFUSALS_MAX: u32 = 5;

/// Sleeps, unless the process is to stop. Returns whether it is.
async fn rest(duration: Duration, stop: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        () = tokio::time::sleep(duration) => false,
        _ = stop.wait_for(|stopped| *stopped) => true,
    }
}

async fn heartbeat(worker: Arc<Worker>, mut stop: watch::Receiver<bool>) {
    let lease = worker.policy.lease;
    loop {
        let stopping = rest(lease / 3, &mut stop).await;
        let fences: Vec<Fence> = worker.hand().iter().cloned().collect();
        if fences.is_empty() {
            if stopping {
                return;
            }
            continue;
        }
        match worker.store.renew(fences, lease).await {
            // Whoever lost a claim finds out at its next write; it need not be told here.
            Ok(lost) => lost.iter().for_each(|fence| {
                // One that has just been committed is no loss.
                if worker.hand().remove(fence) {
                    worker.leases_lost.fetch_add(1, Ordering::Relaxed);
                }
            }),
            Err(e) => tracing::warn!(error = %e, "could not renew leases"),
        }
        if stopping {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn housekeeping(worker: Arc<Worker>, mut stop: watch::Receiver<bool>) {
    let mut until_sweep = Duration::ZERO;
    loop {
        if let Err(e) = owner::reap(&*worker.store, &worker.locks).await {
            tracing::warn!(error = %e, "could not free the claims of dead processes");
        }
        if until_sweep.is_zero() {
            match worker.store.sweep().await {
                Ok(0) => {}
                Ok(n) => tracing::info!(messages = n, "sent messages again that were lost"),
                Err(e) => tracing::warn!(error = %e, "could not sweep"),
            }
            until_sweep = worker.policy.sweep;
        }
        let pause = worker.policy.reap.min(worker.policy.sweep);
        until_sweep = until_sweep.saturating_sub(pause);
        if rest(pause, &mut stop).await {
            return;
        }
    }
}

/// Tries what was in hand at a crash, one by one and with nothing else under way.
async fn suspects(
    worker: Arc<Worker>,
    controllers: Vec<Arc<dyn Controller>>,
    mut stop: watch::Receiver<bool>,
) {
    let can_crash = controllers.iter().filter(|c| c.can_crash());
    let names: Vec<String> = can_crash.map(|c| c.name().to_owned()).collect();
    let mut pause = Duration::ZERO;
    while !rest(pause, &mut stop).await {
        pause = worker.policy.poll;
        match worker.store.claim_alone(&names, &worker.claimant).await {
            Ok(Some(claim)) => {
                let Some(controller) = controllers.iter().find(|c| c.name() == claim.fence.controller) else {
                    continue;
                };
                worker.hand().insert(claim.fence.clone());
                let held = Held::Alone(worker.gate.clone().write_owned().await);
                step(worker.clone(), controller.clone(), claim, held, stop.clone()).await;
                pause = Duration::ZERO;
            }
            Ok(None) => {}
            Err(e) => tracing::warn!(error = %e, "could not claim what was in hand at a crash"),
        }
    }
}

/// What of the gate a step holds.
enum Held {
    Nothing,
    Shared { _guard: OwnedRwLockReadGuard<()> },
    Alone(#[allow(dead_code, reason = "held for its drop")] OwnedRwLockWriteGuard<()>),
}

/// Steps at once of a controller that only watches other processes.
const WATCHED_AT_ONCE: usize = 4096;

/// Of these, those of one tenant: others' are to find a place at once, whatever one has waiting.
const WATCHED_OF_ONE: usize = 256;

/// How soon a store that failed is asked again, however seldom it is polled.
const RETRY: Duration = Duration::from_secs(1);
/// How long a worker leaves alone what others have locked.
const CONTENDED: Duration = Duration::from_millis(20);

async fn drive(worker: Arc<Worker>, controller: Arc<dyn Controller>, mut stop: watch::Receiver<bool>) {
    let can_crash = controller.can_crash();
    // A step that only watches other processes may be long, and must not keep others from theirs.
    let at_once = worker.policy.at_once;
    let (at_once, of_one) =
        if can_crash { (at_once, at_once - at_once / 4) } else { (WATCHED_AT_ONCE, WATCHED_OF_ONE) };
    let slots = Arc::new(Semaphore::new(at_once));
    let tenants = Arc::new(Tenants::default());
    let signal = worker.store.signal(controller.name());
    let mut steps = JoinSet::new();
    loop {
        while steps.try_join_next().is_some() {}
        let free = slots.available_permits();
        let wait = match worker.store.next_due(controller.name(), worker.claimant.only.as_deref()).await {
            Ok(Some(due)) if due <= 0 && free > 0 => Duration::ZERO,
            Ok(Some(_)) if free == 0 => worker.policy.poll,
            Ok(Some(due)) => Duration::from_millis(due.max(1) as u64).min(worker.policy.poll),
            Ok(None) => worker.policy.poll,
            Err(e) => {
                tracing::warn!(controller = controller.name(), error = %e, "could not look at the queue");
                worker.policy.poll.min(RETRY)
            }
        };
        if !wait.is_zero() {
            tokio::select! {
                () = signal.notified() => {}
                stopped = rest(wait, &mut stop) => if stopped { break },
            }
            continue;
        }
        if *stop.borrow() {
            break;
        }
        let shares = Shares { most: Some(of_one), in_hand: tenants.in_hand() };
        let is_full = shares.in_hand.keys().any(|tenant| shares.room(tenant) == 0);
        let claimant = Claimant { takes_suspects: !can_crash, shares, ..worker.claimant.clone() };
        let claimed = worker.store.claim(controller.name(), &claimant, free.min(worker.policy.at_once)).await;
        let claims = match claimed {
            Ok(claims) => claims,
            Err(e) => {
                tracing::warn!(controller = controller.name(), error = %e, "could not claim");
                if rest(worker.policy.poll.min(RETRY), &mut stop).await {
                    break;
                }
                continue;
            }
        };
        // What is due is in another process's hands just now, or its tenant has its share: to ask again at once would
        // only burden the store.
        if claims.is_empty() {
            let pause = if is_full { worker.policy.poll } else { CONTENDED.min(worker.policy.poll) };
            tokio::select! {
                () = signal.notified(), if is_full => {}
                stopped = rest(pause, &mut stop) => if stopped { break },
            }
        }
        // All of them are renewed from now on, also while they wait for their turn.
        worker.hand().extend(claims.iter().map(|claim| claim.fence.clone()));
        for claim in claims {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let held = match can_crash {
                true => Held::Shared { _guard: worker.gate.clone().read_owned().await },
                false => Held::Nothing,
            };
            let (worker, controller, signal) = (worker.clone(), controller.clone(), signal.clone());
            let (place, stop) = (Tenants::take(&tenants, &claim.work.tenant), stop.clone());
            steps.spawn(async move {
                step(worker, controller, claim, held, stop).await;
                drop((slot, place));
                signal.notify_one();
            });
        }
    }
    while steps.join_next().await.is_some() {}
}

/// How many steps of each tenant are under way.
#[derive(Default)]
struct Tenants(Mutex<HashMap<String, usize>>);

impl Tenants {
    fn in_hand(&self) -> HashMap<String, usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a step until what is returned is dropped.
    fn take(tenants: &Arc<Tenants>, tenant: &str) -> Place {
        let mut counts = tenants.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(tenant.to_owned()).or_default() += 1;
        Place { tenants: tenants.clone(), tenant: tenant.to_owned() }
    }
}

struct Place {
    tenants: Arc<Tenants>,
    tenant: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.tenants.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.tenant);
            }
        }
    }
}

/// One claim, from its first byte of work to its commit. Whatever is logged in it says whose it is.
async fn step(
    worker: Arc<Worker>,
    controller: Arc<dyn Controller>,
    claim: Claim,
    held: Held,
    stop: watch::Receiver<bool>,
) {
    let Fence { work, controller: name, attempt, .. } = &claim.fence;
    // An error's own level: whatever is logged at all has its span.
    let span = tracing::error_span!("step", work, tenant = claim.work.tenant, controller = name, attempt);
    let steps = async {
        let fence = claim.fence.clone();
        worker.hand().insert(fence.clone());
        crash::point(controller.name(), "claimed");
        let result = match take_step(&worker, &controller, &claim, stop).await {
            Ok(advance) => commit(&worker, &fence, advance).await,
            Err(failure) => give_up(&worker, &*controller, &claim, failure).await,
        };
        let was_in_hand = worker.hand().remove(&fence);
        if let Err(e) = result {
            if was_in_hand && matches!(e, Error::Fenced { .. }) {
                worker.leases_lost.fetch_add(1, Ordering::Relaxed);
            }
            // The lease ends, and whoever claims then sees what was committed.
            tracing::warn!(owner = worker.owner.id(), error = %e, "a step was not committed");
        }
    };
    steps.instrument(span).await;
    drop(held);
}

/// The controller's own part; a panic of it is its failure, and not the process's.
async fn take_step(
    worker: &Worker,
    controller: &Arc<dyn Controller>,
    claim: &Claim,
    mut stop: watch::Receiver<bool>,
) -> Result<Advance, Failure> {
    let (store, controller, claim) = (worker.store.clone(), controller.clone(), claim.clone());
    let step = async move { controller.step(&*store, &claim).await };
    let mut task = tokio::spawn(step.in_current_span());
    let grace_ends = async {
        // A worker whose handle has gone is not told to stop any more.
        if stop.wait_for(|stopped| *stopped).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(worker.policy.grace).await;
    };
    let ended = tokio::select! {
        ended = &mut task => ended,
        () = grace_ends => {
            // What it does in a thread goes on until the process ends, and can commit nothing.
            task.abort();
            return Err(Failure::Stopped);
        }
    };
    match ended {
        Ok(result) => result,
        Err(e) if e.is_panic() => {
            let panic = e.into_panic();
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            Err(Failure::Failed(format!("it panicked: {}", text.unwrap_or("no message"))))
        }
        Err(_) => Err(Failure::Stopped),
    }
}

/// Writes until it is written, as long as only the store's state of the moment is against it.
async fn persist<T, F: Future<Output = Result<T, Error>>>(
    worker: &Worker,
    write: impl Fn() -> F,
) -> Result<T, Error> {
    let mut tries = 0;
    loop {
        match write().await {
            Err(e) if e.is_transient() && tries < 10 => {
                tokio::time::sleep(full_jitter(worker.policy.backoff, tries)).await;
                tries += 1;
            }
            other => return other,
        }
    }
}

async fn commit(worker: &Worker, fence: &Fence, advance: Advance) -> Result<(), Error> {
    crash::point(&fence.controller, "before_commit");
    debug_assert!(advance.next != Next::Stay, "a step ends its claim");
    match persist(worker, || worker.store.advance(fence, advance.clone())).await {
        Err(Error::Refused(reason) | Error::Transition(reason)) => {
            // A step that can't be committed is the controller's failure, not its process's.
            let after = full_jitter(worker.policy.backoff, 3);
            let release = Release::Failed { reason, after, failures_max: worker.policy.failures_max };
            persist(worker, || worker.store.release(fence, release.clone())).await
        }
        Err(e) => Err(e),
        Ok(_) => {
            crash::point(&fence.controller, "after_commit");
            Ok(())
        }
    }
}

async fn give_up(
    worker: &Worker,
    controller: &dyn Controller,
    claim: &Claim,
    failure: Failure,
) -> Result<(), Error> {
    let fence = &claim.fence;
    let release = match failure {
        Failure::Store(e @ Error::Fenced { .. }) => return Err(e),
        Failure::Store(e) if e.is_transient() => Release::Wait {
            dependency: "store".into(),
            reason: e.to_string(),
            after: full_jitter(worker.policy.backoff, claim.row.tries.clamp(0, 20) as u32),
        },
        Failure::Down { dependency, reason, after } => {
            let since = claim.waiting_since_ms.unwrap_or(claim.now_ms);
            let waited = Duration::from_millis((claim.now_ms - since).max(0) as u64);
            tracing::info!(dependency, reason, "waits for a dependency");
            if waited > worker.policy.wait_max && !controller.waits_without_end() {
                Release::Park {
                    reason: format!("`{dependency}` was down for {} s: {reason}", waited.as_secs()),
                }
            } else {
                Release::Wait { dependency, reason, after }
            }
        }
        Failure::Park(reason) => Release::Park { reason },
        Failure::Stopped => Release::Yield,
        Failure::Failed(_) | Failure::Store(_) => {
            let reason = failure.to_string();
            tracing::warn!(reason, "a step failed");
            let after = full_jitter(worker.policy.backoff, claim.row.failures.clamp(0, 20) as u32);
            Release::Failed { reason, after, failures_max: worker.policy.failures_max }
        }
    };
    persist(worker, || worker.store.release(fence, release.clone())).await
}
