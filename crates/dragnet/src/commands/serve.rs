//! `dragnet serve`

use crate::exit;
use crate::service::{Service, ServiceArgs};
use crate::settings::Settings;
use anyhow::{Result, bail};
use std::net::SocketAddr;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// Where the API listens; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7070")]
    listen: SocketAddr,
    #[command(flatten)]
    service: ServiceArgs,
}

impl Serve {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        if !self.listen.ip().is_loopback() {
            bail!(
                "`--listen {}`: this version has no API keys, so it serves this machine alone: use 127.0.0.1",
                self.listen
            );
        }
        let mut service = Service::start(&self.service, &settings.state, self.listen)?;
        service.register()?;
        service.work(None)?;
        eprintln!("listening on {}", service.url);
        service.wait()?;
        Ok(exit::HITS.into())
    }
}
