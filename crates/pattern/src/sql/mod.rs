//! The store over SQL, whatever the database: transactions, readers and signals.
//!
//! The verbs are written once, against [`Db`]: one connection on which a transaction runs. Their statements
//! keep to what SQLite and PostgreSQL both understand. Where others write at the same time (PostgreSQL), the
//! work's row is locked first, so that transactions wait for one row at most while they hold nothing else,
//! and none can wait in a circle.

mod claims;
mod reads;
mod retention;
mod steps;
mod together;
mod verbs;
mod writer;

use crate::store::OUTBOX;
use crate::store::{
    Accept, Accepted, Advance, Claim, Claimant, Event, Expired, Fence, Filter, Group, Message, Page, Release,
    Row, Statement, Store, Value, Work,
};
use crate::{Error, Machine};
use async_trait::async_trait;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use steps::Stepping;
use tokio::sync::{Notify, Semaphore};
use writer::{Asked, Writer};
pub(crate) use writer::{Batches, OnCommit};

/// The pattern's tables, in SQLite's words.
const SCHEMA: &str = include_str!("schema.sql");
/// The tables' version: raised with every change of them.
pub(crate) const SCHEMA_VERSION: i64 = 4;
/// What leads from each version to the next, from 1 on; in SQLite's words too.
const MIGRATIONS: &[&str] =
    &[include_str!("migrate_v2.sql"), include_str!("migrate_v3.sql"), include_str!("migrate_v4.sql")];
/// The first version that knows modules.
const MODULES_SINCE: i64 = 3;

/// The tables of a module of the library's user: a name, and what leads to each version from the one before,
/// from nothing on. Versions are only ever added, and only add, so that an older program that still runs goes on.
#[derive(Debug, Clone, Copy)]
pub struct Tables {
    /// The module's name in the store.
    pub name: &'static str,
    /// What each version brings.
    pub versions: &'static [Sql],
}

/// SQL for both databases and for each.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sql {
    /// In SQLite's words; for PostgreSQL `integer` becomes `bigint`, and `strict` falls away.
    pub all: &'static str,
    /// For SQLite alone, such as triggers.
    pub sqlite: &'static str,
    /// For PostgreSQL alone.
    pub postgres: &'static str,
}

/// What brings a module's tables up to date, and the version that they have then.
pub(crate) struct Missing {
    pub(crate) module: &'static str,
    pub(crate) version: i64,
    pub(crate) sql: &'static [Sql],
}

/// Which versions a store's tables have.
pub(crate) struct Versions {
    /// Those of the pattern; 0 where there are none.
    pub(crate) schema: i64,
    /// Those of the modules that it knows.
    pub(crate) modules: HashMap<String, i64>,
}

impl Versions {
    /// Reads the modules' versions beside the schema's.
    pub(crate) fn read(db: &mut dyn Db, schema: i64) -> Result<Versions, Error> {
        let sql = "select name, version from module";
        let rows = if schema >= MODULES_SINCE { db.query(sql, &[])? } else { Vec::new() };
        let modules = rows.into_iter().map(|row| {
            let mut row = Cells::of(row);
            (row.text(), row.int())
        });
        Ok(Versions { schema, modules: modules.collect() })
    }

    /// What brings the pattern's tables up to date.
    ///
    /// # Errors
    /// [`Error::Open`] for a version that is not known: a newer program's.
    pub(crate) fn schema_steps(&self) -> Result<Vec<&'static str>, Error> {
        match usize::try_from(self.schema) {
            Ok(0) => Ok(vec![SCHEMA]),
            Ok(version) if version <= MIGRATIONS.len() + 1 => Ok(MIGRATIONS[version - 1..].to_vec()),
            _ => Err(newer("the store's tables", self.schema, SCHEMA_VERSION)),
        }
    }

    /// What brings each module's tables up to date. A store older than modules holds the first version of the one that is named first.
    ///
    /// # Errors
    /// [`Error::Open`] as above.
    pub(crate) fn module_steps(&self, modules: &[Tables]) -> Result<Vec<Missing>, Error> {
        let mut steps = Vec::new();
        for (place, module) in modules.iter().enumerate() {
            let older = (1..MODULES_SINCE).contains(&self.schema) && place == 0;
            let has = self.modules.get(module.name).copied().unwrap_or(i64::from(older));
            let known = module.versions.len() as i64;
            let Some(missing) = usize::try_from(has).ok().and_then(|has| module.versions.get(has..)) else {
                return Err(newer(&format!("the tables of `{}`", module.name), has, known));
            };
            if !missing.is_empty() || older {
                steps.push(Missing { module: module.name, version: known, sql: missing });
            }
        }
        Ok(steps)
    }

    /// Whether nothing is to be done.
    pub(crate) fn are_todays(&self, modules: &[Tables]) -> Result<bool, Error> {
        Ok(self.schema == SCHEMA_VERSION && self.module_steps(modules)?.is_empty())
    }
}

