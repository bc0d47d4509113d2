//! `dragnet audit`: whether ledger, jobs and committed parts agree.

use super::at_store::AtStore;
use super::print_json;
use crate::settings::Settings;
use anyhow::Result;
use clap::Args;
use dragnet_job::audit;
use std::io::Write;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: AtStore,
}

impl Audit {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let at = self.at.open_existing(settings)?;
        let audit = at.wait(audit::audit(&*at.store))?;
        let agrees = audit.disagreements.is_empty();
        if self.json {
            print_json(&serde_json::to_value(&audit)?)?;
        } else {
            let mut out = std::io::stdout().lock();
            for disagreement in &audit.disagreements {
                writeln!(out, "{}: {}", disagreement.of, disagreement.what)?;
            }
            let (lines, jobs, forgotten) = (audit.lines, audit.jobs, audit.forgotten);
            let verdict = match audit.disagreements.len() {
                0 => "all agree".to_owned(),
                n => format!("{n} disagreements"),
            };
            writeln!(out, "{lines} lines, {jobs} jobs, {forgotten} jobs that are forgotten: {verdict}")?;
        }
        Ok(if agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
