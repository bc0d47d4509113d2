//! PostgreSQL, for more than one machine: accepted requests gather behind one writer, steps run beside each
//! other, and `LISTEN`/`NOTIFY` tells other processes to look. A notice is a hint: what gets lost is found by
//! the next look at the queue.
//!
//! Each call has a time-out of its own on this side, as a server that stands still answers nothing at all;
//! a connection that fails is dropped, and the next call makes another.

use crate::sql::{
    Access, Batches, Connect, Db, NOTE_MODULE, Param, Readers, SCHEMA_VERSION, SignalMap, Signals, SqlStore,
    Tables, Versions, Writers,
};
use crate::store::{OUTBOX, Value};
use crate::{Error, Machine};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::str::FromStr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Statement};

/// How long a call may take before the server counts as down.
const CALL: Duration = Duration::from_secs(5);
/// The longest that one statement of a migration may take.
const MIGRATION: Duration = Duration::from_secs(24 * 3600);
/// A process that leaves a transaction open so long stands still: its locks must not hold up others.
const STILL: Duration = Duration::from_secs(10);
/// How long a statement may wait for another transaction's row, in milliseconds.
const LOCK_MS: u32 = 2_000;
/// One writer for requests: gathered they cost a quarter of what each by itself does.
const ACCEPTS: Batches = Batches { writers: 1, most: 512 };
/// Steps of works that nobody else is at go together: while one writer commits, the other gathers.
const STEPS: Batches = Batches { writers: 2, most: 256 };
/// All else is a transaction of its own, as it may wait for its work's row; the server commits them together.
const OTHERS: Batches = Batches { writers: 6, most: 1 };
/// How many rows one statement inserts, the most first: a statement is prepared for each.
const ROWS: [usize; 3] = [64, 16, 4];
/// How writers ask: all that they write is found by its key. The planner guesses how many rows a list of ours has, and a
/// young table, and now and then joins all of a table with a hundred rows; and it plans anew for values that change
/// nothing, which took a third of a step's time.
const BY_KEY: &str = "set enable_seqscan = off; set plan_cache_mode = force_generic_plan; set jit = off";
/// The channel of notices, within the schema.
const CHANNEL: &str = "dragnet";
/// What keeps two processes from making the tables at once.
const MIGRATION_LOCK: i64 = 0x6472_6167;
/// What sets the locks of tenants apart from others' locks.
const QUOTA_LOCKS: i64 = 0x7175_6f74;

/// Opens the store at `url`, as libpq has it (`postgres://user@host/db`), and makes its tables where they are
/// missing. They go into the first schema of the search path.
///
/// # Errors
/// [`Error::Open`] when the URL is none, or when the tables are another version's;
/// [`Error::Unavailable`] when the server can't be reached.
pub fn open(url: &str, machines: &'static [Machine], modules: &[Tables]) -> Result<SqlStore, Error> {
    open_with(url, machines, modules, Notices::On)
}

/// Whether processes tell each other of messages by `LISTEN` and `NOTIFY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notices {
    /// They do.
    On,
    /// Something else does, or each looks for itself.
    Off,
}

/// As [`open`], with or without notices.
///
/// # Errors
/// Those of [`open`].
pub fn open_with(
    url: &str,
    machines: &'static [Machine],
    modules: &[Tables],
    notices: Notices,
) -> Result<SqlStore, Error> {
    let config = config(url)?;
    // On a thread of its own: whoever opens the store may be driven by a runtime already.
    let schema = std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            let mut first = Postgres::connect(&config)?;
            // A copy of a large table takes as long as it takes, and who comes second waits for it.
            first.patience = MIGRATION;
            first.batch("set statement_timeout = 0; set lock_timeout = 0; set idle_in_transaction_session_timeout = 0")?;
            migrate(&mut first, modules)?;
            Ok(first.query("select current_schema()", &[])?.remove(0).remove(0))
        });
        made.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let channel = format!("{CHANNEL}_{}", schema.text());
    let connecting: Connect = {
        let channel = channel.clone();
        Arc::new(move || {
            let mut db = Postgres::connect(&config)?;
            db.channel = (notices == Notices::On).then(|| channel.clone());
            Ok(Box::new(db))
        })
    };
    let signals = Signals::default();
    if notices == Notices::On {
        listen(url, channel, &signals)?;
    }
    let readers = Readers::new(connecting.clone());
    SqlStore::new(
        connecting,
        readers,
        signals,
        machines,
        Writers::Each { accepts: ACCEPTS, steps: STEPS, others: OTHERS },
    )
    .map_err(|e| Error::Open(format!("start the store's writers: {e}")))
}

