//! The Billing Controller: provisions a job when it is scheduled, and meters it at its end from the sealed
//! manifest alone, so that lost attempts and slow twins cost nothing.

use super::{BILLING, Job, LAUNCH, noted_seal};
use crate::budget::{self, Reservation};
use crate::ledger::{self, Line};
use crate::rates::{Meter, Rates};
use crate::{stage, topic};
use async_trait::async_trait;
use dragnet_pattern::{Advance, Claim, Controller, Failure, Next, Store, crash};
use dragnet_run::Manifest;
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

    async fn step(&self, store: &dyn Store, claim: &Claim) -> Result<Advance, Failure> {
        if claim.row.settled {
            return Ok(Advance::to(Next::Done));
        }
        let held = budget::reservation(store, &claim.work.id).await?;
        // A job keeps the rates that it was launched with; one that never was is priced at nothing by any.
        let rates = match &held {
            Some(held) => held.rates.clone(),
            None => serde_json::from_value(claim.row.memo.clone()).unwrap_or_else(|_| self.rates.clone()),
        };
        if claim.work.stage == stage::FINISH {
            meter(claim, &rates, held.as_ref())
        } else {
            Ok(provision(claim, &rates, held.as_ref()))
        }
    }
}

fn provision(claim: &Claim, rates: &Rates, held: Option<&Reservation>) -> Advance {
    let planned = claim.other(LAUNCH).and_then(|row| row.metrics.get("bytes")?.as_u64()).unwrap_or(0);
    let estimate =
        held.map_or_else(|| budget::signed(rates.input_micros(planned)), |held| held.amount_micros);
    let metrics =
        json!({ "rates_version": rates.version, "currency": rates.currency, "provisioned_micros": estimate });
    let mut advance = Advance::to(Next::Idle).event("billing.provisioned", metrics.clone());
    advance.memo = serde_json::to_value(rates).ok();
    advance.metrics = Some(metrics);
    advance
}

fn meter(claim: &Claim, rates: &Rates, held: Option<&Reservation>) -> Result<Advance, Failure> {
    let job = Job::of(claim)?;
    let manifest = noted_seal(claim, &job.output)?.map(|sealed| sealed.manifest);
    let work = &claim.work;
    let charge = |meter: &Meter| {
        let quantity = manifest.as_ref().map_or(0, |manifest| counted(manifest, &meter.name));
        let (currency, rates_version) = (rates.currency.clone(), rates.version.clone());
        Line {
            currency,
            rates_version,
            at_ms: claim.now_ms,
            ..Line::charge(&work.tenant, &work.id, meter, quantity)
        }
    };
    let lines: Vec<Line> = rates.meter.iter().map(charge).collect();
    let total: i64 = lines.iter().map(|line| line.amount_micros).sum();
    let metrics =
        json!({ "rates_version": rates.version, "currency": rates.currency, "total_micros": total });
    let mut advance = Advance::to(Next::Done);
    if let Some(held) = held.filter(|held| held.settled_micros.is_none()) {
        advance.side.extend(budget::settle(work, held, total));
    }
    advance.side.extend(ledger::add(&lines));
    advance.settled = true;
    advance.metrics = Some(metrics.clone());
    crash::point(BILLING, "before_ledger");
    Ok(advance.event("billing.metered", metrics))
}

/// What a meter counts in a sealed run.
pub(crate) fn counted(manifest: &Manifest, meter: &str) -> u64 {
    match meter {
        // What a limit let through of its last record is not the tenant's to pay.
        "input_bytes" => {
            manifest.bytes_planned.map_or(manifest.bytes_read, |planned| manifest.bytes_read.min(planned))
        }
        "records" => manifest.records_read,
        "hits" => manifest.hits,
        _ => 0,
    }
}
