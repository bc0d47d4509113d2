//! `dragnet completions`: what shells and `man` need to know of the command line, from its own definition.

use anyhow::{Context, Result};
use clap_complete::Shell;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell to print completions for
    #[arg(required_unless_present = "man")]
    shell: Option<Shell>,
    /// Write a man page for each command into this folder instead
    #[arg(long, value_name = "DIR", conflicts_with = "shell")]
    man: Option<PathBuf>,
}

impl Completions {
    pub(crate) fn run(self, mut command: clap::Command) -> Result<ExitCode> {
        if let Some(folder) = self.man {
            let writing = || format!("write man pages into `{}`", folder.display());
            std::fs::create_dir_all(&folder).with_context(writing)?;
            clap_mangen::generate_to(command, &folder).with_context(writing)?;
        } else if let Some(shell) = self.shell {
            // A pipe that is closed early must not make the generator panic.
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command, "dragnet", &mut text);
            std::io::stdout().write_all(&text)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
