//! `dragnet bill`

use super::{Target, print_json};
use crate::client::path_of;
use crate::exit;
use crate::settings::Settings;
use anyhow::Result;
use dragnet_job::invoice::money;
use std::io::Write;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Bill {
    /// The job's id
    job: String,
    /// Print the HTTP API's answer
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Bill {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let reached = self.target.reach(settings)?;
        let bill = reached.client.get(&format!("{}/bill", path_of(&self.job)?))?;
        if self.json {
            print_json(&bill)?;
            return Ok(exit::HITS.into());
        }
        let mut out = std::io::stdout().lock();
        let micros = |value: &serde_json::Value| money(value.as_i64().unwrap_or(0));
        for line in bill["lines"].as_array().into_iter().flatten() {
            let text = |name: &str| line[name].as_str().unwrap_or_default();
            writeln!(
                out,
                "{:12} {:>16}  at {} per {:8} {:>14}",
                text("meter"),
                line["quantity"].to_string(),
                micros(&line["unit_price_micros"]),
                text("unit"),
                micros(&line["amount_micros"])
            )?;
        }
        let rates = bill["rates_version"].as_str().unwrap_or_default();
        writeln!(
            out,
            "total        {} {} (rates {rates})",
            micros(&bill["total_micros"]),
            bill["currency"].as_str().unwrap_or_default()
        )?;
        Ok(exit::HITS.into())
    }
}
