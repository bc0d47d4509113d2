//! `dragnet ledger`: corrections, which are lines of their own.

use super::at_store::AtStore;
use crate::exit;
use crate::settings::Settings;
use anyhow::Result;
use clap::{Args, Subcommand};
use dragnet_job::invoice::money;
use dragnet_job::ledger;
use dragnet_tenant::audit::DONE;
use dragnet_tenant::now_ms;
use std::io::Write;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct Ledger {
    #[command(subcommand)]
    verb: LedgerVerb,
}

#[derive(Debug, Subcommand)]
enum LedgerVerb {
    /// Reverse what a job was charged, with new lines, and give it back to the budget
    Reverse(Reverse),
}

#[derive(Debug, Args)]
struct Reverse {
    /// The job's id
    job: String,
    /// The reason, which is shown in the ledger and on the invoice
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    at: AtStore,
}

impl Ledger {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let LedgerVerb::Reverse(Reverse { job, reason, at }) = self.verb;
        let at = at.open(settings)?;
        let logged = |tenant: &str| vec![at.act.statement(tenant, "ledger.reverse", &job, DONE)];
        let lines = at.wait(ledger::reverse(&*at.store, &job, &reason, now_ms(), &logged))?;
        let mut out = std::io::stdout().lock();
        for line in lines {
            let takes_back = line.reverses.unwrap_or_default();
            writeln!(
                out,
                "{}  {}  {} {}  takes back line {takes_back}",
                line.id,
                line.meter,
                money(line.amount_micros),
                line.currency
            )?;
        }
        Ok(exit::HITS.into())
    }
}
