//! `dragnet tenant`: who submits jobs, and how much each may use.

use super::at_store::AtStore;
use super::print_json;
use crate::exit;
use crate::settings::Settings;
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use dragnet_job::view::time;
use dragnet_pattern::{Filter, Page, Status, Store};
use dragnet_tenant::ANY;
use dragnet_tenant::{self as tenant, Settings as Limits, Tenant, slots};
use std::io::Write;
use std::process::ExitCode;

/// Jobs that are cancelled in one go.
const PAGE: usize = 500;
/// Jobs that are told when a tenant's limits change.
const TOLD_MAX: i64 = 1000;

#[derive(Debug, Args)]
pub(crate) struct TenantCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a tenant; from the first one on, the service requires API keys
    Add(Add),
    /// Change what a tenant may use; limits that are not given stay. A running service sees it within 2 seconds
    Set(Set),
    /// Remove a tenant: its keys end and its jobs are cancelled. Its output, ledger and invoices stay, and so does
    /// its name
    Remove(Remove),
    /// List all tenants
    List(List),
    /// Show a tenant and what it may use
    Show(Show),
}

#[derive(Debug, Args)]
struct Add {
    /// Its name: a-z, 0-9 and `-`, because it becomes part of paths
    name: String,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    at: AtStore,
}

#[derive(Debug, Args)]
struct Set {
    /// Its name
    name: String,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    at: AtStore,
}

#[derive(Debug, Args)]
struct Remove {
    /// Its name
    name: String,
    /// Let its jobs run to their end
    #[arg(long)]
    keep_jobs: bool,
    #[command(flatten)]
    at: AtStore,
}

#[derive(Debug, Args)]
struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: AtStore,
}

#[derive(Debug, Args)]
struct Show {
    /// Its name
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: AtStore,
}

/// A number, or that there is no limit.
#[derive(Debug, Clone, Copy)]
struct Most(Option<u64>);

impl std::str::FromStr for Most {
    type Err = String;

    fn from_str(text: &str) -> Result<Most, String> {
        match text {
            "none" => Ok(Most(None)),
            // The store's numbers have a sign.
            _ => match text.parse::<i64>() {
                Ok(n) if n >= 0 => Ok(Most(Some(n.unsigned_abs()))),
                _ => Err("it is a number, or `none` for no limit".into()),
            },
        }
    }
}

#[derive(Debug, Args)]
struct LimitArgs {
    /// Limit on jobs that have not ended, waiting or running; more are answered 429
    #[arg(long, value_name = "N|none")]
    jobs_open: Option<Most>,
    /// Limit on jobs that run at once; others wait for one to end
    #[arg(long, value_name = "N|none")]
    jobs_running: Option<Most>,
    /// Limit on the stored bytes that one job may read
    #[arg(long, value_name = "N|none")]
    job_bytes: Option<Most>,
    /// Limit on submissions per second, for each process of the API
    #[arg(long, value_name = "N|none")]
    submissions_per_s: Option<Most>,
    /// Limit on the cost of its jobs of one month (UTC), in millionths of the currency
    #[arg(long, value_name = "MICROS|none")]
    budget_micros: Option<Most>,
    /// A prefix that its datasets may begin with, such as s3://BUCKET/crawl/ or https://HOST/; may be given several times,
    /// and replaces the list; `any` lets it read whatever the service can [default: only web servers]
    #[arg(long, value_name = "URI|any")]
    dataset: Vec<String>,
}

impl LimitArgs {
    /// The limits with what was named changed.
    fn over(self, mut limits: Limits) -> Result<Limits> {
        let rows = [
            (self.jobs_open, &mut limits.jobs_open),
            (self.jobs_running, &mut limits.jobs_running),
            (self.job_bytes, &mut limits.job_bytes),
            (self.submissions_per_s, &mut limits.submissions_per_s),
            (self.budget_micros, &mut limits.budget_micros),
        ];
        for (said, limit) in rows {
            if let Some(Most(most)) = said {
                *limit = most;
            }
        }
        match self.dataset.as_slice() {
            [] => {}
            [any] if any == ANY => limits.datasets = Some(vec![ANY.into()]),
            prefixes => {
                if let Some(wrong) = prefixes.iter().find(|prefix| !prefix.contains("://")) {
                    bail!(
                        "`--dataset {wrong}` is no URI: name a scheme, as in s3://BUCKET/crawl/ or file:///data/"
                    );
                }
                limits.datasets = Some(prefixes.to_vec());
            }
        }
        Ok(limits)
    }
}

