//! A connection, as the verbs use it, and the values that go to it and come from it.

use crate::Error;
use crate::store::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

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
