//! `dragnet serve`

use crate::exit;
use crate::listen::ListenArgs;
use crate::operations::OperationArgs;
use crate::service::{Listen, RELAY, Service, ServiceArgs};
use crate::settings::{LogFormat, Settings};
use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// A file that sets any of these flags [default: $DRAGNET_CONFIG, else $XDG_CONFIG_HOME/dragnet/config.toml]
    #[arg(long, value_name = "FILE")]
    #[allow(dead_code, reason = "it is read before the command line is")]
    config: Option<PathBuf>,
    /// Do not serve: check the configuration, try everything that it needs, and report what is wrong
    #[arg(long)]
    check: bool,
    /// Where the API listens; port 0 picks a free port. An address that other machines can reach needs API keys
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7070")]
    listen: SocketAddr,
    /// What this process does; other processes of the same store do the rest
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values = ROLES.iter().copied(), value_parser = PossibleValuesParser::new(ROLES.iter().copied()), hide_possible_values = true)]
    roles: Vec<String>,
    #[command(flatten)]
    limits: ListenArgs,
    #[command(flatten)]
    operation: OperationArgs,
    #[command(flatten)]
    service: ServiceArgs,
}

/// The API, the controllers, the engine of this machine, and the relay where there is Kafka.
const ROLES: &[&str] = &[
    API,
    "launch",
    "monitor",
    "billing",
    "shutdown",
    "local",
    RELAY,
    #[cfg(feature = "webhooks")]
    dragnet_webhooks::NAME,
];
const API: &str = "api";

impl Serve {
    pub(crate) fn log_format(&self) -> LogFormat {
        self.operation.log_format
    }

    pub(crate) fn run(mut self, settings: &Settings) -> Result<ExitCode> {
        let has = |role: &str| self.roles.iter().any(|own| own == role);
        let messages = &self.service.messages;
        messages.check(ROLES)?;
        if self.roles == [RELAY] && !messages.has_kafka() {
            bail!("`--roles relay` needs `--kafka HOST:PORT`");
        }
        let works = messages.has_beyond() || self.roles.iter().any(|role| role != API);
        self.operation.retention.check()?;
        if self.check {
            return super::check::run(&self.service, &self.operation, settings);
        }
        self.limits.make_room()?;
        let listen = has(API).then_some(Listen { at: self.listen, limits: self.limits.clone(), only: None });
        let mut service = Service::start(&self.service, &settings.state, listen, self.operation)?;
        service.register()?;
        if let Some(admin) = service.admin(self.limits)? {
            say!("metrics at {admin}/metrics");
        }
        if works {
            service.work(None, &has)?;
        }
        match has(API) {
            true => say!("listening on {}", service.url),
            false => say!("working as {}", self.roles.join(", ")),
        }
        service.wait()?;
        Ok(exit::HITS.into())
    }
}
