//! The embedded store: SQLite in WAL with `synchronous=FULL`, one writer with group commit, readers beside.
//!
//! The statements keep to what PostgreSQL understands as well; where the two must differ (its row locks,
//! its clock), the place says so.

mod reads;
mod verbs;
mod writer;

use crate::store::{
    Accept, Accepted, Advance, Claim, Claimant, Event, Fence, Filter, Group, Page, Release, Row, Statement,
    Store, Value, Work,
};
use crate::{Error, Machine};
use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags, types::ValueRef};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use writer::Writer;

/// The earliest SQLite that does not lose commits when two connections write (the WAL-reset bug,
/// sqlite.org/wal.html).
const VERSION_MIN: i32 = 3_051_003;
/// How long a commit waits for another process's.
const BUSY: Duration = Duration::from_secs(2);
/// Readers that may read at once.
const READERS: usize = 4;

/// The signals by which workers of this process learn of messages.
type Signals = Arc<Mutex<HashMap<String, Arc<Notify>>>>;

/// A store in one SQLite file.
pub struct Sqlite {
    writer: Writer,
    readers: Readers,
    signals: Signals,
    machines: &'static [Machine],
}

/// The transaction that a request runs in.
struct Tx<'a> {
    connection: &'a Connection,
    /// The database's clock when the transaction began.
    now: i64,
    /// Groups that have something to do once this is committed.
    woken: BTreeSet<String>,
}

impl Sqlite {
    /// Opens the store in `file`, or makes it. `tables` is the SQL of the library user's own tables, run
    /// once when the store is made.
    ///
    /// # Errors
    /// [`Error::Open`] when the file can't be opened, is on a network file system, was made by another
    /// version, or when this SQLite is too old.
    pub fn open(file: &Path, machines: &'static [Machine], tables: &str) -> Result<Sqlite, Error> {
        let version = rusqlite::version_number();
        if version < VERSION_MIN {
            return Err(Error::Open(format!(
                "SQLite {version} can lose commits: {VERSION_MIN} or later is needed"
            )));
        }
        let opening = |e: String| Error::Open(format!("open the store `{}`: {e}", file.display()));
        refuse_network_file_system(file).map_err(opening)?;
        make_private(file).map_err(|e| opening(e.to_string()))?;
        let mut connection =
            connect(file, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|e| opening(e.to_string()))?;
        migrate(&mut connection, tables).map_err(|e| opening(e.to_string()))?;
        let signals = Signals::default();
        let notified = signals.clone();
        let on_commit = Arc::new(move |woken: &BTreeSet<String>| {
            let signals = notified.lock().unwrap_or_else(PoisonError::into_inner);
            for signal in woken.iter().filter_map(|group| signals.get(group)) {
                signal.notify_one();
            }
        });
        let writer = Writer::start(connection, on_commit).map_err(|e| opening(e.to_string()))?;
        Ok(Sqlite { writer, readers: Readers::new(file), signals, machines })
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.writer.write(work).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let readers = self.readers.clone();
        let task = tokio::task::spawn_blocking(move || readers.with(work));
        task.await.map_err(|e| Error::Unavailable(format!("a reader ended: {e}")))?
    }
}

fn connect(file: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(128);
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // A savepoint journals the pages that it may have to take back: in memory, not in a file.
    connection.pragma_update(None, "temp_store", "memory")?;
    // Plans don't depend on what is bound: else statements are compiled again for new values.
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

/// The store's version: raised with every change of the tables.
const SCHEMA_VERSION: i64 = 1;

fn migrate(connection: &mut Connection, tables: &str) -> Result<(), Error> {
    let version_of = |connection: &Connection| -> Result<i64, Error> {
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(error)
    };
    if version_of(connection)? == SCHEMA_VERSION {
        // Without a write: another process may stand still with the lock, and we can serve reads meanwhile.
        return Ok(());
    }
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(error)?;
    let version = version_of(&transaction)?;
    match version {
        0 => {
            transaction.execute_batch(include_str!("schema.sql")).map_err(error)?;
            transaction.execute_batch(tables).map_err(error)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(error)?;
            transaction.commit().map_err(error)
        }
        SCHEMA_VERSION => Ok(()),
        other => Err(Error::Open(format!("it has version {other}, and this program knows {SCHEMA_VERSION}"))),
    }
}

/// Locks don't hold there, and SQLite's WAL needs shared memory.
fn refuse_network_file_system(file: &Path) -> Result<(), String> {
    const NETWORK: [(u64, &str); 4] =
        [(0x6969, "NFS"), (0x517b, "SMB"), (0xff53_4d42, "CIFS"), (0xfe53_4d42, "SMB2")];
    let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(info) = rustix::fs::statfs(folder) else { return Ok(()) };
    match NETWORK.iter().find(|(magic, _)| *magic == info.f_type as u64 & 0xffff_ffff) {
        Some((_, name)) => {
            Err(format!("it is on {name}, a network file system: choose a folder on a local disk"))
        }
        None => Ok(()),
    }
}

/// The file is its owner's alone; SQLite gives its WAL the same mode.
fn make_private(file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file).map(drop)
}