fn config(url: &str) -> Result<Config, Error> {
    let mut config = Config::from_str(url)
        .map_err(|e| Error::Open(format!("the store is no URL of a PostgreSQL database: {e}")))?;
    if config.get_application_name().is_none() {
        config.application_name("dragnet");
    }
    config.connect_timeout(CALL).keepalives_idle(Duration::from_secs(10));
    Ok(config)
}

/// A connection, and the runtime that drives it while a call waits.
struct Postgres {
    /// There until the drop, which may come inside of another runtime, and must not wait there.
    runtime: Option<Runtime>,
    client: Client,
    prepared: HashMap<String, Statement>,
    /// Where notices go, if any are given.
    channel: Option<String>,
    /// Whether it has been told how writers ask.
    is_writer: bool,
    broken: bool,
    /// The longest that a call may take.
    patience: Duration,
}

impl Postgres {
    fn connect(config: &Config) -> Result<Postgres, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Error::Unavailable(e.to_string()))?;
        let client = runtime.block_on(async {
            let connected = tokio::time::timeout(CALL, config.connect(NoTls)).await;
            let (client, connection) = connected.map_err(|_| late())?.map_err(error)?;
            tokio::spawn(connection);
            Ok::<_, Error>(client)
        })?;
        let runtime = Some(runtime);
        let mut db = Postgres {
            runtime,
            client,
            prepared: HashMap::new(),
            channel: None,
            is_writer: false,
            broken: false,
            patience: CALL,
        };
        let settings = format!(
            "set lock_timeout = {LOCK_MS}; set statement_timeout = {}; \
             set idle_in_transaction_session_timeout = {}; set client_min_messages = warning",
            CALL.as_millis(),
            STILL.as_millis()
        );
        db.batch(&settings)?;
        Ok(db)
    }

    /// Waits for an answer; one that does not come breaks the connection.
    fn call<T>(
        &mut self,
        call: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Error> {
        let client = &self.client;
        let runtime = self.runtime.as_ref().ok_or_else(late)?;
        let patience = self.patience;
        let answer = runtime.block_on(async { tokio::time::timeout(patience, call(client)).await });
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(e)) => {
                self.broken |= e.is_closed() || e.code().is_none() || self.client.is_closed();
                Err(error(e))
            }
            Err(_) => {
                self.broken = true;
                Err(late())
            }
        }
    }

    fn batch(&mut self, sql: &str) -> Result<(), Error> {
        self.call(async |client| client.batch_execute(sql).await)
    }

    fn prepare(&mut self, sql: &str) -> Result<Statement, Error> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let numbered = numbered(sql);
        let statement = self.call(async |client| client.prepare(&numbered).await)?;
        self.prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A lock for each tenant, in one order, so that no two wait for each other's.
const HOLD: &str = "select pg_advisory_xact_lock(own) from (select distinct hashtextextended(current_schema() || '/' || tenant, ?2::bigint) as own \
    from json_array_elements_text(cast(?1::text as json)) as t (tenant) order by own) as held";

