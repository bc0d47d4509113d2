//! `dragnet status`

use super::{Target, print_json};
use crate::exit;
use crate::settings::Settings;
use anyhow::Result;
use std::io::Write;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// The job's id
    job: String,
    /// Print the HTTP API's answer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Status {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let reached = self.target.reach(settings)?;
        print_job(&reached.client.job(&self.job)?, self.json)?;
        Ok(exit::HITS.into())
    }
}

/// Prints a job for a program or in a few words.
pub(crate) fn print_job(job: &serde_json::Value, as_json: bool) -> Result<()> {
    if as_json {
        return print_json(job);
    }
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
    let progress = &job["progress"];
    let mut out = std::io::stdout().lock();
    writeln!(out, "job       {}", text(&job["id"]))?;
    writeln!(out, "status    {} (stage {})", text(&job["status"]), text(&job["stage"]))?;
    writeln!(
        out,
        "progress  {} of {} bytes, {} of {} shards, {} records, {} hits",
        progress["bytes_done"],
        progress["bytes_total"],
        progress["shards_done"],
        progress["shards_total"],
        progress["records"],
        progress["hits"]
    )?;
    for (name, row) in job["controllers"].as_object().into_iter().flatten() {
        let error = row["error"].as_str().map_or(String::new(), |error| format!("  {error}"));
        writeln!(out, "{name:9} {} (attempt {}){error}", text(&row["status"]), row["attempt"])?;
    }
    if let Some(detail) = job["error"]["detail"].as_str() {
        writeln!(out, "error     {detail}")?;
    }
    Ok(())
}
