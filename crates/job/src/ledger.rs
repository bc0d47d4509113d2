//! The ledger: what was counted and what it costs, a line each, and never changed.
//!
//! A line has two postings that come to 0: what the tenant owes by it, and what was earned by its meter. What was wrong
//! is taken back by a line that reverses another one, once. The head has the number of lines and their sum; whoever
//! adds lines locks it first, so lines get their numbers in the order in which they are committed.

use crate::budget::{self, Reservation};
use crate::rates::Meter;
use dragnet_pattern::{Error as StoreError, Statement, Store, Value};

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number; grows in the order in which lines were committed.
    pub id: i64,
    /// Who owes it.
    pub tenant: String,
    /// The job's id.
    pub work: String,
    /// What was counted.
    pub meter: String,
    /// Its number among those of the job and meter.
    pub seq: i64,
    /// How much was counted; less than nothing in a reversal.
    pub quantity: i64,
    /// What the price is for.
    pub unit: String,
    /// How many of what is counted make a unit; 0 in lines of the first version.
    pub per: i64,
    /// What a unit costs, in millionths of the currency.
    pub price_micros: i64,
    /// What the line comes to.
    pub amount_micros: i64,
    /// ISO 4217.
    pub currency: String,
    /// The rates by which it was priced.
    pub rates_version: String,
    /// When it was metered, in milliseconds since 1970.
    pub at_ms: i64,
    /// The line that it takes back.
    pub reverses: Option<i64>,
    /// Why.
    pub reason: Option<String>,
}

const OF_JOB: &str = "select id, tenant, work_id, meter, seq, quantity, unit, per, price_micros, amount_micros, currency, \
    rates_version, at_ms, reverses, reason \
    from ledger where work_id = ?1 and tenant = ?2 order by id";
const OF_TIME: &str = "select id, tenant, work_id, meter, seq, quantity, unit, per, price_micros, amount_micros, currency, \
    rates_version, at_ms, reverses, reason \
    from ledger where tenant = ?1 and at_ms >= ?2 and at_ms < ?3 order by id";
const AFTER: &str = "select id, tenant, work_id, meter, seq, quantity, unit, per, price_micros, amount_micros, currency, \
    rates_version, at_ms, reverses, reason \
    from ledger where id > ?1 and (?2 = '' or tenant = ?2) order by id limit ?3";

/// Why the ledger was not changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing that could be taken back.
    #[error("the ledger has no line of the job `{0}` that is not reversed: look at `dragnet bill {0}`")]
    NothingToReverse(String),
    /// A reversal needs a reason.
    #[error("a reversal needs a reason: it stands in the ledger and on the invoice")]
    NoReason,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Line {
    fn of(row: &[Value]) -> Line {
        let text = |n: usize| row[n].text().to_owned();
        Line {
            id: row[0].int(),
            tenant: text(1),
            work: text(2),
            meter: text(3),
            seq: row[4].int(),
            quantity: row[5].int(),
            unit: text(6),
            per: row[7].int(),
            price_micros: row[8].int(),
            amount_micros: row[9].int(),
            currency: text(10),
            rates_version: text(11),
            at_ms: row[12].int(),
            reverses: (row[13] != Value::Null).then(|| row[13].int()),
            reason: (row[14] != Value::Null).then(|| text(14)),
        }
    }

    /// The line of a meter of a job, the first of its kind.
    pub(crate) fn charge(tenant: &str, work: &str, meter: &Meter, quantity: u64) -> Line {
        Line {
            id: 0,
            tenant: tenant.into(),
            work: work.into(),
            meter: meter.name.clone(),
            seq: 1,
            quantity: budget::signed(quantity),
            unit: meter.unit.clone(),
            per: budget::signed(meter.per),
            price_micros: budget::signed(meter.price_micros),
            amount_micros: budget::signed(meter.amount_micros(quantity)),
            currency: String::new(),
            rates_version: String::new(),
            at_ms: 0,
            reverses: None,
            reason: None,
        }
    }
}

/// The lines of a job of a tenant.
///
/// # Errors
/// Those of the store.
pub async fn of_job(store: &dyn Store, tenant: &str, work: &str) -> Result<Vec<Line>, StoreError> {
    read(store, Statement::new(OF_JOB, vec![work.into(), tenant.into()])).await
}

/// The lines of a tenant that were written from a time on and before another.
///
/// # Errors
/// Those of the store.
pub async fn of_time(
    store: &dyn Store,
    tenant: &str,
    from_ms: i64,
    to_ms: i64,
) -> Result<Vec<Line>, StoreError> {
    read(store, Statement::new(OF_TIME, vec![tenant.into(), from_ms.into(), to_ms.into()])).await
}

