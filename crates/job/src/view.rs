//! A job as its client sees it.
//!
//! What is shown borrows what the store gave, and is written straight into the answer: every submission and every look
//! at a job comes through here, and a tree of JSON in between took longer than all else of it.

use crate::controllers;
use dragnet_kernel::coverage::Reason;
use dragnet_pattern::{Error, Row, Statement, Status, Step, Store, Value, Work};
use serde::{Serialize, Serializer};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fmt;

/// A job in a list.
#[derive(Debug, Serialize)]
pub struct Summary<'a> {
    id: &'a str,
    status: Status,
    stage: &'a str,
    tenant: &'a str,
    created: Time,
    started: Option<Time>,
    ended: Option<Time>,
    deadline: Option<Time>,
    cancel_requested: bool,
    #[serde(serialize_with = "posted")]
    spec: &'a Json,
    error: Option<&'a Json>,
    links: Links<'a>,
}

/// The whole job: what a list says of it, each controller's own row, progress, digest, cost.
#[derive(Debug, Serialize)]
pub struct Job<'a> {
    #[serde(flatten)]
    summary: Summary<'a>,
    controllers: BTreeMap<&'a str, Controller<'a>>,
    progress: Progress,
    digest: Option<&'a Json>,
    cost_micros: Option<i64>,
    cut_by: &'a [Json],
}

#[derive(Debug, Serialize)]
struct Controller<'a> {
    status: Step,
    attempt: i64,
    started: Option<Time>,
    ended: Option<Time>,
    metrics: &'a Json,
    failures: i64,
    waiting_for: Option<&'a str>,
    error: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Progress {
    bytes_done: i64,
    bytes_total: i64,
    shards_done: i64,
    shards_total: i64,
    records: i64,
    hits: i64,
}

#[derive(Debug, Serialize)]
struct Links<'a> {
    #[serde(rename = "self")]
    itself: Link<'a>,
    hits: Link<'a>,
    coverage: Link<'a>,
    bill: Link<'a>,
    events: Link<'a>,
}

/// The path of a job, or of a part of it.
#[derive(Debug)]
struct Link<'a>(&'a str, &'static str);

/// RFC 3339 with milliseconds, of milliseconds since 1970.
#[derive(Debug)]
struct Time(i64);

/// The whole job.
///
/// # Errors
/// Those of the store.
pub async fn of<'a>(store: &dyn Store, work: &'a Work, rows: &'a [Row]) -> Result<Job<'a>, Error> {
    let sql = "select count(*), coalesce(sum(bytes), 0), coalesce(sum(records), 0), coalesce(sum(hits), 0), \
               (select sum(amount_micros) from ledger where work_id = ?1) from settled where work_id = ?1";
    // What nobody has looked at yet has settled nothing: a request that was just accepted costs no query.
    let sums = match rows {
        [] => Vec::new(),
        _ => store.query(Statement::new(sql, vec![work.id.as_str().into()])).await?,
    };
    let sum = |n: usize| sums.first().map_or(0, |row| row[n].int());
    let metric = |controller: &str, name: &str| {
        rows.iter().find(|row| row.controller == controller).and_then(|row| row.metrics.get(name))
    };
    let total = |name: &str| metric(controllers::LAUNCH, name).and_then(Json::as_i64).unwrap_or(0);
    // The limits that cut the job, by the reasons that its coverage gives: those of the plan from its launch on, all
    // of them from its seal on.
    let cut_by = |controller| metric(controller, "cut_by").and_then(Json::as_array);
    Ok(Job {
        summary: summary(work),
        controllers: rows.iter().map(|row| (row.controller.as_str(), controller(row))).collect(),
        progress: Progress {
            bytes_done: sum(1),
            bytes_total: total("bytes"),
            shards_done: sum(0),
            shards_total: total("shards"),
            records: sum(2),
            hits: sum(3),
        },
        digest: metric(controllers::MONITORING, "digest"),
        cost_micros: sums.first().filter(|row| row[4] != Value::Null).map(|row| row[4].int()),
        cut_by: cut_by(controllers::MONITORING)
            .or_else(|| cut_by(controllers::LAUNCH))
            .map_or(&[], Vec::as_slice),
    })
}

/// A job in a list.
pub fn summary(work: &Work) -> Summary<'_> {
    let id = work.id.as_str();
    Summary {
        id,
        status: work.status,
        stage: if work.status.is_terminal() { "done" } else { &work.stage },
        tenant: &work.tenant,
        created: Time(work.created_ms),
        started: work.started_ms.map(Time),
        ended: work.ended_ms.map(Time),
        deadline: work.deadline_ms.map(Time),
        cancel_requested: work.cancel,
        spec: &work.spec,
        error: work.error.as_ref(),
        links: Links {
            itself: Link(id, ""),
            hits: Link(id, "/hits"),
            coverage: Link(id, "/coverage"),
            bill: Link(id, "/bill"),
            events: Link(id, "/events"),
        },
    }
}

fn controller(row: &Row) -> Controller<'_> {
    Controller {
        status: row.step,
        attempt: row.attempt,
        started: row.started_ms.map(Time),
        ended: row.ended_ms.map(Time),
        metrics: &row.metrics,
        failures: row.failures,
        waiting_for: row.waiting_for.as_deref(),
        error: row.error.as_deref(),
    }
}

/// The spec as it can be posted again: where the service keeps its output is no client's.
fn posted<S: Serializer>(spec: &Json, serializer: S) -> Result<S::Ok, S::Error> {
    match spec {
        Json::Object(members) => serializer.collect_map(members.iter().filter(|(name, _)| *name != "output")),
        other => other.serialize(serializer),
    }
}

/// A reason as the coverage writes it.
pub(crate) fn reason(reason: Reason) -> String {
    serde_json::to_value(reason).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// RFC 3339 with milliseconds.
pub fn time(ms: i64) -> String {
    Time(ms).to_string()
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Times come from the store's clock, so they are in range.
        write!(f, "{:.3}", jiff::Timestamp::from_millisecond(self.0).unwrap_or_default())
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Link<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Link(id, part) = self;
        serializer.collect_str(&format_args!("/v1/jobs/{id}{part}"))
    }
}
