//! `dragnet invoice`, `dragnet ledger`, `dragnet usage` and `dragnet audit`: an operator's books.

use super::at_store::{AtStore, Opened};
use super::print_json;
use crate::exit;
use crate::settings::Settings;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use dragnet_job::invoice::money;
use dragnet_job::{audit, invoice, ledger, usage};
use dragnet_tenant::audit::DONE;
use dragnet_tenant::now_ms;
use serde_json::Value as Json;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Events that are carried at once.
const BATCH: usize = 500;
/// How often a receiver is asked before the export gives up.
const TRIES: u32 = 5;

#[derive(Debug, Args)]
pub(crate) struct Invoice {
    /// Whose
    tenant: String,
    /// The month (UTC), as 2026-11
    month: String,
    /// How it is written
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    format: Format,
    #[command(flatten)]
    at: AtStore,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Json,
    Csv,
    Html,
}

impl Invoice {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let span = invoice::span(&self.month).map_err(anyhow::Error::msg)?;
        let at = self.at.open(settings)?;
        let known = at.wait(dragnet_tenant::find(&*at.store, &self.tenant))?;
        let invoice = at.wait(invoice::of(&*at.store, &self.tenant, span, now_ms()))?;
        if known.is_none() && invoice.lines.is_empty() {
            bail!("there is no tenant `{}`: `dragnet tenant list` names them", self.tenant);
        }
        match self.format {
            Format::Json => print_json(&serde_json::to_value(&invoice)?)?,
            Format::Csv => write!(std::io::stdout(), "{}", invoice.csv())?,
            Format::Html => write!(std::io::stdout(), "{}", invoice.html())?,
        }
        Ok(exit::HITS.into())
    }
}

#[derive(Debug, Args)]
pub(crate) struct Ledger {
    #[command(subcommand)]
    verb: LedgerVerb,
}

#[derive(Debug, Subcommand)]
enum LedgerVerb {
    /// Take back what a job was charged, by lines that reverse the others; its budget gets it back
    Reverse(Reverse),
}

#[derive(Debug, Args)]
struct Reverse {
    /// The job's id
    job: String,
    /// Why: it stands in the ledger and on the invoice
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    at: AtStore,
}

impl Ledger {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let LedgerVerb::Reverse(Reverse { job, reason, at }) = self.verb;
        let at = at.open(settings)?;
        let logged = |tenant: &str| vec![at.act.statement(tenant, "ledger.reverse", &job, DONE)];
        let lines = at.wait(ledger::reverse(&*at.store, &job, &reason, now_ms(), &logged))?;
        let mut out = std::io::stdout().lock();
        for line in lines {
            let takes_back = line.reverses.unwrap_or_default();
            writeln!(
                out,
                "{}  {}  {} {}  takes back line {takes_back}",
                line.id,
                line.meter,
                money(line.amount_micros),
                line.currency
            )?;
        }
        Ok(exit::HITS.into())
    }
}

#[derive(Debug, Args)]
pub(crate) struct Usage {
    #[command(subcommand)]
    verb: UsageVerb,
}

#[derive(Debug, Subcommand)]
enum UsageVerb {
    /// Carry what is new as CloudEvents into a file or to a URL, at least once, and print the cursor
    Export(Export),
}

#[derive(Debug, Args)]
#[group(id = "target", required = true, multiple = false)]
struct Where {
    /// Append to this file, an event a line
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Post to this URL, in batches (application/cloudevents-batch+json)
    #[arg(long, value_name = "URL")]
    to: Option<String>,
}

#[derive(Debug, Args)]
struct Export {
    #[command(flatten)]
    target: Where,
    /// The cursor that the last export printed
    #[arg(long, value_name = "CURSOR", conflicts_with = "cursor_file")]
    since: Option<i64>,
    /// Keeps the cursor from one export to the next
    #[arg(long, value_name = "FILE")]
    cursor_file: Option<PathBuf>,
    /// Only this tenant's
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    #[command(flatten)]
    at: AtStore,
}

