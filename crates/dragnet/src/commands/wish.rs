//! `dragnet cancel` and `dragnet redrive`: wishes that the job's owner finds.

use super::Target;
use super::status::print_job;
use crate::exit;
use crate::settings::Settings;
use anyhow::Result;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Cancel {
    #[command(flatten)]
    wish: Wish,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Redrive {
    #[command(flatten)]
    wish: Wish,
}

#[derive(Debug, clap::Args)]
struct Wish {
    /// The job's id
    job: String,
    /// Print the HTTP API's answer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Cancel {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        self.wish.send("cancel", settings)
    }
}

impl Redrive {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        self.wish.send("redrive", settings)
    }
}

impl Wish {
    fn send(self, verb: &str, settings: &Settings) -> Result<ExitCode> {
        let reached = self.target.reach(settings)?;
        print_job(&reached.client.wish(&self.job, verb)?, self.json)?;
        if reached.embedded.is_some() {
            say!(
                "noted; no service is named, so `dragnet watch {}` or `dragnet serve` carries it out",
                self.job
            );
        }
        Ok(exit::HITS.into())
    }
}
