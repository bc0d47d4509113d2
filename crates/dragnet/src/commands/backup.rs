//! `dragnet backup` and `dragnet restore`: the embedded store and its output, copied while a service runs.
//!
//! The store is copied first, as it is at one moment. What it names lies in the output by then and stays there. What the
//! output has beyond that is as after a crash, and the service goes on from there. A job's own files (plan, manifest,
//! the `closed` mark) are copied before its records: a manifest that is in the copy names nothing that is not.

use crate::service::{WEBHOOK_KEY, make_private};
use crate::settings::Settings;
use anyhow::{Context, Result, bail, ensure};
use dragnet_pattern::sqlite;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const STORE: &str = "dragnet.db";
const OUTPUT: &str = "output";
/// Written last: a backup without it was not finished.
const LABEL: &str = "backup.json";

#[derive(Debug, clap::Args)]
pub(crate) struct Backup {
    /// A new or empty folder
    folder: PathBuf,
    /// The state folder of the service [default: $DRAGNET_STATE, else $XDG_STATE_HOME/dragnet]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// The folder that `dragnet backup` wrote
    folder: PathBuf,
    /// The state folder of the service [default: $DRAGNET_STATE, else $XDG_STATE_HOME/dragnet]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// What a backup says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Label {
    version: String,
    /// Jobs name their output by its whole path, so that a backup belongs to one place.
    state: PathBuf,
}

impl Backup {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let state = self.state.as_ref().unwrap_or(&settings.state);
        let store = state.join(STORE);
        ensure!(store.exists(), "`{}` is no state folder: it has no `{STORE}`", state.display());
        let state = state.canonicalize()?;
        make_private(&self.folder)?;
        ensure!(
            fs::read_dir(&self.folder)?.next().is_none(),
            "`{}` is not empty: a backup takes a new folder",
            self.folder.display()
        );
        sqlite::copy(&store, &self.folder.join(STORE))?;
        let jobs = copy_jobs(&state.join(OUTPUT), &self.folder.join(OUTPUT))?;
        copy_key(&state, &self.folder)?;
        let label = Label { version: env!("CARGO_PKG_VERSION").into(), state };
        let text = serde_json::to_vec_pretty(&label)?;
        rustix::fs::syncfs(fs::File::open(&self.folder)?)?;
        fs::write(self.folder.join(LABEL), text).context("finish the backup")?;
        rustix::fs::syncfs(fs::File::open(&self.folder)?)?;
        println!("{}: the store, and the output of {jobs} jobs", self.folder.display());
        println!(
            "output that `--output` has put elsewhere, a store in PostgreSQL, and a key that `--webhook-key` names are not in it"
        );
        Ok(ExitCode::SUCCESS)
    }
}

impl Restore {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let state = std::path::absolute(self.state.as_ref().unwrap_or(&settings.state))?;
        let label = fs::read(self.folder.join(LABEL)).with_context(|| {
            format!("`{}` is no finished backup: it has no `{LABEL}`", self.folder.display())
        })?;
        let label: Label = serde_json::from_slice(&label).with_context(|| format!("read `{LABEL}`"))?;
        make_private(&state)?;
        let state = state.canonicalize()?;
        if state != label.state {
            bail!(
                "the backup is of `{}`, and its jobs name their output there: restore it to that path",
                label.state.display()
            );
        }
        // A log that was left behind would be played over the restored store when that is opened.
        for file in [STORE, "dragnet.db-wal", "dragnet.db-shm"] {
            let there = state.join(file);
            ensure!(
                !there.exists(),
                "`{}` is there already: move it away first, with all `{STORE}*`",
                there.display()
            );
        }
        let jobs = copy_jobs(&self.folder.join(OUTPUT), &state.join(OUTPUT))?;
        copy_key(&self.folder, &state)?;
        // The store comes last, under its name all at once: before that there is none to be served.
        let half = state.join("dragnet.db.restoring");
        fs::copy(self.folder.join(STORE), &half)?;
        rustix::fs::syncfs(fs::File::open(&state)?)?;
        fs::rename(&half, state.join(STORE))?;
        rustix::fs::syncfs(fs::File::open(&state)?)?;
        println!("{}: the store, and the output of {jobs} jobs", state.display());
        Ok(ExitCode::SUCCESS)
    }
}

/// Copies what webhooks' secrets are made of, with its rights. None has been made where nobody needed it.
fn copy_key(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (from.join(WEBHOOK_KEY), to.join(WEBHOOK_KEY));
    if let (Ok(known), Ok(there)) = (fs::read(&from), fs::read(&to)) {
        ensure!(known == there, "`{}` is another key: move it away first", to.display());
    }
    match fs::copy(&from, &to) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        copied => copied.map(drop).with_context(|| format!("copy `{}`", from.display())),
    }
}

/// Copies the output, `TENANT/JOB/…`. Returns how many jobs it has.
fn copy_jobs(from: &Path, to: &Path) -> Result<usize> {
    make_private(to)?;
    let mut jobs = 0;
    for tenant in folders(from)? {
        for job in folders(&tenant)? {
            let to = to.join(job.strip_prefix(from)?);
            copy_folder(&job, &to).with_context(|| format!("copy `{}`", job.display()))?;
            jobs += 1;
        }
    }
    Ok(jobs)
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("read `{}`", folder.display()))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Files first, then the folders below. What vanishes meanwhile was not to stay.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    make_private(to)?;
    let mut below = Vec::new();
    let entries = match fs::read_dir(from) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            below.push(entry.file_name());
            continue;
        }
        match fs::copy(entry.path(), to.join(entry.file_name())) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            copied => drop(copied?),
        }
    }
    below.into_iter().try_for_each(|name| copy_folder(&from.join(&name), &to.join(&name)))
}
