//! `dragnet conformance`

use crate::conformance::{ROWS, Suite, Verdict};
use crate::exit;
use crate::settings::Settings;
use crate::wire;
use anyhow::Result;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Conformance {
    /// The service, such as http://127.0.0.1:7070
    url: String,
    /// What the jobs search: the path or URI of a small object that the service may read [default: a file made for the
    /// purpose, if the service is on this machine]
    #[arg(long, value_name = "URI")]
    dataset: Option<String>,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

impl Conformance {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let url = self.url.trim_end_matches('/');
        wire::check(url)?;
        let made = Made::new(url, self.dataset.is_none())?;
        let dataset = self.dataset.or_else(|| made.0.as_ref().map(|path| path.display().to_string()));
        let suite = Suite::new(url, settings.api_key.as_ref(), dataset);
        suite.reach()?;
        let mut out = std::io::stdout().lock();
        let (mut rows, mut held) = (Vec::new(), true);
        for row in ROWS {
            let verdict = (row.check)(&suite);
            held &= !matches!(verdict, Verdict::Fails(_));
            let (mark, why) = match &verdict {
                Verdict::Holds => ("holds", ""),
                Verdict::Fails(why) => ("FAILS", why.as_str()),
                Verdict::Skipped(why) => ("skipped", why.as_str()),
            };
            if self.json {
                rows.push(json!({ "name": row.name, "reference": row.reference, "verdict": mark.to_lowercase(), "why": why }));
                continue;
            }
            writeln!(out, "{mark:8} {:62} {}", row.name, row.reference)?;
            if !why.is_empty() {
                writeln!(out, "         {why}")?;
            }
        }
        if self.json {
            writeln!(out, "{:#}", json!(rows))?;
        }
        Ok(if held { exit::HITS } else { exit::NO_HIT }.into())
    }
}

/// A small object for the jobs, as long as this is there.
struct Made(Option<PathBuf>);

impl Made {
    fn new(url: &str, wanted: bool) -> Result<Made> {
        if !(wanted && wire::is_local(url)) {
            return Ok(Made(None));
        }
        let path = std::env::temp_dir().join(format!("dragnet-conformance-{}.txt", uuid::Uuid::new_v4()));
        std::fs::write(&path, "one needle\nanother needle\na third needle\n")?;
        Ok(Made(Some(path)))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}
