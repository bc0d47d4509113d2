//! A job as its client sees it.

use crate::controllers;
use dragnet_kernel::coverage::Reason;
use dragnet_pattern::{Error, Row, Statement, Store, Value, Work};
use serde_json::{Value as Json, json};

/// The whole job: status, stage, each controller's own row, progress, digest, cost.
///
/// # Errors
/// Those of the store.
pub async fn of(store: &dyn Store, work: &Work, rows: &[Row]) -> Result<Json, Error> {
    let sql = "select count(*), coalesce(sum(bytes), 0), coalesce(sum(records), 0), coalesce(sum(hits), 0), \
               (select sum(amount_micros) from ledger where work_id = ?1) from settled where work_id = ?1";
    // What nobody has looked at yet has settled nothing: a request that was just accepted costs no query.
    let sums = match rows {
        [] => Vec::new(),
        _ => store.query(Statement::new(sql, vec![work.id.as_str().into()])).await?,
    };
    let sum = |n: usize| sums.first().map_or(0, |row| row[n].int());
    let metric = |controller: &str, name: &str| {
        let row = rows.iter().find(|row| row.controller == controller);
        row.and_then(|row| row.metrics.get(name)).cloned().unwrap_or(Json::Null)
    };
    let total = |name: &str| metric(controllers::LAUNCH, name).as_i64().unwrap_or(0);
    let mut job = summary(work);
    let more = json!({
        "controllers": rows.iter().map(|row| (row.controller.clone(), controller(row))).collect::<serde_json::Map<_, _>>(),
        "progress": {
            "bytes_done": sum(1),
            "bytes_total": total("bytes"),
            "shards_done": sum(0),
            "shards_total": total("shards"),
            "records": sum(2),
            "hits": sum(3),
        },
        "digest": metric(controllers::MONITORING, "digest"),
        "cost_micros": sums.first().filter(|row| row[4] != Value::Null).map(|row| row[4].int()),
        "cut_by": cut_by(rows),
    });
    if let (Json::Object(job), Json::Object(more)) = (&mut job, more) {
        job.extend(more);
    }
    Ok(job)
}

/// The limits that cut the job, by the reasons that its coverage gives: those of the plan from its launch on, all of
/// them from its seal on.
fn cut_by(rows: &[Row]) -> Json {
    let of = |controller: &str| {
        let row = rows.iter().find(|row| row.controller == controller)?;
        row.metrics.get("cut_by").filter(|cut| cut.is_array()).cloned()
    };
    of(controllers::MONITORING).or_else(|| of(controllers::LAUNCH)).unwrap_or_else(|| json!([]))
}

/// A reason as the coverage writes it.
pub(crate) fn reason(reason: Reason) -> String {
    serde_json::to_value(reason).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The spec as it can be posted again: where the service keeps its output is no client's.
fn posted(spec: &Json) -> Json {
    let mut spec = spec.clone();
    if let Some(members) = spec.as_object_mut() {
        members.remove("output");
    }
    spec
}

/// A job in a list.
pub fn summary(work: &Work) -> Json {
    let id = &work.id;
    json!({
        "id": id,
        "status": work.status,
        "stage": if work.status.is_terminal() { "done" } else { &work.stage },
        "tenant": work.tenant,
        "created": time(work.created_ms),
        "started": work.started_ms.map(time),
        "ended": work.ended_ms.map(time),
        "deadline": work.deadline_ms.map(time),
        "cancel_requested": work.cancel,
        "spec": posted(&work.spec),
        "error": work.error,
        "links": {
            "self": format!("/v1/jobs/{id}"),
            "hits": format!("/v1/jobs/{id}/hits"),
            "coverage": format!("/v1/jobs/{id}/coverage"),
            "bill": format!("/v1/jobs/{id}/bill"),
            "events": format!("/v1/jobs/{id}/events"),
        },
    })
}

fn controller(row: &Row) -> Json {
    json!({
        "status": row.step,
        "attempt": row.attempt,
        "started": row.started_ms.map(time),
        "ended": row.ended_ms.map(time),
        "metrics": row.metrics,
        "failures": row.failures,
        "waiting_for": row.waiting_for,
        "error": row.error,
    })
}

/// RFC 3339 with milliseconds.
pub fn time(ms: i64) -> String {
    // Times come from the store's clock, so they are in range.
    format!("{:.3}", jiff::Timestamp::from_millisecond(ms).unwrap_or_default())
}
