//! The transitions, each inside a writer's transaction; `claims`, `steps` and `retention` have the others.

use super::reads::{self, first, work_by_id, work_of_tenant};
use super::writer::Asked;
use super::{Cells, Param, Tx, params};
use crate::machine::Verb;
use crate::store::{Accept, Event, Fence, PRIORITY_MAX, Publish, Release, Statement, Work};
use crate::{Error, Machine, Status, Step};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

impl Tx<'_> {
    pub(super) fn execute(&mut self, sql: &str, values: &[Param<'_>]) -> Result<usize, Error> {
        self.wrote |= !only_reads(sql);
        self.db.execute(sql, values)
    }

    pub(super) fn all<T>(
        &mut self,
        sql: &str,
        values: &[Param<'_>],
        of: impl FnMut(Cells) -> T,
    ) -> Result<Vec<T>, Error> {
        self.wrote |= !only_reads(sql);
        reads::all(self.db, sql, values, of)
    }

    fn first(&mut self, sql: &str, values: &[Param<'_>]) -> Result<Option<Cells>, Error> {
        self.wrote |= !only_reads(sql);
        first(self.db, sql, values)
    }

    /// The first cell of the first row.
    pub(super) fn int(&mut self, sql: &str, values: &[Param<'_>]) -> Result<Option<i64>, Error> {
        Ok(self.first(sql, values)?.and_then(|mut row| row.maybe_int()))
    }

    /// Waits for a work's row and keeps others from it to the transaction's end.
    fn lock(&mut self, work: &str) -> Result<(), Error> {
        if self.db.is_shared() {
            self.execute("select 1 from work where id = ?1 for update", params![work])?;
        }
        Ok(())
    }

    /// As [`Tx::lock`], and says no instead of waiting.
    pub(super) fn try_lock(&mut self, work: &str) -> Result<bool, Error> {
        let sql = "select 1 from work where id = ?1 for update skip locked";
        Ok(!self.db.is_shared() || self.int(sql, params![work])?.is_some())
    }

    /// Keeps groups from coming and going, or keeps all others from looking at them.
    pub(super) fn lock_groups(&mut self, alone: bool) -> Result<(), Error> {
        if self.db.is_shared() {
            let mode = if alone { "exclusive" } else { "row share" };
            self.execute(&format!("lock table consumer_group in {mode} mode"), &[])?;
        }
        Ok(())
    }

    /// Every group and its topic, kept as they are to the transaction's end.
    pub(super) fn groups(&mut self) -> Result<Arc<Vec<(String, String)>>, Error> {
        if let Some(groups) = &*self.groups {
            return Ok(groups.clone());
        }
        self.lock_groups(false)?;
        let sql = "select name, topic from consumer_group order by name";
        let groups = Arc::new(self.all(sql, &[], |mut row| (row.text(), row.text()))?);
        *self.groups = Some(groups.clone());
        Ok(groups)
    }

    /// Deletes all that is to be looked at of a work.
    pub(super) fn drop_deliveries_of(&mut self, work: &str) -> Result<(), Error> {
        drop_deliveries(self, "work_id = ?1", params![work])
    }

    pub(super) fn wakes(&mut self, group: &str, due_ms: i64) {
        if due_ms <= self.now {
            self.woken.insert(group.to_owned());
        }
    }

    fn event(&mut self, work: &str, event: &Event) -> Result<(), Error> {
        let sql = "update work set events = events + 1 where id = ?1 returning events";
        let seq = self.int(sql, params![work])?;
        let sql = "insert into event (work_id, seq, at_ms, kind, data) values (?1, ?2, ?3, ?4, ?5)";
        let data = event.data.to_string();
        self.execute(sql, params![work, seq, self.now, &event.kind, &data]).map(drop)
    }
}

/// Whether a statement leaves no trace.
fn only_reads(sql: &str) -> bool {
    sql.starts_with("select") || sql.starts_with("lock")
}

pub(super) fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

pub(super) fn machine(machines: &'static [Machine], kind: &str) -> Result<&'static Machine, Error> {
    machines
        .iter()
        .find(|m| m.kind == kind)
        .ok_or_else(|| Error::Transition(format!("no machine for the kind `{kind}`")))
}

/// A work as it begins, made before the writer is asked for its time; it takes the request's spec, and
/// `created_ms` is the writer's.
pub(super) fn begun(machine: &Machine, accept: &mut Accept) -> Work {
    Work {
        id: uuid::Uuid::now_v7().to_string(),
        tenant: accept.tenant.clone(),
        kind: accept.kind.clone(),
        spec: std::mem::take(&mut accept.spec),
        stage: machine.stages.first().copied().unwrap_or_default().to_owned(),
        status: Status::Accepted,
        outcome: None,
        error: None,
        cancel: false,
        created_ms: 0,
        started_ms: None,
        ended_ms: None,
        deadline_ms: None,
        events: 1,
        priority: accept.priority,
    }
}

/// When a work that is accepted now should be over.
pub(super) fn deadline(accept: &Accept, now: i64) -> Option<i64> {
    accept.deadline.map(|after| now.saturating_add(ms(after)))
}

/// Logs a request. Returns the work that the same request has made before, if any.
pub(super) fn accept(tx: &mut Tx<'_>, asked: &Asked) -> Result<Option<Work>, Error> {
    let Asked { work, spec, accept } = asked;
    if let Some(work) = accepted_before(tx, accept)? {
        return Ok(Some(work));
    }
    within_quota(tx, accept)?;
    if tx.groups()?.iter().all(|(_, topic)| *topic != accept.topic) {
        return Err(Error::Unregistered(accept.topic.clone()));
    }
    let sql = "insert into work (id, tenant, kind, spec, stage, status, created_ms, deadline_ms, events, priority) \
               values (?1, ?2, ?3, ?4, ?5, 'accepted', ?6, ?7, 1, ?8)";
    let values = params![
        &work.id,
        &work.tenant,
        &work.kind,
        spec,
        &work.stage,
        tx.now,
        deadline(accept, tx.now),
        work.priority
    ];
    tx.execute(sql, values)?;
    if let Some(key) = &accept.key {
        let sql = "insert into idempotency_key (tenant, scope, key, fingerprint, work_id, created_ms) \
                   values (?1, ?2, ?3, ?4, ?5, ?6) on conflict do nothing";
        let values = params![&work.tenant, &key.scope, &key.key, &key.fingerprint, &work.id, tx.now];
        if tx.execute(sql, values)? == 0
            && let Some(twin) = accepted_before(tx, accept)?
        {
            // It was committed by another process while this one waited for its key.
            tx.execute("delete from work where id = ?1", params![&work.id])?;
            return Ok(Some(twin));
        }
    }
    let first = Publish { topic: accept.topic.clone(), after: Duration::ZERO };
    publish(tx, &work.id, &lane(&work.tenant, work.priority), &first)?;
    let sql = "insert into event (work_id, seq, at_ms, kind, data) values (?1, 1, ?2, 'accepted', '{}')";
    tx.execute(sql, params![&work.id, tx.now])?;
    Ok(None)
}

/// Refuses what would be more than the tenant may have before it has ended.
fn within_quota(tx: &mut Tx<'_>, accept: &Accept) -> Result<(), Error> {
    let Some(limit) = accept.waiting_max else { return Ok(()) };
    if open_works(tx, &accept.tenant, limit)? < limit {
        return Ok(());
    }
    Err(Error::Quota { tenant: accept.tenant.clone(), limit })
}

/// How many works of a tenant have not ended, as far as `most`.
pub(super) fn open_works(tx: &mut Tx<'_>, tenant: &str, most: i64) -> Result<i64, Error> {
    let sql = "select count(*) from (select 1 from work where tenant = ?1 \
               and status in ('accepted', 'running', 'parked') limit ?2) as open";
    Ok(tx.int(sql, params![tenant, most.max(0)])?.unwrap_or_default())
}

/// The work that the same request has made before.
fn accepted_before(tx: &mut Tx<'_>, accept: &Accept) -> Result<Option<Work>, Error> {
    let Some(key) = &accept.key else { return Ok(None) };
    let sql =
        "select work_id, fingerprint from idempotency_key where tenant = ?1 and scope = ?2 and key = ?3";
    let found = tx.first(sql, params![&accept.tenant, &key.scope, &key.key])?;
    match found.map(|mut row| (row.text(), row.text())) {
        None => Ok(None),
        Some((_, fingerprint)) if fingerprint != key.fingerprint => Err(Error::KeyReused),
        Some((id, _)) => work_of_tenant(tx.db, &accept.tenant, &id).map(Some),
    }
}

/// The lane in which the messages of a work take their turn: its tenant's, and there by priority.
pub(super) fn lane(tenant: &str, priority: i64) -> String {
    format!("{tenant} {}", PRIORITY_MAX - priority)
}

/// The lane of a work.
fn lane_of(tx: &mut Tx<'_>, work: &str) -> Result<String, Error> {
    let found = tx.first("select tenant, priority from work where id = ?1", params![work])?;
    Ok(found.map(|mut row| lane(&row.text(), row.int())).unwrap_or_default())
}

/// One message to every group of the topic, and in each group's row the note that something was asked.
/// Returns how many groups there are.
pub(super) fn publish(tx: &mut Tx<'_>, work: &str, lane: &str, message: &Publish) -> Result<usize, Error> {
    let groups = tx.groups()?;
    let mut told = groups.iter().filter(|(_, topic)| *topic == message.topic).peekable();
    if told.peek().is_none() {
        return Ok(0);
    }
    let id = new_message(tx, &message.topic, work)?;
    let mut count = 0;
    for (group, _) in told {
        deliver(tx, id, work, group, lane, tx.now.saturating_add(ms(message.after)))?;
        count += 1;
    }
    Ok(count)
}

/// A message that no group has yet. Returns its number.
fn new_message(tx: &mut Tx<'_>, topic: &str, work: &str) -> Result<i64, Error> {
    tx.wrote = true;
    let sql = "insert into message (topic, work_id, created_ms) values (?1, ?2, ?3)";
    tx.db.insert(sql, params![topic, work, tx.now])
}

/// What a message makes of a row that is there: it was asked, and looks once more if it had nothing to do.
pub(super) const NOTE_MESSAGE: &str = "\
    on conflict (work_id, name) do update set asked = controller.asked + 1, \
    step = case when controller.step in ('idle', 'done') then 'waiting' else controller.step end, \
    due_ms = case when controller.step = 'waiting' and controller.due_ms < excluded.due_ms \
             then controller.due_ms else excluded.due_ms end";

fn deliver(
    tx: &mut Tx<'_>,
    message: i64,
    work: &str,
    group: &str,
    lane: &str,
    due_ms: i64,
) -> Result<(), Error> {
    send_to(tx, message, work, group, lane, due_ms)?;
    let sql = format!(
        "insert into controller (work_id, name, step, due_ms) values (?1, ?2, 'waiting', ?3) {NOTE_MESSAGE}"
    );
    tx.execute(&sql, params![work, group, due_ms])?;
    tx.wakes(group, due_ms);
    Ok(())
}

/// Puts a message where a group finds it.
fn send_to(
    tx: &mut Tx<'_>,
    message: i64,
    work: &str,
    group: &str,
    lane: &str,
    due_ms: i64,
) -> Result<(), Error> {
    let sql =
        "insert into delivery (work_id, group_name, message_id, lane, due_ms) values (?1, ?2, ?3, ?4, ?5)";
    tx.execute(sql, params![work, group, message, lane, due_ms]).map(drop)
}

/// Where a controller's row of a work stands.
fn step_of(tx: &mut Tx<'_>, work: &str, controller: &str) -> Result<Option<Step>, Error> {
    let sql = "select step from controller where work_id = ?1 and name = ?2";
    let found = tx.first(sql, params![work, controller])?;
    Ok(found.map(|mut row| Step::parse(&row.text()).unwrap_or(Step::Waiting)))
}

pub(super) fn consume(tx: &mut Tx<'_>, work: &str, controller: &str) -> Result<(), Error> {
    drop_deliveries(tx, "work_id = ?1 and group_name = ?2", params![work, controller])
}

/// Deletes deliveries of a work, which is the first value, and messages that no group waits for any more.
fn drop_deliveries(tx: &mut Tx<'_>, which: &str, values: &[Param<'_>]) -> Result<(), Error> {
    let delete = format!("delete from delivery where {which}");
    let messages = if tx.db.is_shared() {
        tx.all(&format!("{delete} returning message_id"), values, |mut row| row.int())?
    } else {
        // SQLite makes a table for what a statement returns, which costs more than to look first.
        let found =
            tx.all(&format!("select message_id from delivery where {which}"), values, |mut row| row.int())?;
        tx.execute(&delete, values)?;
        found
    };
    for message in messages {
        let sql = "delete from message where id = ?1 \
                   and not exists (select 1 from delivery where work_id = ?2 and message_id = ?1)";
        tx.execute(sql, &[Param::Int(message), values[0]])?;
    }
    Ok(())
}

pub(super) fn renew(tx: &mut Tx<'_>, fences: &[Fence], lease: Duration) -> Result<Vec<Fence>, Error> {
    let mut lost = Vec::new();
    for fence in fences {
        let sql = "update controller set lease_ms = ?5 \
                   where work_id = ?1 and name = ?2 and attempt = ?3 and owner = ?4 and step = 'running'";
        if !try_lock_claim(tx, fence)? {
            continue;
        }
        let Fence { work, controller, attempt, owner } = fence;
        if tx.execute(sql, params![work, controller, *attempt, owner, tx.now + ms(lease)])? == 0 {
            lost.push(fence.clone());
        }
    }
    Ok(lost)
}

/// Keeps others from a claim's row, unless somebody is at it: then its own step is being written, or a
/// message to it, and the lease is renewed the next time.
fn try_lock_claim(tx: &mut Tx<'_>, fence: &Fence) -> Result<bool, Error> {
    if !tx.db.is_shared() {
        return Ok(true);
    }
    let key = params![&fence.work, &fence.controller];
    let locked = "select 1 from controller where work_id = ?1 and name = ?2 for update skip locked";
    let there = "select 1 from controller where work_id = ?1 and name = ?2";
    Ok(tx.int(locked, key)?.is_some() || tx.int(there, key)?.is_none())
}

/// What of a claim's work `w` and row `c` is asked for; whoever no longer owns the row is refused.
pub(super) fn fenced(tx: &mut Tx<'_>, of: &Fence, columns: &str) -> Result<Cells, Error> {
    tx.lock(&of.work)?;
    let sql = format!(
        "select {columns} from controller c join work w on w.id = c.work_id where c.work_id = ?1 and c.name = ?2 \
         and c.attempt = ?3 and c.owner = ?4 and c.step = 'running'"
    );
    let found = tx.first(&sql, params![&of.work, &of.controller, of.attempt, &of.owner])?;
    found.ok_or_else(|| Error::Fenced {
        work: of.work.clone(),
        controller: of.controller.clone(),
        attempt: of.attempt,
    })
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

/// Leaves the row one delivery, due then: one that it has, or a new one where all have been lost.
pub(super) fn look_again(tx: &mut Tx<'_>, work: &str, controller: &str, due_ms: i64) -> Result<(), Error> {
    let sql = "select min(message_id) from delivery where work_id = ?1 and group_name = ?2";
    if let Some(kept) = tx.int(sql, params![work, controller])? {
        let others = "work_id = ?1 and group_name = ?2 and message_id > ?3";
        drop_deliveries(tx, others, params![work, controller, kept])?;
        let sql = "update delivery set due_ms = ?3, deliveries = 0 where work_id = ?1 and group_name = ?2";
        tx.execute(sql, params![work, controller, due_ms])?;
        if due_ms <= tx.now {
            // It was carried when it was not due, or is due for another reason: it is carried once more.
            let sql = "update message set relayed_ms = null where id = ?1 and relayed_ms is not null";
            tx.execute(sql, params![kept])?;
        }
    } else {
        let id = new_message(tx, controller, work)?;
        let lane = lane_of(tx, work)?;
        send_to(tx, id, work, controller, &lane, due_ms)?;
    }
    tx.wakes(controller, due_ms);
    Ok(())
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

pub(super) fn send(tx: &mut Tx<'_>, work: &str, topic: &str) -> Result<(), Error> {
    tx.lock(work)?;
    let lane = lane_of(tx, work)?;
    publish(tx, work, &lane, &Publish { topic: topic.into(), after: Duration::ZERO }).map(drop)
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

/// Marks what was in hand when its process was lost. It counts as a failure only if nothing else was.
pub(super) fn lost(tx: &mut Tx<'_>, work: &str, controller: &str, alone: bool) -> Result<(), Error> {
    let sql = "update controller set step = 'waiting', owner = null, lease_ms = null, suspect = 1, alone = 0, \
               due_ms = ?3, failures = failures + ?4 where work_id = ?1 and name = ?2";
    tx.execute(sql, params![work, controller, tx.now, i64::from(alone)]).map(drop)
}

/// Failures that a crash may cause in a row before the work is parked.
const CRASHES_MAX: i64 = 5;
pub(super) const CRASHED: &str = "the process crashed each time that it worked on this alone";

/// Whether what was lost has been lost alone too often.
pub(super) fn crashes(alone: bool, failures: i64) -> bool {
    alone && failures + 1 >= CRASHES_MAX
}

pub(super) fn free(tx: &mut Tx<'_>, owner: &str) -> Result<usize, Error> {
    // What is leased is little, and found by an index; in this order SQLite would look through all rows instead.
    let sql = "select work_id, name from controller where step = 'running' and lease_ms > 0 and owner = ?1";
    let mut held = tx.all(sql, params![owner], pair)?;
    // By work, so that two who free at once wait for each other's rows in one order.
    held.sort();
    let mut freed = 0;
    for (work, controller) in &held {
        tx.lock(work)?;
        // Its last commit may have been on its way, or its lease have ended and somebody else own it by now.
        let sql = "select alone, failures from controller where work_id = ?1 and name = ?2 and owner = ?3";
        let still = tx.first(sql, params![work, controller, owner])?;
        let Some((alone, failures)) = still.map(|mut row| (row.is(), row.int())) else { continue };
        freed += 1;
        if crashes(alone, failures) {
            park(tx, work, controller, CRASHED)?;
            continue;
        }
        lost(tx, work, controller, alone)?;
        look_again(tx, work, controller, tx.now)?;
    }
    Ok(freed)
}

fn pair(mut row: Cells) -> (String, String) {
    (row.text(), row.text())
}

/// Rows that one sweep looks at, so that it is a short transaction whatever has piled up.
const SWEEP_MAX: i64 = 1000;

/// Where the next sweep goes on among the rows that are due: after this time and work.
pub(super) type Swept = Mutex<(i64, String)>;

pub(super) fn sweep(tx: &mut Tx<'_>, swept: &Swept) -> Result<usize, Error> {
    let (from_ms, from_work) = swept.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // A row that waits has its message, but for those that were lost: so this looks at a part of the rows and no more.
    let sql = "select due.work_id, due.name, due.due_ms, exists (select 1 from delivery d \
                 where d.work_id = due.work_id and d.group_name = due.name) \
               from (select work_id, name, due_ms from controller where step = 'waiting' and due_ms <= ?1 \
                 and due_ms >= ?2 and (due_ms > ?2 or work_id > ?3) order by due_ms, work_id limit ?4) as due";
    let waiting = tx.all(sql, params![tx.now, from_ms, &from_work, SWEEP_MAX], |mut row| {
        (row.text(), row.text(), row.int(), row.is())
    })?;
    let more = waiting.len() as i64 == SWEEP_MAX;
    let next = waiting.last().filter(|_| more).map(|(work, _, due_ms, _)| (*due_ms, work.clone()));
    *swept.lock().unwrap_or_else(PoisonError::into_inner) = next.unwrap_or_default();
    let mut found: Vec<_> =
        waiting.into_iter().filter(|row| !row.3).map(|(work, controller, ..)| (work, controller)).collect();
    let sql = "select work_id, name from controller c where step = 'running' and lease_ms <= ?1 and not exists \
               (select 1 from delivery d where d.work_id = c.work_id and d.group_name = c.name) \
               order by lease_ms limit ?2";
    found.extend(tx.all(sql, params![tx.now, SWEEP_MAX], pair)?);
    let mut sent = 0;
    for (work, controller) in &found {
        if tx.try_lock(work)? {
            look_again(tx, work, controller, tx.now)?;
            sent += 1;
        }
    }
    // What has its message may still not have been heard of.
    for group in tx.all("select name from consumer_group", &[], |mut row| row.text())? {
        if reads::lanes(tx.db, &group)?.iter().any(|(_, due_ms)| *due_ms <= tx.now) {
            tx.woken.insert(group);
        }
    }
    Ok(sent)
}

/// Messages that are noted in one statement, which has a place for each; what is short is filled up.
const NOTED_AT_ONCE: usize = 32;

pub(super) fn relayed(tx: &mut Tx<'_>, messages: &[i64]) -> Result<(), Error> {
    let places: Vec<String> = (0..NOTED_AT_ONCE).map(|n| format!("?{}", n + 2)).collect();
    let places = places.join(", ");
    // Who consumes a message deletes it, with others of its work: to wait for that could go in a circle.
    let found = match tx.db.is_shared() {
        true => format!("select id from message where id in ({places}) for update skip locked"),
        false => places,
    };
    let sql = format!("update message set relayed_ms = ?1 where id in ({found})");
    for some in messages.chunks(NOTED_AT_ONCE) {
        let mut values = vec![Param::Int(tx.now)];
        values.extend(
            some.iter().chain(std::iter::repeat(&some[0])).take(NOTED_AT_ONCE).map(|id| Param::Int(*id)),
        );
        tx.execute(&sql, &values)?;
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

pub(super) fn add_group(tx: &mut Tx<'_>, name: &str, topic: &str, from_beginning: bool) -> Result<(), Error> {
    tx.lock_groups(true)?;
    *tx.groups = None;
    let sql = "insert into consumer_group (name, topic, created_ms) values (?1, ?2, ?3) on conflict (name) do nothing";
    let added = tx.execute(sql, params![name, topic, tx.now])?;
    if added == 0 || !from_beginning {
        return Ok(());
    }
    let sql = "select id, work_id from message where topic = ?1 order by id";
    let kept = tx.all(sql, params![topic], |mut row| (row.int(), row.text()))?;
    for (message, work) in kept {
        let lane = lane_of(tx, &work)?;
        deliver(tx, message, &work, name, &lane, tx.now)?;
    }
    Ok(())
}

pub(super) fn remove_group(tx: &mut Tx<'_>, name: &str) -> Result<(), Error> {
    tx.lock_groups(true)?;
    *tx.groups = None;
    tx.execute("delete from delivery where group_name = ?1", params![name])?;
    tx.execute(
        "delete from message where not exists \
         (select 1 from delivery d where d.work_id = message.work_id and d.message_id = message.id)",
        &[],
    )?;
    // Nobody takes the rows on any more, and a work is kept for as long as one of its rows waits.
    let sql = "update controller set step = 'done', owner = null, lease_ms = null, waiting_for = null, \
               waiting_since_ms = null, suspect = 0, alone = 0 where name = ?1 and step in ('waiting', 'running', 'parked')";
    tx.execute(sql, params![name])?;
    tx.execute("delete from consumer_group where name = ?1", params![name]).map(drop)
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
