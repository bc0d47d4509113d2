//! `dragnet status`

use super::Target;
use super::search::print_job;
use crate::exit;
use crate::settings::Settings;
use anyhow::Result;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// The job's id
    job: String,
    /// Print what HTTP would answer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Status {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let reached = self.target.reach(settings)?;
        print_job(&reached.client.job(&self.job)?, self.json)?;
        Ok(exit::HITS.into())
    }
}
