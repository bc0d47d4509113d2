//! Steps of controllers: one in its own transaction, or on a server many in one.
//!
//! There every statement is a journey, and so is every commit. Steps that end at about the same time therefore go
//! together: each is fenced by itself, a few statements write all of them, and whatever is not as simple as that (a work
//! that somebody else has locked, a claim that is lost, a stage that does not follow) is left over and goes by itself,
//! where it gets its own answer. A batch waits for nobody's work, so two of them can't wait for each other in a circle;
//! when one of its steps' own statements is refused, all of it is taken back and each goes by itself.

use super::messages::{self, consume, look_again, publish};
use super::reads::{among, list};
use super::verbs::{self, machine, settle};
use super::{Cells, Tx, leases, ms, params};
use crate::store::{Advance, Fence, Next};
use crate::{Error, Machine, Status, Step};
use serde_json::json;
use std::collections::HashSet;

/// A step that is to be taken.
pub(super) struct Stepping {
    pub(super) machines: &'static [Machine],
    pub(super) fence: Fence,
    pub(super) advance: Advance,
}

/// Where a work and its row stand before a step.
struct Standing {
    asked_more: bool,
    kind: String,
    stage: String,
    status: Status,
    /// The number of its last event.
    events: i64,
    lane: String,
}

const STANDING: &str = "c.asked > c.seen, w.kind, w.stage, w.status, w.events, w.tenant, w.priority";

fn standing_of(mut row: Cells) -> Standing {
    Standing {
        asked_more: row.is(),
        kind: row.text(),
        stage: row.text(),
        status: Status::parse(&row.text()).unwrap_or(Status::Accepted),
        events: row.int(),
        lane: messages::lane(&row.text(), row.int()),
    }
}

/// The machine, where the step keeps to it.
fn allowed(stepping: &Stepping, at: &Standing) -> Result<&'static Machine, Error> {
    let machine = machine(stepping.machines, &at.kind)?;
    match stepping.advance.stage {
        Some(stage) if !machine.advances(&at.stage, stage) => Err(Error::Transition(format!(
            "work `{}` can't go from `{}` to `{stage}`",
            stepping.fence.work, at.stage
        ))),
        _ => Ok(machine),
    }
}

/// What a step makes of its row, and when it is due again.
fn row_after(next: Next, asked_more: bool, now: i64) -> (Step, Option<i64>) {
    match next {
        Next::Stay => (Step::Running, None),
        // A message that came since the claim has its own delivery, and is due.
        Next::Again(_) | Next::Idle | Next::Done if asked_more => (Step::Waiting, Some(now)),
        Next::Again(after) => (Step::Waiting, Some(now + ms(after))),
        Next::Idle => (Step::Idle, None),
        Next::Done => (Step::Done, None),
    }
}

/// What a step writes into a work: the first verdict holds, as a cancelled work does not become a failed one.
fn work_changes(stage: &str, outcome: &str, error: &str, events: &str) -> String {
    format!(
        "stage = coalesce({stage}, stage), outcome = coalesce(outcome, {outcome}), \
         error = coalesce({error}, error), events = events + {events}"
    )
}

/// What a step writes into its row, by the names of what it brings; `settled` is 0 or 1. A step that stays keeps its
/// claim.
fn row_changes(stays: bool, [step, due_ms, metrics, memo, settled, now]: [&str; 6]) -> String {
    let freed = "owner = null, lease_ms = null, failures = 0, tries = 0, waiting_for = null, \
                 waiting_since_ms = null, error = null, suspect = 0, alone = 0, ";
    format!(
        "step = {step}, due_ms = coalesce({due_ms}, due_ms), {} \
         metrics = coalesce({metrics}, metrics), memo = coalesce({memo}, memo), \
         settled = case when {settled} = 1 then 1 else settled end, \
         ended_ms = case when {settled} = 1 then coalesce(ended_ms, {now}) else ended_ms end",
        if stays { "" } else { freed }
    )
}

fn text(json: &Option<serde_json::Value>) -> Option<String> {
    json.as_ref().map(ToString::to_string)
}

