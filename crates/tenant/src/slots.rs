//! How many jobs of a tenant run at once: each that runs has a slot, and a unique index keeps two from having one.
//!
//! A job that finds none stands in the table without a number. It is told when one may be free, and otherwise looks
//! again itself, seldom. It stood there before it looked, so a slot that is given back just then is not missed.

use dragnet_pattern::{Error, Statement, Store, Value};

/// What became of the wish to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The job has a slot until it is given back.
    Taken,
    /// So many others have one.
    Wait {
        /// How many run.
        running: usize,
    },
}

/// Takes a slot for a job of a tenant that may run `most` at once. Harmless to repeat.
///
/// # Errors
/// Those of the store.
pub async fn take(store: &dyn Store, tenant: &str, work: &str, most: u64) -> Result<Slot, Error> {
    let stand_in = Statement::new(
        "insert into job_slot (work_id, tenant) values (?1, ?2) on conflict (work_id) do nothing",
        vec![work.into(), tenant.into()],
    );
    store.write(vec![stand_in]).await?;
    loop {
        let taken = Statement::new(
            "select slot, work_id from job_slot where tenant = ?1 and slot is not null order by slot",
            vec![tenant.into()],
        );
        let taken = store.query(taken).await?;
        if taken.iter().any(|row| row[1].text() == work) {
            return Ok(Slot::Taken);
        }
        let is_free = |slot: &i64| taken.iter().all(|row| row[0].int() != *slot);
        let most_slot = i64::try_from(most).unwrap_or(i64::MAX);
        let free = (taken.len() < usize::try_from(most).unwrap_or(usize::MAX))
            .then(|| (1..=most_slot).find(is_free))
            .flatten();
        let Some(slot) = free else { return Ok(Slot::Wait { running: taken.len() }) };
        let take = Statement::new(
            "update job_slot set slot = ?2 where work_id = ?1 and slot is null",
            vec![work.into(), slot.into()],
        );
        match store.write(vec![take]).await {
            // Another job was faster: one that runs now, so this ends.
            Err(Error::Refused(_)) => {}
            Err(e) => return Err(e),
            // The job has gone, or has one by another claim, which owns it now.
            Ok(changed) if changed.first() == Some(&0) => return Ok(Slot::Wait { running: taken.len() }),
            Ok(_) => return Ok(Slot::Taken),
        }
    }
}

/// Gives back a job's slot, or its place among those that wait, and tells `controller` of the next
/// one. Harmless to repeat, and for a job that never asked for one.
///
/// # Errors
/// Those of the store.
pub async fn give_back(store: &dyn Store, tenant: &str, work: &str, controller: &str) -> Result<(), Error> {
    let found = Statement::new(
        "select work_id from job_slot where tenant = ?1 and (work_id = ?2 or slot is null) limit 1",
        vec![tenant.into(), work.into()],
    );
    if store.query(found).await?.is_empty() {
        return Ok(());
    }
    let delete = Statement::new("delete from job_slot where work_id = ?1", vec![work.into()]);
    store.write(vec![delete]).await?;
    tell_next(store, tenant, controller, 1).await
}

/// Tells the jobs of the highest priority that have waited longest to look for a slot. Ids are sortable by time.
///
/// # Errors
/// Those of the store.
pub async fn tell_next(store: &dyn Store, tenant: &str, controller: &str, most: i64) -> Result<(), Error> {
    // One that is parked would not look.
    let waiting = Statement::new(
        "select s.work_id from job_slot s join controller c on c.work_id = s.work_id and c.name = ?2 \
         join work w on w.id = s.work_id where s.tenant = ?1 and s.slot is null and c.step in ('waiting', 'running') \
         order by w.priority desc, s.work_id limit ?3",
        vec![tenant.into(), controller.into(), Value::Int(most)],
    );
    for row in store.query(waiting).await? {
        store.nudge(row[0].text(), controller).await?;
    }
    Ok(())
}
