//! `dragnet audit-log`: who did what.

use super::at_store::AtStore;
use super::print_json;
use crate::exit;
use crate::settings::Settings;
use anyhow::Result;
use dragnet_job::view::time;
use dragnet_tenant::audit;
use std::io::Write;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct AuditLog {
    /// Only actions for this tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// At most N lines, newest first
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Only lines with smaller numbers, to continue where a list ended
    #[arg(long, value_name = "NUMBER")]
    before: Option<i64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: AtStore,
}

impl AuditLog {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let at = self.at.open(settings)?;
        let lines = at.wait(audit::lines(&*at.store, self.tenant.as_deref(), self.before, self.limit))?;
        if self.json {
            print_json(&serde_json::to_value(lines)?)?;
            return Ok(exit::HITS.into());
        }
        let mut out = std::io::stdout().lock();
        for line in lines {
            writeln!(
                out,
                "{}  {}  {}  {}  {}  {}  {}  {}",
                line.id,
                time(line.at_ms),
                line.tenant,
                line.actor,
                line.action,
                line.target,
                line.outcome,
                line.address
            )?;
        }
        Ok(exit::HITS.into())
    }
}
