//! Messages: how they are sent to every group of a topic, wait in lanes, are carried by others, and are consumed.

use super::{Param, Tx, ms, params};
use crate::Error;
use crate::store::{PRIORITY_MAX, Publish};
use std::time::Duration;

/// The lane in which the messages of a work take their turn: its tenant's, and there by priority.
pub(super) fn lane(tenant: &str, priority: i64) -> String {
    format!("{tenant} {}", PRIORITY_MAX - priority)
}

/// The lane of a work.
pub(super) fn lane_of(tx: &mut Tx<'_>, work: &str) -> Result<String, Error> {
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

pub(super) fn send(tx: &mut Tx<'_>, work: &str, topic: &str) -> Result<(), Error> {
    tx.lock(work)?;
    let lane = lane_of(tx, work)?;
    publish(tx, work, &lane, &Publish { topic: topic.into(), after: Duration::ZERO }).map(drop)
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

pub(super) fn consume(tx: &mut Tx<'_>, work: &str, controller: &str) -> Result<(), Error> {
    drop_deliveries(tx, "work_id = ?1 and group_name = ?2", params![work, controller])
}

/// Deletes deliveries of a work, which is the first value, and messages that no group waits for any more.
pub(super) fn drop_deliveries(tx: &mut Tx<'_>, which: &str, values: &[Param<'_>]) -> Result<(), Error> {
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