/// The database's clock. SQLite's is this machine's; all processes of one store share it.
fn now_ms(connection: &Connection) -> Result<i64, Error> {
    let mut statement =
        connection.prepare_cached("select cast(unixepoch('subsec') * 1000 as integer)").map_err(error)?;
    statement.query_row([], |row| row.get(0)).map_err(error)
}

fn error(e: rusqlite::Error) -> Error {
    match e.sqlite_error_code() {
        Some(code) if writer::is_transient(code) => Error::Unavailable(e.to_string()),
        _ => Error::Refused(e.to_string()),
    }
}

/// Connections that only read, opened as they are needed.
#[derive(Clone)]
struct Readers {
    file: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    fn new(file: &Path) -> Readers {
        Readers { file: file.to_owned(), idle: Arc::default() }
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.file, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(error)?,
        };
        // One snapshot for all that the request reads.
        connection.execute_batch("begin").map_err(error)?;
        let result = work(&connection);
        connection.execute_batch("commit").map_err(error)?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < READERS {
            idle.push(connection);
        }
        result
    }
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::ToSqlOutput::Borrowed;
        Ok(match self {
            Value::Null => Borrowed(ValueRef::Null),
            Value::Int(n) => Borrowed(ValueRef::Integer(*n)),
            Value::Text(text) => Borrowed(ValueRef::Text(text.as_bytes())),
        })
    }
}

impl rusqlite::types::FromSql for Value {
    fn column_result(value: ValueRef<'_>) -> rusqlite::types::FromSqlResult<Value> {
        Ok(match value {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(n) => Value::Int(n),
            ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Real(_) | ValueRef::Blob(_) => return Err(rusqlite::types::FromSqlError::InvalidType),
        })
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn accept(&self, mut accept: Accept) -> Result<Accepted, Error> {
        let machine = verbs::machine(self.machines, &accept.kind)?;
        let work = verbs::begun(machine, &mut accept);
        let spec = work.spec.to_string();
        self.write(move |tx| verbs::accept(tx, work, &spec, accept)).await
    }

    async fn claim(&self, controller: &str, by: &Claimant, most: usize) -> Result<Vec<Claim>, Error> {
        let (controller, by) = (controller.to_owned(), by.clone());
        self.write(move |tx| verbs::claim(tx, &controller, &by, most)).await
    }

    async fn claim_alone(&self, controllers: &[String], by: &Claimant) -> Result<Option<Claim>, Error> {
        let (controllers, by) = (controllers.to_vec(), by.clone());
        let listed = controllers.clone();
        if !self.read(move |connection| reads::has_suspect(connection, &listed)).await? {
            return Ok(None);
        }
        self.write(move |tx| verbs::claim_alone(tx, &controllers, &by)).await
    }

    async fn renew(&self, fences: Vec<Fence>, lease: Duration) -> Result<Vec<Fence>, Error> {
        self.write(move |tx| verbs::renew(tx, fences, lease)).await
    }

    async fn advance(&self, fence: &Fence, advance: Advance) -> Result<bool, Error> {
        let (fence, machines) = (fence.clone(), self.machines);
        self.write(move |tx| verbs::advance(tx, machines, &fence, advance)).await
    }

    async fn release(&self, fence: &Fence, release: Release) -> Result<(), Error> {
        let fence = fence.clone();
        self.write(move |tx| verbs::release(tx, &fence, release)).await
    }

    async fn send(&self, work: &str, topic: &str) -> Result<(), Error> {
        let (work, topic) = (work.to_owned(), topic.to_owned());
        self.write(move |tx| verbs::send(tx, &work, topic)).await
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
        self.write(verbs::sweep).await
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
        self.read(move |connection| reads::next_due(connection, &group, only.as_deref())).await
    }

    async fn wake(&self, dependency: &str) -> Result<(), Error> {
        let dependency = dependency.to_owned();
        self.write(move |tx| verbs::wake(tx, &dependency)).await
    }

    async fn work(&self, tenant: &str, id: &str) -> Result<Option<(Work, Vec<Row>)>, Error> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.read(move |connection| reads::work_and_rows(connection, &tenant, &id)).await
    }

    async fn works(&self, tenant: &str, filter: Filter, page: Page<'_>) -> Result<Vec<Work>, Error> {
        let (tenant, limit, after) = (tenant.to_owned(), page.limit, page.after.map(str::to_owned));
        self.read(move |connection| reads::works(connection, &tenant, filter, limit, after)).await
    }

    async fn events(&self, work: &str, after: i64, most: usize) -> Result<Vec<Event>, Error> {
        let work = work.to_owned();
        self.read(move |connection| reads::events(connection, &work, after, most)).await
    }

    async fn query(&self, statement: Statement) -> Result<Vec<Vec<Value>>, Error> {
        self.read(move |connection| reads::query(connection, &statement)).await
    }

    fn signal(&self, group: &str) -> Arc<Notify> {
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        signals.entry(group.to_owned()).or_default().clone()
    }
}
