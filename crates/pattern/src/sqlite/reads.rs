//! What the store is asked without changing it.

use super::error;
use crate::store::{Claim, Event, Fence, Filter, Group, Row, Statement, Value, Work};
use crate::{Error, Status, Step};
use rusqlite::{Connection, OptionalExtension, Params, params, params_from_iter};

const WORK: &str = "select id, tenant, kind, spec, stage, status, outcome, error, cancel, created_ms, started_ms, \
                    ended_ms, deadline_ms, events from work";
const ROW: &str = "select name, step, attempt, failures, tries, waiting_for, metrics, memo, error, settled, \
                   started_ms, ended_ms from controller";

fn work_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Work> {
    Ok(Work {
        id: row.get(0)?,
        tenant: row.get(1)?,
        kind: row.get(2)?,
        spec: json(row.get(3)?),
        stage: row.get(4)?,
        status: status(&row.get::<_, String>(5)?),
        outcome: row.get::<_, Option<String>>(6)?.map(|name| status(&name)),
        error: row.get::<_, Option<String>>(7)?.map(json),
        cancel: row.get(8)?,
        created_ms: row.get(9)?,
        started_ms: row.get(10)?,
        ended_ms: row.get(11)?,
        deadline_ms: row.get(12)?,
        events: row.get(13)?,
    })
}

fn row_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        controller: row.get(0)?,
        step: Step::parse(&row.get::<_, String>(1)?).unwrap_or(Step::Waiting),
        attempt: row.get(2)?,
        failures: row.get(3)?,
        tries: row.get(4)?,
        waiting_for: row.get(5)?,
        metrics: json(row.get(6)?),
        memo: json(row.get(7)?),
        error: row.get(8)?,
        settled: row.get(9)?,
        started_ms: row.get(10)?,
        ended_ms: row.get(11)?,
    })
}

/// Every text that is read here was written by this module; the schema's CHECK guards the names.
fn status(name: &str) -> Status {
    Status::parse(name).unwrap_or(Status::Accepted)
}

fn json(text: String) -> serde_json::Value {
    serde_json::from_str(&text).unwrap_or(serde_json::Value::Null)
}

/// The first row that a statement gives, as `of` reads it.
fn first<T>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    of: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, Error> {
    connection.prepare_cached(sql).map_err(error)?.query_row(values, of).optional().map_err(error)
}

/// All rows that a statement gives, as `of` reads them.
pub(super) fn all<T>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    of: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Error> {
    let mut statement = connection.prepare_cached(sql).map_err(error)?;
    let rows = statement.query_map(values, of).map_err(error)?;
    rows.collect::<rusqlite::Result<_>>().map_err(error)
}

/// The first column of the first row.
pub(super) fn one<T: rusqlite::types::FromSql>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
) -> Result<Option<T>, Error> {
    first(connection, sql, values, |row| row.get(0))
}

pub(super) fn work_by_id(connection: &Connection, id: &str) -> Result<Option<Work>, Error> {
    first(connection, &format!("{WORK} where id = ?1"), [id], work_of)
}

pub(super) fn work_of_tenant(connection: &Connection, tenant: &str, id: &str) -> Result<Work, Error> {
    let work = first(connection, &format!("{WORK} where id = ?1 and tenant = ?2"), [id, tenant], work_of)?;
    work.ok_or_else(|| Error::NoSuchWork(id.to_owned()))
}

fn rows(connection: &Connection, work: &str) -> Result<Vec<Row>, Error> {
    all(connection, &format!("{ROW} where work_id = ?1 order by name"), [work], row_of)
}