impl Usage {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let UsageVerb::Export(export) = self.verb;
        let at = export.at.open(settings)?;
        let mut cursor = export.begin()?;
        let mut sink = Sink::open(&export.target)?;
        loop {
            let events = at.wait(usage::after(&*at.store, cursor, export.tenant.as_deref(), BATCH))?;
            if events.events.is_empty() {
                break;
            }
            sink.take(&events.events)?;
            // Only what has arrived is behind the cursor; what is repeated after a crash has the same ids.
            cursor = events.cursor;
            if let Some(file) = &export.cursor_file {
                keep(file, cursor)?;
            }
        }
        writeln!(std::io::stdout(), "{cursor}")?;
        Ok(exit::HITS.into())
    }
}

impl Export {
    fn begin(&self) -> Result<i64> {
        let Some(file) = &self.cursor_file else { return Ok(self.since.unwrap_or(0)) };
        match std::fs::read_to_string(file) {
            Ok(text) => text.trim().parse().with_context(|| {
                format!("`{}` holds no cursor: it is a number, as an export prints it", file.display())
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(e).with_context(|| format!("read the cursor `{}`", file.display())),
        }
    }
}

/// Replaces the file, so that it always holds a cursor.
fn keep(file: &Path, cursor: i64) -> Result<()> {
    let beside = file.with_extension("new");
    let kept = || -> std::io::Result<()> {
        let mut new = File::create(&beside)?;
        writeln!(new, "{cursor}")?;
        new.sync_all()?;
        std::fs::rename(&beside, file)
    };
    kept().with_context(|| format!("keep the cursor in `{}`", file.display()))
}

enum Sink {
    File { file: File, path: PathBuf },
    Url { agent: ureq::Agent, url: String },
}

impl Sink {
    fn open(target: &Where) -> Result<Sink> {
        if let Some(path) = &target.out {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let file = file.with_context(|| format!("open `{}`", path.display()))?;
            return Ok(Sink::File { file, path: path.clone() });
        }
        let url = target.to.clone().unwrap_or_default();
        if !url.starts_with("http://") {
            bail!(
                "`{url}`: this build posts to `http:` alone: use that, through a tunnel where the network is not yours"
            );
        }
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build();
        Ok(Sink::Url { agent: config.into(), url })
    }

    /// Returns when the events have arrived.
    fn take(&mut self, events: &[Json]) -> Result<()> {
        match self {
            Sink::File { file, path } => {
                let lines: String = events.iter().map(|event| event.to_string() + "\n").collect();
                let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data());
                written.with_context(|| format!("write `{}`", path.display()))
            }
            Sink::Url { agent, url } => post(agent, url, &serde_json::to_string(events)?),
        }
    }
}

fn post(agent: &ureq::Agent, url: &str, body: &str) -> Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        let sent = agent.post(url).header("Content-Type", usage::BATCH).send(body);
        let wrong = match sent {
            Ok(response) if response.status().is_success() => return Ok(()),
            Ok(response) if response.status().is_client_error() && response.status() != 429 => {
                bail!("`{url}` refused the events: {}", response.status());
            }
            Ok(response) => response.status().to_string(),
            Err(e) => e.to_string(),
        };
        if tries == TRIES {
            bail!("post to `{url}`: {wrong}: run the export again when it is back");
        }
        std::thread::sleep(dragnet_pattern::full_jitter(
            (Duration::from_millis(200), Duration::from_secs(5)),
            tries,
        ));
    }
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: AtStore,
}

impl Audit {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let at: Opened = self.at.open(settings)?;
        let audit = at.wait(audit::audit(&*at.store))?;
        let agrees = audit.disagreements.is_empty();
        if self.json {
            print_json(&serde_json::to_value(&audit)?)?;
        } else {
            let mut out = std::io::stdout().lock();
            for disagreement in &audit.disagreements {
                writeln!(out, "{}: {}", disagreement.of, disagreement.what)?;
            }
            let (lines, jobs, forgotten) = (audit.lines, audit.jobs, audit.forgotten);
            let verdict = match audit.disagreements.len() {
                0 => "all agree".to_owned(),
                n => format!("{n} disagreements"),
            };
            writeln!(out, "{lines} lines, {jobs} jobs, {forgotten} jobs that are forgotten: {verdict}")?;
        }
        Ok(if agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
