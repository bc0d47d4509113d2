//! What a service counts of itself, in the text format that Prometheus reads (OpenMetrics 1.0).
//!
//! For each controller the four golden signals: how long steps take, how many there are, how they end and how many are
//! under way. What stands in the store (queues, works that wait) is asked for when somebody looks, so that all
//! processes of a store say the same. Labels are names of our own and of dependencies: never a job, a tenant or a match.

use dragnet_pattern::{Failure, Group, Statement, Store};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::{
    counter::Counter,
    family::Family,
    gauge::Gauge,
    histogram::{Histogram, exponential_buckets},
    info::Info,
};
use prometheus_client::registry::{Registry, Unit};
use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The longest that a look into the store may take.
const STORE_TIME: Duration = Duration::from_secs(2);
/// The most dependencies that are shown: servers of datasets are among them, and there may be many.
const DEPENDENCIES_MAX: i64 = 50;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Controlled {
    controller: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    controller: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Queue {
    group: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Needed {
    dependency: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    method: &'static str,
    route: Cow<'static, str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: Cow<'static, str>,
    status: u16,
}

/// A histogram from half a millisecond to a minute and a half.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.5, 14))
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// All that is counted.
pub(crate) struct Metrics {
    registry: Registry,
    steps: Family<Ended, Counter>,
    step_seconds: Histograms<Controlled>,
    steps_under_way: Family<Controlled, Gauge>,
    leases_lost: Counter,
    queued: Family<Queue, Gauge>,
    queue_age: Family<Queue, Gauge<f64, AtomicU64>>,
    waiting: Family<Needed, Gauge>,
    up: Family<Needed, Gauge>,
    mappers: Gauge,
    draining: Gauge,
    requests: Family<Answered, Counter>,
    request_seconds: Histograms<Route>,
    /// One look at a time: what is gone since the last one is cleared first.
    looking: tokio::sync::Mutex<()>,
}

impl Metrics {
    pub(crate) fn new(mappers: usize, at_once: usize) -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("dragnet"),
            steps: Family::default(),
            step_seconds: Family::new_with_constructor(seconds),
            steps_under_way: Family::default(),
            leases_lost: Counter::default(),
            queued: Family::default(),
            queue_age: Family::default(),
            waiting: Family::default(),
            up: Family::default(),
            mappers: Gauge::default(),
            draining: Gauge::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds),
            looking: tokio::sync::Mutex::default(),
        };
        let r = &mut metrics.registry;
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        r.register("build", "This program", version);
        let (mappers_max, steps_max): (Gauge, Gauge) = Default::default();
        mappers_max.set(i64::try_from(mappers).unwrap_or(i64::MAX));
        steps_max.set(i64::try_from(at_once).unwrap_or(i64::MAX));
        r.register("mappers_running", "Mappers that this process runs now", metrics.mappers.clone());
        r.register("mappers_max", "Mappers that this process runs at once", mappers_max);
        r.register("controller_steps_max", "Steps that one controller takes at once", steps_max);
        r.register("controller_steps", "Steps that ended, by how", metrics.steps.clone());
        r.register_with_unit(
            "controller_step",
            "How long steps took",
            Unit::Seconds,
            metrics.step_seconds.clone(),
        );
        r.register("controller_steps_under_way", "Steps under way", metrics.steps_under_way.clone());
        r.register(
            "leases_lost",
            "Claims that this process lost to another before it was done",
            metrics.leases_lost.clone(),
        );
        r.register("queue_messages", "Messages that a group has not consumed", metrics.queued.clone());
        r.register_with_unit(
            "queue_oldest",
            "For how long the oldest message of a group has been due",
            Unit::Seconds,
            metrics.queue_age.clone(),
        );
        r.register("works_waiting", "Controllers' rows that wait for a dependency", metrics.waiting.clone());
        r.register("dependency_up", "Whether this process can use it: 1, or 0", metrics.up.clone());
        r.register("draining", "Whether this process is about to stop: 1, or 0", metrics.draining.clone());
        r.register("http_requests", "Requests that were answered", metrics.requests.clone());
        r.register_with_unit(
            "http_request",
            "How long answers took to begin",
            Unit::Seconds,
            metrics.request_seconds.clone(),
        );
        metrics
    }

    /// A controller is about to take a step; what is returned is told how it ended.
    pub(crate) fn step_begins(&self, controller: &'static str) -> StepUnderWay<'_> {
        self.steps_under_way.get_or_create(&Controlled { controller }).inc();
        StepUnderWay { metrics: self, controller, begun: Instant::now(), outcome: "lost" }
    }

    /// A request was answered.
    pub(crate) fn answered(
        &self,
        method: &axum::http::Method,
        route: Cow<'static, str>,
        status: u16,
        took: Duration,
    ) {
        let method = match method.as_str() {
            "GET" => "GET",
            "POST" => "POST",
            "HEAD" => "HEAD",
            "OPTIONS" => "OPTIONS",
            "DELETE" => "DELETE",
            // A client may call its method whatever it likes.
            _ => "other",
        };
        self.request_seconds
            .get_or_create(&Route { method, route: route.clone() })
            .observe(took.as_secs_f64());
        self.requests.get_or_create(&Answered { method, route, status }).inc();
    }

    /// All of it as text. Health is what was just found out; what the store does not say in time is left out.
    pub(crate) async fn text(
        &self,
        store: &dyn Store,
        leases_lost: u64,
        health: &[(&'static str, bool)],
        mappers: usize,
        draining: bool,
    ) -> String {
        let _looking = self.looking.lock().await;
        self.leases_lost.inner().store(leases_lost, Ordering::Relaxed);
        self.draining.set(draining.into());
        self.mappers.set(i64::try_from(mappers).unwrap_or(i64::MAX));
        for (dependency, is_up) in health {
            let needed = Needed { dependency: (*dependency).to_owned() };
            self.up.get_or_create(&needed).set(i64::from(*is_up));
        }
        self.queued.clear();
        self.queue_age.clear();
        self.waiting.clear();
        match tokio::time::timeout(STORE_TIME, from_store(store)).await {
            Ok(Ok((groups, waiting))) => self.fill(groups, waiting),
            Ok(Err(e)) => tracing::warn!(error = %e, "could not read queues for the metrics"),
            Err(_) => tracing::warn!("could not read queues for the metrics in time"),
        }
        let mut text = String::new();
        // A string takes all that is written.
        let _ = text::encode(&mut text, &self.registry);
        text
    }

    fn fill(&self, groups: Vec<Group>, waiting: Vec<(String, i64)>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        for group in groups {
            let queue = Queue { group: group.name };
            self.queued.get_or_create(&queue).set(group.waiting);
            let age_ms = group.oldest_ms.map_or(0, |oldest| (now_ms - oldest).max(0));
            self.queue_age.get_or_create(&queue).set(age_ms as f64 / 1000.0);
        }
        for (dependency, rows) in waiting {
            self.waiting.get_or_create(&Needed { dependency }).set(rows);
        }
    }
}

async fn from_store(store: &dyn Store) -> Result<(Vec<Group>, Vec<(String, i64)>), dragnet_pattern::Error> {
    let groups = store.groups().await?;
    let sql = "select waiting_for, count(*) from controller where waiting_for is not null \
               group by waiting_for order by 2 desc, 1 limit ?1";
    let rows = store.query(Statement::new(sql, vec![DEPENDENCIES_MAX.into()])).await?;
    Ok((groups, rows.iter().map(|row| (row[0].text().to_owned(), row[1].int())).collect()))
}

/// A step that has not ended: lost, if nobody says more.
pub(crate) struct StepUnderWay<'a> {
    metrics: &'a Metrics,
    controller: &'static str,
    begun: Instant,
    outcome: &'static str,
}

impl StepUnderWay<'_> {
    pub(crate) fn ended<T>(&mut self, result: &Result<T, Failure>) {
        self.outcome = match result {
            Ok(_) => "advanced",
            Err(Failure::Down { .. }) => "waits",
            Err(Failure::Failed(_)) => "failed",
            Err(Failure::Park(_)) => "parked",
            Err(Failure::Stopped) => "stopped",
            Err(Failure::Store(_)) => "store",
        };
    }
}

impl Drop for StepUnderWay<'_> {
    fn drop(&mut self) {
        let controller = self.controller;
        self.metrics.steps_under_way.get_or_create(&Controlled { controller }).dec();
        self.metrics
            .step_seconds
            .get_or_create(&Controlled { controller })
            .observe(self.begun.elapsed().as_secs_f64());
        self.metrics.steps.get_or_create(&Ended { controller, outcome: self.outcome }).inc();
    }
}
