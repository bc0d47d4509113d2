//! `dragnet scan`: the kernel alone, like grep. No service, no job, all cores.

use super::args::{SearchArgs, absolute};
use crate::exit::{self, Exit};
use crate::follow::coverage_line;
use crate::output::{Color, Format, Output};
use anyhow::{Context, Result};
use dragnet_job::dataset::{self, Place};
use dragnet_job::spec;
use dragnet_kernel::{Entry, Hit, Search};
use dragnet_run::{Report, Source, Sweep, Swept, Writer};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use std::cell::RefCell;
use std::collections::HashSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Scan {
    #[command(flatten)]
    search: SearchArgs,
    /// Print hits as JSON lines
    #[arg(long, conflicts_with_all = ["count", "files_with_matches", "only_matching"])]
    json: bool,
    /// Print the number of hits in each object
    #[arg(short = 'c', long)]
    count: bool,
    /// Print only the objects that have hits
    #[arg(short = 'l', long)]
    files_with_matches: bool,
    /// Print only the matches
    #[arg(short = 'o', long)]
    only_matching: bool,
    /// Print N lines after each match
    #[arg(short = 'A', long, value_name = "N")]
    after_context: Option<usize>,
    /// Print N lines before each match
    #[arg(short = 'B', long, value_name = "N")]
    before_context: Option<usize>,
    /// Print N lines before and after each match
    #[arg(short = 'C', long, value_name = "N")]
    context: Option<usize>,
    /// When to mark matches in colour
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: Color,
    /// In folders, search only files whose names match; may be given several times
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Skip files whose names match; may be given several times
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// List the records that are read, as JSON lines; takes no pattern
    #[arg(long)]
    records: bool,
    /// Write the hits to a file: .jsonl, .jsonl.gz, .jsonl.zst, .csv or .parquet
    #[arg(short = 'O', long = "output", value_name = "FILE", conflicts_with_all = ["json", "count", "files_with_matches", "only_matching", "records"])]
    output: Option<PathBuf>,
    /// Write the coverage to a file
    #[arg(long, value_name = "FILE")]
    coverage: Option<PathBuf>,
    /// Number of threads [default: all cores]
    #[arg(short = 'j', long, value_name = "N")]
    threads: Option<usize>,
}

impl Scan {
    pub(crate) fn run(mut self) -> Result<ExitCode> {
        if self.records {
            // A list takes no pattern: every argument is data, and nothing is searched for.
            self.search.match_nothing();
        }
        let (spec, dataset) = self.search.spec_and_data(&|entry| match entry {
            "-" => Ok("-".into()),
            path if dragnet_run::uri::scheme(path).is_some() && !Path::new(path).exists() => Ok(path.into()),
            path => absolute(Path::new(path)),
        })?;
        let search = Search::compile(&spec)?;
        let names = Names::of(&self.include, &self.exclude)?;
        let sweep = Sweep {
            search: &search,
            threads: self
                .threads
                .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into)),
            shard_bytes: self.search.shard_bytes.unwrap_or(SHARD_BYTES),
            served_shard_bytes: self.search.shard_bytes.unwrap_or(spec::SHARD_BYTES),
            hits_max: self.search.limit_hits,
        };
        let mut output = match &self.output {
            Some(file) => Output::file(file)?,
            None => Output::stdout(),
        };
        // A file's format is made of JSON lines.
        let format = if self.output.is_some() { Format::Json } else { self.format() };
        let style = Style { format, records: self.records };
        let mut report = Report::default();
        sweep.run(|found| walk(&dataset, self.search.sample, &names, found), &style, &mut |bytes,
                                                                                            swept|
         -> Result<
            (),
        > {
            output.write(bytes)?;
            if let Some(swept) = swept {
                self.done(&swept, &mut output)?;
                report.totals.hits += swept.hits;
                report.add(swept.uri, swept.size, swept.coverage);
            }
            Ok(())
        })?;
        output.finish()?;
        if let Some(file) = &self.coverage {
            let json = serde_json::to_string_pretty(&report)? + "\n";
            std::fs::write(file, json).with_context(|| format!("write `{}`", file.display()))?;
        }
        if !report.complete {
            say!("dragnet: coverage: {}", coverage_line(&serde_json::to_value(&report)?));
        }
        Ok(self.exit(&report).into())
    }

    fn format(&self) -> Format {
        let lines = |own: Option<usize>| own.or(self.context);
        let context = (lines(self.before_context), lines(self.after_context));
        if self.json {
            return Format::Json;
        }
        if self.count || self.files_with_matches {
            return Format::Nothing;
        }
        let color = self.color.wanted(std::io::stdout().is_terminal());
        match (self.only_matching, context) {
            (true, _) => Format::Match { color },
            (false, (None, None)) => Format::Text { color },
            (false, (before, after)) => {
                Format::Lines { color, before: before.unwrap_or(0), after: after.unwrap_or(0) }
            }
        }
    }

    /// Prints what there is to say of an object as a whole.
    fn done(&self, swept: &Swept, output: &mut Output) -> Result<()> {
        let name = crate::output::object_name(&swept.uri);
        if self.count && swept.hits > 0 {
            output.write(format!("{name}:{}\n", swept.hits).as_bytes())?;
        } else if self.files_with_matches && swept.hits > 0 {
            output.write(format!("{name}\n").as_bytes())?;
        }
        for skip in swept
            .coverage
            .skipped
            .iter()
            .filter(|skip| skip.detail.is_some() && swept.coverage.records.is_empty())
        {
            say!("dragnet: {name}: {}", skip.detail.as_deref().unwrap_or_default());
        }
        Ok(())
    }

    fn exit(&self, report: &Report) -> Exit {
        match (report.complete, report.totals.hits > 0 || self.records) {
            (false, _) => exit::GAPS,
            (true, true) => exit::HITS,
            (true, false) => exit::NO_HIT,
        }
    }
}

