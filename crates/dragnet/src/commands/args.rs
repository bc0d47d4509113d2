//! What commands that search take alike: patterns, layers, filters, data.

use anyhow::{Context, Result, bail};
use dragnet_job::spec::Source;
use dragnet_kernel::{FilterSpec, Layer, Pattern, SearchSpec, Status};
use serde_json::json;
use std::path::{Path, PathBuf};

/// What is searched for, and in what of which records.
#[derive(Debug, clap::Args)]
pub(crate) struct SearchArgs {
    /// The pattern, then files, folders and globs; with -e or -f, only data
    #[arg(value_name = "RE|DATA")]
    pub(crate) arguments: Vec<String>,
    /// A named pattern; may be given several times
    #[arg(short = 'e', long = "regex", value_name = "NAME=RE")]
    patterns: Vec<String>,
    /// A file of named patterns, one NAME=RE per line; lines that start with # are comments
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pattern_file: Option<PathBuf>,
    /// Ignore case
    #[arg(short = 'i', long)]
    ignore_case: bool,
    /// Treat patterns as literal strings, not as regular expressions
    #[arg(short = 'F', long)]
    fixed_strings: bool,
    /// Match whole words only
    #[arg(short = 'w', long)]
    word_regexp: bool,
    /// Layers to search, separated by commas: warc, raw, headers, body, text [default: body]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = layer)]
    layer: Vec<Layer>,
    /// Search this field of JSON lines (`text`, `page.text`), or this column of Parquet
    #[arg(long, value_name = "NAME")]
    field: Option<String>,
    /// Check the digests that an archive states, and report records where they differ
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// At most N hits in total
    #[arg(short = 'm', long, value_name = "N")]
    pub(crate) limit_hits: Option<u64>,
    /// At most N hits per record
    #[arg(long, value_name = "N")]
    pub(crate) limit_hits_per_record: Option<u64>,
    /// A list of the data, one path or URI per line, such as a crawl's `warc.paths.gz`
    #[arg(long, value_name = "FILE|URI")]
    files_from: Option<PathBuf>,
    /// Base of relative lines in --files-from [default: the list's folder; for a list on a server, its host or bucket]
    #[arg(long, value_name = "DIR|URI", requires = "files_from")]
    base: Option<PathBuf>,
    /// Search only N of the objects, spread evenly over the data
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub(crate) sample: Option<usize>,
    /// Approximate number of stored bytes per shard [default: 64 MiB; 8 MiB for `scan`]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) shard_bytes: Option<u64>,
}

/// Which records are searched.
#[derive(Debug, clap::Args)]
struct FilterArgs {
    /// Record types, such as `response,conversion`
    #[arg(long = "type", value_name = "LIST", value_delimiter = ',')]
    types: Vec<String>,
    /// Hosts, including their subdomains
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    host: Vec<String>,
    /// A glob over the URL; may be given several times
    #[arg(long, value_name = "GLOB")]
    url: Vec<String>,
    /// A regular expression that matches somewhere in the URL
    #[arg(long, value_name = "RE")]
    url_regex: Option<String>,
    /// Media types, such as `text/html,image/*`
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    mime: Vec<String>,
    /// HTTP status codes, such as `2xx,404`
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    status: Vec<String>,
    /// The earliest date, such as `2024` or `2024-05-20T09:30:00Z`
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// The latest date: `2024-05` includes all of May
    #[arg(long, value_name = "DATE")]
    to: Option<String>,
}

impl FilterArgs {
    fn spec(&self) -> FilterSpec {
        FilterSpec {
            types: self.types.clone(),
            host: self.host.clone(),
            url_glob: self.url.clone(),
            url_regex: self.url_regex.clone(),
            mime: self.mime.clone(),
            status: self.status.iter().cloned().map(Status::Class).collect(),
            from: self.from.clone(),
            to: self.to.clone(),
        }
    }
}

fn layer(name: &str) -> Result<Layer, String> {
    serde_json::from_value(json!(name)).map_err(|_| "layers are warc, raw, headers, body and text".into())
}

impl SearchArgs {
    /// Makes every argument data, and the pattern one that is found nowhere.
    pub(crate) fn match_nothing(&mut self) {
        self.patterns = vec![r"match=[^\s\S]".into()];
    }

    /// The search, and what is to be searched: `path` makes of a path what the reader of the spec needs.
    pub(crate) fn spec_and_data(
        &self,
        path: &dyn Fn(&str) -> Result<String>,
    ) -> Result<(SearchSpec, Vec<Source>)> {
        let (patterns, data) = self.patterns_and_data()?;
        let mut spec = SearchSpec::new(patterns);
        if !self.layer.is_empty() {
            spec.layers = self.layer.clone();
        }
        spec.filter = self.filter.spec();
        spec.field = self.field.clone();
        spec.verify = self.verify;
        spec.hits_per_record = self.limit_hits_per_record;
        let mut dataset = Vec::new();
        for entry in data {
            dataset.push(Source::Uri(path(entry)?));
        }
        if let Some(list) = &self.files_from {
            let of = |file: &Path| path(&file.to_string_lossy());
            let base = self.base.as_deref().map(of).transpose()?;
            dataset.push(Source::Manifest { manifest: of(list)?, base });
        }
        if dataset.is_empty() {
            bail!("nothing to search: name files, folders or globs behind the pattern, or use --files-from");
        }
        Ok((spec, dataset))
    }

    fn patterns_and_data(&self) -> Result<(Vec<Pattern>, &[String])> {
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

    fn named(&self, text: &str) -> Result<Pattern> {
        let (name, regex) = text.split_once('=').context("a named pattern is NAME=RE")?;
        Ok(self.pattern(name, regex))
    }

    fn pattern(&self, name: &str, regex: &str) -> Pattern {
        let mut regex = if self.fixed_strings { escape(regex) } else { regex.to_owned() };
        if self.word_regexp {
            regex = format!(r"\b{{start-half}}(?:{regex})\b{{end-half}}");
        }
        Pattern { name: name.into(), regex, case_insensitive: self.ignore_case }
    }
}

/// An absolute path, as a URI where it is no text.
pub(crate) fn absolute(path: &Path) -> Result<String> {
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