/// A row that is not due again and not running has consumed what it was told.
fn has_consumed(step: Step, due_ms: Option<i64>) -> bool {
    due_ms.is_none() && step != Step::Running
}

/// One step. Returns whether the work is terminal.
pub(super) fn advance(tx: &mut Tx<'_>, stepping: &Stepping) -> Result<bool, Error> {
    let Stepping { fence, advance, .. } = stepping;
    let at = leases::fenced(tx, fence, STANDING).map(standing_of)?;
    let machine = allowed(stepping, &at)?;
    change_work(tx, fence, advance)?;
    let (step, due_ms) = row_after(advance.next, at.asked_more, tx.now);
    let changes = row_changes(step == Step::Running, ["?3", "?4", "?5", "?6", "?7", "?8"]);
    let (metrics, memo) = (text(&advance.metrics), text(&advance.memo));
    tx.execute(
        &format!("update controller set {changes} where work_id = ?1 and name = ?2"),
        params![
            &fence.work,
            &fence.controller,
            step.name(),
            due_ms,
            metrics.as_deref(),
            memo.as_deref(),
            advance.settled,
            tx.now
        ],
    )?;
    if has_consumed(step, due_ms) {
        consume(tx, &fence.work, &fence.controller)?;
    } else if let Some(due_ms) = due_ms {
        look_again(tx, &fence.work, &fence.controller, due_ms)?;
    }
    for message in &advance.publish {
        publish(tx, &fence.work, &at.lane, message)?;
    }
    verbs::write(tx, &advance.side)?;
    for (seq, event) in (at.events + 1..).zip(&advance.events) {
        let sql = "insert into event (work_id, seq, at_ms, kind, data) values (?1, ?2, ?3, ?4, ?5)";
        let data = event.data.to_string();
        tx.execute(sql, params![&fence.work, seq, tx.now, &event.kind, &data])?;
    }
    end(tx, machine, fence, advance, &at)
}

/// The work's own part of a step.
fn change_work(tx: &mut Tx<'_>, fence: &Fence, advance: &Advance) -> Result<(), Error> {
    let Advance { stage, outcome, error, events, .. } = advance;
    if stage.is_none() && outcome.is_none() && error.is_none() && events.is_empty() {
        return Ok(());
    }
    let sql = format!("update work set {} where id = ?1", work_changes("?2", "?3", "?4", "?5"));
    let error = text(error);
    let outcome = outcome.map(Status::name);
    let values = params![&fence.work, *stage, outcome, error.as_deref(), events.len() as i64];
    tx.execute(&sql, values).map(drop)
}

/// Ends the work where this step was the last that had to settle.
fn end(
    tx: &mut Tx<'_>,
    machine: &Machine,
    fence: &Fence,
    advance: &Advance,
    at: &Standing,
) -> Result<bool, Error> {
    if advance.settled && !at.status.is_terminal() {
        return settle(tx, machine, &fence.work, &at.lane);
    }
    Ok(at.status.is_terminal())
}

/// A step of a batch that may be written with the others.
struct Member<'a> {
    /// Its place in the batch.
    place: usize,
    stepping: &'a Stepping,
    at: Standing,
    machine: &'static Machine,
}

/// Takes those of the steps that can go together. For each it says whether its work is terminal, or nothing where
/// it is left over. After an error the transaction must be taken back.
pub(super) fn advance_together(tx: &mut Tx<'_>, batch: &[&Stepping]) -> Result<Vec<Option<bool>>, Error> {
    let groups = tx.groups()?;
    let members = members(tx, batch)?;
    let mut ended = vec![None; batch.len()];
    if members.is_empty() {
        return Ok(ended);
    }
    change_works(tx, &members)?;
    change_rows(tx, &members)?;
    publish_all(tx, &members, &groups)?;
    // Each step's own in their order; the first of all steps come first, as they are mostly alike.
    let most = members.iter().map(|m| m.stepping.advance.side.len()).max().unwrap_or(0);
    let sides: Vec<_> =
        (0..most).flat_map(|n| members.iter().filter_map(move |m| m.stepping.advance.side.get(n))).collect();
    verbs::write_all(tx, &sides)?;
    log_all(tx, &members)?;
    for Member { place, stepping, at, machine } in &members {
        ended[*place] = Some(end(tx, machine, &stepping.fence, &stepping.advance, at)?);
    }
    Ok(ended)
}

