//! `dragnet`: run a regular expression over millions of web documents as a long, asynchronous, metered job.
//!
//! This file reads the command line and the environment and hands over to one file per command.

mod client;
mod commands;
mod conformance;
mod exit;
mod follow;
#[cfg(feature = "hadoop")]
mod hadoop;
mod listen;
mod messages;
mod output;
#[cfg(feature = "parquet")]
mod parquet;
mod service;
mod settings;

use clap::Parser;
use commands::Command;
use settings::Settings;
use std::process::ExitCode;

/// Run a regular expression over web documents as a long, asynchronous, metered job, and get an answer
/// that can be trusted.
#[derive(Debug, Parser)]
#[command(name = "dragnet", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let settings = Settings::read();
    settings.start_log(cli.command.is_service());
    dragnet_pattern::crash::arm(&settings.crash);
    match cli.command.run(&settings) {
        Ok(code) => code,
        Err(e) if exit::is_closed_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("dragnet: {e:#}");
            exit::ERROR.into()
        }
    }
}
