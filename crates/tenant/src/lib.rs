//! Tenants: who submits jobs and is billed, and what each may use.
//!
//! A service without tenants has one, [`DEFAULT`], which stands in no table and may do everything.

use dragnet_pattern::{Error, Sql, Statement, Store, Tables};
use serde::{Deserialize, Serialize};

/// The tenant of a service without tenants.
pub const DEFAULT: &str = "default";

/// The tables of tenants in the Status DB.
pub const TABLES: Tables =
    Tables { name: "tenant", versions: &[Sql { all: include_str!("tables.sql"), sqlite: "", postgres: "" }] };

/// A tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct Tenant {
    /// Its name, which stands in every path and row.
    pub id: String,
    /// What it may use.
    pub settings: Settings,
}

/// What a tenant may use; what is left out is not limited.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Jobs that may be accepted and not yet launched.
    pub jobs_waiting: Option<u64>,
    /// Jobs that may run at once; others wait, visible.
    pub jobs_running: Option<u64>,
    /// The most stored bytes of one job's plan.
    pub job_bytes: Option<u64>,
    /// Submissions per second, in the long run and within one second.
    pub submissions_per_s: Option<u64>,
    /// What its jobs of one calendar month (UTC) may cost, in millionths of the currency.
    pub budget_micros: Option<u64>,
    /// What its datasets must begin with, such as `s3://bucket/crawl/`, `https://host/` or `file:///data/`.
    pub datasets: Option<Vec<String>>,
}

/// Finds a tenant. [`DEFAULT`] is there even if nobody has made it.
///
/// # Errors
/// Those of the store.
pub async fn find(store: &dyn Store, id: &str) -> Result<Option<Tenant>, Error> {
    let statement = Statement::new("select settings from tenant where id = ?1", vec![id.into()]);
    let rows = store.query(statement).await?;
    let stored = match rows.first().map(|row| row[0].text()) {
        None => return Ok((id == DEFAULT).then(|| Tenant { id: id.into(), settings: Settings::default() })),
        Some(text) => serde_json::from_str(text),
    };
    // They were checked when they were written; a newer program's may hold more than this one can keep.
    let settings = stored.map_err(|e| Error::Refused(format!("the settings of the tenant `{id}`: {e}")))?;
    Ok(Some(Tenant { id: id.into(), settings }))
}
