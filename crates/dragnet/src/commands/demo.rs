//! `dragnet demo`: the whole way, on documents that this machine has for certain.

use super::embed;
use super::pack::{Archive, files_below};
use super::search::finish_here;
use crate::follow::{Show, follow};
use crate::service::{ServiceArgs, make_private};
use crate::settings::Settings;
use anyhow::{Result, bail};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    #[command(flatten)]
    service: ServiceArgs,
}

/// Documents that are packed, at most.
const DOCUMENTS_MAX: usize = 6000;
/// Bytes of one document, at most.
const DOCUMENT_BYTES_MAX: u64 = 1 << 20;
/// Archives that are written.
const ARCHIVES: usize = 4;
/// What is searched for: RFCs that the documents speak of.
const PATTERN: &str = r"\bRFC[ -]?(?<number>[0-9]{3,5})\b";

impl Demo {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let state = self.service.state.clone().unwrap_or_else(|| settings.state.clone());
        let folder = state.join("demo");
        make_private(&state)?;
        pack_documents(settings, &folder)?;
        let mut service = embed(&self.service, settings, dragnet_tenant::DEFAULT)?;
        say!("service   embedded at {}, state in `{}`", service.url, state.display());
        let client = service.client()?;
        let spec = json!({
            "patterns": [{ "name": "rfc", "regex": PATTERN }],
            "dataset": [dragnet_run::uri::of_path(&folder.canonicalize()?)],
            // Small shards, so that there is progress to see.
            "shard_bytes": 1 << 20,
        });
        let job = client.submit(&spec)?;
        let id = job["id"].as_str().unwrap_or_default();
        say!("POST      /v1/jobs {PATTERN}\n202       {id}");
        finish_here(&mut service, id)?;
        let code = follow(&client, id, Show::Nothing)?;
        let counts = client.get(&format!("/v1/jobs/{id}/hits?count_by=match&top=5"))?;
        say!("most      {}", most(&counts));
        service.end();
        let program = std::env::args().next().unwrap_or_else(|| "dragnet".into());
        let with_state = self
            .service
            .state
            .as_ref()
            .map_or(String::new(), |state| format!(" --state {}", state.display()));
        say!("\nnext, try:");
        say!("  {program} hits {id}{with_state} --count-by match --top 10");
        say!("  {program} coverage {id}{with_state}");
        say!("  {program} search{with_state} -i 'todo|fixme' {}", shown(&documents_of(settings)));
        Ok(code.into())
    }
}

fn shown(folders: &[PathBuf]) -> String {
    folders.first().map_or("FOLDER".into(), |folder| folder.display().to_string())
}

fn most(counts: &serde_json::Value) -> String {
    let rows = counts["counts"].as_array().into_iter().flatten();
    let rows = rows.map(|row| format!("{} ×{}", row["key"].as_str().unwrap_or_default(), row["count"]));
    rows.collect::<Vec<_>>().join(", ")
}

/// Where documents are: cargo's own registry is there for certain, as it built this program.
fn documents_of(settings: &Settings) -> Vec<PathBuf> {
    let mut folders = vec![settings.cargo_home.join("registry/src")];
    if let Ok(toolchains) = std::fs::read_dir(settings.rustup_home.join("toolchains")) {
        folders.extend(toolchains.flatten().map(|toolchain| toolchain.path().join("share/doc")));
    }
    folders.push("/usr/share/doc".into());
    folders.retain(|folder| folder.is_dir());
    folders
}

fn pack_documents(settings: &Settings, folder: &Path) -> Result<()> {
    if folder.join(format!("documents-{}.warc.gz", ARCHIVES - 1)).exists() {
        say!("documents packed before in `{}`", folder.display());
        return Ok(());
    }
    let begun = Instant::now();
    make_private(folder)?;
    let mut archives: Vec<Archive> = Vec::new();
    for n in 0..ARCHIVES {
        archives.push(Archive::create(&folder.join(format!("documents-{n}.warc.gz")))?);
    }
    let folders = documents_of(settings);
    let share = DOCUMENTS_MAX / folders.len().max(1);
    let mut packed = 0;
    for from in &folders {
        let documents = files_below(from).unwrap_or_default().into_iter().filter(|path| is_document(path));
        for document in documents.take(share) {
            archives[packed % ARCHIVES].add(&document)?;
            packed += 1;
        }
    }
    if packed == 0 {
        bail!(
            "found no documents: neither cargo's registry nor Rust's or the system's documentation is here"
        );
    }
    for archive in archives {
        archive.finish()?;
    }
    say!(
        "documents {packed} packed into {ARCHIVES} archives in `{}`, {:.1} s",
        folder.display(),
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

fn is_document(path: &Path) -> bool {
    let known = matches!(
        path.extension().and_then(|e| e.to_str()),
        Some("html" | "md" | "txt" | "rs" | "json" | "toml")
    );
    known && path.metadata().is_ok_and(|metadata| (1..DOCUMENT_BYTES_MAX).contains(&metadata.len()))
}