impl Db for Postgres {
    fn query(&mut self, sql: &str, values: &[Param<'_>]) -> Result<Vec<Vec<Value>>, Error> {
        let statement = self.prepare(sql)?;
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
        let rows = self.call(async |client| client.query(&statement, &values).await)?;
        let cells = |row: &tokio_postgres::Row| {
            (0..row.len()).map(|n| row.try_get::<_, Value>(n).map_err(error)).collect()
        };
        rows.iter().map(cells).collect()
    }

    fn execute(&mut self, sql: &str, values: &[Param<'_>]) -> Result<usize, Error> {
        let statement = self.prepare(sql)?;
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
        let changed = self.call(async |client| client.execute(&statement, &values).await)?;
        Ok(changed as usize)
    }

    /// Rows of one table that follow each other go as one statement; all others are each on their way before the last is
    /// answered.
    fn execute_all(&mut self, statements: &[(&str, Vec<Param<'_>>)]) -> Result<(), Error> {
        let mut prepared = Vec::new();
        let mut rest = statements;
        while let [(sql, values), ..] = rest {
            let alike = rest.iter().take_while(|(other, _)| other == sql).count();
            let rows = ROWS.into_iter().find(|rows| *rows <= alike).unwrap_or(1);
            let many = (rows > 1).then(|| with_rows(sql, rows, values.len())).flatten();
            let (now, later) = rest.split_at(if many.is_some() { rows } else { 1 });
            rest = later;
            let values: Vec<&(dyn ToSql + Sync)> =
                now.iter().flat_map(|(_, values)| values).map(|value| value as _).collect();
            prepared.push((self.prepare(many.as_deref().unwrap_or(sql))?, values));
        }
        let sent = async |client: &Client| {
            let answers = prepared.iter().map(|(statement, values)| client.execute(statement, values));
            futures_util::future::try_join_all(answers).await
        };
        self.call(sent).map(drop)
    }

    fn insert(&mut self, sql: &str, values: &[Param<'_>]) -> Result<i64, Error> {
        let rows = self.query(&format!("{sql} returning id"), values)?;
        Ok(rows.first().map_or(0, |row| row[0].int()))
    }

    fn begin(&mut self, access: Access) -> Result<(), Error> {
        if access == Access::Write && !self.is_writer {
            self.batch(BY_KEY)?;
            self.is_writer = true;
        }
        let sql = match access {
            Access::Write => "begin",
            Access::Read => "begin isolation level repeatable read read only",
        };
        self.execute(sql, &[]).map(drop)
    }

    /// `now()` stands still in a transaction; this one goes on.
    fn now_ms(&mut self) -> Result<i64, Error> {
        let rows = self.query("select cast(extract(epoch from clock_timestamp()) * 1000 as bigint)", &[])?;
        Ok(rows.first().map_or(0, |row| row[0].int()))
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn hold(&mut self, tenants: &BTreeSet<&str>) -> Result<(), Error> {
        let tenants = serde_json::json!(tenants).to_string();
        self.execute(HOLD, &[Param::Text(&tenants), Param::Int(QUOTA_LOCKS)]).map(drop)
    }

    fn is_broken(&self) -> bool {
        self.broken || self.client.is_closed()
    }

    fn tell(&mut self, groups: &BTreeSet<String>) {
        let Some(channel) = self.channel.clone() else { return };
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let groups = groups.join("\n");
        let sql = "select pg_notify(?1, name) from unnest(string_to_array(?2, chr(10))) as name";
        if let Err(e) = self.query(sql, &[Param::Text(&channel), Param::Text(&groups)]) {
            tracing::debug!(error = %e, "a notice was not sent");
        }
    }
}

/// A statement's values are `?1` there and `$1` here; no text of ours holds a question mark.
fn numbered(sql: &str) -> String {
    sql.replace('?', "$")
}

/// An `insert` of one row, `values (…)` its last words, as one of several, each with as many values; `None` where the text
/// is something else. No text of ours holds a parenthesis in quotes.
fn with_rows(sql: &str, rows: usize, values: usize) -> Option<String> {
    let (head, row) = sql.strip_prefix("insert into ")?.split_once(" values (")?;
    let row = row.strip_suffix(')')?;
    let mut depth = 0;
    let is_one = row.chars().all(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth >= 0
    });
    // A row that asks would not see the one before it.
    if !is_one || row.contains("select") {
        return None;
    }
    let shifted = |by: usize| {
        let mut parts = row.split('?');
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            let (number, behind) = part.split_at(digits);
            let number: usize = number.parse().ok()?;
            write!(text, "?{}{behind}", number + by).ok()?;
        }
        Some(format!("({text})"))
    };
    let rows: Option<Vec<String>> = (0..rows).map(|n| shifted(n * values)).collect();
    Some(format!("insert into {head} values {}", rows?.join(", ")))
}

/// The same tables in PostgreSQL's words. Texts are compared by their bytes, as in SQLite.
fn translated(sql: &str) -> String {
    sql.replace(") strict, without rowid;", ");")
        .replace(") strict;", ");")
        .replace("integer primary key", "bigint generated by default as identity primary key")
        .replace(" integer", " bigint")
        .replace(" text", " text collate \"C\"")
}

fn migrate(db: &mut Postgres, modules: &[Tables]) -> Result<(), Error> {
    db.batch("begin")?;
    db.query("select pg_advisory_xact_lock(?1)", &[Param::Int(MIGRATION_LOCK)])?;
    db.batch("create table if not exists dragnet_version (version bigint not null)")?;
    let schema = db.query("select max(version) from dragnet_version", &[])?.remove(0).remove(0).int();
    let versions = Versions::read(db, schema)?;
    for sql in versions.schema_steps()? {
        db.batch(&translated(sql))?;
    }
    if schema != SCHEMA_VERSION {
        db.execute("insert into dragnet_version (version) values (?1)", &[Param::Int(SCHEMA_VERSION)])?;
    }
    for missing in versions.module_steps(modules)? {
        for sql in missing.sql {
            db.batch(&translated(sql.all))?;
            db.batch(sql.postgres)?;
        }
        db.execute(NOTE_MODULE, &[Param::Text(missing.module), Param::Int(missing.version)])?;
    }
    db.batch("commit")
}

/// Listens for notices on a thread of its own, until the store is gone.
fn listen(url: &str, channel: String, signals: &Signals) -> Result<(), Error> {
    let (config, signals) = (config(url)?, signals.weak());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::Unavailable(e.to_string()))?;
    let hear = move || {
        runtime.block_on(async {
            while signals.strong_count() > 0 {
                if let Err(e) = hear(&config, &channel, &signals).await {
                    tracing::debug!(error = %e, "listening for notices begins again");
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    };
    let started = std::thread::Builder::new().name("store-notices".into()).spawn(hear);
    started.map(drop).map_err(|e| Error::Unavailable(e.to_string()))
}

/// Listens until the connection fails or the store is gone.
async fn hear(
    config: &Config,
    channel: &str,
    signals: &Weak<SignalMap>,
) -> Result<(), tokio_postgres::Error> {
    let (client, mut connection) = config.connect(NoTls).await?;
    let (messages, mut heard) = tokio::sync::mpsc::unbounded_channel();
    // It is driven beside the client, which asks through it.
    tokio::spawn(async move {
        while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if messages.send(message).is_err() {
                return;
            }
        }
    });
    client.batch_execute(&format!("listen \"{}\"", channel.replace('"', "\"\""))).await?;
    // What was sent before was not heard.
    if let Some(signals) = signals.upgrade() {
        Signals::from(signals).wake_all();
    }
    loop {
        let message = tokio::time::timeout(Duration::from_secs(1), heard.recv()).await;
        let Some(signals) = signals.upgrade() else { return Ok(()) };
        match message {
            Ok(Some(Ok(AsyncMessage::Notification(notice)))) => {
                let signals = Signals::from(signals);
                signals.wake(notice.payload());
                signals.wake(OUTBOX);
            }
            Ok(Some(Err(e))) => return Err(e),
            Ok(None) => return Ok(()),
            Ok(Some(Ok(_))) | Err(_) => {}
        }
    }
}

fn late() -> Error {
    Error::Unavailable(format!("the database did not answer within {} s", CALL.as_secs()))
}

/// What another attempt may mend, by the classes of PostgreSQL's errors (its manual, appendix A).
fn error(e: tokio_postgres::Error) -> Error {
    let Some(db) = e.as_db_error() else {
        return match std::error::Error::source(&e) {
            Some(source) if e.is_closed() || source.is::<std::io::Error>() => {
                Error::Unavailable(format!("{e}: {source}"))
            }
            Some(source) => Error::Refused(format!("{e}: {source}")),
            None => Error::Unavailable(e.to_string()),
        };
    };
    let (code, said) = (db.code().code(), db.to_string());
    // Connection, resources, operator, system; locks that were held; a statement that took too long.
    let transient =
        ["08", "53", "57", "58", "40"].iter().any(|class| code.starts_with(class)) || code == "55P03";
    if transient { Error::Unavailable(said) } else { Error::Refused(said) }
}

impl ToSql for Param<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Param::Null => Ok(IsNull::Yes),
            Param::Int(n) if *ty == Type::INT4 => i32::try_from(*n)?.to_sql(ty, out),
            Param::Int(n) if *ty == Type::INT8 => n.to_sql(ty, out),
            Param::Int(n) => Err(format!("{n} is given where the database wants {ty}").into()),
            Param::Text(text) => text.to_sql(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        [Type::INT4, Type::INT8, Type::TEXT, Type::VARCHAR, Type::UNKNOWN].contains(ty)
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Value, Box<dyn std::error::Error + Sync + Send>> {
        Ok(match *ty {
            Type::INT8 => Value::Int(i64::from_sql(ty, raw)?),
            Type::INT4 => Value::Int(i32::from_sql(ty, raw)?.into()),
            Type::BOOL => Value::Int(bool::from_sql(ty, raw)?.into()),
            // `pg_notify` and locks give a void.
            Type::VOID => Value::Null,
            // The sum of integers is a number of any length; ours are within 64 bits.
            Type::NUMERIC => Value::Int(integer_of_numeric(raw)?),
            _ => Value::Text(String::from_utf8_lossy(raw).into_owned()),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Value, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Value::Null)
    }

    fn accepts(ty: &Type) -> bool {
        [Type::INT8, Type::INT4, Type::BOOL, Type::TEXT, Type::VARCHAR, Type::NAME, Type::NUMERIC, Type::VOID]
            .contains(ty)
    }
}

/// A whole number in the wire format of `numeric`: digits to the base 10,000, most significant first.
fn integer_of_numeric(raw: &[u8]) -> Result<i64, Box<dyn std::error::Error + Sync + Send>> {
    let words: Vec<i64> =
        raw.chunks_exact(2).map(|word| i64::from(i16::from_be_bytes([word[0], word[1]]))).collect();
    let [_count, weight, sign, _scale, digits @ ..] = &words[..] else {
        return Err("a broken numeric".into());
    };
    let mut number = 0i64;
    for place in 0..=*weight {
        let digit = digits.get(place as usize).copied().unwrap_or(0);
        number =
            number.checked_mul(10_000).and_then(|n| n.checked_add(digit)).ok_or("a sum beyond 64 bits")?;
    }
    Ok(if *sign == 0 { number } else { -number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_insert_of_a_row_is_one_of_several() {
        let table = [
            ("insert into t (a, b) values (?1, ?2)", Some("insert into t (a, b) values (?1, ?2), (?3, ?4)")),
            (
                "insert into t (a, b) values ('x', coalesce(?2, ?1))",
                Some("insert into t (a, b) values ('x', coalesce(?2, ?1)), ('x', coalesce(?4, ?3))"),
            ),
            ("insert into t (a) values (?1) on conflict do nothing", None),
            ("insert into t (a) values (?1) on conflict (a) do update set b = (?2)", None),
            ("insert into t (a) values ((select max(a) from t where b = ?1) + ?2)", None),
            ("insert into t (a, b) select a, ?1 from t where b = ?2", None),
            ("update t set a = ?1 where b in (?2)", None),
        ];
        for (sql, expected) in table {
            assert_eq!(with_rows(sql, 2, 2).as_deref(), expected, "{sql}");
        }
    }

    #[test]
    fn reads_whole_numerics() {
        let raw = |words: &[i16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
        let table: [(&[i16], i64); 5] = [
            (&[0, 0, 0, 0], 0),
            (&[1, 0, 0, 0, 42], 42),
            (&[1, 1, 0, 0, 7], 70_000),
            (&[2, 1, 0, 0, 12, 3456], 123_456),
            (&[1, 0, 0x4000, 0, 5], -5),
        ];
        for (words, number) in table {
            assert_eq!(integer_of_numeric(&raw(words)).unwrap(), number, "{words:?}");
        }
    }
}
