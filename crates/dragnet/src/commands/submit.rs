//! `dragnet submit`, and what `search` shares with it: from flags to a job's spec.

use super::args::{SearchArgs, absolute};
use super::{Target, print_json};
use crate::client::Client;
use crate::exit;
use crate::settings::Settings;
use anyhow::{Result, bail};
use dragnet_job::spec::{JobSpec, Limits};
use serde_json::Value as Json;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Submit {
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    target: Target,
    /// Print the HTTP API's answer
    #[arg(long)]
    json: bool,
}

impl Submit {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let reached = self.target.reach(settings)?;
        let job = reached.client.submit(&self.job.spec(&reached.client)?)?;
        let id = job["id"].as_str().unwrap_or_default();
        if self.json {
            print_json(&job)?;
        } else {
            writeln!(std::io::stdout(), "{id}")?;
        }
        if reached.embedded.is_some() {
            say!("accepted; no service is named, so it waits until `dragnet watch {id}` or `dragnet serve`");
        }
        Ok(exit::HITS.into())
    }
}

/// What is searched for, where, and with which limits.
#[derive(Debug, clap::Args)]
pub(crate) struct JobArgs {
    #[command(flatten)]
    search: SearchArgs,
    /// Read at most N stored bytes
    #[arg(long, value_name = "N")]
    limit_bytes: Option<u64>,
    /// Cost limit, in millionths of the currency
    #[arg(long, value_name = "MICROS")]
    limit_cost: Option<u64>,
    /// Seconds after which the job ends with what it has
    #[arg(long, value_name = "S")]
    deadline: Option<u64>,
    /// Priority from 0 to 9: of your waiting jobs, the highest goes first [default: 5]
    #[arg(long, value_name = "N")]
    priority: Option<u8>,
    /// The engine that runs the job
    #[arg(long, value_name = "NAME", default_value = "local")]
    engine: String,
}

impl JobArgs {
    /// The spec, as it is posted.
    pub(crate) fn spec(&self, client: &Client) -> Result<Json> {
        let (search, dataset) = self.search.spec_and_data(&|entry| source(entry, client))?;
        let spec = JobSpec {
            patterns: search.patterns,
            dataset,
            sample: self.search.sample,
            layers: search.layers,
            filter: search.filter,
            field: search.field,
            verify: search.verify,
            limits: Limits {
                hits: self.search.limit_hits,
                hits_per_record: search.hits_per_record,
                input_bytes: self.limit_bytes,
                cost_micros: self.limit_cost,
                deadline_s: self.deadline,
            },
            engine: self.engine.clone(),
            priority: self.priority,
            shard_bytes: self.search.shard_bytes,
            output: None,
        };
        Ok(serde_json::to_value(spec)?)
    }
}

/// A path as the service must see it; a URI stays as it is.
fn source(entry: &str, client: &Client) -> Result<String> {
    // A name that is there is that file, whatever it looks like.
    if dragnet_run::uri::scheme(entry).is_some() && !Path::new(entry).exists() {
        return Ok(entry.to_owned());
    }
    if !client.is_local() {
        bail!(
            "`{entry}` is a path of this machine, and the service is on another: name data that it can reach"
        );
    }
    absolute(Path::new(entry))
}
