//! The audit log: who did what, from where, and whether it was done. It only grows.
//!
//! What changes tenants and keys is logged in the transaction that changes them. What clients do over HTTP is logged
//! by the API just after: there the job's own events are the record that can't be lost.

use crate::now_ms;
use dragnet_pattern::{Error, Statement, Store, Value};
use serde::Serialize;

/// The outcome of what was done.
pub const DONE: &str = "done";
/// The outcome of what was begun for a client that had gone before the answer: done or not.
pub const UNANSWERED: &str = "unanswered";

/// Who does something, and from where.
#[derive(Debug, Clone)]
pub struct Act {
    /// The public part of a key, or who ran a command.
    pub actor: String,
    /// An address of the network, or `local`.
    pub address: String,
}

impl Act {
    /// The statement that logs it.
    pub fn statement(&self, tenant: &str, action: &str, target: &str, outcome: &str) -> Statement {
        let values: [&str; 6] = [tenant, &self.actor, action, target, outcome, &self.address];
        let values = std::iter::once(now_ms().into()).chain(values.map(Value::from)).collect();
        let sql = "insert into audit_log (at_ms, tenant, actor, action, target, outcome, address) \
                   values (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        Statement::new(sql, values)
    }
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its number; grows, not without gaps.
    pub id: i64,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// For whom.
    pub tenant: String,
    /// Who: the public part of a key, or the user who ran a command.
    pub actor: String,
    /// What, as `key.revoke` or `submit`.
    pub action: String,
    /// To what: a job's id, a key's, a path.
    pub target: String,
    /// [`DONE`], or why not.
    pub outcome: String,
    /// From where.
    pub address: String,
}

/// The newest lines before one, of one tenant or of all.
///
/// # Errors
/// Those of the store.
pub async fn lines(
    store: &dyn Store,
    tenant: Option<&str>,
    before: Option<i64>,
    most: usize,
) -> Result<Vec<Line>, Error> {
    let before = Value::from(before.unwrap_or(i64::MAX));
    let most = Value::from(i64::try_from(most).unwrap_or(i64::MAX));
    let statement = match tenant {
        Some(tenant) => Statement::new(
            "select id, at_ms, tenant, actor, action, target, outcome, address from audit_log \
             where id < ?1 and tenant = ?3 order by id desc limit ?2",
            vec![before, most, tenant.into()],
        ),
        None => Statement::new(
            "select id, at_ms, tenant, actor, action, target, outcome, address from audit_log \
             where id < ?1 order by id desc limit ?2",
            vec![before, most],
        ),
    };
    let line = |row: Vec<Value>| {
        let text = |n: usize| row[n].text().to_owned();
        Line {
            id: row[0].int(),
            at_ms: row[1].int(),
            tenant: text(2),
            actor: text(3),
            action: text(4),
            target: text(5),
            outcome: text(6),
            address: text(7),
        }
    };
    Ok(store.query(statement).await?.into_iter().map(line).collect())
}
