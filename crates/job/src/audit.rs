//! The audit: whether ledger, jobs and committed parts agree.
//!
//! It believes nothing that it can reckon itself. The ledger: its lines against its head, each line against its two
//! postings and its price, reversals against what they take back. Each job that has ended: its seal against the hash
//! in the Status DB, its commit records and hits against the seal (quantities and digest), its lines against the seal
//! and the rates that were frozen into it. Budgets: against the reservations that they are the sums of.

use crate::budget;
use crate::controllers::{BILLING, Job, MONITORING, counted};
use crate::hits::{each_line, have_expired};
use crate::ledger::{self, Line};
use crate::rates::Rates;
use crate::{KIND, stage};
use dragnet_kernel::{Digest, Hit};
use dragnet_pattern::{Error, Row, Statement, Store, Value, Work};
use dragnet_run::{CommitRecord, Manifest, Output, Plan, Sealed};
use serde::Serialize;
use std::collections::HashMap;

/// Rows that are read at once.
const PAGE: usize = 1000;

/// What an audit found.
#[derive(Debug, Default, Serialize)]
pub struct Audit {
    /// Lines of the ledger that were checked.
    pub lines: u64,
    /// Jobs that have ended and were checked.
    pub jobs: u64,
    /// Jobs of the ledger that the store has forgotten: their lines alone could be checked.
    pub forgotten: u64,
    /// What does not agree.
    pub disagreements: Vec<Disagreement>,
}

/// Two things that should agree and don't.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disagreement {
    /// `ledger`, `job ID`, `budget TENANT MONTH`.
    pub of: String,
    /// What is wrong.
    pub what: String,
}

impl Audit {
    fn say(&mut self, of: impl Into<String>, what: impl Into<String>) {
        self.disagreements.push(Disagreement { of: of.into(), what: what.into() });
    }
}

/// Audits a store and the output of its jobs. It may run beside a service: a job that ends meanwhile is left to the
/// next audit.
///
/// # Errors
/// Those of the store: what can't be read there can't be judged.
pub async fn audit(store: &dyn Store) -> Result<Audit, Error> {
    let mut audit = Audit::default();
    let of_jobs = lines(store, &mut audit).await?;
    postings(store, &mut audit).await?;
    let known = jobs(store, &mut audit, &of_jobs).await?;
    audit.forgotten = of_jobs.keys().filter(|job| !known.contains(job)).count() as u64;
    budgets(store, &mut audit).await?;
    Ok(audit)
}

type Lines = HashMap<String, Vec<Line>>;