/// What a controller is given with its claim.
pub(super) fn claim(connection: &Connection, fence: Fence, now_ms: i64) -> Result<Option<Claim>, Error> {
    let Some(work) = work_by_id(connection, &fence.work)? else { return Ok(None) };
    let (own, others): (Vec<Row>, Vec<Row>) =
        rows(connection, &fence.work)?.into_iter().partition(|row| row.controller == fence.controller);
    let sql = "select waiting_since_ms from controller where work_id = ?1 and name = ?2";
    let waiting_since_ms = one::<Option<i64>>(connection, sql, [&fence.work, &fence.controller])?.flatten();
    let row = own.into_iter().next();
    Ok(row.map(|row| Claim { work, row, others, fence, now_ms, waiting_since_ms }))
}

pub(super) fn work_and_rows(
    connection: &Connection,
    tenant: &str,
    id: &str,
) -> Result<Option<(Work, Vec<Row>)>, Error> {
    match work_of_tenant(connection, tenant, id) {
        Ok(work) => Ok(Some((work, rows(connection, id)?))),
        Err(Error::NoSuchWork(_)) => Ok(None),
        Err(e) => Err(e),
    }
}

pub(super) fn works(
    connection: &Connection,
    tenant: &str,
    filter: Filter,
    limit: usize,
    after: Option<String>,
) -> Result<Vec<Work>, Error> {
    // Ids grow with time, so their order is the order of acceptance.
    let after = after.unwrap_or_else(|| "~".into());
    let limit = limit as i64;
    match filter.status {
        None => {
            let sql = format!("{WORK} where tenant = ?1 and id < ?2 order by id desc limit ?3");
            all(connection, &sql, params![tenant, after, limit], work_of)
        }
        Some(status) => {
            let sql =
                format!("{WORK} where tenant = ?1 and id < ?2 and status = ?4 order by id desc limit ?3");
            all(connection, &sql, params![tenant, after, limit, status.name()], work_of)
        }
    }
}

pub(super) fn events(
    connection: &Connection,
    work: &str,
    after: i64,
    most: usize,
) -> Result<Vec<Event>, Error> {
    let sql =
        "select seq, at_ms, kind, data from event where work_id = ?1 and seq > ?2 order by seq limit ?3";
    all(connection, sql, params![work, after, most as i64], |row| {
        Ok(Event { seq: row.get(0)?, at_ms: row.get(1)?, kind: row.get(2)?, data: json(row.get(3)?) })
    })
}

pub(super) fn groups(connection: &Connection) -> Result<Vec<Group>, Error> {
    let sql = "select g.name, g.topic, count(d.message_id), min(d.due_ms) from consumer_group g \
               left join delivery d on d.group_name = g.name group by g.name, g.topic order by g.name";
    all(connection, sql, [], |row| {
        Ok(Group { name: row.get(0)?, topic: row.get(1)?, waiting: row.get(2)?, oldest_ms: row.get(3)? })
    })
}

pub(super) fn next_due(
    connection: &Connection,
    group: &str,
    only: Option<&str>,
) -> Result<Option<i64>, Error> {
    let due = match only {
        None => {
            one::<Option<i64>>(connection, "select min(due_ms) from delivery where group_name = ?1", [group])?
        }
        Some(work) => {
            let sql = "select min(due_ms) from delivery where group_name = ?1 and work_id = ?2";
            one::<Option<i64>>(connection, sql, [group, work])?
        }
    };
    let Some(due) = due.flatten() else { return Ok(None) };
    Ok(Some(due - super::now_ms(connection)?))
}

pub(super) fn has_suspect(connection: &Connection, controllers: &[String]) -> Result<bool, Error> {
    for controller in controllers {
        let sql = "select 1 from controller where name = ?1 and suspect = 1 and step = 'waiting' limit 1";
        if one::<i64>(connection, sql, [controller])?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn query(connection: &Connection, statement: &Statement) -> Result<Vec<Vec<Value>>, Error> {
    let mut prepared = connection.prepare_cached(statement.sql).map_err(error)?;
    let columns = prepared.column_count();
    let rows = prepared
        .query_map(params_from_iter(&statement.values), |row| (0..columns).map(|n| row.get(n)).collect())
        .map_err(error)?;
    rows.collect::<rusqlite::Result<_>>().map_err(error)
}
