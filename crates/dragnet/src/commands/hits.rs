//! `dragnet hits`

use super::{Target, print_json};
use crate::client::path_of;
use crate::exit::{self, Exit};
use crate::follow::{Show, exit_of, is_over, write_hits};
use crate::settings::Settings;
use anyhow::Result;
use serde_json::Value as Json;
use std::io::Write;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Hits {
    /// The job's id
    job: String,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
    /// Count hits by match, pattern, host, url, object or date
    #[arg(long, value_name = "WHAT")]
    count_by: Option<String>,
    /// At most N counts
    #[arg(long, value_name = "N", requires = "count_by")]
    top: Option<usize>,
    /// Show a hash and the first 4 characters instead of the match
    #[arg(long)]
    redact: bool,
    /// The order: settled, or dataset [default: dataset once the job has ended]
    #[arg(long, value_name = "ORDER")]
    order: Option<String>,
    #[command(flatten)]
    target: Target,
}

impl Hits {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let reached = self.target.reach(settings)?;
        let job = reached.client.job(&self.job)?;
        let order =
            self.order.as_deref().unwrap_or(if job["digest"].is_string() { "dataset" } else { "settled" });
        let base = format!("{}/hits", path_of(&self.job)?);
        let redact = if self.redact { "&redact=true" } else { "" };
        let mut out = std::io::stdout().lock();
        if let Some(by) = &self.count_by {
            let top = self.top.map_or(String::new(), |top| format!("&top={top}"));
            let counts = reached.client.get(&format!("{base}?count_by={by}{top}{redact}"))?;
            if self.json {
                drop(out);
                print_json(&counts)?;
                return Ok(exit_code(&job).into());
            }
            for row in counts["counts"].as_array().into_iter().flatten() {
                let key = row["key"].as_str().unwrap_or_default().replace('\n', "\\n");
                writeln!(out, "{:7} {key}", row["count"])?;
            }
            return Ok(exit_code(&job).into());
        }
        let show = if self.json { Show::Json } else { Show::Text };
        let mut next = Some(format!("{base}?limit=1000&order={order}{redact}"));
        while let Some(path) = next {
            let page = reached.client.hits(&path)?;
            if page.lines.is_empty() {
                break;
            }
            write_hits(&mut out, &page.lines, show)?;
            next = page.next;
        }
        Ok(exit_code(&job).into())
    }
}

/// Whether that is the complete answer is the job's to say.
fn exit_code(job: &Json) -> Exit {
    let status = job["status"].as_str().unwrap_or_default();
    if !is_over(job) {
        say!("dragnet: the job is {status}: these are its hits so far");
        return exit::GAPS;
    }
    let code = exit_of(job);
    if code == exit::ERROR {
        let why = job["error"]["detail"].as_str().unwrap_or("`dragnet status` says more");
        say!("dragnet: the job is {status}: {why}");
    }
    code
}
