//! Claims that are held: renewed, proven by whoever writes, and taken from whoever has gone.

use super::messages::look_again;
use super::verbs::park;
use super::{Cells, Tx, ms, params, reads};
use crate::Error;
use crate::store::Fence;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

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

pub(super) fn pair(mut row: Cells) -> (String, String) {
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
