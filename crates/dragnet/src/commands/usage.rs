//! `dragnet usage`: what was metered, for other systems.

use super::at_store::AtStore;
use crate::exit;
use crate::settings::Settings;
use crate::wire;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use dragnet_job::usage::{self, Cursor};
use serde_json::Value as Json;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Events that are carried at once.
const BATCH: usize = 500;
/// How often a receiver is asked before the export gives up.
const TRIES: u32 = 5;
/// How long its answer is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct Usage {
    #[command(subcommand)]
    verb: UsageVerb,
}

#[derive(Debug, Subcommand)]
enum UsageVerb {
    /// Export new usage as CloudEvents to a file or a URL, at least once, and print the cursor
    Export(Export),
}

#[derive(Debug, Args)]
#[group(id = "target", required = true, multiple = false)]
struct Where {
    /// Append to this file, one event per line
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
    since: Option<Cursor>,
    /// A file that keeps the cursor from one export to the next
    #[arg(long, value_name = "FILE")]
    cursor_file: Option<PathBuf>,
    /// Only this tenant's usage
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
    fn begin(&self) -> Result<Cursor> {
        let Some(file) = &self.cursor_file else { return Ok(self.since.unwrap_or_default()) };
        match std::fs::read_to_string(file) {
            Ok(text) => text
                .trim()
                .parse()
                .with_context(|| format!("`{}` holds no cursor, as an export prints it", file.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Cursor::default()),
            Err(e) => Err(e).with_context(|| format!("read the cursor `{}`", file.display())),
        }
    }
}

/// Replaces the file, so that it always holds a cursor.
fn keep(file: &Path, cursor: Cursor) -> Result<()> {
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
            let opened = OpenOptions::new().create(true).read(true).append(true).open(path);
            let whole = opened.and_then(|mut file| cut_torn(&mut file).map(|()| file));
            let file = whole.with_context(|| format!("open `{}`", path.display()))?;
            return Ok(Sink::File { file, path: path.clone() });
        }
        let url = target.to.clone().unwrap_or_default();
        wire::check(&url)?;
        Ok(Sink::Url { agent: wire::agent(ANSWER_MAX), url })
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

/// Cuts off a last line that was not written to its end: its event comes again, and must not stand behind it.
fn cut_torn(file: &mut File) -> std::io::Result<()> {
    if !file.metadata()?.is_file() {
        return Ok(());
    }
    let (mut end, mut piece) = (file.seek(SeekFrom::End(0))?, vec![0; 64 << 10]);
    let length = end;
    while end > 0 {
        let begin = end.saturating_sub(piece.len() as u64);
        let piece = &mut piece[..(end - begin) as usize];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(piece)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            end = begin + at as u64 + 1;
            break;
        }
        end = begin;
    }
    if end < length { file.set_len(end) } else { Ok(()) }
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
