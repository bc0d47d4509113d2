//! The embedded database: SQLite in WAL with `synchronous=FULL`, one writer with group commit, readers beside.

use crate::sql::{
    Access, Batches, Connect, Db, NOTE_MODULE, Param, Readers, SCHEMA_VERSION, Signals, SqlStore, Tables,
    Versions, Writers,
};
use crate::store::Value;
use crate::{Error, Machine};
use rusqlite::{Connection, ErrorCode, OpenFlags, params_from_iter, types::ValueRef};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The earliest SQLite that does not lose commits when two connections write (the WAL-reset bug,
/// sqlite.org/wal.html).
const VERSION_MIN: i32 = 3_051_003;
/// How long a commit waits for another process's.
const BUSY: Duration = Duration::from_secs(2);
/// The most memory of a connection's cache of pages, in KiB.
const CACHE_KIB: i64 = 16 << 10;
/// One writer, as the file has one write lock; what gathers while it commits is committed together.
const BATCHES: Batches = Batches { writers: 1, most: 512 };

/// Opens the store in `file`, or makes it.
///
/// # Errors
/// [`Error::Open`] when the file can't be opened, is on a network file system, was made by another version,
/// or when this SQLite is too old.
pub fn open(file: &Path, machines: &'static [Machine], modules: &[Tables]) -> Result<SqlStore, Error> {
    let version = rusqlite::version_number();
    if version < VERSION_MIN {
        return Err(Error::Open(format!(
            "SQLite {version} can lose commits: {VERSION_MIN} or later is needed"
        )));
    }
    let opening = |e: String| Error::Open(format!("open the store `{}`: {e}", file.display()));
    refuse_network_file_system(file).map_err(opening)?;
    make_private(file).map_err(|e| opening(e.to_string()))?;
    let connection = connect(file, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|e| opening(e.to_string()))?;
    migrate(connection, modules).map_err(|e| opening(e.to_string()))?;
    let connecting = |flags: OpenFlags| -> Connect {
        let file = file.to_owned();
        Arc::new(move || Ok(Box::new(Sqlite(connect(&file, flags).map_err(error)?))))
    };
    let readers = Readers::new(connecting(OpenFlags::SQLITE_OPEN_READ_ONLY));
    let connect = connecting(OpenFlags::SQLITE_OPEN_READ_WRITE);
    SqlStore::new(connect, readers, Signals::default(), machines, Writers::One(BATCHES))
        .map_err(|e| opening(e.to_string()))
}

/// Copies the store in `file`, as it is at one moment, into the new file `to`. Whoever writes goes on meanwhile.
///
/// # Errors
/// [`Error::Open`] when there is no store or the copy can't be written.
pub fn copy(file: &Path, to: &Path) -> Result<(), Error> {
    let copying = |e: String| Error::Open(format!("copy the store `{}`: {e}", file.display()));
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE);
    let connection = connection.map_err(|e| copying(e.to_string()))?;
    make_private(to).map_err(|e| copying(e.to_string()))?;
    // It syncs what it has written (sqlite.org/lang_vacuum.html).
    let copied = connection.execute("vacuum into ?1", [to.to_string_lossy()]);
    copied.map(drop).map_err(|e| copying(e.to_string()))
}

