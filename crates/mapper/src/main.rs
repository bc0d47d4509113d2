//! `dragnet-map`: the mapper alone, to be shipped to where the map tasks run.

use clap::Parser;
use std::process::ExitCode;

/// Scan shards: tasks as JSON lines on stdin, outcomes on stdout.
#[derive(Debug, clap::Parser)]
#[command(name = "dragnet-map", version)]
struct Cli {
    /// Said by engines that start it as `dragnet map`
    #[arg(hide = true, value_parser = ["map"])]
    _command: Option<String>,
    #[command(flatten)]
    map: dragnet_mapper::Map,
}

fn main() -> ExitCode {
    match Cli::parse().map.run() {
        Ok(code) => code,
        Err(e) => {
            eprintln!("dragnet-map: {e:#}");
            ExitCode::from(1)
        }
    }
}
