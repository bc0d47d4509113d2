//! The store over SQL, whatever the database: transactions, readers and signals.
//!
//! The verbs are written once, against [`Db`]: one connection on which a transaction runs. Their statements
//! keep to what SQLite and PostgreSQL both understand. Where others write at the same time (PostgreSQL), the
//! work's row is locked first, so that transactions wait for one row at most while they hold nothing else,
//! and none can wait in a circle.

mod accept;
mod claims;
mod db;
mod leases;
mod messages;
mod reads;
mod retention;
mod signals;
mod steps;
mod together;
mod tx;
mod verbs;
mod versions;
mod writer;

use crate::store::{
    Accept, Accepted, Advance, Claim, Claimant, Event, Expired, Fence, Filter, Group, Message, OUTBOX, Page,
    Release, Row, Statement, Store, Value, Work,
};
use crate::{Error, Machine};
use async_trait::async_trait;
pub(crate) use db::{Access, Cells, Connect, Db, Param, params};
#[cfg(feature = "postgres")]
pub(crate) use signals::SignalMap;
pub(crate) use signals::Signals;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use steps::Stepping;
use tokio::sync::{Notify, Semaphore};
pub(crate) use tx::Tx;
pub(crate) use versions::{NOTE_MODULE, SCHEMA_VERSION, Versions};
pub use versions::{Sql, Tables};
use writer::{Asked, Writer};
pub(crate) use writer::{Batches, OnCommit};

/// Connections that only read, opened as they are needed.
#[derive(Clone)]
pub(crate) struct Readers {
    connect: Connect,
    idle: Arc<Mutex<Vec<Box<dyn Db>>>>,
}

/// Connections that are kept for reading.
const READERS: usize = 4;
/// Requests that read at once.
const READS: usize = 8;

impl Readers {
    pub(crate) fn new(connect: Connect) -> Readers {
        Readers { connect, idle: Arc::default() }
    }

    fn with<T>(&self, work: impl FnOnce(&mut dyn Db) -> Result<T, Error>) -> Result<T, Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // One snapshot for all that the request reads.
        let mut db = begun(idle, &self.connect, Access::Read)?;
        let result = work(&mut *db);
        db.execute("commit", &[])?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < READERS {
            idle.push(db);
        }
        result
    }
}

/// A connection on which a transaction has begun. One that was kept may have been cut meanwhile; as nothing was
/// asked of it yet, another takes its place.
fn begun(kept: Option<Box<dyn Db>>, connect: &Connect, access: Access) -> Result<Box<dyn Db>, Error> {
    if let Some(mut db) = kept.filter(|db| !db.is_broken()) {
        match db.begin(access) {
            Ok(()) => return Ok(db),
            Err(e) if !db.is_broken() => return Err(e),
            Err(_) => {}
        }
    }
    let mut db = connect()?;
    db.begin(access)?;
    Ok(db)
}

/// A store in a SQL database: [`crate::sqlite::open`], and with the feature `postgres` `postgres::open`.
pub struct SqlStore {
    /// Takes requests that only add rows.
    accepts: Writer,
    /// Takes controllers' steps.
    steps: Writer,
    /// Takes all others.
    others: Writer,
    readers: Readers,
    /// So many read at once: each is a connection.
    reading: Arc<Semaphore>,
    signals: Signals,
    machines: &'static [Machine],
    turns: Arc<claims::Turns>,
    swept: Arc<leases::Swept>,
}

/// How requests are committed, by kind.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Writers {
    /// By one writer.
    One(Batches),
    /// By writers of their own.
    #[cfg(feature = "postgres")]
    Each { accepts: Batches, steps: Batches, others: Batches },
}