fn newer(what: &str, has: i64, known: i64) -> Error {
    Error::Open(format!("{what} have version {has}, and this program knows {known}"))
}

/// Notes a module's version.
pub(crate) const NOTE_MODULE: &str =
    "insert into module (name, version) values (?1, ?2) on conflict (name) do update set version = ?2";

/// A connection to a database.
pub(crate) trait Db: Send {
    /// All rows that a statement gives; `?1`, `?2`, … stand for its values.
    fn query(&mut self, sql: &str, values: &[Param<'_>]) -> Result<Vec<Vec<Value>>, Error>;

    /// Runs statements one after the other; where each is a journey, without waiting for answers in between.
    fn execute_all(&mut self, statements: &[(&str, Vec<Param<'_>>)]) -> Result<(), Error> {
        statements.iter().try_for_each(|(sql, values)| self.execute(sql, values).map(drop))
    }

    /// How many rows a statement changed.
    fn execute(&mut self, sql: &str, values: &[Param<'_>]) -> Result<usize, Error>;

    /// Adds a row to a table whose rows are numbered in `id`. Returns its number.
    fn insert(&mut self, sql: &str, values: &[Param<'_>]) -> Result<i64, Error>;

    /// Begins a transaction: one that will write, or one snapshot to read.
    fn begin(&mut self, access: Access) -> Result<(), Error>;

    /// The database's clock, in milliseconds since 1970.
    fn now_ms(&mut self) -> Result<i64, Error>;

    /// Whether others write at the same time, so that rows must be locked.
    fn is_shared(&self) -> bool {
        false
    }

    /// Keeps others that write at the same time from accepting works of these tenants, until the transaction ends.
    fn hold(&mut self, _tenants: &BTreeSet<&str>) -> Result<(), Error> {
        Ok(())
    }

    /// Whether the connection can't be used any more.
    fn is_broken(&self) -> bool {
        false
    }

    /// Tells other processes of groups that have something to do; a hint, which may be lost.
    fn tell(&mut self, _groups: &BTreeSet<String>) {}
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Makes a connection.
pub(crate) type Connect = Arc<dyn Fn() -> Result<Box<dyn Db>, Error> + Send + Sync>;

/// A value of a statement, borrowed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Param<'a> {
    Null,
    Int(i64),
    Text(&'a str),
}

impl From<i64> for Param<'_> {
    fn from(n: i64) -> Self {
        Param::Int(n)
    }
}

impl From<bool> for Param<'_> {
    fn from(is: bool) -> Self {
        Param::Int(is.into())
    }
}

impl<'a> From<&'a str> for Param<'a> {
    fn from(text: &'a str) -> Self {
        Param::Text(text)
    }
}

impl<'a> From<&'a String> for Param<'a> {
    fn from(text: &'a String) -> Self {
        Param::Text(text)
    }
}

impl<'a> From<&'a Value> for Param<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Param::Null,
            Value::Int(n) => Param::Int(*n),
            Value::Text(text) => Param::Text(text),
        }
    }
}

impl From<Option<i64>> for Param<'_> {
    fn from(value: Option<i64>) -> Self {
        value.map_or(Param::Null, Param::Int)
    }
}

impl<'a> From<Option<&'a str>> for Param<'a> {
    fn from(value: Option<&'a str>) -> Self {
        value.map_or(Param::Null, Param::Text)
    }
}

/// The values of a statement.
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$(crate::sql::Param::from($value)),*][..] };
}
pub(crate) use params;

