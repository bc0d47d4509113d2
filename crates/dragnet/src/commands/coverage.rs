//! `dragnet coverage`

use super::{Target, print_json};
use crate::client::path_of;
use crate::exit;
use crate::follow::coverage_line;
use crate::settings::Settings;
use anyhow::Result;
use std::io::Write;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Coverage {
    /// The job's id
    job: String,
    /// Print the HTTP API's answer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Coverage {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let reached = self.target.reach(settings)?;
        let report = reached.client.get(&format!("{}/coverage", path_of(&self.job)?))?;
        let complete = report["complete"] == true;
        if self.json {
            print_json(&report)?;
            return Ok(if complete { exit::HITS } else { exit::GAPS }.into());
        }
        let mut out = std::io::stdout().lock();
        let totals = &report["totals"];
        writeln!(
            out,
            "{} objects, {} of {} bytes read, {} skipped, {} records, {} hits",
            totals["objects"],
            totals["read"],
            totals["size"],
            totals["skipped_bytes"],
            totals["records"],
            totals["hits"]
        )?;
        writeln!(out, "{}", coverage_line(&report))?;
        for object in report["objects"].as_array().into_iter().flatten() {
            let uri = object["object"].as_str().unwrap_or_default();
            for skip in object["skipped"].as_array().into_iter().flatten() {
                let text = |name: &str| skip[name].as_str().unwrap_or_default();
                let detail =
                    if text("detail").is_empty() { String::new() } else { format!(" ({})", text("detail")) };
                writeln!(
                    out,
                    "{uri}: {} bytes from {}: {}, {}{detail}",
                    skip["length"],
                    skip["offset"],
                    text("class"),
                    text("reason")
                )?;
            }
            for record in object["undecoded"].as_array().into_iter().flatten() {
                let text = |name: &str| record[name].as_str().unwrap_or_default();
                writeln!(
                    out,
                    "{uri}: the record at {}: {} searched instead of {}: {}",
                    record["offset"],
                    text("searched_instead"),
                    text("layer"),
                    text("reason")
                )?;
            }
        }
        Ok(if complete { exit::HITS } else { exit::GAPS }.into())
    }
}
