//! `dragnet webhook`: endpoints that are told when a tenant's jobs end.

use super::at_store::{AtStore, Opened};
use super::print_json;
use crate::service::WEBHOOK_KEY;
use crate::settings::Settings;
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use dragnet_job::topic;
use dragnet_pattern::Statement;
use dragnet_tenant::DEFAULT;
use dragnet_webhooks as webhooks;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct WebhookCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Add an endpoint and print its secret, this once
    Add {
        /// The URL to post events to
        url: String,
        /// The tenant whose jobs it is notified of
        #[arg(long, value_name = "NAME", default_value = DEFAULT)]
        tenant: String,
        #[command(flatten)]
        key: KeyFile,
        #[command(flatten)]
        at: AtStore,
    },
    /// List endpoints, without their secrets
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: AtStore,
    },
    /// Remove an endpoint
    Remove {
        /// Its id, as shown by `list`
        id: String,
        #[command(flatten)]
        at: AtStore,
    },
    /// Print a new secret; the old one also signs for a while
    Rotate {
        /// Its id, as shown by `list`
        id: String,
        /// Hours for which both sign
        #[arg(long, value_name = "H", default_value_t = 24)]
        overlap_hours: u64,
        #[command(flatten)]
        key: KeyFile,
        #[command(flatten)]
        at: AtStore,
    },
    /// Enable an endpoint again after it answered 410
    Enable {
        /// Its id, as shown by `list`
        id: String,
        #[command(flatten)]
        at: AtStore,
    },
    /// Notify of a job's end once more, under the same id
    Replay {
        /// The job's id
        job: String,
        #[command(flatten)]
        at: AtStore,
    },
}

/// What secrets are made of.
#[derive(Debug, Args)]
struct KeyFile {
    /// The key that secrets are derived from, the same as the service's [default: webhook.key in the state folder, made
    /// when it is first needed]
    #[arg(long, value_name = "FILE")]
    webhook_key: Option<PathBuf>,
}

impl KeyFile {
    fn open(&self, opened: &Opened) -> Result<webhooks::Key> {
        let file = self.webhook_key.clone().unwrap_or_else(|| opened.state.join(WEBHOOK_KEY));
        // A key that is made here, on a machine that is not the service's, would sign for nobody.
        if !file.exists()
            && opened.wait(webhooks::list(&*opened.store))?.iter().any(|one| one.disabled.is_none())
        {
            bail!(
                "`{}` does not exist, and there are endpoints whose secrets are made of another key: name its file by \
                 --webhook-key (the service's is webhook.key in its state folder)",
                file.display()
            );
        }
        Ok(webhooks::Key::at(&file)?)
    }
}

impl WebhookCommand {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let mut out = std::io::stdout();
        match self.verb {
            Verb::Add { url, tenant, key, at } => {
                let opened = at.open(settings)?;
                let known = opened.wait(dragnet_tenant::find(&*opened.store, &tenant))?;
                if known.is_none() && tenant != DEFAULT {
                    bail!("there is no tenant `{tenant}`: `dragnet tenant list` shows which there are");
                }
                let key = key.open(&opened)?;
                let (made, secret) = opened.wait(webhooks::add(&*opened.store, &key, &tenant, &url))?;
                // Shown first: whatever fails now, it is not lost.
                say!("made `{}` of `{tenant}`; its secret is shown this once", made.id);
                writeln!(out, "{secret}")?;
                opened.note(&tenant, "webhook.add", &made.id)?;
            }
            Verb::List { json, at } => {
                let opened = at.open(settings)?;
                let all = opened.wait(webhooks::list(&*opened.store))?;
                if json {
                    let row = |one: &webhooks::Endpoint| json!({ "id": one.id, "tenant": one.tenant, "url": one.url, "disabled": one.disabled });
                    print_json(&json!(all.iter().map(row).collect::<Vec<_>>()))?;
                } else {
                    for one in all {
                        let state = one.disabled.map_or("enabled".into(), |why| format!("disabled: {why}"));
                        writeln!(out, "{}  {}  {}  {state}", one.id, one.tenant, one.url)?;
                    }
                }
            }
            Verb::Remove { id, at } => {
                let opened = at.open(settings)?;
                let tenant = tenant_of(&opened, &id)?;
                opened.wait(webhooks::remove(&*opened.store, &id))?;
                opened.note(&tenant, "webhook.remove", &id)?;
            }
            Verb::Rotate { id, overlap_hours, key, at } => {
                let opened = at.open(settings)?;
                let key = key.open(&opened)?;
                let overlap = Duration::from_secs(overlap_hours * 3600);
                let secret = opened.wait(webhooks::rotate(&*opened.store, &key, &id, overlap))?;
                writeln!(out, "{secret}")?;
                opened.note(&tenant_of(&opened, &id)?, "webhook.rotate", &id)?;
            }
            Verb::Enable { id, at } => {
                let opened = at.open(settings)?;
                opened.wait(webhooks::enable(&*opened.store, &id))?;
                opened.note(&tenant_of(&opened, &id)?, "webhook.enable", &id)?;
            }
            Verb::Replay { job, at } => {
                let opened = at.open(settings)?;
                let of = Statement::new("select tenant from work where id = ?1", vec![job.as_str().into()]);
                let rows = opened.wait(opened.store.query(of))?;
                let Some(row) = rows.first() else {
                    bail!("there is no job `{job}`: `dragnet list` shows which there are");
                };
                opened.wait(webhooks::replay(&*opened.store, &job, topic::ENDED))?;
                opened.note(row[0].text(), "webhook.replay", &job)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Whose endpoint it is; nobody's, if there is none.
fn tenant_of(opened: &Opened, id: &str) -> Result<String> {
    let all = opened.wait(webhooks::list(&*opened.store))?;
    let found = all.into_iter().find(|endpoint| endpoint.id == id);
    Ok(found.map_or_else(|| DEFAULT.to_owned(), |endpoint| endpoint.tenant))
}
