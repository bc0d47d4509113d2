//! Claims: whose turn it is, and how rows get their owner.
//!
//! Claims go from tenant to tenant, so that nobody waits for more than one step of each other tenant, however much one
//! of them has waiting; within a tenant the highest priority goes first, then what fell due first. The tenants that have
//! something are found by jumping from lane to lane in an index, and rows of many works are claimed by a few statements,
//! so that a claim costs the same whatever waits.

use super::leases::{CRASHED, crashes, lost};
use super::messages::consume;
use super::reads::{self, among};
use super::verbs::park;
use super::{Param, Tx, params};
use crate::store::{Claim, Claimant, Fence};
use crate::{Error, Step};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

/// The tenant that was served last, for each controller. It is this process's: each takes turns by itself.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<String, String>>);

impl Turns {
    fn last(&self, controller: &str) -> String {
        let turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.get(controller).cloned().unwrap_or_default()
    }

    fn served(&self, controller: &str, tenant: &str) {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.insert(controller.to_owned(), tenant.to_owned());
    }
}

/// How many works are looked at for each that is wanted, as others may have some of them in hand.
const LOOKED_AT: usize = 4;

pub(super) fn claim(
    tx: &mut Tx<'_>,
    controller: &str,
    by: &Claimant,
    most: usize,
    turns: &Turns,
) -> Result<Vec<Claim>, Error> {
    let mut due = match &by.only {
        Some(work) => due_of(tx, controller, work)?,
        None => in_turn(tx, controller, by, most, &turns.last(controller))?,
    }
    .into_iter();
    let mut claims: Vec<Claim> = Vec::new();
    loop {
        let some: Vec<String> = due.by_ref().take(most - claims.len()).collect();
        if some.is_empty() {
            break;
        }
        let free = free_of(tx, controller, by, some)?;
        claims.extend(take(tx, &free, controller, by, false)?);
    }
    if let Some(claim) = claims.last().filter(|_| by.only.is_none()) {
        turns.served(controller, &claim.work.tenant);
    }
    Ok(claims)
}

/// The one work, where it is due.
fn due_of(tx: &mut Tx<'_>, controller: &str, work: &str) -> Result<Vec<String>, Error> {
    let sql = "select work_id from delivery where work_id = ?1 and group_name = ?2 and due_ms <= ?3 limit 1";
    tx.all(sql, params![work, controller, tx.now], |mut row| row.text())
}

/// Works that are due: one of each tenant, then a second of each, beginning with the tenant after `last`.
fn in_turn(
    tx: &mut Tx<'_>,
    controller: &str,
    by: &Claimant,
    most: usize,
    last: &str,
) -> Result<Vec<String>, Error> {
    let lanes = reads::lanes(tx.db, controller)?;
    let mut tenants: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (lane, _) in lanes.iter().filter(|(_, due_ms)| *due_ms <= tx.now) {
        let tenant = lane.rsplit_once(' ').map_or("", |(tenant, _)| tenant);
        if by.shares.room(tenant) > 0 {
            tenants.entry(tenant).or_default().push(lane);
        }
    }
    let (before, after): (Vec<_>, Vec<_>) = tenants.into_iter().partition(|(tenant, _)| *tenant <= last);
    let turn: Vec<_> = after.into_iter().chain(before).take(most).collect();
    let each = (most * LOOKED_AT).div_ceil(turn.len().max(1));
    let mut queues = Vec::new();
    for (tenant, lanes) in turn {
        let most = each.min(by.shares.room(tenant));
        queues.push(first_of(tx, controller, &lanes, most)?.into_iter());
    }
    let mut due = Vec::new();
    for _ in 0..each {
        due.extend(queues.iter_mut().filter_map(Iterator::next));
    }
    Ok(due)
}

/// The first works of some lanes, a lane after the other.
fn first_of(tx: &mut Tx<'_>, controller: &str, lanes: &[&str], most: usize) -> Result<Vec<String>, Error> {
    let sql = "select work_id from delivery where group_name = ?1 and lane = ?2 and due_ms <= ?3 \
               order by due_ms, work_id limit ?4";
    let (mut works, mut seen) = (Vec::new(), HashSet::new());
    for lane in lanes {
        if works.len() >= most {
            break;
        }
        let some = tx.all(sql, params![controller, *lane, tx.now, most as i64], |mut row| row.text())?;
        works.extend(some.into_iter().filter(|work| seen.insert(work.clone())));
    }
    works.truncate(most);
    Ok(works)
}

/// The row of a work and controller that a claim looks at.
struct Look {
    step: Step,
    lease_ms: Option<i64>,
    suspect: bool,
    alone: bool,
    failures: i64,
}

/// The works' rows of a controller.
fn looks(tx: &mut Tx<'_>, works: &[String], controller: &str) -> Result<HashMap<String, Look>, Error> {
    let sql = format!(
        "select work_id, step, lease_ms, suspect, alone, failures from controller \
         where work_id {} and name = ?2",
        among(tx.db)
    );
    let found = tx.all(&sql, params![&reads::list(works), controller], |mut row| {
        let work = row.text();
        let step = Step::parse(&row.text()).unwrap_or(Step::Waiting);
        let (lease_ms, suspect, alone) = (row.maybe_int(), row.is(), row.is());
        (work, Look { step, lease_ms, suspect, alone, failures: row.int() })
    })?;
    Ok(found.into_iter().collect())
}

/// Those of the works that nobody else is at: what is due of theirs is seen when they are next looked at.
fn locked(tx: &mut Tx<'_>, works: Vec<String>) -> Result<Vec<String>, Error> {
    locked_if(tx, works, "", &[])
}

