//! Many requests accepted by one statement: PostgreSQL's way of the group commit, where every statement is a journey to
//! a server. It writes the rows that [`super::accept::accept`] writes, for requests that are new and to groups that
//! exist; whatever else comes up is left to that one.

use super::writer::Asked;
use super::{Tx, accept, messages, params};
use crate::Error;
use serde_json::json;
use std::collections::{HashMap, HashSet};

/// Accepts all of them, or says that one is not as simple as that; then the transaction must be taken back.
pub(super) fn accept(tx: &mut Tx<'_>, asked: &[&Asked]) -> Result<bool, Error> {
    let keys: Vec<_> = asked
        .iter()
        .filter_map(|a| a.accept.key.as_ref().map(|key| (&a.work.tenant, &key.scope, &key.key)))
        .collect();
    if keys.iter().collect::<HashSet<_>>().len() < keys.len() {
        // The same request twice in one batch: the second is answered with the first one's work.
        return Ok(false);
    }
    // What was accepted before may be among them, and is not to be refused: that is told apart one by one.
    let mut more: HashMap<&String, (i64, i64)> = HashMap::new();
    for Asked { accept, .. } in asked {
        let (count, limit) = more.entry(&accept.tenant).or_insert((0, i64::MAX));
        *count += 1;
        *limit = accept.waiting_max.unwrap_or(i64::MAX).min(*limit);
    }
    for (tenant, (count, limit)) in more {
        if limit < i64::MAX && accept::open_works(tx, tenant, limit)? + count > limit {
            return Ok(false);
        }
    }
    let groups = tx.groups()?;
    if asked.iter().any(|a| groups.iter().all(|(_, topic)| *topic != a.accept.topic)) {
        return Ok(false);
    }
    let rows: Vec<_> = asked
        .iter()
        .map(|Asked { work, spec, accept }| {
            let key = accept.key.as_ref();
            json!({
                "id": work.id, "tenant": work.tenant, "kind": work.kind, "spec": spec, "stage": work.stage,
                "deadline_ms": accept::deadline(accept, tx.now), "topic": accept.topic,
                "lane": messages::lane(&work.tenant, work.priority), "scope": key.map(|key| &key.scope), "key": key.map(|key| &key.key),
                "fingerprint": key.map(|key| &key.fingerprint), "priority": work.priority,
            })
        })
        .collect();
    let rows = serde_json::Value::Array(rows).to_string();
    let keyed = tx.all(ACCEPT, params![&rows, tx.now], |mut row| row.int())?;
    // A key that was there already has made no row.
    if keyed.first().copied() != Some(keys.len() as i64) {
        return Ok(false);
    }
    let topics: HashSet<&String> = asked.iter().map(|a| &a.accept.topic).collect();
    for (group, _) in groups.iter().filter(|(_, topic)| topics.contains(topic)) {
        tx.wakes(group, tx.now);
    }
    Ok(true)
}

/// One statement for work, key, message, deliveries, controllers' rows and event of each request. It gives the number of
/// keys that were new. Constraints between the tables are checked at its end.
const ACCEPT: &str = "\
    with asked as materialized ( \
        select * from json_to_recordset(cast(?1::text as json)) as a (id text, tenant text, kind text, spec text, stage text, \
            deadline_ms bigint, topic text, scope text, key text, fingerprint text, priority bigint, \
            lane text)), \
    works as ( \
        insert into work (id, tenant, kind, spec, stage, status, created_ms, deadline_ms, events, priority) \
        select id, tenant, kind, spec, stage, 'accepted', ?2::bigint, deadline_ms, 1, priority from asked), \
    keys as ( \
        insert into idempotency_key (tenant, scope, key, fingerprint, work_id, created_ms) \
        select tenant, scope, key, fingerprint, id, ?2::bigint from asked where key is not null \
        on conflict do nothing returning 1), \
    sent as ( \
        insert into message (topic, work_id, created_ms) select topic, id, ?2::bigint from asked \
        returning id, topic, work_id), \
    delivered as ( \
        insert into delivery (work_id, group_name, message_id, lane, due_ms) \
        select s.work_id, g.name, s.id, a.lane, ?2::bigint from sent s join asked a on a.id = s.work_id \
        join consumer_group g on g.topic = s.topic), \
    noted as ( \
        insert into controller (work_id, name, step, due_ms) \
        select s.work_id, g.name, 'waiting', ?2::bigint from sent s join consumer_group g on g.topic = s.topic), \
    logged as ( \
        insert into event (work_id, seq, at_ms, kind, data) select id, 1, ?2::bigint, 'accepted', '{}' from asked) \
    select count(*) from keys";
