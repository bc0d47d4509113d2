//! What the store is asked without changing it.

use super::{Cells, Db, Param, params};
use crate::store::{Claim, Event, Fence, Filter, Group, Message, Row, Statement, Value, Work};
use crate::{Error, Status, Step};
use std::collections::HashMap;

const WORK: &str = "select id, tenant, kind, spec, stage, status, outcome, error, cancel, created_ms, started_ms, \
                    ended_ms, deadline_ms, events, priority from work";
const ROW: &str = "name, step, attempt, failures, tries, waiting_for, metrics, memo, error, settled, \
                   started_ms, ended_ms";

fn work_of(mut row: Cells) -> Work {
    Work {
        id: row.text(),
        tenant: row.text(),
        kind: row.text(),
        spec: json(row.text()),
        stage: row.text(),
        status: status(&row.text()),
        outcome: row.maybe_text().map(|name| status(&name)),
        error: row.maybe_text().map(json),
        cancel: row.is(),
        created_ms: row.int(),
        started_ms: row.maybe_int(),
        ended_ms: row.maybe_int(),
        deadline_ms: row.maybe_int(),
        events: row.int(),
        priority: row.int(),
    }
}

fn row_of(mut row: Cells) -> Row {
    Row {
        controller: row.text(),
        step: Step::parse(&row.text()).unwrap_or(Step::Waiting),
        attempt: row.int(),
        failures: row.int(),
        tries: row.int(),
        waiting_for: row.maybe_text(),
        metrics: json(row.text()),
        memo: json(row.text()),
        error: row.maybe_text(),
        settled: row.is(),
        started_ms: row.maybe_int(),
        ended_ms: row.maybe_int(),
    }
}

/// Every text that is read here was written by this module; the schema's CHECK guards the names.
fn status(name: &str) -> Status {
    Status::parse(name).unwrap_or(Status::Accepted)
}

fn json(text: String) -> serde_json::Value {
    serde_json::from_str(&text).unwrap_or(serde_json::Value::Null)
}

