//! `dragnet`: run a regular expression over millions of web documents as a long, asynchronous, metered job.
//!
//! This file reads the command line and the environment and hands over to one file per command.

/// Says it on stderr, if anybody still reads that: `eprintln!` panics where a pipe is closed.
macro_rules! say {
    ($($said:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($said)*);
    }};
}

mod allocator;
mod client;
mod commands;
mod config;
mod conformance;
mod disk;
mod exit;
mod follow;
#[cfg(feature = "hadoop")]
mod hadoop;
mod health;
mod listen;
mod messages;
mod metrics;
mod operations;
mod output;
#[cfg(feature = "parquet")]
mod parquet;
mod reach;
mod retention;
mod service;
mod settings;
mod wire;

use clap::{CommandFactory, Parser};
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
    let settings = Settings::read();
    let line = match config::with_file(Cli::command(), std::env::args_os().collect(), &settings) {
        Ok(line) => line,
        Err(e) => return failed(&e),
    };
    let cli = Cli::parse_from(line);
    settings.start_log(cli.command.log_format());
    dragnet_pattern::crash::arm(&settings.crash);
    match cli.command.run(&settings) {
        Ok(code) => code,
        Err(e) if exit::is_closed_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => failed(&e),
    }
}

fn failed(e: &anyhow::Error) -> ExitCode {
    say!("dragnet: {e:#}");
    exit::ERROR.into()
}
