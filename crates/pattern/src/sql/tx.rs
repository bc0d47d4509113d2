//! The transaction that a request runs in: its statements, the rows that it keeps others from, and what it leaves to be
//! told once it is committed.

use super::reads::{self, first};
use super::{Cells, Db, Param, params};
use crate::Error;
use crate::store::Event;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The transaction that a request runs in.
pub(crate) struct Tx<'a> {
    pub(super) db: &'a mut dyn Db,
    /// The database's clock when the transaction began.
    pub(super) now: i64,
    /// Groups that have something to do once this is committed.
    pub(super) woken: BTreeSet<String>,
    /// The groups as a request of this transaction has read them.
    pub(super) groups: &'a mut Groups,
    /// Whether the request may have changed something by now.
    pub(super) wrote: bool,
}

/// Each group's name and topic, once they were read.
pub(super) type Groups = Option<Arc<Vec<(String, String)>>>;

impl Tx<'_> {
    pub(super) fn execute(&mut self, sql: &str, values: &[Param<'_>]) -> Result<usize, Error> {
        self.wrote |= !only_reads(sql);
        self.db.execute(sql, values)
    }

    pub(super) fn all<T>(
        &mut self,
        sql: &str,
        values: &[Param<'_>],
        of: impl FnMut(Cells) -> T,
    ) -> Result<Vec<T>, Error> {
        self.wrote |= !only_reads(sql);
        reads::all(self.db, sql, values, of)
    }

    pub(super) fn first(&mut self, sql: &str, values: &[Param<'_>]) -> Result<Option<Cells>, Error> {
        self.wrote |= !only_reads(sql);
        first(self.db, sql, values)
    }

    /// The first cell of the first row.
    pub(super) fn int(&mut self, sql: &str, values: &[Param<'_>]) -> Result<Option<i64>, Error> {
        Ok(self.first(sql, values)?.and_then(|mut row| row.maybe_int()))
    }

    /// Waits for a work's row and keeps others from it to the transaction's end.
    pub(super) fn lock(&mut self, work: &str) -> Result<(), Error> {
        if self.db.is_shared() {
            self.execute("select 1 from work where id = ?1 for update", params![work])?;
        }
        Ok(())
    }

    /// As [`Tx::lock`], and says no instead of waiting.
    pub(super) fn try_lock(&mut self, work: &str) -> Result<bool, Error> {
        let sql = "select 1 from work where id = ?1 for update skip locked";
        Ok(!self.db.is_shared() || self.int(sql, params![work])?.is_some())
    }

    /// Keeps groups from coming and going, or keeps all others from looking at them.
    pub(super) fn lock_groups(&mut self, alone: bool) -> Result<(), Error> {
        if self.db.is_shared() {
            let mode = if alone { "exclusive" } else { "row share" };
            self.execute(&format!("lock table consumer_group in {mode} mode"), &[])?;
        }
        Ok(())
    }

    /// Every group and its topic, kept as they are to the transaction's end.
    pub(super) fn groups(&mut self) -> Result<Arc<Vec<(String, String)>>, Error> {
        if let Some(groups) = &*self.groups {
            return Ok(groups.clone());
        }
        self.lock_groups(false)?;
        let sql = "select name, topic from consumer_group order by name";
        let groups = Arc::new(self.all(sql, &[], |mut row| (row.text(), row.text()))?);
        *self.groups = Some(groups.clone());
        Ok(groups)
    }

    pub(super) fn wakes(&mut self, group: &str, due_ms: i64) {
        if due_ms <= self.now {
            self.woken.insert(group.to_owned());
        }
    }

    pub(super) fn event(&mut self, work: &str, event: &Event) -> Result<(), Error> {
        let sql = "update work set events = events + 1 where id = ?1 returning events";
        let seq = self.int(sql, params![work])?;
        let sql = "insert into event (work_id, seq, at_ms, kind, data) values (?1, ?2, ?3, ?4, ?5)";
        let data = event.data.to_string();
        self.execute(sql, params![work, seq, self.now, &event.kind, &data]).map(drop)
    }
}

/// Whether a statement leaves no trace.
fn only_reads(sql: &str) -> bool {
    sql.starts_with("select") || sql.starts_with("lock")
}
