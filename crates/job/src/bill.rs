//! A job's bill: the sum of its ledger rows, and nothing but these.

use crate::ledger;
use dragnet_pattern::{Error, Store};
use serde::{Deserialize, Serialize};

/// What a job cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bill {
    /// The job's id.
    pub job: String,
    /// ISO 4217; empty while nothing has been billed.
    pub currency: String,
    /// The rates by which it was priced.
    pub rates_version: String,
    /// A line for each ledger row.
    pub lines: Vec<Line>,
    /// Their sum.
    pub total_micros: i64,
}

/// One line of a bill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What was counted.
    pub meter: String,
    /// How much of it.
    pub quantity: i64,
    /// What the price is for.
    pub unit: String,
    /// The price of one unit.
    pub unit_price_micros: i64,
    /// What the line comes to.
    pub amount_micros: i64,
    /// Why it takes back an earlier line, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reversal: Option<String>,
}

/// The bill of a job of a tenant, as far as it has been metered.
///
/// # Errors
/// Those of the store.
pub async fn of(store: &dyn Store, tenant: &str, job: &str) -> Result<Bill, Error> {
    let rows = ledger::of_job(store, tenant, job).await?;
    let text = |of: fn(&ledger::Line) -> &String| rows.first().map(|row| of(row).clone()).unwrap_or_default();
    let line = |row: &ledger::Line| Line {
        meter: row.meter.clone(),
        quantity: row.quantity,
        unit: row.unit.clone(),
        unit_price_micros: row.price_micros,
        amount_micros: row.amount_micros,
        reversal: row.reason.clone(),
    };
    let lines: Vec<Line> = rows.iter().map(line).collect();
    let total_micros = lines.iter().map(|line| line.amount_micros).sum();
    let (currency, rates_version) = (text(|row| &row.currency), text(|row| &row.rates_version));
    Ok(Bill { job: job.into(), currency, rates_version, lines, total_micros })
}