/// All rows that a statement gives, as `of` reads them.
pub(super) fn all<T>(
    db: &mut dyn Db,
    sql: &str,
    values: &[Param<'_>],
    mut of: impl FnMut(Cells) -> T,
) -> Result<Vec<T>, Error> {
    Ok(db.query(sql, values)?.into_iter().map(|row| of(Cells::of(row))).collect())
}

/// The first row that a statement gives.
pub(super) fn first(db: &mut dyn Db, sql: &str, values: &[Param<'_>]) -> Result<Option<Cells>, Error> {
    Ok(db.query(sql, values)?.into_iter().next().map(Cells::of))
}

pub(super) fn work_by_id(db: &mut dyn Db, id: &str) -> Result<Option<Work>, Error> {
    Ok(first(db, &format!("{WORK} where id = ?1"), params![id])?.map(work_of))
}

pub(super) fn work_of_tenant(db: &mut dyn Db, tenant: &str, id: &str) -> Result<Work, Error> {
    let work = first(db, &format!("{WORK} where id = ?1 and tenant = ?2"), params![id, tenant])?;
    work.map(work_of).ok_or_else(|| Error::NoSuchWork(id.to_owned()))
}

fn rows(db: &mut dyn Db, work: &str) -> Result<Vec<Row>, Error> {
    let sql = format!("select {ROW} from controller where work_id = ?1 order by name");
    all(db, &sql, params![work], row_of)
}

/// The part of a statement that compares with a list, which is its first value.
pub(super) fn among(db: &dyn Db) -> &'static str {
    match db.is_shared() {
        true => "= any(array(select json_array_elements_text(cast(?1::text as json))))",
        false => "in (select value from json_each(?1))",
    }
}

/// A list as a value, for [`among`].
pub(super) fn list(texts: &[String]) -> String {
    serde_json::Value::from(texts).to_string()
}

/// What a controller is given with its claims, in the order of the fences, which are all of it.
pub(super) fn claims(db: &mut dyn Db, fences: Vec<Fence>, now_ms: i64) -> Result<Vec<Claim>, Error> {
    let ids: Vec<String> = fences.iter().map(|fence| fence.work.clone()).collect();
    let (these, ids) = (among(db), list(&ids));
    let works = all(db, &format!("{WORK} where id {these}"), params![&ids], work_of)?;
    let mut works: HashMap<String, Work> = works.into_iter().map(|work| (work.id.clone(), work)).collect();
    let sql = format!(
        "select work_id, waiting_since_ms, {ROW} from controller where work_id {these} order by work_id, name"
    );
    let mut rows: HashMap<String, Vec<(Option<i64>, Row)>> = HashMap::new();
    for (work, since, row) in
        all(db, &sql, params![&ids], |mut row| (row.text(), row.maybe_int(), row_of(row)))?
    {
        rows.entry(work).or_default().push((since, row));
    }
    let claims = fences.into_iter().filter_map(|fence| {
        let work = works.remove(&fence.work)?;
        let (own, others): (Vec<_>, Vec<_>) =
            rows.remove(&fence.work)?.into_iter().partition(|(_, row)| row.controller == fence.controller);
        let (waiting_since_ms, row) = own.into_iter().next()?;
        let others = others.into_iter().map(|(_, row)| row).collect();
        Some(Claim { work, row, others, fence, now_ms, waiting_since_ms })
    });
    Ok(claims.collect())
}

/// The lanes of a group in which anything waits, and when the first of each falls due: each is one jump in an index.
pub(super) fn lanes(db: &mut dyn Db, group: &str) -> Result<Vec<(String, i64)>, Error> {
    let sql = "with recursive lanes (lane) as ( \
                 select min(lane) from delivery where group_name = ?1 \
                 union all \
                 select (select min(d.lane) from delivery d where d.group_name = ?1 and d.lane > lanes.lane) \
                 from lanes where lanes.lane is not null) \
               select lane, (select min(d.due_ms) from delivery d where d.group_name = ?1 and d.lane = lanes.lane) \
               from lanes where lane is not null";
    let found = all(db, sql, params![group], |mut row| (row.text(), row.maybe_int()))?;
    Ok(found.into_iter().filter_map(|(lane, due_ms)| Some((lane, due_ms?))).collect())
}

pub(super) fn work_and_rows(
    db: &mut dyn Db,
    tenant: &str,
    id: &str,
) -> Result<Option<(Work, Vec<Row>)>, Error> {
    match work_of_tenant(db, tenant, id) {
        Ok(work) => Ok(Some((work, rows(db, id)?))),
        Err(Error::NoSuchWork(_)) => Ok(None),
        Err(e) => Err(e),
    }
}

pub(super) fn works(
    db: &mut dyn Db,
    tenant: &str,
    filter: Filter,
    limit: usize,
    after: Option<String>,
) -> Result<Vec<Work>, Error> {
    // Ids grow with time, so their order is the order of acceptance.
    let mut below = after.unwrap_or_else(|| "~".into());
    if let Some(ms) = filter.created_before_ms {
        below = below.min(first_id(ms.saturating_add(CLOCKS_APART_MS)));
    }
    let above = filter.created_after_ms.map(|ms| first_id(ms.saturating_sub(CLOCKS_APART_MS)));
    let mut values = params![tenant, &below, limit as i64].to_vec();
    // SQLite, which has no statistics, prefers a range of the tenant's works of every status.
    let by_status = filter.status.is_some() && !db.is_shared();
    let index = if by_status { " indexed by work_by_status" } else { "" };
    let mut sql = format!("{WORK}{index} where tenant = ?1 and id < ?2");
    let conditions = [
        ("and status =", filter.status.map(|status| Param::from(status.name()))),
        ("and id >", above.as_ref().map(Param::from)),
        ("and created_ms >=", filter.created_after_ms.map(Param::from)),
        ("and created_ms <", filter.created_before_ms.map(Param::from)),
    ];
    for (condition, value) in conditions {
        if let Some(value) = value {
            values.push(value);
            sql += &format!(" {condition} ?{}", values.len());
        }
    }
    all(db, &format!("{sql} order by id desc limit ?3"), &values, work_of)
}

/// A work's id has the time of the process that made it, and `created_ms` is the database's: so far may they differ.
const CLOCKS_APART_MS: i64 = 3_600_000;

/// What no id (UUID version 7) of that time or later is less than.
fn first_id(ms: i64) -> String {
    let ms = ms.clamp(0, (1 << 48) - 1);
    format!("{:08x}-{:04x}", ms >> 16, ms & 0xffff)
}

pub(super) fn events(db: &mut dyn Db, work: &str, after: i64, most: usize) -> Result<Vec<Event>, Error> {
    let sql =
        "select seq, at_ms, kind, data from event where work_id = ?1 and seq > ?2 order by seq limit ?3";
    all(db, sql, params![work, after, most as i64], |mut row| Event {
        seq: row.int(),
        at_ms: row.int(),
        kind: row.text(),
        data: json(row.text()),
    })
}

pub(super) fn groups(db: &mut dyn Db) -> Result<Vec<Group>, Error> {
    let sql = "select g.name, g.topic, count(d.message_id), min(d.due_ms) from consumer_group g \
               left join delivery d on d.group_name = g.name group by g.name, g.topic order by g.name";
    all(db, sql, &[], |mut row| Group {
        name: row.text(),
        topic: row.text(),
        waiting: row.int(),
        oldest_ms: row.maybe_int(),
    })
}

pub(super) fn unrelayed(db: &mut dyn Db, most: usize) -> Result<Vec<Message>, Error> {
    let sql =
        "select id, topic, work_id, created_ms from message where relayed_ms is null order by id limit ?1";
    all(db, sql, params![most as i64], |mut row| Message {
        id: row.int(),
        topic: row.text(),
        work: row.text(),
        created_ms: row.int(),
    })
}

pub(super) fn unconsumed(db: &mut dyn Db, group: &str, first: i64, last: i64) -> Result<Vec<i64>, Error> {
    let sql = "select d.message_id from message m join delivery d \
               on d.work_id = m.work_id and d.group_name = ?1 and d.message_id = m.id where m.id >= ?2 and m.id <= ?3 \
               order by m.id";
    all(db, sql, params![group, first, last], |mut row| row.int())
}

pub(super) fn confirmed(db: &mut dyn Db, work: &str, controller: &str) -> Result<bool, Error> {
    let sql = "select 1 from confirmation where work_id = ?1 and name = ?2";
    Ok(first(db, sql, params![work, controller])?.is_some())
}

pub(super) fn next_due(db: &mut dyn Db, group: &str, only: Option<&str>) -> Result<Option<i64>, Error> {
    let due = match only {
        None => lanes(db, group)?.into_iter().map(|(_, due_ms)| due_ms).min(),
        Some(work) => {
            let sql = "select min(due_ms) from delivery where group_name = ?1 and work_id = ?2";
            first(db, sql, params![group, work])?.and_then(|mut row| row.maybe_int())
        }
    };
    let Some(due) = due else { return Ok(None) };
    Ok(Some(due - db.now_ms()?))
}

pub(super) fn has_suspect(db: &mut dyn Db, controllers: &[String]) -> Result<bool, Error> {
    for controller in controllers {
        let sql = "select 1 from controller where name = ?1 and suspect = 1 and step = 'waiting' limit 1";
        if first(db, sql, params![controller])?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn query(db: &mut dyn Db, statement: &Statement) -> Result<Vec<Vec<Value>>, Error> {
    let values: Vec<Param<'_>> = statement.values.iter().map(Param::from).collect();
    db.query(statement.sql, &values)
}
