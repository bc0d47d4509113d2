//! What a job would read, how long it would take and what it would cost, before anything is spent.
//!
//! The dataset is listed and its objects are looked at as Launch does it, in the same code, so that what was looked
//! at in time is the plan itself. Where time ends first, those that were looked at are spread evenly over the list and
//! stand for the others, and the estimate says that it is incomplete. Nothing is started and nothing is written.

use crate::controllers::{MONITORING, drawn_up};
use crate::dataset::{self, Looked, Named, Resolved};
use crate::guard::Guard;
use crate::rates::Rates;
use crate::spec::{JobSpec, SHARD_BYTES};
use crate::{budget, view};
use dragnet_kernel::coverage::{Class, Reason};
use dragnet_kernel::{Codec, Format};
use dragnet_objects::Policy;
use dragnet_pattern::{Filter, Page, Places, Status, Store};
use dragnet_run::{Object, Plan};
use dragnet_tenant::{self as tenant, Tenant};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// The longest that an estimate takes.
pub const TIME_MAX: Duration = Duration::from_secs(10);
/// Left of it for the sums, and for the answer.
const TIME_FOR_SUMS: Duration = Duration::from_millis(500);
/// Objects that are looked at side by side.
const LOOKS: usize = 16;
/// Estimates that are drawn up at once, and of them those of one tenant, whose slow servers must not keep others from an
/// answer. More wait, and their time runs.
static AT_ONCE: LazyLock<Places> = LazyLock::new(|| Places::new(4, 2));
/// Objects that can't be read and are named one by one; all are counted.
const UNREADABLE_NAMED_MAX: usize = 100;
/// Archives of which some records are counted, and how much of each is read and decoded for it.
const SAMPLES: usize = 8;
const SAMPLE_STORED_BYTES: usize = 256 << 10;
const SAMPLE_DECODED_BYTES: u64 = 4 << 20;
/// What a mapper is taken to read where the store has no job to measure by.
const BYTES_PER_S: u64 = 50_000_000;
/// Jobs that the rate is measured by, and the least that they must have read.
const MEASURED_JOBS: usize = 20;
const MEASURED_BYTES_MIN: u64 = 1 << 20;

/// What a job would come to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Whether the whole dataset was listed and looked at; if not, `notes` says what the numbers stand on.
    pub complete: bool,
    /// Objects of the dataset.
    pub objects: u64,
    /// Of them, those that were looked at.
    pub objects_looked_at: u64,
    /// Their stored bytes.
    pub size: u64,
    /// Stored bytes that would be read.
    pub bytes: u64,
    /// Shards that they would be cut into.
    pub shards: u64,
    /// About how many records, where that can be told from some of them.
    pub records: Option<u64>,
    /// The limits that cut, by the reason that the coverage would give, and the stored bytes that each cuts off.
    pub cut: BTreeMap<String, u64>,
    /// How many objects can't be read.
    pub unreadable: u64,
    /// Some of them.
    pub unreadable_objects: Vec<Unreadable>,
    /// How long it would run on this service if nothing else did.
    pub time: Time,
    /// What it would cost.
    pub price: Price,
    /// What the tenant's budget of this month has left, if it has one.
    pub budget_left_micros: Option<i64>,
    /// Problems that the job would end with, and what the numbers don't say.
    pub notes: Vec<String>,
}

/// An object that can't be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unreadable {
    /// Its URI.
    pub object: String,
    /// As the coverage would say it.
    pub reason: Reason,
    /// More, for a person.
    pub detail: Option<String>,
}

/// How long a job would take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Time {
    /// From its launch to its seal.
    pub seconds: u64,
    /// The rate that this is reckoned by.
    pub bytes_per_s: u64,
    /// Jobs of the tenant that the rate was measured by; 0 where it is only assumed.
    pub measured_jobs: u64,
}