/// The cells of a row, taken one after the other.
pub(crate) struct Cells(std::vec::IntoIter<Value>);

impl Cells {
    pub(crate) fn of(row: Vec<Value>) -> Cells {
        Cells(row.into_iter())
    }

    fn next(&mut self) -> Value {
        self.0.next().unwrap_or(Value::Null)
    }

    pub(crate) fn text(&mut self) -> String {
        self.maybe_text().unwrap_or_default()
    }

    pub(crate) fn maybe_text(&mut self) -> Option<String> {
        if let Value::Text(text) = self.next() { Some(text) } else { None }
    }

    pub(crate) fn int(&mut self) -> i64 {
        self.maybe_int().unwrap_or_default()
    }

    pub(crate) fn maybe_int(&mut self) -> Option<i64> {
        if let Value::Int(n) = self.next() { Some(n) } else { None }
    }

    pub(crate) fn is(&mut self) -> bool {
        self.int() != 0
    }
}

/// The signals by which workers of this process learn of messages.
#[derive(Clone, Default)]
pub(crate) struct Signals(Arc<SignalMap>);

pub(crate) type SignalMap = Mutex<HashMap<String, Arc<Notify>>>;

#[cfg(feature = "postgres")]
impl From<Arc<SignalMap>> for Signals {
    fn from(map: Arc<SignalMap>) -> Signals {
        Signals(map)
    }
}

impl Signals {
    fn of(&self, group: &str) -> Arc<Notify> {
        self.lock().entry(group.to_owned()).or_default().clone()
    }

    /// Wakes the workers of a group.
    pub(crate) fn wake(&self, group: &str) {
        if let Some(signal) = self.lock().get(group) {
            signal.notify_one();
        }
    }

    /// The signals for somebody who must not keep the store alive.
    #[cfg(feature = "postgres")]
    pub(crate) fn weak(&self) -> std::sync::Weak<SignalMap> {
        Arc::downgrade(&self.0)
    }

    /// Wakes all of them: what was sent meanwhile may not have been heard.
    #[cfg(feature = "postgres")]
    pub(crate) fn wake_all(&self) {
        self.lock().values().for_each(|signal| signal.notify_one());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The transaction that a request runs in.
pub(crate) struct Tx<'a> {
    db: &'a mut dyn Db,
    /// The database's clock when the transaction began.
    now: i64,
    /// Groups that have something to do once this is committed.
    woken: BTreeSet<String>,
    /// The groups as a request of this transaction has read them.
    groups: &'a mut Groups,
    /// Whether the request may have changed something by now.
    wrote: bool,
}

/// Each group's name and topic, once they were read.
type Groups = Option<Arc<Vec<(String, String)>>>;

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
    swept: Arc<verbs::Swept>,
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
        let work = verbs::begun(machine, &mut accept);
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
        self.write(move |tx| verbs::renew(tx, &fences, lease)).await
    }

    async fn advance(&self, fence: &Fence, advance: Advance) -> Result<bool, Error> {
        self.steps.step(Stepping { machines: self.machines, fence: fence.clone(), advance }).await
    }

    async fn unrelayed(&self, most: usize) -> Result<Vec<Message>, Error> {
        self.read(move |db| reads::unrelayed(db, most)).await
    }

    async fn relayed(&self, messages: Vec<i64>) -> Result<(), Error> {
        self.write(move |tx| verbs::relayed(tx, &messages)).await
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
        self.write(move |tx| verbs::send(tx, &work, &topic)).await
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
        self.write(move |tx| verbs::free(tx, &owner)).await
    }

    async fn sweep(&self) -> Result<usize, Error> {
        let swept = self.swept.clone();
        self.write(move |tx| verbs::sweep(tx, &swept)).await
    }

    async fn add_group(&self, name: &str, topic: &str, from_beginning: bool) -> Result<(), Error> {
        let (name, topic) = (name.to_owned(), topic.to_owned());
        self.write(move |tx| verbs::add_group(tx, &name, &topic, from_beginning)).await
    }

    async fn remove_group(&self, name: &str) -> Result<(), Error> {
        let name = name.to_owned();
        self.write(move |tx| verbs::remove_group(tx, &name)).await
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
