//! `dragnet key`: API keys, by which a client shows for whom it speaks.

use super::at_store::{AtStore, Opened};
use super::print_json;
use crate::exit;
use crate::settings::Settings;
use anyhow::Result;
use clap::{Args, Subcommand};
use dragnet_job::view::time;
use dragnet_tenant::keys::{self, Key, NewKey, Scope};
use dragnet_tenant::{Error, Secret, now_ms};
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct KeyCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a key and print it, this once: the store keeps only a hash
    Add(Add),
    /// List keys, without their secrets
    List(List),
    /// Create a key's successor and print it; the old key stays valid for a while, so that clients can switch
    Rotate(Rotate),
    /// Revoke a key now: services refuse it within 2 seconds
    Revoke(Revoke),
}

#[derive(Debug, Args)]
struct Add {
    /// The tenant that it speaks for
    tenant: String,
    /// Its scopes, separated by commas: submit, read, cancel, bill, admin
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = scope, default_value = "submit,read,cancel,bill")]
    scopes: Vec<Scope>,
    /// Days after which it expires [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    expires_days: Option<u32>,
    /// A note on what it is for
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    label: String,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Args)]
struct List {
    /// Only the keys of this tenant
    tenant: Option<String>,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Args)]
struct Rotate {
    /// The public part of the old key, as shown by `key list`
    key: String,
    /// Hours for which both keys are accepted
    #[arg(long, value_name = "H", default_value_t = 24.0)]
    overlap_hours: f64,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Args)]
struct Revoke {
    /// The public part of the key, as shown by `key list`
    key: String,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: AtStore,
}

fn scope(name: &str) -> Result<Scope, String> {
    Scope::parse(name).ok_or_else(|| format!("scopes are {}", Scope::ALL.map(Scope::name).join(", ")))
}

impl KeyCommand {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        match self.verb {
            Verb::Add(Add { tenant, scopes, expires_days, label, show }) => {
                let at = show.at.open(settings)?;
                let life = expires_days.map(|days| Duration::from_secs(u64::from(days) * 24 * 3600));
                let new = NewKey { tenant, label, scopes, life };
                let (key, secret) = at.wait(keys::add(&*at.store, new, &at.act))?;
                print_new(&key, &secret, show.json)?;
            }
            Verb::List(List { tenant, show }) => {
                let at = show.at.open(settings)?;
                if let Some(name) = &tenant {
                    check_tenant(&at, name)?;
                }
                let keys = at.wait(keys::list(&*at.store, tenant.as_deref()))?;
                if show.json {
                    print_json(&serde_json::to_value(keys)?)?;
                } else {
                    keys.iter().try_for_each(print_row)?;
                }
            }
            Verb::Rotate(Rotate { key, overlap_hours, show }) => {
                let overlap = Duration::try_from_secs_f64(overlap_hours * 3600.0);
                let overlap =
                    overlap.map_err(|e| anyhow::anyhow!("`--overlap-hours {overlap_hours}`: {e}"))?;
                let at = show.at.open(settings)?;
                let (successor, secret) = at.wait(keys::rotate(&*at.store, &key, overlap, &at.act))?;
                say!("`{key}` is taken for another {overlap_hours} hours");
                print_new(&successor, &secret, show.json)?;
            }
            Verb::Revoke(Revoke { key, show }) => {
                let at = show.at.open(settings)?;
                let key = at.wait(keys::revoke(&*at.store, &key, &at.act))?;
                if show.json {
                    print_json(&serde_json::to_value(key)?)?;
                } else {
                    print_row(&key)?;
                }
            }
        }
        Ok(exit::HITS.into())
    }
}

fn check_tenant(at: &Opened, name: &str) -> Result<()> {
    let found = at.wait(dragnet_tenant::find(&*at.store, name))?;
    Ok(found.map(drop).ok_or_else(|| Error::NoSuchTenant(name.into()))?)
}

/// The key alone on stdout, so that `KEY=$(dragnet key add …)` has it, and the rest where people look.
fn print_new(key: &Key, secret: &Secret, as_json: bool) -> Result<()> {
    if as_json {
        let mut shown = serde_json::to_value(key)?;
        shown["key"] = json!(secret.expose());
        return print_json(&shown);
    }
    let ends = key.expires_ms.map_or("never".to_owned(), time);
    say!("key {} of `{}`: may {}; ends {ends}", key.id, key.tenant, scopes(key));
    say!("it is shown this once; clients take it from DRAGNET_API_KEY");
    Ok(writeln!(std::io::stdout(), "{}", secret.expose())?)
}

fn print_row(key: &Key) -> Result<()> {
    let state = match (key.ended(now_ms()), key.expires_ms) {
        (Some(how), _) => how.to_owned(),
        (None, Some(at)) => format!("until {}", time(at)),
        (None, None) => "active".to_owned(),
    };
    let used = key.used_ms.map_or("never used".to_owned(), |at| format!("used {}", time(at)));
    let row = format!(
        "{}  {}  {}  made {}  {used}  {state}  {}",
        key.id,
        key.tenant,
        scopes(key),
        time(key.created_ms),
        key.label
    );
    Ok(writeln!(std::io::stdout(), "{}", row.trim_end())?)
}

fn scopes(key: &Key) -> String {
    key.scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(",")
}
