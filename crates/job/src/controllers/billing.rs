//! The Billing Controller: provisions a job when it is scheduled, and meters it at its end from the sealed
//! manifest alone, so that lost attempts and slow twins cost nothing.

use super::{BILLING, Job, LAUNCH, failed};
use crate::rates::Rates;
use crate::{stage, topic};
use async_trait::async_trait;
use dragnet_pattern::{Advance, Claim, Controller, Failure, Next, Statement, Store, crash};
use dragnet_run::Sealed;
use serde_json::json;

/// Prices a job.
pub struct Billing {
    /// The rates of jobs that are provisioned from now on.
    pub rates: Rates,
}

#[async_trait]
impl Controller for Billing {
    fn name(&self) -> &'static str {
        BILLING
    }

    fn topic(&self) -> &'static str {
        topic::BILLING
    }

    async fn step(&self, _store: &dyn Store, claim: &Claim) -> Result<Advance, Failure> {
        if claim.row.settled {
            return Ok(Advance::to(Next::Done));
        }
        // A job keeps the rates that it was provisioned with.
        let rates: Rates =
            serde_json::from_value(claim.row.memo.clone()).unwrap_or_else(|_| self.rates.clone());
        if claim.work.stage == stage::FINISH { meter(claim, &rates) } else { Ok(provision(claim, &rates)) }
    }
}

fn provision(claim: &Claim, rates: &Rates) -> Advance {
    let planned = claim.other(LAUNCH).and_then(|row| row.metrics.get("bytes")?.as_u64()).unwrap_or(0);
    let price = |meter: &crate::rates::Meter| {
        if meter.name == "input_bytes" { meter.amount_micros(planned) } else { 0 }
    };
    let estimate: u64 = rates.meter.iter().map(price).sum();
    let metrics =
        json!({ "rates_version": rates.version, "currency": rates.currency, "provisioned_micros": estimate });
    let mut advance = Advance::to(Next::Idle).event("billing.provisioned", metrics.clone());
    advance.memo = serde_json::to_value(rates).ok();
    advance.metrics = Some(metrics);
    advance
}

fn meter(claim: &Claim, rates: &Rates) -> Result<Advance, Failure> {
    let job = Job::of(claim)?;
    let manifest = Sealed::read(&job.output).map_err(failed)?.map(|sealed| sealed.manifest);
    let quantity = |meter: &str| match (&manifest, meter) {
        (Some(manifest), "input_bytes") => manifest.bytes_read,
        (Some(manifest), "records") => manifest.records_read,
        (Some(manifest), "hits") => manifest.hits,
        _ => 0,
    };
    let mut advance = Advance::to(Next::Done);
    let mut total = 0;
    for meter in &rates.meter {
        let quantity = quantity(&meter.name);
        let amount = meter.amount_micros(quantity);
        total += amount;
        let sql = "insert into ledger (tenant, work_id, meter, seq, quantity, unit, price_micros, amount_micros, \
                   currency, rates_version, at_ms) values (?1, ?2, ?3, 1, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
                   on conflict (work_id, meter, seq) do nothing";
        let values = vec![
            claim.work.tenant.as_str().into(),
            claim.work.id.as_str().into(),
            meter.name.as_str().into(),
            (quantity as i64).into(),
            meter.unit.as_str().into(),
            (meter.price_micros as i64).into(),
            (amount as i64).into(),
            rates.currency.as_str().into(),
            rates.version.as_str().into(),
            claim.now_ms.into(),
        ];
        advance.side.push(Statement::new(sql, values));
    }
    let metrics =
        json!({ "rates_version": rates.version, "currency": rates.currency, "total_micros": total });
    advance.settled = true;
    advance.metrics = Some(metrics.clone());
    crash::point(BILLING, "before_ledger");
    Ok(advance.event("billing.metered", metrics))
}