impl SqlStore {
    /// A store whose writers connect by `connect`.
    pub(crate) fn new(
        connect: Connect,
        readers: Readers,
        signals: Signals,
        machines: &'static [Machine],
        writers: Writers,
    ) -> std::io::Result<SqlStore> {
        let notified = signals.clone();
        let on_commit: OnCommit = Arc::new(move |woken: &BTreeSet<String>| {
            woken.iter().for_each(|group| notified.wake(group));
            if !woken.is_empty() {
                notified.wake(OUTBOX);
            }
        });
        let start = |batches| Writer::start(batches, connect.clone(), on_commit.clone());
        let (accepts, steps, others) = match writers {
            Writers::One(all) => {
                let writer = start(all)?;
                (writer.clone(), writer.clone(), writer)
            }
            #[cfg(feature = "postgres")]
            Writers::Each { accepts, steps, others } => (start(accepts)?, start(steps)?, start(others)?),
        };
        let reading = Arc::new(Semaphore::new(READS));
        let (turns, swept) = (Arc::default(), Arc::default());
        Ok(SqlStore { accepts, steps, others, readers, reading, signals, machines, turns, swept })
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.others.write(work).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Db) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let readers = self.readers.clone();
        let slot = self.reading.clone().acquire_owned().await;
        // Who asked may be gone; the connection is in use until it has answered.
        let task = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            readers.with(work)
        });
        task.await.map_err(|e| Error::Unavailable(format!("a reader ended: {e}")))?
    }
}

#[async_trait]
impl Store for SqlStore {
    async fn accept(&self, mut accept: Accept) -> Result<Accepted, Error> {
        let machine = verbs::machine(self.machines, &accept.kind)?;
        let work = accept::begun(machine, &mut accept);
        let spec = serde_json::to_string(&work.spec).map_err(|e| Error::Unavailable(e.to_string()))?;
        self.accepts.accept(Asked { work, spec, accept }).await
    }

    async fn claim(&self, controller: &str, by: &Claimant, most: usize) -> Result<Vec<Claim>, Error> {
        let (controller, by, turns) = (controller.to_owned(), by.clone(), self.turns.clone());
        self.write(move |tx| claims::claim(tx, &controller, &by, most, &turns)).await
    }

    async fn claim_alone(&self, controllers: &[String], by: &Claimant) -> Result<Option<Claim>, Error> {
        let (controllers, by) = (controllers.to_vec(), by.clone());
        let listed = controllers.clone();
        if !self.read(move |db| reads::has_suspect(db, &listed)).await? {
            return Ok(None);
        }
        self.write(move |tx| claims::claim_alone(tx, &controllers, &by)).await
    }

    async fn renew(&self, fences: Vec<Fence>, lease: Duration) -> Result<Vec<Fence>, Error> {
        self.write(move |tx| leases::renew(tx, &fences, lease)).await
    }

    async fn advance(&self, fence: &Fence, advance: Advance) -> Result<bool, Error> {
        self.steps.step(Stepping { machines: self.machines, fence: fence.clone(), advance }).await
    }

    async fn unrelayed(&self, most: usize) -> Result<Vec<Message>, Error> {
        self.read(move |db| reads::unrelayed(db, most)).await
    }

    async fn relayed(&self, messages: Vec<i64>) -> Result<(), Error> {
        self.write(move |tx| messages::relayed(tx, &messages)).await
    }

    async fn unconsumed(&self, group: &str, (first, last): (i64, i64)) -> Result<Vec<i64>, Error> {
        let group = group.to_owned();
        self.read(move |db| reads::unconsumed(db, &group, first, last)).await
    }

    async fn confirm(&self, tenant: Option<&str>, work: &str, controller: &str) -> Result<(), Error> {
        let (tenant, work, controller) = (tenant.map(str::to_owned), work.to_owned(), controller.to_owned());
        self.write(move |tx| verbs::confirm(tx, tenant.as_deref(), &work, &controller)).await
    }

    async fn confirmed(&self, work: &str, controller: &str) -> Result<bool, Error> {
        let (work, controller) = (work.to_owned(), controller.to_owned());
        self.read(move |db| reads::confirmed(db, &work, &controller)).await
    }

    async fn release(&self, fence: &Fence, release: Release) -> Result<(), Error> {
        let fence = fence.clone();
        self.write(move |tx| verbs::release(tx, &fence, &release)).await
    }