/// As [`locked`], where something is still due: what another process has claimed since the works were found is its own to
/// lock, for its step.
fn locked_due(tx: &mut Tx<'_>, works: Vec<String>, controller: &str) -> Result<Vec<String>, Error> {
    let still = "and exists (select 1 from delivery d where d.work_id = work.id and d.group_name = ?2 \
                 and d.due_ms <= ?3 offset 0)";
    let now = tx.now;
    locked_if(tx, works, still, params![controller, now])
}

fn locked_if(
    tx: &mut Tx<'_>,
    works: Vec<String>,
    condition: &str,
    values: &[Param<'_>],
) -> Result<Vec<String>, Error> {
    if !tx.db.is_shared() {
        return Ok(works);
    }
    let these = among(tx.db);
    let sql = format!("select id from work where id {these} {condition} order by id for update skip locked");
    let list = reads::list(&works);
    let values: Vec<Param<'_>> = params![&list].iter().chain(values).copied().collect();
    let locked: HashSet<String> = tx.all(&sql, &values, |mut row| row.text())?.into_iter().collect();
    Ok(works.into_iter().filter(|work| locked.contains(work)).collect())
}

/// Those of the works whose rows are to be claimed. What is none of these is put in order: a message that has nothing to
/// say is consumed, what is in hand comes back when its lease ends.
fn free_of(
    tx: &mut Tx<'_>,
    controller: &str,
    by: &Claimant,
    works: Vec<String>,
) -> Result<Vec<String>, Error> {
    let works = locked_due(tx, works, controller)?;
    let rows = looks(tx, &works, controller)?;
    let mut free = Vec::new();
    for work in works {
        let Some(row) = rows.get(&work) else {
            consume(tx, &work, controller)?;
            continue;
        };
        let leased = row.step == Step::Running && row.lease_ms.is_some_and(|lease| lease > tx.now);
        if leased {
            put_off(tx, &work, controller, row.lease_ms.unwrap_or(tx.now))?;
            continue;
        }
        match row.step {
            // The row says that there is nothing to do; the message had only said "look".
            Step::Idle | Step::Done | Step::Parked => {
                consume(tx, &work, controller)?;
                continue;
            }
            // Its lease ended: its process is gone, or stands still. What was in hand is suspect.
            Step::Running if crashes(row.alone, row.failures) => {
                park(tx, &work, controller, CRASHED)?;
                consume(tx, &work, controller)?;
                continue;
            }
            Step::Running => lost(tx, &work, controller, row.alone)?,
            Step::Waiting => {}
        }
        if (row.suspect || row.step == Step::Running) && !by.takes_suspects {
            put_off(tx, &work, controller, tx.now + SUSPECT_LOOK_MS)?;
            continue;
        }
        free.push(work);
    }
    Ok(free)
}

/// How soon a normal claim looks again at what is left to [`claim_alone`].
const SUSPECT_LOOK_MS: i64 = 1000;

pub(super) fn claim_alone(
    tx: &mut Tx<'_>,
    controllers: &[String],
    by: &Claimant,
) -> Result<Option<Claim>, Error> {
    for controller in controllers {
        let sql = "select work_id from controller where name = ?1 and suspect = 1 and step = 'waiting' \
                   and due_ms <= ?2 and (work_id = ?3 or ?3 is null) order by due_ms limit 1";
        let work = tx.all(sql, params![controller, tx.now, by.only.as_deref()], |mut row| row.text())?;
        // By now another process may have taken it.
        let work = locked(tx, work)?;
        let rows = looks(tx, &work, controller)?;
        if rows.values().any(|row| row.suspect && row.step == Step::Waiting) {
            return Ok(take(tx, &work, controller, by, true)?.pop());
        }
    }
    Ok(None)
}

/// Makes the claimant the owner of the works' rows.
fn take(
    tx: &mut Tx<'_>,
    works: &[String],
    controller: &str,
    by: &Claimant,
    alone: bool,
) -> Result<Vec<Claim>, Error> {
    if works.is_empty() {
        return Ok(Vec::new());
    }
    let (these, list) = (among(tx.db), reads::list(works));
    let lease_ms = tx.now + super::ms(by.lease);
    let sql = format!(
        "update controller set step = 'running', attempt = attempt + 1, owner = ?3, lease_ms = ?4, \
         seen = asked, alone = ?5, started_ms = coalesce(started_ms, ?6) \
         where work_id {these} and name = ?2 returning work_id, attempt"
    );
    let values = params![&list, controller, &by.owner, lease_ms, alone, tx.now];
    let attempts: HashMap<String, i64> =
        tx.all(&sql, values, |mut row| (row.text(), row.int()))?.into_iter().collect();
    // What is claimed comes back into sight when the lease ends.
    let sql = format!(
        "update delivery set due_ms = ?3, deliveries = deliveries + 1 \
         where work_id {these} and group_name = ?2 and due_ms <= ?4"
    );
    tx.execute(&sql, params![&list, controller, lease_ms, tx.now])?;
    let sql = format!(
        "update work set status = 'running', started_ms = coalesce(started_ms, ?2) \
         where id {these} and status = 'accepted'"
    );
    tx.execute(&sql, params![&list, tx.now])?;
    let fences = works.iter().filter_map(|work| {
        let attempt = *attempts.get(work)?;
        Some(Fence { work: work.clone(), controller: controller.into(), attempt, owner: by.owner.clone() })
    });
    reads::claims(tx.db, fences.collect(), tx.now)
}

/// Takes a row's messages out of sight until then.
fn put_off(tx: &mut Tx<'_>, work: &str, controller: &str, due_ms: i64) -> Result<(), Error> {
    let sql = "update delivery set due_ms = ?3, deliveries = deliveries + 1 \
               where work_id = ?1 and group_name = ?2 and due_ms <= ?4";
    tx.execute(sql, params![work, controller, due_ms, tx.now]).map(drop)
}
