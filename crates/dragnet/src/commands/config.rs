//! `dragnet config`: the configuration file of `serve`, as it is without one.

use crate::{config, exit};
use anyhow::Result;
use clap::CommandFactory;
use std::io::Write;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Config {}

impl Config {
    pub(crate) fn run(self) -> Result<ExitCode> {
        std::io::stdout().write_all(config::default_file(&crate::Cli::command()).as_bytes())?;
        Ok(exit::HITS.into())
    }
}
