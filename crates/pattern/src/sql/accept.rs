//! How a request is logged: the work as it begins, its key, its first message.

use super::messages::{lane, publish};
use super::reads::work_of_tenant;
use super::writer::Asked;
use super::{Tx, ms, params};
use crate::store::{Accept, Publish, Work};
use crate::{Error, Machine, Status};
use std::time::Duration;

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