    async fn send(&self, work: &str, topic: &str) -> Result<(), Error> {
        let (work, topic) = (work.to_owned(), topic.to_owned());
        self.write(move |tx| messages::send(tx, &work, &topic)).await
    }

    async fn nudge(&self, work: &str, controller: &str) -> Result<(), Error> {
        let (work, controller) = (work.to_owned(), controller.to_owned());
        self.write(move |tx| verbs::nudge(tx, &work, &controller)).await
    }

    async fn cancel(&self, tenant: &str, work: &str) -> Result<Work, Error> {
        let (tenant, work) = (tenant.to_owned(), work.to_owned());
        self.write(move |tx| verbs::cancel(tx, &tenant, &work)).await
    }

    async fn redrive(&self, tenant: &str, work: &str) -> Result<Work, Error> {
        let (tenant, work) = (tenant.to_owned(), work.to_owned());
        self.write(move |tx| verbs::redrive(tx, &tenant, &work)).await
    }

    async fn free(&self, owner: &str) -> Result<usize, Error> {
        let owner = owner.to_owned();
        self.write(move |tx| leases::free(tx, &owner)).await
    }

    async fn sweep(&self) -> Result<usize, Error> {
        let swept = self.swept.clone();
        self.write(move |tx| leases::sweep(tx, &swept)).await
    }

    async fn add_group(&self, name: &str, topic: &str, from_beginning: bool) -> Result<(), Error> {
        let (name, topic) = (name.to_owned(), topic.to_owned());
        self.write(move |tx| messages::add_group(tx, &name, &topic, from_beginning)).await
    }

    async fn remove_group(&self, name: &str) -> Result<(), Error> {
        let name = name.to_owned();
        self.write(move |tx| messages::remove_group(tx, &name)).await
    }

    async fn groups(&self) -> Result<Vec<Group>, Error> {
        self.read(reads::groups).await
    }

    async fn next_due(&self, group: &str, only: Option<&str>) -> Result<Option<i64>, Error> {
        let (group, only) = (group.to_owned(), only.map(str::to_owned));
        self.read(move |db| reads::next_due(db, &group, only.as_deref())).await
    }

    async fn wake(&self, dependency: &str) -> Result<(), Error> {
        let dependency = dependency.to_owned();
        self.write(move |tx| verbs::wake(tx, &dependency)).await
    }

    async fn work(&self, tenant: &str, id: &str) -> Result<Option<(Work, Vec<Row>)>, Error> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.read(move |db| reads::work_and_rows(db, &tenant, &id)).await
    }

    async fn works(&self, tenant: &str, filter: Filter, page: Page<'_>) -> Result<Vec<Work>, Error> {
        let (tenant, limit, after) = (tenant.to_owned(), page.limit, page.after.map(str::to_owned));
        self.read(move |db| reads::works(db, &tenant, filter, limit, after)).await
    }

    async fn expired(&self, before_ms: i64, most: usize) -> Result<Vec<Expired>, Error> {
        self.read(move |db| retention::expired(db, before_ms, most)).await
    }

    async fn purge(&self, works: Vec<String>, before_ms: i64) -> Result<usize, Error> {
        self.write(move |tx| retention::purge(tx, &works, before_ms)).await
    }

    async fn events(&self, work: &str, after: i64, most: usize) -> Result<Vec<Event>, Error> {
        let work = work.to_owned();
        self.read(move |db| reads::events(db, &work, after, most)).await
    }

    async fn write(&self, statements: Vec<Statement>) -> Result<Vec<usize>, Error> {
        SqlStore::write(self, move |tx| verbs::write(tx, &statements)).await
    }

    async fn query(&self, statement: Statement) -> Result<Vec<Vec<Value>>, Error> {
        self.read(move |db| reads::query(db, &statement)).await
    }

    fn signal(&self, group: &str) -> Arc<Notify> {
        self.signals.of(group)
    }
}

pub(super) fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
