//! `dragnet backup` and `dragnet restore`: the embedded store and the output as they were, while the service goes on.
//!
//! The store is copied as it is at one moment, and the output after it: files there are written once, so whatever the
//! copied store names is in the copied output. The one thing that takes files away is a job's end. A job that ended while it
//! was copied would come back as one that goes on without its records, so the copy is then brought up to date, until no
//! job did.

use crate::exit;
use crate::service::{make_private, output_uri};
use crate::settings::Settings;
use anyhow::{Context, Result, bail, ensure};
use dragnet_job::stage;
use dragnet_pattern::sqlite;
use dragnet_run::uri;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Backup {
    /// Where the backup goes: a folder that is not there yet, or empty
    #[arg(value_name = "DIR")]
    to: PathBuf,
    /// The state folder of the service [default: $DRAGNET_STATE, else $XDG_STATE_HOME/dragnet]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The embedded store, where `serve` has it elsewhere: `sqlite:FILE`; of PostgreSQL `pg_dump` makes a backup
    /// [default: dragnet.db in the state folder]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// The output, as `serve` has it; one on a server is not copied [default: output in the state folder]
    #[arg(long, value_name = "URI")]
    output: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// The backup
    #[arg(value_name = "DIR")]
    from: PathBuf,
    /// The state folder, in which no store may be [default: $DRAGNET_STATE, else $XDG_STATE_HOME/dragnet]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// What a backup is, beside its files.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    /// The program that made it.
    dragnet: String,
    /// Where jobs have their output: they name it, so it goes back there.
    output: String,
    /// Whether the output is in the backup.
    has_output: bool,
}

const STORE: &str = "dragnet.db";
const OUTPUT: &str = "output";
const ABOUT: &str = "backup.json";
/// How often a copy is brought up to date because a job ended meanwhile.
const PASSES_MAX: usize = 20;

impl Backup {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let state = self.state.as_ref().unwrap_or(&settings.state);
        let store = match self.store.as_deref() {
            None => state.join(STORE),
            Some(url) if url.starts_with("postgres") => {
                bail!(
                    "the store is in PostgreSQL: `pg_dump` makes a backup of it, and the output is copied after that"
                )
            }
            Some(url) => PathBuf::from(url.strip_prefix("sqlite:").unwrap_or(url)),
        };
        ensure!(
            store.is_file(),
            "there is no store `{}`: `--state` names the service's folder",
            store.display()
        );
        let output = output_uri(self.output.as_deref(), state)?;
        let folder = uri::to_path(&output).ok();
        let to = &self.to;
        ensure!(is_empty(to)?, "`{}` is not empty: a backup goes into a folder of its own", to.display());
        make_private(to)?;
        let mut passes = 0;
        loop {
            let copied = snapshot(&store, &to.join(STORE))?;
            if let Some(folder) = &folder {
                copy_tree(folder, &to.join(OUTPUT))?;
            }
            let now = sqlite::unended(&store)?;
            let ended = ended_meanwhile(&copied, &now);
            if ended == 0 {
                break;
            }
            passes += 1;
            ensure!(
                passes < PASSES_MAX,
                "jobs end faster than they are copied: {ended} did in the last pass"
            );
        }
        let about = About {
            dragnet: env!("CARGO_PKG_VERSION").into(),
            has_output: folder.is_some(),
            output: output.clone(),
        };
        // It comes last: a folder without it is no backup.
        write_private(&to.join(ABOUT), &serde_json::to_vec_pretty(&about)?)?;
        eprintln!("the store and its jobs are in `{}`", to.display());
        if folder.is_none() {
            eprintln!("the output `{output}` is on a server and was not copied: keep it as it is");
        }
        Ok(exit::HITS.into())
    }
}

impl Restore {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let from = &self.from;
        let about =
            fs::read(from.join(ABOUT)).with_context(|| format!("read the backup `{}`", from.display()))?;
        let about: About = serde_json::from_slice(&about)
            .with_context(|| format!("read `{}`", from.join(ABOUT).display()))?;
        let state = self.state.as_ref().unwrap_or(&settings.state);
        let store = state.join(STORE);
        ensure!(
            !store.exists(),
            "there is a store `{}` already: stop the service and move it away",
            store.display()
        );
        if about.has_output {
            let folder = uri::to_path(&about.output)?;
            ensure!(
                is_empty(&folder)?,
                "`{}`, the output that the jobs name, is not empty: move it away",
                folder.display()
            );
            make_private(&folder)?;
            copy_tree(&from.join(OUTPUT), &folder)?;
        }
        make_private(state)?;
        // Under its name only when all of it is there.
        let hidden = state.join(".restored.db");
        copy_file(&from.join(STORE), &hidden)?;
        fs::rename(&hidden, &store).with_context(|| format!("write `{}`", store.display()))?;
        sync_folder(state)?;
        eprintln!("restored to `{}`: `dragnet serve` goes on from there", state.display());
        Ok(exit::HITS.into())
    }
}

/// Jobs that had something to do in the copy and, as the copy of their output ends, have come to their end.
fn ended_meanwhile(copied: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> usize {
    let under_way = copied.iter().filter(|(_, stage)| *stage != stage::FINISH);
    under_way.filter(|(id, _)| now.get(*id).is_none_or(|stage| stage == stage::FINISH)).count()
}

/// Copies the store and returns the works in the copy that have not ended, with their stages.
fn snapshot(store: &Path, to: &Path) -> Result<BTreeMap<String, String>> {
    match fs::remove_file(to) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("remove `{}`", to.display()));
        }
        _ => write_private(to, b"")?,
    }
    sqlite::snapshot(store, to)?;
    Ok(sqlite::unended(to)?)
}

fn is_empty(folder: &Path) -> Result<bool> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e).with_context(|| format!("look into `{}`", folder.display())),
    }
}

/// Copies what is not there yet; what goes away meanwhile is not missed.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    make_private(to)?;
    let entries = match fs::read_dir(from) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("look into `{}`", from.display()))?,
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("look into `{}`", from.display()))?;
        let (name, kind) = (entry.file_name(), entry.file_type());
        // A file that is being written has a name that begins with a dot.
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        let (source, target) = (entry.path(), to.join(&name));
        match kind {
            Ok(kind) if kind.is_dir() => copy_tree(&source, &target)?,
            Ok(kind) if kind.is_file() && !is_copied(&source, &target) => match copy_file(&source, &target) {
                Err(e) if !source.exists() => {
                    tracing::debug!(error = format!("{e:#}"), "a file has gone while it was copied");
                    let _ = fs::remove_file(&target);
                }
                copied => copied?,
            },
            _ => {}
        }
    }
    sync_folder(to)
}

/// Files are written once: one of the same size is the same, and a part that still grew is copied again.
fn is_copied(source: &Path, target: &Path) -> bool {
    match (fs::metadata(source), fs::metadata(target)) {
        (Ok(source), Ok(target)) => source.len() == target.len(),
        _ => false,
    }
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let copy = || -> std::io::Result<()> {
        let mut target =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
        std::io::copy(&mut fs::File::open(from)?, &mut target)?;
        target.sync_all()
    };
    copy().with_context(|| format!("copy `{}` to `{}`", from.display(), to.display()))
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| format!("write `{}`", path.display()))
}

fn sync_folder(folder: &Path) -> Result<()> {
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("write `{}`", folder.display()))
}
