//! The commands, a file each. The doc comment of each is its help.

mod args;
mod at_store;
mod audit;
mod audit_log;
mod backup;
mod bill;
mod check;
mod completions;
mod config;
mod conformance;
mod coverage;
mod demo;
mod group;
mod hits;
mod invoice;
mod key;
mod ledger;
mod list;
mod pack;
mod plan;
mod replay;
mod scan;
mod search;
mod serve;
mod status;
mod submit;
mod tenant;
mod usage;
mod watch;
#[cfg(feature = "webhooks")]
mod webhook;
mod wish;

use crate::client::Client;
use crate::listen::ListenArgs;
use crate::operations::OperationArgs;
use crate::service::{Listen, Service, ServiceArgs};
use crate::settings::{LogFormat, Settings};
use anyhow::Result;
use clap::{Args, CommandFactory, Subcommand};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a demo: pack documents found on this machine into web archives and search them
    Demo(demo::Demo),
    /// Search files, archives and folders now, as a job whose service runs in this process
    Search(Box<search::SearchCommand>),
    /// Search files, archives and folders like grep: no job and no service, on all cores
    Scan(scan::Scan),
    /// Show the records of hits with the match marked, or copy them into a WARC file
    Replay(replay::Replay),
    /// Write files and folders as WARC, one gzip member per record
    Pack(pack::Pack),
    /// Run the service: HTTP API, controllers and mappers
    Serve(Box<serve::Serve>),
    /// Post a job to a service and print its id
    Submit(submit::Submit),
    /// Show what a job would read, how long it would take and what it would cost
    Plan(Box<plan::Plan>),
    /// Show a job's status
    Status(status::Status),
    /// Follow a job to its end; if no service runs it, finish it here
    Watch(watch::Watch),
    /// List jobs, newest first
    List(list::List),
    /// Print a job's hits, or count them
    Hits(hits::Hits),
    /// Show what a job read, what it did not, and why
    Coverage(coverage::Coverage),
    /// Show what a job cost
    Bill(bill::Bill),
    /// End a job with what it has
    Cancel(wish::Cancel),
    /// Resume a parked job
    Redrive(wish::Redrive),
    /// Copy the embedded store and its output, even while a service runs
    Backup(backup::Backup),
    /// Restore a backup to where it was made
    Restore(backup::Restore),
    /// Print the configuration file of `serve`: every key with its default, commented out
    Config(config::Config),
    /// Print completions for a shell, or write man pages
    Completions(completions::Completions),
    /// Manage tenants: who submits jobs, and how much each may use
    Tenant(tenant::TenantCommand),
    /// Create, rotate and revoke API keys
    Key(key::KeyCommand),
    /// List and remove groups: who is notified of jobs, and how far behind each is
    Group(group::GroupCommand),
    /// Print a tenant's invoice for a month
    Invoice(invoice::Invoice),
    /// Correct the ledger
    Ledger(ledger::Ledger),
    /// Export usage to other systems
    Usage(usage::Usage),
    /// Prove that ledger, jobs and committed parts agree; exit with 1 if something does not
    Audit(audit::Audit),
    /// Manage endpoints that are notified when jobs end
    #[cfg(feature = "webhooks")]
    Webhook(webhook::WebhookCommand),
    /// Show who did what
    AuditLog(audit_log::AuditLog),
    /// Check a service's HTTP API against its standards, row by row
    ///
    /// Submits a few small jobs, with the key in $DRAGNET_API_KEY if one is needed. Exits with 1 if something does not hold.
    Conformance(conformance::Conformance),
    /// Scan shards: what a map task runs (shards as lines on stdin, counters on stderr)
    Map(dragnet_mapper::Map),
}

impl Command {
    /// How a service logs; nothing for what is none.
    pub(crate) fn log_format(&self) -> Option<LogFormat> {
        match self {
            Command::Serve(serve) => Some(serve.log_format()),
            _ => None,
        }
    }

    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        match self {
            Command::Demo(command) => command.run(settings),
            Command::Search(command) => command.run(settings),
            Command::Scan(command) => command.run(),
            Command::Replay(command) => command.run(),
            Command::Pack(command) => command.run(),
            Command::Serve(command) => command.run(settings),
            Command::Submit(command) => command.run(settings),
            Command::Plan(command) => command.run(settings),
            Command::Status(command) => command.run(settings),
            Command::Watch(command) => command.run(settings),
            Command::List(command) => command.run(settings),
            Command::Hits(command) => command.run(settings),
            Command::Coverage(command) => command.run(settings),
            Command::Bill(command) => command.run(settings),
            Command::Cancel(command) => command.run(settings),
            Command::Redrive(command) => command.run(settings),
            Command::Backup(command) => command.run(settings),
            Command::Restore(command) => command.run(settings),
            Command::Config(command) => command.run(crate::Cli::command()),
            Command::Completions(command) => command.run(crate::Cli::command()),
            Command::Tenant(command) => command.run(settings),
            Command::Key(command) => command.run(settings),
            Command::Group(command) => command.run(settings),
            Command::Invoice(command) => command.run(settings),
            Command::Ledger(command) => command.run(settings),
            Command::Usage(command) => command.run(settings),
            Command::Audit(command) => command.run(settings),
            #[cfg(feature = "webhooks")]
            Command::Webhook(command) => command.run(settings),
            Command::AuditLog(command) => command.run(settings),
            Command::Conformance(command) => command.run(settings),
            Command::Map(command) => command.run(),
        }
    }
}

/// Which service a client command talks to.
#[derive(Debug, Clone, Args)]
pub(crate) struct Target {
    /// The service, or several services of one store, separated by commas [default: $DRAGNET_SERVER, else the state folder
    /// is read in this process]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The state folder to read if no service is named [default: $DRAGNET_STATE, else $XDG_STATE_HOME/dragnet]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The tenant for whom the state folder is read; with a service, the key decides [default: default]
    #[arg(long, value_name = "NAME", conflicts_with = "server")]
    tenant: Option<String>,
}

/// A client, and the service that it talks to where that is in this process.
pub(crate) struct Reached {
    pub(crate) client: Client,
    pub(crate) embedded: Option<Service>,
}

impl Target {
    pub(crate) fn reach(&self, settings: &Settings) -> Result<Reached> {
        // A state folder that is named means that folder, whatever the environment says.
        let server = self.server.clone().or_else(|| settings.server.clone().filter(|_| self.state.is_none()));
        if let Some(url) = server {
            let client = Client::new(&url, settings.api_key.clone())?;
            return Ok(Reached { client, embedded: None });
        }
        let args = ServiceArgs::of_state(self.state.clone());
        let tenant = self.tenant.as_deref().unwrap_or(dragnet_tenant::DEFAULT);
        let service = embed(&args, settings, tenant)?;
        Ok(Reached { client: service.client()?, embedded: Some(service) })
    }
}

/// The service in this process, on a port of its own and for this process alone, not yet working.
pub(crate) fn embed(args: &ServiceArgs, settings: &Settings, tenant: &str) -> Result<Service> {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listen = Listen { at, limits: ListenArgs::EMBEDDED, only: Some(tenant.to_owned()) };
    let service = Service::start(args, &settings.state, Some(listen), OperationArgs::default())?;
    service.register()?;
    Ok(service)
}

/// Prints a value as JSON for a program.
pub(crate) fn print_json(value: &serde_json::Value) -> Result<()> {
    use std::io::Write;
    Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(value)?)?)
}