/// The steps whose works nobody else is at, whose claims hold, and that keep to their machines; of each work one.
fn members<'a>(tx: &mut Tx<'_>, batch: &[&'a Stepping]) -> Result<Vec<Member<'a>>, Error> {
    let works: Vec<String> = batch.iter().map(|stepping| stepping.fence.work.clone()).collect();
    let sql = format!("select id from work where id {} order by id for update skip locked", among(tx.db));
    let mut locked: HashSet<String> =
        tx.all(&sql, params![&list(&works)], |mut row| row.text())?.into_iter().collect();
    let mut fences = Vec::new();
    for (place, Stepping { fence, .. }) in batch.iter().enumerate() {
        if locked.remove(&fence.work) {
            fences.push(json!({
                "place": place, "work": fence.work, "name": fence.controller,
                "attempt": fence.attempt, "owner": fence.owner,
            }));
        }
    }
    // By a statement of its own: the one that locks sees rows as they were before it had the lock.
    let sql = format!(
        "select a.place, {STANDING} from json_to_recordset(cast(?1::text as json)) \
           as a (place bigint, work text, name text, attempt bigint, owner text) \
         join work w on w.id = a.work join controller c on c.work_id = a.work and c.name = a.name \
           and c.attempt = a.attempt and c.owner = a.owner and c.step = 'running' order by a.place"
    );
    let fences = serde_json::Value::Array(fences).to_string();
    let found = tx.all(&sql, params![&fences], |mut row| (row.int() as usize, standing_of(row)))?;
    let members = found.into_iter().filter_map(|(place, at)| {
        let stepping = batch[place];
        let mut topics = HashSet::new();
        let topics_differ = stepping.advance.publish.iter().all(|message| topics.insert(&message.topic));
        let machine = allowed(stepping, &at).ok().filter(|_| topics_differ)?;
        Some(Member { place, stepping, at, machine })
    });
    Ok(members.collect())
}

/// The works' own parts.
fn change_works(tx: &mut Tx<'_>, members: &[Member<'_>]) -> Result<(), Error> {
    let rows = members.iter().map(|m| {
        let Advance { stage, outcome, error, events, .. } = &m.stepping.advance;
        json!({
            "work": m.stepping.fence.work, "new_stage": stage, "new_outcome": outcome.map(Status::name),
            "new_error": text(error), "new_events": events.len(),
        })
    });
    let rows = serde_json::Value::Array(rows.collect()).to_string();
    let sql = format!(
        "update work set {} from json_to_recordset(cast(?1::text as json)) \
           as a (work text, new_stage text, new_outcome text, new_error text, new_events bigint) \
         where id = a.work and (a.new_stage is not null or a.new_outcome is not null or a.new_error is not null \
           or a.new_events > 0)",
        work_changes("a.new_stage", "a.new_outcome", "a.new_error", "a.new_events")
    );
    tx.execute(&sql, params![&rows]).map(drop)
}

