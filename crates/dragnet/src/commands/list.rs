//! `dragnet list`

use super::{Target, print_json};
use crate::exit;
use crate::settings::Settings;
use anyhow::Result;
use std::io::Write;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only jobs with this status
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// At most N jobs
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Continue a list: the cursor that it ended with
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Print the HTTP API's answer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl List {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let reached = self.target.reach(settings)?;
        let status = self.status.map_or(String::new(), |status| format!("&status={status}"));
        let cursor = self.cursor.map_or(String::new(), |cursor| format!("&cursor={cursor}"));
        let list = reached.client.get(&format!("/v1/jobs?limit={}{status}{cursor}", self.limit))?;
        if self.json {
            print_json(&list)?;
            return Ok(exit::HITS.into());
        }
        let mut out = std::io::stdout().lock();
        for job in list["jobs"].as_array().into_iter().flatten() {
            let text = |name: &str| job[name].as_str().unwrap_or("-");
            let patterns = job["spec"]["patterns"].as_array().into_iter().flatten();
            let regexes: Vec<&str> = patterns.filter_map(|pattern| pattern["regex"].as_str()).collect();
            writeln!(
                out,
                "{}  {:19}  {}  {}",
                text("id"),
                text("status"),
                text("created"),
                regexes.join(" ")
            )?;
        }
        if let Some(next) = list["next"].as_str() {
            say!("more: --cursor {next}");
        }
        Ok(exit::HITS.into())
    }
}
