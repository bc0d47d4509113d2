//! `dragnet search`

use super::embed;
use super::submit::JobArgs;
use crate::client::Client;
use crate::exit;
use crate::follow::{Show, follow};
use crate::service::{Service, ServiceArgs};
use crate::settings::Settings;
use anyhow::Result;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct SearchCommand {
    #[command(flatten)]
    job: JobArgs,
    /// Use this service, or one of several, separated by commas [default: $DRAGNET_SERVER, else the service runs in this
    /// process]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Print hits as JSON lines
    #[arg(long)]
    json: bool,
    /// Write the coverage to a file
    #[arg(long, value_name = "FILE")]
    coverage: Option<PathBuf>,
    // What comes behind it would stand under its headings.
    #[command(flatten)]
    service: ServiceArgs,
}

impl SearchCommand {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let show = if self.json { Show::Json } else { Show::Text };
        let server =
            self.server.clone().or_else(|| settings.server.clone().filter(|_| self.service.state.is_none()));
        let mut embedded = match &server {
            Some(_) => None,
            None => Some(embed(&self.service, settings, dragnet_tenant::DEFAULT)?),
        };
        let client = match &embedded {
            Some(service) => service.client()?,
            None => Client::new(&server.unwrap_or_default(), settings.api_key.clone())?,
        };
        let job = client.submit(&self.job.spec(&client)?)?;
        let id = job["id"].as_str().unwrap_or_default().to_owned();
        if let Some(service) = &mut embedded {
            name_unfinished(&client, &id)?;
            finish_here(service, &id)?;
        }
        let code = follow(&client, &id, show)?;
        if let Some(file) = &self.coverage {
            let report = client.get(&format!("/v1/jobs/{id}/coverage"))?;
            std::fs::write(file, serde_json::to_string_pretty(&report)? + "\n")?;
        }
        if let Some(service) = embedded {
            service.end();
        }
        Ok(code.into())
    }
}

/// Works on one job in this process, and says on Ctrl-C how it goes on.
pub(crate) fn finish_here(service: &mut Service, id: &str) -> Result<()> {
    let name = id.to_owned();
    service.on_interrupt(move || {
        say!("\nstopped; nothing is lost: `dragnet watch {name}` goes on from what is committed");
        std::process::exit(exit::INTERRUPTED);
    });
    service.work(Some(id), &|_| true)
}

/// Names jobs that nobody works on, so that they are not forgotten.
fn name_unfinished(client: &Client, own: &str) -> Result<()> {
    for status in ["accepted", "running", "parked"] {
        let list = client.get(&format!("/v1/jobs?status={status}&limit=5"))?;
        for job in list["jobs"].as_array().into_iter().flatten() {
            let id = job["id"].as_str().unwrap_or_default();
            if id != own {
                say!("unfinished: {id} ({status}); `dragnet watch {id}` goes on with it");
            }
        }
    }
    Ok(())
}
