//! `dragnet group`: who is told of jobs, and how far each is behind.

use super::at_store::AtStore;
use super::print_json;
use crate::exit;
use crate::service::GROUPS;
use crate::settings::Settings;
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use dragnet_job::view::time;
use dragnet_pattern::Group;
use dragnet_tenant::DEFAULT;
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct GroupCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the groups, what each listens to and what it has not consumed
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: AtStore,
    },
    /// Remove a group that nobody runs any more, with the messages that it has not consumed, so that jobs no longer wait
    /// for it before they are forgotten. A service that still runs it registers it again at its next start
    Remove {
        /// Its name, as shown by `list`
        name: String,
        #[command(flatten)]
        at: AtStore,
    },
}

impl GroupCommand {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        match self.verb {
            Verb::List { json, at } => {
                let at = at.open(settings)?;
                let groups = at.wait(at.store.groups())?;
                if json {
                    print_json(&groups.iter().map(as_json).collect())?;
                } else {
                    groups.iter().try_for_each(show)?;
                }
            }
            Verb::Remove { name, at } => {
                if GROUPS.iter().any(|(group, _)| *group == name) {
                    bail!("`{name}` is a part of every service: without it no job ends");
                }
                let at = at.open(settings)?;
                let Some(group) = at.wait(at.store.groups())?.into_iter().find(|group| group.name == name)
                else {
                    bail!("there is no group `{name}`: `dragnet group list` shows them");
                };
                at.wait(at.store.remove_group(&name))?;
                at.note(DEFAULT, "group.remove", &name)?;
                say!("removed `{name}` and {} messages that it had not consumed", group.waiting);
            }
        }
        Ok(exit::HITS.into())
    }
}

fn as_json(group: &Group) -> serde_json::Value {
    json!({
        "name": group.name, "topic": group.topic, "waiting": group.waiting,
        "oldest": group.oldest_ms.map(time),
    })
}

fn show(group: &Group) -> Result<()> {
    let oldest = group.oldest_ms.map(|at| format!(", the oldest due {}", time(at))).unwrap_or_default();
    let Group { name, topic, waiting, .. } = group;
    Ok(writeln!(std::io::stdout(), "{name}  {topic}  {waiting} waiting{oldest}")?)
}
