//! `dragnet config`

use crate::config;
use anyhow::Result;
use std::io::Write;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Config {}

impl Config {
    pub(crate) fn run(self, command: clap::Command) -> Result<ExitCode> {
        std::io::stdout().write_all(config::commented(command)?.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }
}