/// What a job would cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// ISO 4217.
    pub currency: String,
    /// The rates that it is reckoned by; the job's are frozen when it is launched.
    pub rates_version: String,
    /// What `bytes` cost, in millionths of the currency.
    pub input_bytes_micros: u64,
    /// What `records` cost.
    pub records_micros: Option<u64>,
    /// What hits would cost at most: of a job with a limit on them, or where they cost nothing.
    pub hits_micros_max: Option<u64>,
    /// The sum of what is known.
    pub total_micros: u64,
}

/// Why there is no estimate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The job would fail, for this reason.
    #[error(transparent)]
    Dataset(#[from] dataset::Error),
    /// A limit that can't be kept in advance.
    #[error("{0}")]
    Limits(String),
    /// The dataset holds nothing.
    #[error("the dataset holds no file")]
    Empty,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] dragnet_pattern::Error),
}

/// What has been seen of a dataset so far.
#[derive(Default)]
struct Seen {
    names: Vec<Arc<Named>>,
    /// Whether these are all.
    listed: bool,
    /// What was looked at, by its place in `names`.
    looked: BTreeMap<usize, Looked>,
    /// Of archives some records: stored bytes, and how many records they held.
    sampled: Vec<(u64, u64)>,
    error: Option<dataset::Error>,
    /// A server that does not serve now.
    away: Option<String>,
}

type Shared = Arc<(Mutex<Seen>, AtomicBool)>;

/// Estimates a job of a tenant, within `time_max`.
///
/// # Errors
/// See [`Error`]: the job would fail at its launch.
pub async fn estimate(
    store: &dyn Store,
    tenant: &str,
    spec: &JobSpec,
    (rates, guard): (&Rates, &Guard),
    time_max: Duration,
) -> Result<Estimate, Error> {
    let ends = Instant::now() + time_max.saturating_sub(TIME_FOR_SUMS);
    let asks = tenant;
    let tenant = tenant::find(store, tenant).await?;
    let policy = tenant.as_ref().map(|tenant| guard.policy(tenant)).unwrap_or_default();
    let left = match &tenant {
        Some(tenant) => budget::left(store, tenant, &budget::month_of(tenant::now_ms())).await?,
        None => None,
    };
    let not_kept = tenant.as_ref().and_then(|tenant| budget::not_kept(tenant, rates, spec.limits.hits));
    if let Some(detail) = not_kept {
        return Err(Error::Limits(detail));
    }
    let (rate, measured_jobs) = measured(store, tenant.as_ref()).await?;
    let shared = Shared::default();
    let (sees, sought) = (shared.clone(), spec.clone());
    let looking = async move {
        // A turn goes back when the thread ends, not when nobody waits for it any more.
        let Some(turn) = AT_ONCE.wait(asks).await else { return };
        let _ = tokio::task::spawn_blocking(move || {
            look_around(&policy, &sought, ends, &sees);
            drop(turn);
        })
        .await;
    };
    // A server that does not answer holds the thread, not the estimate.
    let _ = tokio::time::timeout_at(ends.into(), looking).await;
    shared.1.store(true, Ordering::Relaxed);
    let seen = std::mem::take(&mut *locked(&shared));
    let mut estimate = sums(spec, rates, seen)?;
    estimate.time = Time { seconds: estimate.bytes.div_ceil(rate), bytes_per_s: rate, measured_jobs };
    estimate.budget_left_micros = left;
    if left.is_some_and(|left| i64::try_from(estimate.price.total_micros).is_ok_and(|price| price > left)) {
        estimate.notes.push("the price is more than what is left of the budget: the job would fail".into());
    }
    let bytes_max = tenant.and_then(|tenant| tenant.settings.job_bytes);
    if bytes_max.is_some_and(|max| estimate.bytes > max) {
        estimate
            .notes
            .push("these are more bytes than a job of the tenant may read: the job would fail".into());
    }
    Ok(estimate)
}

/// Lists the dataset for at most half the time, then looks at what was listed until time ends.
fn look_around(policy: &Policy, spec: &JobSpec, ends: Instant, shared: &Shared) {
    let half = Instant::now() + ends.saturating_duration_since(Instant::now()) / 2;
    std::thread::scope(|scope| {
        let (listed, until_listed) = mpsc::channel::<()>();
        // A server that does not answer holds the listing, and not the looks at what was listed before.
        scope.spawn(move || {
            list(policy, spec, half, shared);
            drop(listed);
        });
        let _ = until_listed.recv_timeout(half.saturating_duration_since(Instant::now()));
        look_at_all(policy, ends, shared);
    });
}