/// Large enough that a seam costs nothing, small enough that two threads end together.
const SHARD_BYTES: u64 = 8 << 20;

/// Names each object, on the terms of a dataset; `-` is standard input.
fn walk(
    dataset: &[spec::Source],
    sample: Option<usize>,
    names: &Names,
    found: &mut dyn FnMut(Source) -> bool,
) -> Result<()> {
    let found = RefCell::new(found);
    let (mut files, mut streams) = (Vec::new(), HashSet::new());
    let flush = |files: &mut Vec<spec::Source>| {
        let walked = dataset::objects(
            &dragnet_objects::Policy::default(),
            files,
            sample,
            &mut |dataset::Named { place, stated }| {
                let stated = stated.map(Box::new);
                let (takes, source) = match place {
                    Place::File(path) => (names.takes(&path), Source::File(path, stated)),
                    Place::Served { uri, head } => {
                        (names.takes(Path::new(&uri)), Source::Served { uri, head, stated })
                    }
                };
                !takes || found.borrow_mut()(source)
            },
        );
        files.clear();
        walked
    };
    for source in dataset {
        match source {
            spec::Source::Uri(entry) => match stream(entry) {
                Some(stream) => {
                    flush(&mut files)?;
                    // A stream can be read once.
                    if streams.insert(entry) && !found.borrow_mut()(stream) {
                        return Ok(());
                    }
                }
                None => files.push(source.clone()),
            },
            spec::Source::Manifest { .. } => files.push(source.clone()),
        }
    }
    Ok(flush(&mut files)?)
}

/// What is read as a stream, as it was named by itself.
fn stream(entry: &str) -> Option<Source> {
    match entry {
        "-" => Some(Source::stdin()),
        path => Source::named(Path::new(path)),
    }
}

/// Which names are searched.
struct Names {
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl Names {
    fn of(include: &[String], exclude: &[String]) -> Result<Names> {
        Ok(Names {
            include: (!include.is_empty()).then(|| globs(include)).transpose()?,
            exclude: globs(exclude)?,
        })
    }

    fn takes(&self, path: &Path) -> bool {
        let Some(name) = path.file_name() else { return true };
        self.include.as_ref().is_none_or(|globs| globs.is_match(name)) && !self.exclude.is_match(name)
    }
}

fn globs(list: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for glob in list {
        set.add(GlobBuilder::new(glob).build().with_context(|| format!("the glob `{glob}`"))?);
    }
    Ok(set.build()?)
}

/// How hits are written by the threads that find them.
struct Style {
    format: Format,
    records: bool,
}

impl Writer for Style {
    fn hit(&self, hit: &Hit<'_>, out: &mut Vec<u8>) -> std::io::Result<()> {
        self.format.hit(hit, out)
    }

    fn wants_hits(&self) -> bool {
        self.format != Format::Nothing
    }

    fn lists_records(&self) -> bool {
        self.records
    }

    fn record(&self, entry: &Entry<'_>, out: &mut Vec<u8>) -> std::io::Result<()> {
        serde_json::to_writer(&mut *out, entry)?;
        out.push(b'\n');
        Ok(())
    }
}