/// The next lines after a number, of one tenant or of all.
///
/// # Errors
/// Those of the store.
pub async fn after(
    store: &dyn Store,
    id: i64,
    tenant: Option<&str>,
    most: usize,
) -> Result<Vec<Line>, StoreError> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    read(store, Statement::new(AFTER, vec![id.into(), tenant.unwrap_or_default().into(), most.into()])).await
}

async fn read(store: &dyn Store, statement: Statement) -> Result<Vec<Line>, StoreError> {
    Ok(store.query(statement).await?.iter().map(|row| Line::of(row)).collect())
}

/// What adds lines to the ledger. All of them have one job and one `seq`.
pub(crate) fn add(lines: &[Line]) -> Vec<Statement> {
    let Some(first) = lines.first() else { return Vec::new() };
    let total: i64 = lines.iter().map(|line| line.amount_micros).sum();
    let head = "update ledger_head set lines = lines + ?1, total_micros = total_micros + ?2";
    let mut all = vec![Statement::new(head, vec![(lines.len() as i64).into(), total.into()])];
    all.extend(lines.iter().map(inserted));
    let two_sides = "insert into posting (ledger_id, account, amount_micros) \
                     select id, 'tenant/' || tenant, amount_micros from ledger where work_id = ?1 and seq = ?2 \
                     union all select id, 'revenue/' || meter, -amount_micros from ledger \
                     where work_id = ?1 and seq = ?2";
    all.push(Statement::new(two_sides, vec![first.work.as_str().into(), first.seq.into()]));
    all
}

fn inserted(line: &Line) -> Statement {
    let sql = "insert into ledger (tenant, work_id, meter, seq, quantity, unit, per, price_micros, amount_micros, \
               currency, rates_version, at_ms, reverses, reason) \
               values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
    let values = vec![
        line.tenant.as_str().into(),
        line.work.as_str().into(),
        line.meter.as_str().into(),
        line.seq.into(),
        line.quantity.into(),
        line.unit.as_str().into(),
        line.per.into(),
        line.price_micros.into(),
        line.amount_micros.into(),
        line.currency.as_str().into(),
        line.rates_version.as_str().into(),
        line.at_ms.into(),
        line.reverses.into(),
        line.reason.clone().into(),
    ];
    Statement::new(sql, values)
}

/// Takes back what a job was charged and was not taken back before: each line by one of its own. `also` is written in
/// the same transaction, such as who did it. Returns the lines.
///
/// # Errors
/// See [`Error`]; of two reversals at once one is refused by the store.
pub async fn reverse(
    store: &dyn Store,
    work: &str,
    reason: &str,
    now_ms: i64,
    also: &dyn Fn(&str) -> Vec<Statement>,
) -> Result<Vec<Line>, Error> {
    if reason.trim().is_empty() {
        return Err(Error::NoReason);
    }
    let tenants = "select distinct tenant from ledger where work_id = ?1";
    let tenants = store.query(Statement::new(tenants, vec![work.into()])).await?;
    let tenant = tenants.first().map(|row| row[0].text().to_owned()).unwrap_or_default();
    let lines = of_job(store, &tenant, work).await?;
    let seq = lines.iter().map(|line| line.seq).max().unwrap_or(0) + 1;
    let is_open =
        |line: &&Line| line.reverses.is_none() && lines.iter().all(|other| other.reverses != Some(line.id));
    let reversal = |line: &Line| Line {
        seq,
        quantity: -line.quantity,
        amount_micros: -line.amount_micros,
        at_ms: now_ms,
        reverses: Some(line.id),
        reason: Some(reason.trim().to_owned()),
        ..line.clone()
    };
    let reversals: Vec<Line> = lines.iter().filter(is_open).map(reversal).collect();
    if reversals.is_empty() {
        return Err(Error::NothingToReverse(work.into()));
    }
    let total: i64 = reversals.iter().map(|line| line.amount_micros).sum();
    let held: Option<Reservation> = budget::reservation(store, work).await?;
    let mut statements = match &held {
        Some(held) => budget::give_back(&tenant, work, held, -total),
        None => Vec::new(),
    };
    statements.extend(add(&reversals));
    statements.extend(also(&tenant));
    store.write(statements).await?;
    Ok(of_job(store, &tenant, work).await?.into_iter().filter(|line| line.seq == seq).collect())
}
