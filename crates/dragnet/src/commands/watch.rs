//! `dragnet watch`

use super::Target;
use super::search::finish_here;
use crate::follow::{Show, follow, is_over};
use crate::settings::Settings;
use anyhow::Result;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    /// The job's id
    job: String,
    /// Print hits as JSON lines
    #[arg(long)]
    json: bool,
    /// Print no hits
    #[arg(long, conflicts_with = "json")]
    quiet: bool,
    #[command(flatten)]
    target: Target,
}

impl Watch {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let mut reached = self.target.reach(settings)?;
        let job = reached.client.job(&self.job)?;
        if let Some(service) = &mut reached.embedded
            && !is_over(&job)
        {
            let progress = &job["progress"];
            say!("goes on: {} of {} shards are committed", progress["shards_done"], progress["shards_total"]);
            finish_here(service, &self.job)?;
        }
        let show = match (self.quiet, self.json) {
            (true, _) => Show::Nothing,
            (_, true) => Show::Json,
            _ => Show::Text,
        };
        let code = follow(&reached.client, &self.job, show)?;
        if let Some(service) = reached.embedded {
            service.end();
        }
        Ok(code.into())
    }
}
