//! `dragnet completions`: what a shell needs to complete our command line.

use crate::exit;
use anyhow::Result;
use clap::CommandFactory;
use std::io::Write;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<ExitCode> {
        // It panics where it can't write, so it writes to memory.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::Cli::command(), "dragnet", &mut script);
        std::io::stdout().write_all(&script)?;
        Ok(exit::HITS.into())
    }
}