fn connect(file: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(128);
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    // Steps of many works touch many pages: with the default of 2 MB they are read from the file over and over.
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // A savepoint journals the pages that it may have to take back: in memory, not in a file.
    connection.pragma_update(None, "temp_store", "memory")?;
    // Plans don't depend on what is bound: else statements are compiled again for new values.
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

fn migrate(connection: Connection, modules: &[Tables]) -> Result<(), Error> {
    let mut db = Sqlite(connection);
    let versions_of = |db: &mut Sqlite| -> Result<Versions, Error> {
        let schema = db.0.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(error)?;
        Versions::read(db, schema)
    };
    if versions_of(&mut db)?.are_todays(modules)? {
        // Without a write: another process may stand still with the lock, and we can serve reads meanwhile.
        return Ok(());
    }
    // What fails takes the transaction back with the connection.
    db.begin(Access::Write)?;
    let versions = versions_of(&mut db)?;
    for sql in versions.schema_steps()? {
        db.0.execute_batch(sql).map_err(error)?;
    }
    db.0.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(error)?;
    for missing in versions.module_steps(modules)? {
        for sql in missing.sql {
            db.0.execute_batch(sql.all).map_err(error)?;
            db.0.execute_batch(sql.sqlite).map_err(error)?;
        }
        db.execute(NOTE_MODULE, &[Param::Text(missing.module), Param::Int(missing.version)])?;
    }
    db.execute("commit", &[]).map(drop)
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

struct Sqlite(Connection);

impl Db for Sqlite {
    fn query(&mut self, sql: &str, values: &[Param<'_>]) -> Result<Vec<Vec<Value>>, Error> {
        let mut statement = self.0.prepare_cached(sql).map_err(error)?;
        let columns = statement.column_count();
        let rows = statement
            .query_map(params_from_iter(values), |row| (0..columns).map(|n| row.get(n)).collect())
            .map_err(error)?;
        rows.collect::<rusqlite::Result<_>>().map_err(error)
    }

    fn execute(&mut self, sql: &str, values: &[Param<'_>]) -> Result<usize, Error> {
        self.0.prepare_cached(sql).map_err(error)?.execute(params_from_iter(values)).map_err(error)
    }

    fn insert(&mut self, sql: &str, values: &[Param<'_>]) -> Result<i64, Error> {
        self.execute(sql, values)?;
        Ok(self.0.last_insert_rowid())
    }

    fn begin(&mut self, access: Access) -> Result<(), Error> {
        let sql = if access == Access::Write { "begin immediate" } else { "begin" };
        self.execute(sql, &[]).map(drop)
    }

    /// This machine's clock, which all processes of one store share.
    fn now_ms(&mut self) -> Result<i64, Error> {
        let rows = self.query("select cast(unixepoch('subsec') * 1000 as integer)", &[])?;
        Ok(rows.first().map_or(0, |row| row[0].int()))
    }
}

fn error(e: rusqlite::Error) -> Error {
    match e.sqlite_error_code() {
        Some(code) if is_transient(code) => Error::Unavailable(e.to_string()),
        _ => Error::Refused(e.to_string()),
    }
}

/// What another attempt may mend: a lock that is held, a full disk, an I/O error, no memory.
fn is_transient(code: ErrorCode) -> bool {
    use ErrorCode::{CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory, SystemIoFailure};
    matches!(code, DatabaseBusy | DatabaseLocked | DiskFull | SystemIoFailure | OutOfMemory | CannotOpen)
}

impl rusqlite::ToSql for Param<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::ToSqlOutput::Borrowed;
        Ok(match self {
            Param::Null => Borrowed(ValueRef::Null),
            Param::Int(n) => Borrowed(ValueRef::Integer(*n)),
            Param::Text(text) => Borrowed(ValueRef::Text(text.as_bytes())),
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
mod tests {
    use super::*;
    use crate::store::{
        Accept, Advance, Claimant, Filter, IdempotencyKey, Next, PRIORITY, Page, Publish, Release, Shares,
        Statement, Store,
    };
    use crate::{Machine, Status};
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    const MACHINES: &[Machine] =
        &[Machine { kind: "k", stages: &["first", "second"], required: &["left"], ended: Some("ended") }];

    /// Each statement that was run, and how SQLite finds its rows.
    type Plans = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

    struct Explained {
        db: Sqlite,
        plans: Plans,
    }

    impl Explained {
        fn note(&self, sql: &str) {
            let Ok(mut explain) = self.db.0.prepare(&format!("explain query plan {sql}")) else { return };
            let mut rows = explain.raw_query();
            let mut plan = Vec::new();
            while let Some(row) = rows.next().unwrap() {
                plan.push(row.get::<_, String>(3).unwrap());
            }
            self.plans.lock().unwrap().insert(sql.to_owned(), plan);
        }
    }

    impl Db for Explained {
        fn query(&mut self, sql: &str, values: &[Param<'_>]) -> Result<Vec<Vec<Value>>, Error> {
            self.note(sql);
            self.db.query(sql, values)
        }

        fn execute(&mut self, sql: &str, values: &[Param<'_>]) -> Result<usize, Error> {
            self.note(sql);
            self.db.execute(sql, values)
        }

        fn insert(&mut self, sql: &str, values: &[Param<'_>]) -> Result<i64, Error> {
            self.note(sql);
            self.db.insert(sql, values)
        }

        fn begin(&mut self, access: Access) -> Result<(), Error> {
            self.db.begin(access)
        }

        fn now_ms(&mut self) -> Result<i64, Error> {
            self.db.now_ms()
        }
    }

    /// What costs the same whatever is in the store looks through no table of it.
    #[tokio::test(flavor = "multi_thread")]
    async fn no_statement_looks_through_a_table() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("store.db");
        drop(open(&file, MACHINES, &[]).unwrap());
        let plans = Plans::default();
        let connecting: Connect = {
            let plans = plans.clone();
            Arc::new(move || {
                let db = Sqlite(connect(&file, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(error)?);
                Ok(Box::new(Explained { db, plans: plans.clone() }))
            })
        };
        let readers = Readers::new(connecting.clone());
        let writers = Writers::One(BATCHES);
        let store = SqlStore::new(connecting, readers, Signals::default(), MACHINES, writers).unwrap();
        use_all_of(&store).await;
        let plans = plans.lock().unwrap();
        for (sql, plan) in plans.iter().filter(|(sql, _)| *sql != AGE) {
            let tables = "work controller delivery message event idempotency_key w c d m k";
            let looks_through = |line: &String| {
                // That index holds no more than what is asked for.
                let line =
                    line.strip_prefix("SCAN ").filter(|rest| !rest.ends_with("INDEX message_unrelayed"));
                let table = line.and_then(|rest| rest.split(' ').next());
                table.is_some_and(|table| tables.split(' ').any(|name| name == table))
            };
            assert!(!plan.iter().any(looks_through), "{sql}: {plan:#?}");
            assert!(
                !sql.contains("and status = ?4") || plan[0].contains("work_by_status"),
                "{sql}: {plan:#?}"
            );
        }
        assert!(plans.len() > 40, "{}", plans.len());
    }

    const AGE: &str = "update work set created_ms = 1";

    async fn use_all_of(store: &SqlStore) {
        for (group, topic) in [("left", "begin"), ("right", "next")] {
            store.add_group(group, topic, false).await.unwrap();
        }
        let ids = [accept(store, "1").await, accept(store, "2").await, accept(store, "3").await];
        accept(store, "3").await;
        let by = Claimant {
            owner: "o".into(),
            lease: Duration::from_secs(60),
            only: None,
            shares: Shares::default(),
            takes_suspects: false,
        };
        let claims = store.claim("left", &by, 9).await.unwrap();
        store.renew(claims.iter().map(|claim| claim.fence.clone()).collect(), by.lease).await.unwrap();
        let step = Advance {
            stage: Some("second"),
            settled: true,
            publish: vec![Publish { topic: "next".into(), after: Duration::ZERO }],
            ..Advance::to(Next::Done).event("e", serde_json::json!({}))
        };
        store.advance(&claims[0].fence, step).await.unwrap();
        store.advance(&claims[1].fence, Advance::to(Next::Again(Duration::ZERO))).await.unwrap();
        let wait =
            Release::Wait { dependency: "d".into(), reason: "r".into(), after: Duration::from_secs(9) };
        store.release(&claims[2].fence, wait).await.unwrap();
        store.wake("d").await.unwrap();
        let claim = store.claim("left", &by, 1).await.unwrap().remove(0);
        store.release(&claim.fence, Release::Park { reason: "r".into() }).await.unwrap();
        store.redrive("t", &claim.work.id).await.unwrap();
        store.claim("left", &by, 1).await.unwrap();
        store.free("o").await.unwrap();
        store.claim_alone(&["left".into()], &by).await.unwrap();
        store.sweep().await.unwrap();
        store.nudge(&ids[1], "left").await.unwrap();
        store.cancel("t", &ids[1]).await.unwrap();
        store.next_due("left", None).await.unwrap();
        store.unrelayed(9).await.unwrap();
        store.relayed(vec![1]).await.unwrap();
        store.unconsumed("left", (1, 9)).await.unwrap();
        store.work("t", &ids[0]).await.unwrap();
        store.events(&ids[0], 0, 9).await.unwrap();
        for status in [None, Some(Status::Failed)] {
            for time in [None, Some(1)] {
                let filter = Filter { status, created_after_ms: time, created_before_ms: time };
                store.works("t", filter, Page { limit: 9, after: None }).await.unwrap();
            }
        }
        store.expired(1 << 50, 9).await.unwrap();
        let right = store.claim("right", &by, 9).await.unwrap().remove(0);
        store.advance(&right.fence, Advance::to(Next::Done)).await.unwrap();
        Store::write(store, vec![Statement::new(AGE, vec![])]).await.unwrap();
        assert_eq!(store.purge(vec![ids[0].clone()], 1 << 50).await.unwrap(), 1);
    }

    async fn accept(store: &SqlStore, key: &str) -> String {
        let key = IdempotencyKey { scope: "s".into(), key: key.into(), fingerprint: "f".into() };
        let accept = Accept {
            tenant: "t".into(),
            kind: "k".into(),
            spec: serde_json::json!({}),
            topic: "begin".into(),
            key: Some(key),
            deadline: None,
            priority: PRIORITY,
            waiting_max: Some(9),
        };
        store.accept(accept).await.unwrap().work.id
    }
}
