//! `dragnet serve`

use crate::exit;
use crate::service::{Service, ServiceArgs};
use crate::settings::Settings;
use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;
use std::net::SocketAddr;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// Where the API listens; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7070")]
    listen: SocketAddr,
    /// What this process does; others of the same store do the rest
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values = ROLES, value_parser = PossibleValuesParser::new(ROLES), hide_possible_values = true)]
    roles: Vec<String>,
    #[command(flatten)]
    service: ServiceArgs,
}

/// The API, the controllers, and the engine of this machine.
const ROLES: [&str; 6] = [API, "launch", "monitor", "billing", "shutdown", "local"];
const API: &str = "api";

impl Serve {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let has = |role: &str| self.roles.iter().any(|own| own == role);
        if has(API) && !self.listen.ip().is_loopback() {
            bail!(
                "`--listen {}`: this version has no API keys, so it serves this machine alone: use 127.0.0.1",
                self.listen
            );
        }
        let listen = has(API).then_some(self.listen);
        let mut service = Service::start(&self.service, &settings.state, listen)?;
        service.register()?;
        if self.roles.iter().any(|role| role != API) {
            service.work(None, &has)?;
        }
        match has(API) {
            true => eprintln!("listening on {}", service.url),
            false => eprintln!("working as {}", self.roles.join(", ")),
        }
        service.wait()?;
        Ok(exit::HITS.into())
    }
}
