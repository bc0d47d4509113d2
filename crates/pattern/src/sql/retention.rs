//! Works are forgotten some time after their end: listed first, so that whoever keeps more of them elsewhere can remove
//! it, and then removed in short transactions.

use super::messages::drop_deliveries;
use super::reads::{all, first};
use super::{Db, Tx, params};
use crate::Error;
use crate::store::{Expired, KEY_LIFE};

/// What may be forgotten: it has ended, no controller has anything to do for it, and its key has lived long enough.
const OVER: &str = "w.ended_ms is not null and w.ended_ms < ?1 \
    and (w.created_ms <= ?2 or not exists (select 1 from idempotency_key k where k.work_id = w.id)) \
    and not exists (select 1 from controller c where c.work_id = w.id and c.step in ('waiting', 'running', 'parked'))";

/// Works that were accepted by then have keys that may go.
fn keys_before(now_ms: i64) -> i64 {
    now_ms - KEY_LIFE.as_millis() as i64
}

pub(super) fn expired(db: &mut dyn Db, before_ms: i64, most: usize) -> Result<Vec<Expired>, Error> {
    let keys_ms = keys_before(db.now_ms()?);
    let sql = format!("select w.tenant, w.id from work w where {OVER} order by w.ended_ms limit ?3");
    all(db, &sql, params![before_ms, keys_ms, most as i64], |mut row| Expired {
        tenant: row.text(),
        work: row.text(),
    })
}

pub(super) fn purge(tx: &mut Tx<'_>, works: &[String], before_ms: i64) -> Result<usize, Error> {
    let keys_ms = keys_before(tx.now);
    let mut purged = 0;
    for work in works {
        // Somebody is at it: it goes the next time.
        if !tx.try_lock(work)? {
            continue;
        }
        let sql = format!("select 1 from work w where w.id = ?3 and {OVER}");
        if first(tx.db, &sql, params![before_ms, keys_ms, work])?.is_none() {
            continue;
        }
        drop_deliveries(tx, "work_id = ?1", params![work])?;
        for sql in [
            "delete from confirmation where work_id = ?1",
            "delete from event where work_id = ?1",
            "delete from idempotency_key where work_id = ?1",
            "delete from controller where work_id = ?1",
            "delete from work where id = ?1",
        ] {
            tx.execute(sql, params![work])?;
        }
        purged += 1;
    }
    Ok(purged)
}