impl TenantCommand {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        match self.verb {
            Verb::Add(Add { name, limits, at }) => {
                let at = at.open(settings)?;
                let limits = limits.over(Limits::default())?;
                at.wait(tenant::add(&*at.store, &name, &limits, &at.act))?;
                say!("made the tenant `{name}`; `dragnet key add {name}` makes a key for it");
            }
            Verb::Set(Set { name, limits, at }) => {
                let at = at.open(settings)?;
                let known = at.wait(tenant::list(&*at.store))?.into_iter().find(|tenant| tenant.id == name);
                let known = known.ok_or(tenant::Error::NoSuchTenant(name.clone()))?;
                let limits = limits.over(known.settings.clone())?;
                at.wait(tenant::set(&*at.store, &name, &limits, &at.act))?;
                // There may be room for more of its jobs now.
                let launch = dragnet_job::controllers::LAUNCH;
                at.wait(slots::tell_next(&*at.store, &name, launch, TOLD_MAX))?;
                show(&Tenant { settings: limits, ..known })?;
            }
            Verb::Remove(Remove { name, keep_jobs, at }) => {
                let at = at.open(settings)?;
                let keys = at.wait(tenant::remove(&*at.store, &name, &at.act))?;
                let jobs = if keep_jobs { 0 } else { at.wait(cancel_all(&*at.store, &name))? };
                say!("removed `{name}`: {keys} keys ended, {jobs} jobs cancelled");
            }
            Verb::List(List { json, at }) => {
                let at = at.open(settings)?;
                let tenants = at.wait(tenant::list(&*at.store))?;
                if json {
                    print_json(&serde_json::to_value(tenants)?)?;
                } else {
                    tenants.iter().try_for_each(show)?;
                }
            }
            Verb::Show(Show { name, json, at }) => {
                let at = at.open(settings)?;
                let found = at.wait(tenant::find(&*at.store, &name))?;
                let found = found.ok_or(tenant::Error::NoSuchTenant(name))?;
                if json {
                    print_json(&serde_json::to_value(found)?)?;
                } else {
                    show(&found)?;
                }
            }
        }
        Ok(exit::HITS.into())
    }
}

/// Cancels what has not ended of a tenant's. Returns how many jobs that is.
async fn cancel_all(store: &dyn Store, tenant: &str) -> Result<usize> {
    let mut cancelled = 0;
    for status in [Status::Accepted, Status::Running, Status::Parked] {
        let filter = Filter { status: Some(status), ..Filter::default() };
        let mut after: Option<String> = None;
        loop {
            let works = store.works(tenant, filter, Page { limit: PAGE, after: after.as_deref() }).await?;
            for work in &works {
                store.cancel(tenant, &work.id).await?;
            }
            cancelled += works.len();
            after = works.last().filter(|_| works.len() == PAGE).map(|work| work.id.clone());
            if after.is_none() {
                break;
            }
        }
    }
    Ok(cancelled)
}

/// A tenant on a line, with what it is limited to.
fn show(tenant: &Tenant) -> Result<()> {
    let limits = serde_json::to_value(&tenant.settings)?;
    let limits = limits.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let limits: Vec<String> = limits.map(|(name, value)| format!("{name} {value}")).collect();
    let limits = if limits.is_empty() { "no limits".to_owned() } else { limits.join(", ") };
    let removed = tenant.removed_ms.map(|at| format!("  removed {}", time(at))).unwrap_or_default();
    Ok(writeln!(std::io::stdout(), "{}  {limits}{removed}", tenant.id)?)
}
