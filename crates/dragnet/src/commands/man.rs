//! `dragnet man`: a manual page for each command.

use crate::exit;
use anyhow::{Context, Result};
use clap::CommandFactory;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Man {
    /// Where the pages go, such as `~/.local/share/man/man1`
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Man {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let folder = &self.folder;
        std::fs::create_dir_all(folder).with_context(|| format!("make `{}`", folder.display()))?;
        let written = clap_mangen::generate_to(crate::Cli::command(), folder);
        written.with_context(|| format!("write manual pages to `{}`", folder.display()))?;
        Ok(exit::HITS.into())
    }
}
