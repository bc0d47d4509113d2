//! `dragnet plan`: what a job would read, take and cost.

use super::submit::JobArgs;
use super::{Target, print_json};
use crate::exit;
use crate::settings::Settings;
use anyhow::Result;
use dragnet_job::estimate::Estimate;
use dragnet_job::invoice::money;
use std::io::Write;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    target: Target,
    /// Print the HTTP API's answer
    #[arg(long)]
    json: bool,
}

impl Plan {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let reached = self.target.reach(settings)?;
        let plan = reached.client.plan(&self.job.spec(&reached.client)?)?;
        let estimate: Estimate = serde_json::from_value(plan.clone())?;
        match self.json {
            true => print_json(&plan)?,
            false => print(&estimate)?,
        }
        // As for a search: what is not complete says so to a script as well.
        Ok(if estimate.complete { exit::HITS.into() } else { exit::GAPS.into() })
    }
}

fn print(plan: &Estimate) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let looked = match plan.complete {
        true => String::new(),
        false => format!(" ({} of them looked at: this is an estimate)", plan.objects_looked_at),
    };
    writeln!(out, "objects     {}{looked}", plan.objects)?;
    writeln!(out, "bytes       {} of {}", plan.bytes, plan.size)?;
    for (reason, bytes) in &plan.cut {
        writeln!(out, "cut         {bytes} bytes ({reason})")?;
    }
    writeln!(out, "shards      {}", plan.shards)?;
    if let Some(records) = plan.records {
        writeln!(out, "records     about {records}")?;
    }
    if plan.unreadable > 0 {
        writeln!(out, "unreadable  {} objects", plan.unreadable)?;
        for object in &plan.unreadable_objects {
            writeln!(out, "            {} {}", object.object, object.detail.as_deref().unwrap_or_default())?;
        }
    }
    let by = match plan.time.measured_jobs {
        0 => "assumed: no job has been measured yet".to_owned(),
        n => format!("measured over {n} jobs"),
    };
    writeln!(out, "time        about {} s at {} bytes/s ({by})", plan.time.seconds, plan.time.bytes_per_s)?;
    let price = &plan.price;
    writeln!(
        out,
        "price       {} {} (rates {})",
        money(price.total_micros as i64),
        price.currency,
        price.rates_version
    )?;
    if let Some(left) = plan.budget_left_micros {
        writeln!(out, "budget      {} left this month", money(left))?;
    }
    for note in &plan.notes {
        writeln!(out, "note        {note}")?;
    }
    Ok(())
}
