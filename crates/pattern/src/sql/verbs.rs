//! What becomes of a work and of its rows, each inside a writer's transaction; `steps` and `claims` have what is hot.

use super::leases::{fenced, pair};
use super::messages::{consume, look_again, publish};
use super::reads::{work_by_id, work_of_tenant};
use super::{Param, Tx, ms, params};
use crate::machine::Verb;
use crate::store::{Event, Fence, Publish, Release, Statement, Work};
use crate::{Error, Machine, Status, Step};
use std::time::Duration;

pub(super) fn machine(machines: &'static [Machine], kind: &str) -> Result<&'static Machine, Error> {
    machines
        .iter()
        .find(|m| m.kind == kind)
        .ok_or_else(|| Error::Transition(format!("no machine for the kind `{kind}`")))
}

/// Changes tables of the library's user. Returns how many rows each statement changed.
pub(super) fn write(tx: &mut Tx<'_>, statements: &[Statement]) -> Result<Vec<usize>, Error> {
    let changed = statements.iter().map(|statement| {
        let values: Vec<Param<'_>> = statement.values.iter().map(Param::from).collect();
        tx.execute(statement.sql, &values)
    });
    changed.collect()
}

/// As [`write`], for steps that go together: without waiting for each statement's answer before the next is sent.
pub(super) fn write_all(tx: &mut Tx<'_>, statements: &[&Statement]) -> Result<(), Error> {
    let values: Vec<(&str, Vec<Param<'_>>)> = statements
        .iter()
        .map(|statement| (statement.sql, statement.values.iter().map(Param::from).collect()))
        .collect();
    tx.wrote = true;
    tx.db.execute_all(&values)
}

/// Ends the work if all that must settle have. Returns whether it did.
pub(super) fn settle(tx: &mut Tx<'_>, machine: &Machine, work: &str, lane: &str) -> Result<bool, Error> {
    for controller in machine.required {
        let sql = "select settled from controller where work_id = ?1 and name = ?2";
        if tx.int(sql, params![work, *controller])? != Some(1) {
            return Ok(false);
        }
    }
    let Some(now) = work_by_id(tx.db, work)? else { return Ok(false) };
    let outcome = now.outcome.unwrap_or(Status::Completed);
    let Some(end) = now.status.after(Verb::Settle(outcome)) else {
        return Err(Error::Transition(format!("work `{work}` can't end while it is {}", now.status.name())));
    };
    let sql = "update work set status = ?2, outcome = ?2, ended_ms = ?3 where id = ?1";
    tx.execute(sql, params![work, end.name(), tx.now])?;
    tx.event(work, &Event { seq: 0, at_ms: 0, kind: end.name().into(), data: serde_json::json!({}) })?;
    if let Some(topic) = machine.ended {
        publish(tx, work, lane, &Publish { topic: topic.into(), after: Duration::ZERO })?;
    }
    Ok(true)
}

pub(super) fn release(tx: &mut Tx<'_>, of: &Fence, release: &Release) -> Result<(), Error> {
    fenced(tx, of, "1")?;
    let free =
        "update controller set step = 'waiting', owner = null, lease_ms = null, alone = 0, due_ms = ?3";
    let mine = "where work_id = ?1 and name = ?2";
    match release {
        Release::Wait { dependency, reason, after } => {
            let due_ms = tx.now + ms(*after);
            let sql = format!(
                "{free}, suspect = 0, tries = tries + 1, waiting_for = ?4, \
                 waiting_since_ms = coalesce(waiting_since_ms, ?6), error = ?5 {mine}"
            );
            let values = params![&of.work, &of.controller, due_ms, dependency, reason, tx.now];
            tx.execute(&sql, values)?;
            look_again(tx, &of.work, &of.controller, due_ms)
        }
        Release::Failed { reason, after, failures_max } => {
            let sql = "update controller set failures = failures + 1 where work_id = ?1 and name = ?2 returning failures";
            let failures = tx.int(sql, params![&of.work, &of.controller])?.unwrap_or_default();
            if failures >= *failures_max {
                return park(tx, &of.work, &of.controller, reason);
            }
            let due_ms = tx.now + ms(*after);
            tx.execute(
                &format!("{free}, suspect = 0, error = ?4 {mine}"),
                params![&of.work, &of.controller, due_ms, reason],
            )?;
            look_again(tx, &of.work, &of.controller, due_ms)
        }
        Release::Park { reason } => park(tx, &of.work, &of.controller, reason),
        Release::Yield => {
            tx.execute(&format!("{free} {mine}"), params![&of.work, &of.controller, tx.now])?;
            look_again(tx, &of.work, &of.controller, tx.now)
        }
    }
}

pub(super) fn park(tx: &mut Tx<'_>, work: &str, controller: &str, reason: &str) -> Result<(), Error> {
    let sql = "update controller set step = 'parked', owner = null, lease_ms = null, suspect = 0, alone = 0, \
               error = ?3 where work_id = ?1 and name = ?2";
    tx.execute(sql, params![work, controller, reason])?;
    consume(tx, work, controller)?;
    let Some(now) = work_by_id(tx.db, work)? else { return Ok(()) };
    if let Some(status) = now.status.after(Verb::Park) {
        tx.execute("update work set status = ?2 where id = ?1", params![work, status.name()])?;
    }
    let data = serde_json::json!({ "reason": reason });
    tx.event(work, &Event { seq: 0, at_ms: 0, kind: format!("{controller}.parked"), data })
}

pub(super) fn nudge(tx: &mut Tx<'_>, work: &str, controller: &str) -> Result<(), Error> {
    tx.lock(work)?;
    let Some(step) = step_of(tx, work, controller)? else { return Ok(()) };
    match step {
        Step::Waiting => {
            tx.execute(
                "update controller set due_ms = ?3 where work_id = ?1 and name = ?2",
                params![work, controller, tx.now],
            )?;
            look_again(tx, work, controller, tx.now)
        }
        Step::Running => tx
            .execute(
                "update controller set asked = asked + 1 where work_id = ?1 and name = ?2",
                params![work, controller],
            )
            .map(drop),
        Step::Idle | Step::Parked | Step::Done => Ok(()),
    }
}

pub(super) fn cancel(tx: &mut Tx<'_>, tenant: &str, id: &str) -> Result<Work, Error> {
    tx.lock(id)?;
    let work = work_of_tenant(tx.db, tenant, id)?;
    if work.status.is_terminal() || work.cancel {
        return Ok(work);
    }
    tx.execute("update work set cancel = 1 where id = ?1", params![id])?;
    tx.event(id, &Event { seq: 0, at_ms: 0, kind: "cancel".into(), data: serde_json::json!({}) })?;
    // What is parked must see the wish as well.
    unpark(tx, id)?;
    let sql = "select name from controller where work_id = ?1";
    for controller in tx.all(sql, params![id], |mut row| row.text())? {
        nudge(tx, id, &controller)?;
    }
    work_of_tenant(tx.db, tenant, id)
}

pub(super) fn redrive(tx: &mut Tx<'_>, tenant: &str, id: &str) -> Result<Work, Error> {
    tx.lock(id)?;
    work_of_tenant(tx.db, tenant, id)?;
    if unpark(tx, id)? > 0 {
        tx.event(id, &Event { seq: 0, at_ms: 0, kind: "redrive".into(), data: serde_json::json!({}) })?;
    }
    work_of_tenant(tx.db, tenant, id)
}

fn unpark(tx: &mut Tx<'_>, work: &str) -> Result<usize, Error> {
    let sql = "update controller set step = 'waiting', due_ms = ?2, failures = 0, tries = 0, waiting_for = null, \
               waiting_since_ms = null where work_id = ?1 and step = 'parked' returning name";
    let parked = tx.all(sql, params![work, tx.now], |mut row| row.text())?;
    for controller in &parked {
        look_again(tx, work, controller, tx.now)?;
    }
    if let Some(status) = work_by_id(tx.db, work)?.and_then(|work| work.status.after(Verb::Redrive)) {
        tx.execute("update work set status = ?2 where id = ?1", params![work, status.name()])?;
    }
    Ok(parked.len())
}

pub(super) fn wake(tx: &mut Tx<'_>, dependency: &str) -> Result<(), Error> {
    let sql = "select work_id, name from controller where waiting_for = ?1 and step = 'waiting' and due_ms > ?2 \
               order by work_id, name";
    for (work, controller) in tx.all(sql, params![dependency, tx.now], pair)? {
        // Whoever is at it looks at the dependency anyway.
        if tx.try_lock(&work)? {
            let sql =
                "update controller set due_ms = ?3 where work_id = ?1 and name = ?2 and step = 'waiting'";
            if tx.execute(sql, params![&work, &controller, tx.now])? > 0 {
                look_again(tx, &work, &controller, tx.now)?;
            }
        }
    }
    Ok(())
}

pub(super) fn confirm(
    tx: &mut Tx<'_>,
    tenant: Option<&str>,
    work: &str,
    controller: &str,
) -> Result<(), Error> {
    tx.lock(work)?;
    if let Some(tenant) = tenant {
        work_of_tenant(tx.db, tenant, work)?;
    }
    if step_of(tx, work, controller)?.is_none() {
        return Err(Error::NoSuchWork(format!("{work}/{controller}")));
    }
    let sql = "insert into confirmation (work_id, name, at_ms) values (?1, ?2, ?3) on conflict do nothing";
    if tx.execute(sql, params![work, controller, tx.now])? == 0 {
        return Ok(());
    }
    nudge(tx, work, controller)
}

/// Where a controller's row of a work stands.
fn step_of(tx: &mut Tx<'_>, work: &str, controller: &str) -> Result<Option<Step>, Error> {
    let sql = "select step from controller where work_id = ?1 and name = ?2";
    let found = tx.first(sql, params![work, controller])?;
    Ok(found.map(|mut row| Step::parse(&row.text()).unwrap_or(Step::Waiting)))
}