fn locked(shared: &Shared) -> MutexGuard<'_, Seen> {
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_over(ends: Instant, shared: &Shared) -> bool {
    shared.1.load(Ordering::Relaxed) || Instant::now() >= ends
}

fn list(policy: &Policy, spec: &JobSpec, ends: Instant, shared: &Shared) {
    let mut cut_short = false;
    let listed = dataset::objects(policy, &spec.dataset, spec.sample, &mut |named| {
        locked(shared).names.push(Arc::new(named));
        cut_short = is_over(ends, shared);
        !cut_short
    });
    match listed {
        Ok(()) => locked(shared).listed = !cut_short,
        // The job would wait for it, and what was listed before it went away is not all.
        Err(e @ dataset::Error::Away { .. }) => locked(shared).away = Some(e.to_string()),
        Err(e) => locked(shared).error = Some(e),
    }
}

fn look_at_all(policy: &Policy, ends: Instant, shared: &Shared) {
    let names = locked(shared).names.clone();
    let (next, stride) = (AtomicUsize::new(0), stride(names.len()));
    let look = || {
        while !is_over(ends, shared) && locked(shared).error.is_none() {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= names.len() {
                return;
            }
            let place = (n as u128 * stride as u128 % names.len() as u128) as usize;
            match dataset::look(policy, &names[place].place) {
                Ok(looked) => {
                    let sample = (n < SAMPLES).then(|| sampled(policy, &looked)).flatten();
                    let mut seen = locked(shared);
                    seen.sampled.extend(sample);
                    seen.looked.insert(place, looked);
                }
                Err(e) => drop(locked(shared).away.get_or_insert(e.to_string())),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..LOOKS.min(names.len()) {
            scope.spawn(look);
        }
    });
}

/// A step that visits every place of a list once and is spread evenly at any time: next to the golden section.
fn stride(len: usize) -> usize {
    let gcd = |mut a: usize, mut b: usize| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let near = (len as f64 * 0.618_033_988_75) as usize;
    (near.max(1)..).find(|step| gcd(*step, len) == 1).unwrap_or(1)
}

/// Counts the records at the beginning of an archive: the stored bytes of which this is known, and how many records.
fn sampled(policy: &Policy, (object, gap): &Looked) -> Option<(u64, u64)> {
    if gap.is_some() || object.kind.format != Format::Warc {
        return None;
    }
    let wanted = object.size.min(SAMPLE_STORED_BYTES as u64);
    let opened = dragnet_run::open(policy, object, wanted).ok()?;
    let mut stored = vec![0; wanted as usize];
    let n = dragnet_kernel::ReadAt::read_at(&opened.blob, 0, &mut stored).ok()?;
    stored.truncate(n);
    match object.kind.codec {
        Codec::Plain => Some((n as u64, records_in(&stored))),
        Codec::Gzip => {
            let mut decoded = Vec::new();
            let mut decoder = flate2::bufread::MultiGzDecoder::new(&*stored);
            // The last member is cut off, which ends it with an error.
            let _ = Read::by_ref(&mut decoder).take(SAMPLE_DECODED_BYTES).read_to_end(&mut decoded);
            let read = stored.len() - decoder.get_ref().len();
            Some((read as u64, records_in(&decoded)))
        }
        _ => None,
    }
}

fn records_in(decoded: &[u8]) -> u64 {
    let begins = |(n, window): &(usize, &[u8])| *window == b"WARC/1." && (*n == 0 || decoded[n - 1] == b'\n');
    decoded.windows(7).enumerate().filter(begins).count() as u64
}

/// What was seen, added up; where it is not all, it stands for the rest.
fn sums(spec: &JobSpec, rates: &Rates, seen: Seen) -> Result<Estimate, Error> {
    if let Some(e) = seen.error {
        return Err(e.into());
    }
    if seen.listed && seen.names.is_empty() {
        return Err(Error::Empty);
    }
    let (named, looked_at) = (seen.names.len() as u64, seen.looked.len() as u64);
    let all_looked = named == looked_at;
    let mut notes = Vec::new();
    if !seen.listed {
        notes
            .push("time ended before the whole dataset was listed: there are more objects than these".into());
    }
    if !all_looked {
        notes
            .push(format!("{looked_at} of {named} objects were looked at in time, and stand for the others"));
    }
    notes.extend(seen.away);
    let mut resolved = Resolved::default();
    for (place, (object, gap)) in seen.looked {
        let at = resolved.objects.len();
        resolved.objects.push(Object { stated: seen.names[place].stated.clone(), ..object });
        resolved.skipped.extend(gap.map(|gap| (at, gap)));
    }
    let unread: Vec<Unreadable> = resolved
        .skipped
        .iter()
        .filter(|(_, skip)| skip.class == Class::Lost)
        .map(|(at, skip)| {
            let object = resolved.objects[*at].uri.clone();
            Unreadable { object, reason: skip.reason, detail: skip.detail.clone() }
        })
        .collect();
    let for_all = |n: u64| scaled(n, named, looked_at);
    let seen_size: u64 = resolved.objects.iter().map(|object| object.size).sum();
    let (size, shard_bytes) = (for_all(seen_size), spec.shard_bytes.unwrap_or(SHARD_BYTES).max(1));
    let (bytes, shards, cut) = if all_looked {
        let plan = drawn_up(spec, rates, resolved).map_err(Error::Limits)?;
        (plan.bytes(), plan.shards.len() as u64, cuts_of(&plan))
    } else {
        let (bytes, cut) = cut_at(spec, rates, size)?;
        (bytes, bytes.div_ceil(shard_bytes).max(u64::from(bytes > 0)), cut)
    };
    let (sample_bytes, sample_records) = seen.sampled.iter().fold((0, 0), |(b, r), (x, y)| (b + x, r + y));
    let records = (sample_bytes > 0).then(|| scaled(sample_records, bytes, sample_bytes));
    if records.is_some() {
        notes.push(format!("records are reckoned from the first ones of {} archives", seen.sampled.len()));
    }
    let price = price(spec, rates, bytes, records, &mut notes);
    Ok(Estimate {
        complete: seen.listed && all_looked,
        objects: named,
        objects_looked_at: looked_at,
        size,
        bytes,
        shards,
        records,
        cut,
        unreadable: for_all(unread.len() as u64),
        unreadable_objects: unread.into_iter().take(UNREADABLE_NAMED_MAX).collect(),
        time: Time { seconds: 0, bytes_per_s: 0, measured_jobs: 0 },
        price,
        budget_left_micros: None,
        notes,
    })
}

/// `n` of `part`, for all of `whole`.
fn scaled(n: u64, whole: u64, part: u64) -> u64 {
    if part == 0 || part == whole {
        return n;
    }
    u64::try_from(u128::from(n) * u128::from(whole) / u128::from(part)).unwrap_or(u64::MAX)
}

/// What the limits cut off in a plan.
fn cuts_of(plan: &Plan) -> BTreeMap<String, u64> {
    let mut cut = BTreeMap::new();
    for (_, skip) in plan.skipped.iter().filter(|(_, skip)| skip.class == Class::Cut) {
        *cut.entry(view::reason(skip.reason)).or_default() += skip.length;
    }
    cut
}

/// The same where only the size is known.
fn cut_at(spec: &JobSpec, rates: &Rates, size: u64) -> Result<(u64, BTreeMap<String, u64>), Error> {
    let by_cost = match spec.limits.cost_micros {
        Some(micros) => rates.bytes_for(micros).map_err(Error::Limits)?,
        None => None,
    };
    let limits = [(spec.limits.input_bytes, Reason::BytesCap), (by_cost, Reason::CostCap)];
    let least =
        limits.into_iter().filter_map(|(limit, reason)| Some((limit?, reason))).min_by_key(|(n, _)| *n);
    Ok(match least {
        Some((limit, reason)) if limit < size => (limit, [(view::reason(reason), size - limit)].into()),
        _ => (size, BTreeMap::new()),
    })
}

fn price(spec: &JobSpec, rates: &Rates, bytes: u64, records: Option<u64>, notes: &mut Vec<String>) -> Price {
    let of = |name: &str, quantity: Option<u64>| {
        let meters = || rates.meter.iter().filter(|meter| meter.name == name && meter.price_micros > 0);
        match quantity {
            Some(quantity) => {
                let amounts = meters().map(|meter| meter.amount_micros(quantity));
                Some(amounts.fold(0, u64::saturating_add))
            }
            None => meters().next().is_none().then_some(0),
        }
    };
    let input_bytes_micros = of("input_bytes", Some(bytes)).unwrap_or(0);
    let (records_micros, hits_micros_max) = (of("records", records), of("hits", spec.limits.hits));
    for (name, known) in [("records", records_micros), ("hits", hits_micros_max)] {
        if known.is_none() {
            notes.push(format!(
                "`{name}` have a price, and how many there will be is not known: it comes on top"
            ));
        }
    }
    let known = [records_micros, hits_micros_max].into_iter().flatten();
    let total_micros = known.fold(input_bytes_micros, u64::saturating_add);
    let (currency, rates_version) = (rates.currency.clone(), rates.version.clone());
    Price { currency, rates_version, input_bytes_micros, records_micros, hits_micros_max, total_micros }
}

/// Bytes per second of the tenant's last jobs, from launch to seal, and of how many.
async fn measured(store: &dyn Store, tenant: Option<&Tenant>) -> Result<(u64, u64), Error> {
    let Some(tenant) = tenant else { return Ok((BYTES_PER_S, 0)) };
    let filter = Filter { status: Some(Status::Completed), ..Filter::default() };
    let works = store.works(&tenant.id, filter, Page { limit: MEASURED_JOBS, after: None }).await?;
    let (mut bytes, mut ms, mut jobs) = (0, 0, 0);
    for work in works {
        let Some((_, rows)) = store.work(&tenant.id, &work.id).await? else { continue };
        let Some(row) = rows.iter().find(|row| row.controller == MONITORING) else { continue };
        let read = row.metrics.get("bytes_done").and_then(serde_json::Value::as_u64).unwrap_or(0);
        // Monitoring does nothing but look once more after its seal.
        let took = row.started_ms.zip(work.ended_ms).map(|(begun, ended)| ended - begun);
        if let Some(took) = took.filter(|took| *took > 0 && read >= MEASURED_BYTES_MIN) {
            (bytes, ms, jobs) = (bytes + read, ms + took.unsigned_abs(), jobs + 1);
        }
    }
    Ok(if jobs == 0 { (BYTES_PER_S, 0) } else { ((bytes * 1000 / ms).max(1), jobs) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tenant_has_no_more_than_its_share_of_turns() {
        let soon = |tenant| tokio::time::timeout(Duration::from_secs(1), AT_ONCE.wait(tenant));
        let slow = [soon("slow").await, soon("slow").await];
        assert!(slow.iter().all(Result::is_ok));
        assert!(soon("slow").await.is_err(), "a third of one tenant waits");
        assert!(soon("other").await.is_ok(), "and another's first does not");
        drop(slow);
        assert!(soon("slow").await.is_ok());
    }

    #[test]
    fn a_stride_visits_every_place_once() {
        for len in [1, 2, 3, 10, 97, 1000, 90_000] {
            let step = stride(len);
            let mut places: Vec<usize> = (0..len).map(|n| n * step % len).collect();
            let spread = places.iter().take(len / 4).filter(|place| **place < len / 2).count();
            assert!(len < 97 || spread.abs_diff(len / 8) <= len / 40, "{len}: {spread} of the first quarter");
            places.sort_unstable();
            assert_eq!(places, (0..len).collect::<Vec<_>>(), "{len}");
        }
    }
}