/// The rows' own parts, and what they have consumed.
fn change_rows(tx: &mut Tx<'_>, members: &[Member<'_>]) -> Result<(), Error> {
    let (mut staying, mut leaving, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for Member { stepping: Stepping { fence, advance, .. }, at, .. } in members {
        let (step, due_ms) = row_after(advance.next, at.asked_more, tx.now);
        let rows = if step == Step::Running { &mut staying } else { &mut leaving };
        rows.push(json!({
            "work": fence.work, "controller": fence.controller, "new_step": step.name(), "new_due_ms": due_ms,
            "new_metrics": text(&advance.metrics), "new_memo": text(&advance.memo),
            "new_settled": i64::from(advance.settled), "consumed": i64::from(has_consumed(step, due_ms)),
        }));
        again.extend(due_ms.map(|due_ms| (fence, due_ms)));
    }
    let asked = "json_to_recordset(cast(?1::text as json)) as a (work text, controller text, new_step text, \
                 new_due_ms bigint, new_metrics text, new_memo text, new_settled bigint, consumed bigint)";
    let brought =
        ["a.new_step", "a.new_due_ms", "a.new_metrics", "a.new_memo", "a.new_settled", "?2::bigint"];
    for (stays, rows) in
        [(true, &staying), (false, &leaving)].into_iter().filter(|(_, rows)| !rows.is_empty())
    {
        let changes = row_changes(stays, brought);
        let sql = format!(
            "update controller set {changes} from {asked} where work_id = a.work and name = a.controller"
        );
        tx.execute(&sql, params![&json!(rows).to_string(), tx.now])?;
    }
    let rows = json!(leaving).to_string();
    let sql = format!(
        "delete from delivery d using {asked} where d.work_id = a.work and d.group_name = a.controller \
         and a.consumed = 1 returning d.message_id"
    );
    let consumed = tx.all(&sql, params![&rows], |mut row| row.int())?;
    let consumed = serde_json::Value::from(consumed).to_string();
    // By the next statement: this one would still see what the last has deleted. `offset 0` keeps the question one of an
    // index: as a join it reads all deliveries that there are.
    let sql = "delete from message m where m.id = any(array(select cast(value as bigint) \
               from json_array_elements_text(cast(?1::text as json)) as value)) and not exists \
               (select 1 from delivery d where d.work_id = m.work_id and d.message_id = m.id offset 0)";
    tx.execute(sql, params![&consumed])?;
    for (fence, due_ms) in again {
        look_again(tx, &fence.work, &fence.controller, due_ms)?;
    }
    Ok(())
}

/// All messages of all steps to all groups, as [`publish`] sends one. No step has two to one topic.
fn publish_all(tx: &mut Tx<'_>, members: &[Member<'_>], groups: &[(String, String)]) -> Result<(), Error> {
    let mut rows = Vec::new();
    for Member { stepping: Stepping { fence, advance, .. }, at, .. } in members {
        for message in &advance.publish {
            let due_ms = tx.now.saturating_add(ms(message.after));
            let told: Vec<_> = groups.iter().filter(|(_, topic)| *topic == message.topic).collect();
            told.iter().for_each(|(group, _)| tx.wakes(group, due_ms));
            if !told.is_empty() {
                rows.push(json!({
                    "work": fence.work, "lane": at.lane, "topic": message.topic, "due_ms": due_ms,
                }));
            }
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let rows = serde_json::Value::Array(rows).to_string();
    let sql = format!(
        "with asked as materialized (select * from json_to_recordset(cast(?1::text as json)) \
           as a (work text, lane text, topic text, due_ms bigint)), \
         sent as (insert into message (topic, work_id, created_ms) \
           select topic, work, ?2::bigint from asked returning id, topic, work_id), \
         told as materialized (select s.id, s.work_id, g.name, a.lane, a.due_ms from sent s \
           join asked a on a.work = s.work_id and a.topic = s.topic join consumer_group g on g.topic = s.topic), \
         delivered as (insert into delivery (work_id, group_name, message_id, lane, due_ms) \
           select work_id, name, id, lane, due_ms from told), \
         noted as (insert into controller (work_id, name, step, due_ms) \
           select work_id, name, 'waiting', due_ms from told {}) \
         select count(*) from told",
        messages::NOTE_MESSAGE
    );
    tx.all(&sql, params![&rows, tx.now], |_| ()).map(drop)
}

/// All events of all steps.
fn log_all(tx: &mut Tx<'_>, members: &[Member<'_>]) -> Result<(), Error> {
    let mut rows = Vec::new();
    for Member { stepping: Stepping { fence, advance, .. }, at, .. } in members {
        for (seq, event) in (at.events + 1..).zip(&advance.events) {
            rows.push(json!({
                "work": fence.work, "seq": seq, "kind": event.kind, "data": event.data.to_string(),
            }));
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let rows = serde_json::Value::Array(rows).to_string();
    let sql = "insert into event (work_id, seq, at_ms, kind, data) \
               select a.work, a.seq, ?2::bigint, a.kind, a.data from json_to_recordset(cast(?1::text as json)) \
               as a (work text, seq bigint, kind text, data text)";
    tx.execute(sql, params![&rows, tx.now]).map(drop)
}
