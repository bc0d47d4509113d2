//! A job's bill: the sum of its ledger rows, and nothing but these.

use dragnet_pattern::{Error, Statement, Store, Value};
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
}

/// The bill of a job of a tenant, as far as it has been metered.
///
/// # Errors
/// Those of the store.
pub async fn of(store: &dyn Store, tenant: &str, job: &str) -> Result<Bill, Error> {
    let sql = "select meter, quantity, unit, price_micros, amount_micros, currency, rates_version from ledger \
               where work_id = ?1 and tenant = ?2 order by id";
    let rows = store.query(Statement::new(sql, vec![job.into(), tenant.into()])).await?;
    let text = |n: usize| rows.first().map(|row| row[n].text().to_owned()).unwrap_or_default();
    let line = |row: &Vec<Value>| Line {
        meter: row[0].text().into(),
        quantity: row[1].int(),
        unit: row[2].text().into(),
        unit_price_micros: row[3].int(),
        amount_micros: row[4].int(),
    };
    let lines: Vec<Line> = rows.iter().map(line).collect();
    let total_micros = lines.iter().map(|line| line.amount_micros).sum();
    Ok(Bill { job: job.into(), currency: text(5), rates_version: text(6), lines, total_micros })
}
