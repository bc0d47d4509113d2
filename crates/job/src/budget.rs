//! Budgets: what a tenant's jobs of one month may cost, kept in advance.
//!
//! A job belongs to the month (UTC) in which it was accepted. Launch reserves what its plan costs at most before a run
//! is started; Billing replaces that by what was spent, in the transaction that writes the ledger. One row holds the
//! sums of a tenant and month, and its constraint refuses a reservation that would pass the limit: two launches at once
//! wait for each other at the row, so that no race can pass it on either database. Jobs of a tenant without a budget
//! reserve as well, so that a budget that comes later knows what was spent.

use crate::rates::Rates;
use dragnet_kernel::Digest;
use dragnet_pattern::{Error, Statement, Store, Work};
use dragnet_tenant::Tenant;

/// What the constraint is called that a reservation fails by, on both databases.
const HOLDS: &str = "budget_holds";

/// Adds to what is reserved, under a limit.
const HOLD: &str = "insert into budget (tenant, month, reserved_micros, spent_micros, limit_micros) \
     values (?1, ?2, ?3, 0, ?4) on conflict (tenant, month) do update set \
     reserved_micros = budget.reserved_micros + excluded.reserved_micros, \
     limit_micros = excluded.limit_micros";

/// What a tenant's jobs of a month have cost, and may still cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// What jobs that have not ended may cost at most.
    pub reserved_micros: i64,
    /// What jobs that have ended cost.
    pub spent_micros: i64,
}

/// What a job holds of its budget.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reservation {
    pub(crate) month: String,
    pub(crate) amount_micros: i64,
    /// The rates that are frozen into the job.
    pub(crate) rates: Rates,
    pub(crate) settled_micros: Option<i64>,
}

/// The month of a time (UTC), as `2026-11`.
pub fn month_of(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
    time.to_string().chars().take(7).collect()
}

/// What was reserved and spent by a tenant's jobs of a month.
///
/// # Errors
/// Those of the store.
pub async fn used(store: &dyn Store, tenant: &str, month: &str) -> Result<Used, Error> {
    let sql = "select reserved_micros, spent_micros from budget where tenant = ?1 and month = ?2";
    let rows = store.query(Statement::new(sql, vec![tenant.into(), month.into()])).await?;
    let used = |row: &Vec<dragnet_pattern::Value>| Used {
        reserved_micros: row[0].int(),
        spent_micros: row[1].int(),
    };
    Ok(rows.first().map(used).unwrap_or_default())
}

/// What is left of a tenant's budget, if it has one; less than nothing after it was lowered.
///
/// # Errors
/// Those of the store.
pub async fn left(store: &dyn Store, tenant: &Tenant, month: &str) -> Result<Option<i64>, Error> {
    let Some(limit) = tenant.settings.budget_micros else { return Ok(None) };
    let used = used(store, &tenant.id, month).await?;
    Ok(Some(signed(limit).saturating_sub(used.reserved_micros).saturating_sub(used.spent_micros)))
}

/// Whether a budget is spent, so that not even the smallest job can be paid: what is only reserved may come back.
///
/// # Errors
/// Those of the store.
pub async fn spent(store: &dyn Store, tenant: &Tenant, month: &str) -> Result<Option<String>, Error> {
    let Some(limit) = tenant.settings.budget_micros else { return Ok(None) };
    let used = used(store, &tenant.id, month).await?;
    let said = format!(
        "the budget of {month} is {limit} millionths, and {} of it are spent: wait for the next month, or ask for more",
        used.spent_micros
    );
    Ok((used.spent_micros >= signed(limit)).then_some(said))
}

/// Why a job's tenant has a budget that the job could pass, whatever is reserved for it.
pub(crate) fn not_kept(tenant: &Tenant, rates: &Rates, hits_max: Option<u64>) -> Option<String> {
    tenant.settings.budget_micros?;
    let why = rates.open_ended(hits_max)?;
    Some(format!("the tenant `{}` has a budget that the job could pass: {why}", tenant.id))
}

/// Money as the store keeps it.
pub(crate) fn signed(micros: u64) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX)
}

/// Reserves what a job's plan costs at most.
pub(crate) fn reserve(work: &Work, amount_micros: u64, rates: &Rates, limit: Option<u64>) -> Vec<Statement> {
    let json = serde_json::to_string(rates).unwrap_or_default();
    let (sha256, month) = (Digest::of_file(json.as_bytes()), month_of(work.created_ms));
    let (tenant, amount) = (work.tenant.as_str(), signed(amount_micros));
    let note = "insert into rates (sha256, rates) values (?1, ?2) on conflict (sha256) do nothing";
    let hold = vec![tenant.into(), month.as_str().into(), amount.into(), limit.map(signed).into()];
    let hold = Statement::new(HOLD, hold);
    let of = "insert into reservation (work_id, tenant, month, amount_micros, rates_sha256) values (?1, ?2, ?3, ?4, ?5)";
    let of_values = vec![
        work.id.as_str().into(),
        tenant.into(),
        month.as_str().into(),
        amount.into(),
        sha256.as_str().into(),
    ];
    vec![Statement::new(note, vec![sha256.as_str().into(), json.into()]), hold, Statement::new(of, of_values)]
}

/// Whether a store refused because a budget would be passed.
pub(crate) fn is_passed(e: &Error) -> bool {
    matches!(e, Error::Refused(said) if said.contains(HOLDS))
}

/// What a job holds, if it was launched.
pub(crate) async fn reservation(store: &dyn Store, work: &str) -> Result<Option<Reservation>, Error> {
    let sql = "select month, amount_micros, rates, settled_micros from reservation \
               join rates on rates.sha256 = reservation.rates_sha256 where work_id = ?1";
    let rows = store.query(Statement::new(sql, vec![work.into()])).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let rates = serde_json::from_str(row[2].text())
        .map_err(|e| Error::Refused(format!("the rates of the job `{work}`: {e}")))?;
    let settled_micros = (row[3] != dragnet_pattern::Value::Null).then(|| row[3].int());
    Ok(Some(Reservation { month: row[0].text().into(), amount_micros: row[1].int(), rates, settled_micros }))
}

/// Replaces what a job holds by what it cost.
pub(crate) fn settle(work: &Work, held: &Reservation, cost_micros: i64) -> Vec<Statement> {
    let sum = "update budget set limit_micros = null, reserved_micros = reserved_micros - ?3, \
               spent_micros = spent_micros + ?4 where tenant = ?1 and month = ?2";
    let (tenant, month) = (work.tenant.as_str().into(), held.month.as_str().into());
    let own = "update reservation set settled_micros = ?2 where work_id = ?1";
    vec![
        Statement::new(sum, vec![tenant, month, held.amount_micros.into(), cost_micros.into()]),
        Statement::new(own, vec![work.id.as_str().into(), cost_micros.into()]),
    ]
}

/// Gives back what a correction took off a job that has ended.
pub(crate) fn give_back(tenant: &str, work: &str, held: &Reservation, micros: i64) -> Vec<Statement> {
    let sum = "update budget set limit_micros = null, spent_micros = spent_micros - ?3 where tenant = ?1 and month = ?2";
    let own = "update reservation set settled_micros = settled_micros - ?2 where work_id = ?1";
    vec![
        Statement::new(sum, vec![tenant.into(), held.month.as_str().into(), micros.into()]),
        Statement::new(own, vec![work.into(), micros.into()]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_those_of_utc() {
        for (ms, month) in [(0, "1970-01"), (1_795_910_399_999, "2026-11"), (1_796_083_200_000, "2026-12")] {
            assert_eq!(month_of(ms), month);
        }
    }
}