/// The ledger by itself. Returns its lines by job.
async fn lines(store: &dyn Store, audit: &mut Audit) -> Result<Lines, Error> {
    // Read before the lines: what is added meanwhile is past it.
    let head = store.query(Statement::new("select lines, total_micros from ledger_head", Vec::new())).await?;
    let (head_lines, head_total) = head.first().map_or((0, 0), |row| (row[0].int(), row[1].int()));
    let (mut after, mut total) = (0, 0);
    let mut by_id: HashMap<i64, Line> = HashMap::new();
    let mut of_jobs = Lines::new();
    let mut reversed = Vec::new();
    loop {
        let page = ledger::after(store, after, None, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for line in page {
            if audit.lines as i64 == head_lines {
                after = i64::MAX;
                break;
            }
            audit.lines += 1;
            total += line.amount_micros;
            match line.reverses {
                Some(id) => reversed.push((id, line.clone())),
                None => priced(&line, audit),
            }
            of_jobs.entry(line.work.clone()).or_default().push(line.clone());
            by_id.insert(line.id, line);
        }
    }
    if (audit.lines as i64, total) != (head_lines, head_total) {
        let (lines, of) = (audit.lines, "ledger");
        audit.say(
            of,
            format!("it has {lines} lines of {total}, and its head says {head_lines} of {head_total}"),
        );
    }
    for (id, line) in reversed {
        let undone = by_id.get(&id).is_some_and(|other| {
            other.reverses.is_none()
                && (&other.work, &other.meter) == (&line.work, &line.meter)
                && (other.quantity, other.amount_micros) == (-line.quantity, -line.amount_micros)
        });
        if !undone {
            audit.say("ledger", format!("line {} does not take back line {id}", line.id));
        }
    }
    Ok(of_jobs)
}

/// A line's amount, from its own quantity and price.
fn priced(line: &Line, audit: &mut Audit) {
    if line.per <= 0 {
        return;
    }
    let amount = (i128::from(line.quantity) * i128::from(line.price_micros) + i128::from(line.per) - 1)
        .div_euclid(i128::from(line.per));
    if amount != i128::from(line.amount_micros) {
        audit.say(
            "ledger",
            format!("line {} comes to {}, and it says {}", line.id, amount, line.amount_micros),
        );
    }
}

/// The two sides of each line.
async fn postings(store: &dyn Store, audit: &mut Audit) -> Result<(), Error> {
    let wrong = "select id from ledger where \
                 (select count(*) from posting where ledger_id = ledger.id) <> 2 \
                 or (select sum(amount_micros) from posting where ledger_id = ledger.id) <> 0 \
                 or not exists (select 1 from posting where ledger_id = ledger.id \
                                and account = 'tenant/' || ledger.tenant and amount_micros = ledger.amount_micros) \
                 or not exists (select 1 from posting where ledger_id = ledger.id \
                                and account = 'revenue/' || ledger.meter and amount_micros = -ledger.amount_micros) \
                 order by id";
    for row in store.query(Statement::new(wrong, Vec::new())).await? {
        audit.say("ledger", format!("the postings of line {} are not its two sides", row[0].int()));
    }
    let foreign = "select l.id, l.tenant, w.tenant from ledger l join work w on w.id = l.work_id \
                   where l.tenant <> w.tenant order by l.id";
    for row in store.query(Statement::new(foreign, Vec::new())).await? {
        let (id, billed, of) = (row[0].int(), row[1].text(), row[2].text());
        audit.say("ledger", format!("line {id} is billed to `{billed}`, and its job is of `{of}`"));
    }
    let lost = "select ledger_id, account from posting \
                where not exists (select 1 from ledger where id = ledger_id) order by ledger_id, account";
    for row in store.query(Statement::new(lost, Vec::new())).await? {
        let (id, account) = (row[0].int(), row[1].text());
        audit.say("ledger", format!("a posting to `{account}` has no line {id}"));
    }
    Ok(())
}

/// Every job that has ended. Returns the ids of all jobs.
async fn jobs(store: &dyn Store, audit: &mut Audit, of_jobs: &Lines) -> Result<Vec<String>, Error> {
    let (mut after, mut known) = (String::new(), Vec::new());
    loop {
        let sql = "select id, tenant from work where kind = ?1 and id > ?2 order by id limit ?3";
        let values = vec![KIND.into(), after.as_str().into(), (PAGE as i64).into()];
        let page = store.query(Statement::new(sql, values)).await?;
        let Some(last) = page.last() else { return Ok(known) };
        after = last[0].text().to_owned();
        for row in page {
            let (id, tenant) = (row[0].text(), row[1].text());
            known.push(id.to_owned());
            let Some(said) = job(store, tenant, id, of_jobs.get(id)).await? else { continue };
            // A correction, or a job's last day, may fall between two reads: wrong is what is wrong twice.
            let again = match said.is_empty() {
                true => Some(Vec::new()),
                false => job(store, tenant, id, None).await?,
            };
            audit.jobs += 1;
            audit.disagreements.extend(again.into_iter().flatten().filter(|again| said.contains(again)));
        }
    }
}

/// What of a job does not agree, if it is still there and was billed. `lines` are those that the ledger had.
async fn job(
    store: &dyn Store,
    tenant: &str,
    id: &str,
    lines: Option<&Vec<Line>>,
) -> Result<Option<Vec<Disagreement>>, Error> {
    let Some((work, rows)) = store.work(tenant, id).await? else { return Ok(None) };
    let is_billed = rows.iter().any(|row| row.controller == BILLING && row.settled);
    if work.stage != stage::FINISH || !is_billed {
        return Ok(None);
    }
    let lines = match lines {
        Some(lines) => lines.clone(),
        // It may have been billed after the ledger was read.
        None => ledger::of_job(store, tenant, id).await?,
    };
    let mut found = Audit::default();
    agrees(store, &mut found, &work, &rows, &lines).await?;
    Ok(Some(found.disagreements))
}

async fn agrees(
    store: &dyn Store,
    audit: &mut Audit,
    work: &Work,
    rows: &[Row],
    lines: &[Line],
) -> Result<(), Error> {
    let of = format!("job {}", work.id);
    let sealed = match Job::of_work(work) {
        Ok(output) => {
            let has_hits = !have_expired(store, &work.id).await?;
            tokio::task::block_in_place(|| read(&output, has_hits))
        }
        Err(e) => Err(e),
    };
    let manifest = match sealed {
        Ok(found) => {
            let metrics = rows.iter().find(|row| row.controller == MONITORING).map(|row| &row.metrics);
            let noted = metrics.and_then(|metrics| metrics.get("manifest_sha256")?.as_str());
            if noted != found.as_ref().map(|(sealed, _)| sealed.sha256.as_str()) {
                audit.say(&of, "its seal is not the one that the Status DB has noted");
            }
            // Hits may have gone while they were read.
            let is_whole = !have_expired(store, &work.id).await?;
            if let Some((sealed, Some(recounted))) = found.as_ref().filter(|_| is_whole) {
                compare(&sealed.manifest, recounted, &of, audit);
            }
            found.map(|(sealed, _)| sealed.manifest)
        }
        Err(e) => {
            audit.say(&of, e);
            return Ok(());
        }
    };
    let held = budget::reservation(store, &work.id).await?;
    let memo = rows.iter().find(|row| row.controller == BILLING).map(|row| row.memo.clone());
    let rates: Option<Rates> = match &held {
        Some(held) => Some(held.rates.clone()),
        None => memo.and_then(|memo| serde_json::from_value(memo).ok()),
    };
    billed(manifest.as_ref(), rates.as_ref(), lines, &of, audit);
    let cost: i64 = lines.iter().map(|line| line.amount_micros).sum();
    if let Some(held) = held.filter(|held| held.settled_micros != Some(cost)) {
        let said =
            held.settled_micros.map_or("is still open".into(), |micros| format!("was settled with {micros}"));
        audit.say(&of, format!("its lines come to {cost}, and what it reserved {said}"));
    }
    Ok(())
}

/// What the lines should be, by the seal and the frozen rates.
fn billed(manifest: Option<&Manifest>, rates: Option<&Rates>, lines: &[Line], of: &str, audit: &mut Audit) {
    let charges = || lines.iter().filter(|line| line.reverses.is_none());
    if charges().next().is_none() {
        audit.say(of, "it has ended and has no line in the ledger");
    }
    for line in charges() {
        let quantity = manifest.map_or(0, |manifest| counted(manifest, &line.meter));
        if budget::signed(quantity) != line.quantity {
            let (meter, said) = (&line.meter, line.quantity);
            audit.say(
                of,
                format!("its seal has {quantity} {meter}, and the ledger's line {} {said}", line.id),
            );
        }
        let Some(rates) = rates else { continue };
        let meter = rates.meter.iter().find(|meter| meter.name == line.meter);
        let amount = meter.map(|meter| budget::signed(meter.amount_micros(quantity)));
        if line.currency != rates.currency {
            let (id, said) = (line.id, &line.currency);
            audit.say(of, format!("its rates are in {}, and line {id} is in {said}", rates.currency));
        }
        if amount != Some(line.amount_micros) || rates.version != line.rates_version {
            let (id, said) = (line.id, line.amount_micros);
            let should = amount.map_or("nothing".into(), |micros| micros.to_string());
            audit.say(
                of,
                format!("by its rates {} line {id} comes to {should}, and it says {said}", rates.version),
            );
        }
    }
    for meter in rates.iter().flat_map(|rates| &rates.meter) {
        if !lines.is_empty() && charges().all(|line| line.meter != meter.name) {
            audit.say(of, format!("it has no line for `{}`", meter.name));
        }
    }
}

/// What the commit records and hits that a seal names come to.
#[derive(Debug, Default)]
struct Recounted {
    bytes: u64,
    records: u64,
    hits: u64,
    digest: Digest,
    /// Records whose hits are not what they say.
    wrong: Vec<String>,
}

/// A job's seal, and what can be counted again while its hits are kept.
fn read(output: &Output, has_hits: bool) -> Result<Option<(Sealed, Option<Recounted>)>, String> {
    let Some(sealed) = Sealed::read(output).map_err(|e| e.to_string())? else { return Ok(None) };
    let recounted = has_hits.then(|| recount(output, &sealed)).transpose()?;
    Ok(Some((sealed, recounted)))
}

fn recount(output: &Output, sealed: &Sealed) -> Result<Recounted, String> {
    let failed = |e: dragnet_run::Error| e.to_string();
    let plan: Plan = output.read_json("plan.json").map_err(failed)?.ok_or("its plan has gone")?;
    let places: HashMap<&str, u64> =
        plan.objects.iter().zip(0..).map(|(object, n)| (&*object.uri, n)).collect();
    let mut recounted = Recounted::default();
    for name in &sealed.manifest.records {
        let record: Option<CommitRecord> = output.read_json(name).map_err(failed)?;
        let Some(record) = record else {
            recounted.wrong.push(format!("its commit record `{name}` has gone"));
            continue;
        };
        recounted.bytes += record.bytes();
        recounted.records += record.records();
        let (mut hits, mut digest) = (0, Digest::default());
        let read = each_line(output, name, 0, &mut |line| {
            let hit: Hit<'_> = serde_json::from_str(line)?;
            // An object that the plan does not have makes the digest another.
            hit.add_to(&mut digest, places.get(&*hit.object).copied().unwrap_or(u64::MAX));
            hits += 1;
            Ok(true)
        });
        if let Err(e) = read {
            recounted.wrong.push(format!("the hits of `{name}` can't be read: {e}"));
        } else if hits != record.hits() || record.searches.iter().any(|totals| totals.digest != digest) {
            recounted.wrong.push(format!("the hits of `{name}` are not those that it committed"));
        }
        recounted.hits += hits;
        recounted.digest.add(&digest);
    }
    Ok(recounted)
}

fn compare(manifest: &Manifest, recounted: &Recounted, of: &str, audit: &mut Audit) {
    for wrong in &recounted.wrong {
        audit.say(of, wrong);
    }
    let pairs = [
        ("bytes", manifest.bytes_read, recounted.bytes),
        ("records", manifest.records_read, recounted.records),
        ("hits", manifest.hits, recounted.hits),
    ];
    for (what, sealed, found) in pairs.into_iter().filter(|(_, sealed, found)| sealed != found) {
        audit.say(of, format!("its seal has {sealed} {what}, and its commit records {found}"));
    }
    if manifest.digest != recounted.digest {
        audit.say(
            of,
            format!("its hits have the digest {}, and its seal {}", recounted.digest, manifest.digest),
        );
    }
}

/// Budgets against the reservations that they are the sums of.
async fn budgets(store: &dyn Store, audit: &mut Audit) -> Result<(), Error> {
    let sql = "select tenant, month, reserved_micros, spent_micros, \
               (select sum(amount_micros) from reservation r where r.tenant = b.tenant and r.month = b.month \
                and settled_micros is null), \
               (select sum(settled_micros) from reservation r where r.tenant = b.tenant and r.month = b.month) \
               from budget b order by tenant, month";
    for row in store.query(Statement::new(sql, Vec::new())).await? {
        let of = format!("budget {} {}", row[0].text(), row[1].text());
        let sums = [("reserved", &row[2], &row[4]), ("spent", &row[3], &row[5])];
        for (what, said, sum) in sums.into_iter().filter(|(_, said, sum)| said.int() != Value::int(sum)) {
            audit.say(&of, format!("it has {} {what}, and its jobs {}", said.int(), sum.int()));
        }
    }
    let lost = "select distinct tenant, month from reservation r where not exists \
                (select 1 from budget b where b.tenant = r.tenant and b.month = r.month) order by tenant, month";
    for row in store.query(Statement::new(lost, Vec::new())).await? {
        audit.say(
            format!("budget {} {}", row[0].text(), row[1].text()),
            "it has gone, and jobs hold parts of it",
        );
    }
    Ok(())
}
