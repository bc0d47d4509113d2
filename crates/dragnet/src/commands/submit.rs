//! `dragnet submit`, and what `search` shares with it: from flags to a job's spec.

use super::{Target, print_json};
use crate::client::Client;
use crate::exit;
use crate::settings::Settings;
use anyhow::{Context, Result, bail};
use dragnet_kernel::Layer;
use serde_json::{Value as Json, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Submit {
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    target: Target,
    /// Print the job as the service answers it
    #[arg(long)]
    json: bool,
}

impl Submit {
    pub(crate) fn run(self, settings: &Settings) -> Result<ExitCode> {
        let reached = self.target.reach(settings)?;
        let job = reached.client.submit(&self.job.spec(&reached.client)?)?;
        let id = job["id"].as_str().unwrap_or_default();
        if self.json {
            print_json(&job)?;
        } else {
            writeln!(std::io::stdout(), "{id}")?;
        }
        if reached.embedded.is_some() {
            eprintln!(
                "accepted; no service is named, so it waits until `dragnet watch {id}` or `dragnet serve`"
            );
        }
        Ok(exit::HITS.into())
    }
}

/// What is searched for, where, and with which limits.
#[derive(Debug, clap::Args)]
pub(crate) struct JobArgs {
    /// The pattern, then files, folders and globs; with -e or -f all of them are data
    #[arg(value_name = "RE|DATA")]
    arguments: Vec<String>,
    /// A named pattern; may be given several times
    #[arg(short = 'e', long = "regex", value_name = "NAME=RE")]
    patterns: Vec<String>,
    /// A file of named patterns, NAME=RE a line; lines that begin with # are comments
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pattern_file: Option<PathBuf>,
    /// Fold case
    #[arg(short = 'i', long)]
    ignore_case: bool,
    /// Take patterns as they are, not as regular expressions
    #[arg(short = 'F', long)]
    fixed_strings: bool,
    /// Match whole words only
    #[arg(short = 'w', long)]
    word_regexp: bool,
    /// Layers that are searched, separated by commas: warc, raw, headers, body
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = layer)]
    layer: Vec<Layer>,
    /// The most hits
    #[arg(short = 'm', long, value_name = "N")]
    limit_hits: Option<u64>,
    /// The most hits of one record
    #[arg(long, value_name = "N")]
    limit_hits_per_record: Option<u64>,
    /// The most stored bytes that are read
    #[arg(long, value_name = "N")]
    limit_bytes: Option<u64>,
    /// The most money, in millionths of the currency
    #[arg(long, value_name = "MICROS")]
    limit_cost: Option<u64>,
    /// Seconds after which the job ends with what it has
    #[arg(long, value_name = "S")]
    deadline: Option<u64>,
    /// A file that names the data, a path a line
    #[arg(long, value_name = "FILE")]
    files_from: Option<PathBuf>,
    /// What relative lines of --files-from are relative to [default: that file's folder]
    #[arg(long, value_name = "DIR", requires = "files_from")]
    base: Option<PathBuf>,
    /// About how many stored bytes a shard has [default: 64 MiB]
    #[arg(long, value_name = "N")]
    shard_bytes: Option<u64>,
    /// Where the job runs
    #[arg(long, value_name = "NAME", default_value = "local")]
    engine: String,
}

fn layer(name: &str) -> Result<Layer, String> {
    serde_json::from_value(json!(name)).map_err(|_| "layers are warc, raw, headers and body".into())
}

impl JobArgs {
    /// The spec, as it is posted.
    pub(crate) fn spec(&self, client: &Client) -> Result<Json> {
        let (patterns, data) = self.patterns_and_data()?;
        let mut dataset: Vec<Json> = Vec::new();
        for entry in data {
            dataset.push(self.source(entry, client)?.into());
        }
        if let Some(list) = &self.files_from {
            let source = |path: &Path| self.source(&path.to_string_lossy(), client);
            let base = self.base.as_deref().map(source).transpose()?;
            dataset.push(json!({ "manifest": source(list)?, "base": base }));
        }
        if dataset.is_empty() {
            bail!("nothing to search: name files, folders or globs behind the pattern, or use --files-from");
        }
        let mut spec = json!({
            "patterns": patterns,
            "dataset": dataset,
            "limits": {
                "hits": self.limit_hits,
                "hits_per_record": self.limit_hits_per_record,
                "input_bytes": self.limit_bytes,
                "cost_micros": self.limit_cost,
                "deadline_s": self.deadline,
            },
            "engine": self.engine,
            "shard_bytes": self.shard_bytes,
        });
        if !self.layer.is_empty() {
            spec["layers"] = json!(self.layer);
        }
        Ok(spec)
    }

    fn patterns_and_data(&self) -> Result<(Vec<Json>, &[String])> {
        let mut patterns = Vec::new();
        for named in &self.patterns {
            patterns.push(self.named(named).with_context(|| format!("-e `{named}`"))?);
        }
        if let Some(file) = &self.pattern_file {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("read the patterns `{}`", file.display()))?;
            for (n, line) in
                text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            {
                patterns
                    .push(self.named(line).with_context(|| format!("`{}`, line {}", file.display(), n + 1))?);
            }
        }
        if patterns.is_empty() && self.pattern_file.is_none() {
            let (regex, data) = self.arguments.split_first().context("no pattern")?;
            return Ok((vec![self.pattern("match", regex)], data));
        }
        Ok((patterns, &self.arguments))
    }

    fn named(&self, text: &str) -> Result<Json> {
        let (name, regex) = text.split_once('=').context("a named pattern is NAME=RE")?;
        Ok(self.pattern(name, regex))
    }

    fn pattern(&self, name: &str, regex: &str) -> Json {
        let mut regex = if self.fixed_strings { escape(regex) } else { regex.to_owned() };
        if self.word_regexp {
            regex = format!(r"\b{{start-half}}(?:{regex})\b{{end-half}}");
        }
        json!({ "name": name, "regex": regex, "case_insensitive": self.ignore_case })
    }

    /// A path as the service must see it; a URI stays as it is.
    fn source(&self, entry: &str, client: &Client) -> Result<String> {
        // A name that is there is that file, whatever it looks like.
        if dragnet_run::uri::scheme(entry).is_some() && !Path::new(entry).exists() {
            return Ok(entry.to_owned());
        }
        if !client.is_local() {
            bail!(
                "`{entry}` is a path of this machine, and the service is on another: name data that it can reach"
            );
        }
        absolute(Path::new(entry))
    }
}

fn absolute(path: &Path) -> Result<String> {
    let absolute = std::path::absolute(path).with_context(|| format!("find `{}`", path.display()))?;
    match absolute.into_os_string().into_string() {
        Ok(text) => Ok(text),
        Err(raw) => Ok(dragnet_run::uri::of_path(Path::new(&raw))),
    }
}

/// The text as a pattern that matches just it.
fn escape(text: &str) -> String {
    let special = |c: char| r"\.+*?()|[]{}^$#&-~".contains(c);
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}
