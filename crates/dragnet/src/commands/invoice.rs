//! `dragnet invoice`: what a tenant owes for a month.

use super::at_store::AtStore;
use super::print_json;
use crate::exit;
use crate::settings::Settings;
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use dragnet_job::invoice;
use dragnet_tenant::now_ms;
use std::io::Write;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct Invoice {
    /// The tenant
    tenant: String,
    /// The month (UTC), such as 2026-11
    month: String,
    /// The output format
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    format: Format,
    #[command(flatten)]
    at: AtStore,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Json,
    Csv,
    Html,
}

impl Invoice {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let span = invoice::span(&self.month).map_err(anyhow::Error::msg)?;
        let at = self.at.open(settings)?;
        let known = at.wait(dragnet_tenant::find(&*at.store, &self.tenant))?;
        let invoice = at.wait(invoice::of(&*at.store, &self.tenant, span, now_ms()))?;
        if known.is_none() && invoice.lines.is_empty() {
            bail!("there is no tenant `{}`: `dragnet tenant list` names them", self.tenant);
        }
        match self.format {
            Format::Json => print_json(&serde_json::to_value(&invoice)?)?,
            Format::Csv => write!(std::io::stdout(), "{}", invoice.csv())?,
            Format::Html => write!(std::io::stdout(), "{}", invoice.html())?,
        }
        Ok(exit::HITS.into())
    }
}
