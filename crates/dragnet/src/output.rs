//! Where hits go: to the terminal as a person reads them, to a file as a program does.

use anyhow::{Context, Result, bail};
use dragnet_kernel::Hit;
use flate2::write::GzEncoder;
use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// How a hit is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `OBJECT:OFFSET:URL:MATCH`.
    Text { color: bool },
    /// The match alone.
    Match { color: bool },
    /// As text, with the lines around it.
    Lines { color: bool, before: usize, after: usize },
    /// A JSON line.
    Json,
    /// Not at all.
    Nothing,
}

/// When matches are marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    /// On a terminal.
    Auto,
    Always,
    Never,
}

impl Color {
    pub(crate) fn wanted(self, is_terminal: bool) -> bool {
        self == Color::Always || self == Color::Auto && is_terminal
    }
}

/// Bold red, as grep marks what it found.
pub(crate) const MARK: (&str, &str) = ("\x1b[1;31m", "\x1b[0m");

impl Format {
    /// Appends a hit.
    pub(crate) fn hit(self, hit: &Hit<'_>, out: &mut Vec<u8>) -> std::io::Result<()> {
        match self {
            Format::Nothing => Ok(()),
            Format::Json => {
                serde_json::to_writer(&mut *out, hit)?;
                out.push(b'\n');
                Ok(())
            }
            Format::Match { color } => writeln!(out, "{}", marked(&one_line(&hit.matched), color)),
            Format::Text { color } => {
                writeln!(out, "{}{}", place(hit, ':'), marked(&one_line(&hit.matched), color))
            }
            Format::Lines { color, before, after } => lines(hit, color, before, after, out),
        }
    }
}

fn marked(text: &str, color: bool) -> Cow<'_, str> {
    if color { Cow::Owned(format!("{}{text}{}", MARK.0, MARK.1)) } else { Cow::Borrowed(text) }
}

/// A hit is one line, whatever it matched.
fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(['\n', '\r']) {
        Cow::Owned(text.replace('\n', "\\n").replace('\r', "\\r"))
    } else {
        Cow::Borrowed(text)
    }
}

/// An object's name for a person: the path of a file.
pub(crate) fn object_name(uri: &str) -> Cow<'_, str> {
    match dragnet_run::uri::to_path(uri) {
        Ok(path) => Cow::Owned(path.to_string_lossy().into_owned()),
        Err(_) => Cow::Borrowed(uri),
    }
}

/// What stands before a match: a document's own URL is its object, and not said twice.
fn place(hit: &Hit<'_>, mark: char) -> String {
    let url = hit.url.as_deref().filter(|url| *url != hit.object).unwrap_or_default();
    format!("{}{mark}{}{mark}{url}{mark}", object_name(&hit.object), hit.stored.offset())
}

/// The lines of a match and those around it, as grep's `-A` and `-B` have them.
fn lines(hit: &Hit<'_>, color: bool, before: usize, after: usize, out: &mut Vec<u8>) -> std::io::Result<()> {
    let (bytes, at) = (hit.around(), hit.at());
    let (first, last) = (line_start(bytes, at.start), line_end(bytes, at.end.max(at.start + 1) - 1));
    let mut from = first;
    for _ in 0..before {
        if from == 0 {
            break;
        }
        from = line_start(bytes, from - 1);
    }
    let mut to = last;
    for _ in 0..after {
        if to == bytes.len() {
            break;
        }
        to = line_end(bytes, to);
    }
    let mut start = from;
    while start < to {
        let end = line_end(bytes, start);
        let is_match = start < last && end > first;
        let line = String::from_utf8_lossy(bytes[start..end].trim_ascii_end());
        let shown = if is_match && color { colored(bytes, start..end, &at) } else { line.into_owned() };
        writeln!(out, "{}{shown}", place(hit, if is_match { ':' } else { '-' }))?;
        start = end;
    }
    if before > 0 || after > 0 {
        writeln!(out, "--")?;
    }
    Ok(())
}

fn colored(bytes: &[u8], line: Range<usize>, at: &Range<usize>) -> String {
    let text = |range: Range<usize>| {
        String::from_utf8_lossy(&bytes[range]).trim_end_matches(['\n', '\r']).to_owned()
    };
    let (start, end) = (at.start.clamp(line.start, line.end), at.end.clamp(line.start, line.end));
    format!("{}{}{}{}{}", text(line.start..start), MARK.0, text(start..end), MARK.1, text(end..line.end))
}

fn line_start(bytes: &[u8], at: usize) -> usize {
    bytes[..at].iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1)
}

/// Behind the end of the line that holds the byte at `at`.
fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at.min(bytes.len())..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n + 1)
}

/// What takes bytes that were formatted.
pub(crate) enum Output {
    Stdout(BufWriter<std::io::Stdout>),
    File(Box<Draft>),
}

impl Output {
    pub(crate) fn stdout() -> Output {
        Output::Stdout(BufWriter::with_capacity(64 << 10, std::io::stdout()))
    }

    /// A file whose name says its format. It has another name until it is whole.
    pub(crate) fn file(path: &Path) -> Result<Output> {
        Ok(Output::File(Box::new(Draft::new(path)?)))
    }

    /// Takes lines; JSON lines where it is a file.
    pub(crate) fn write(&mut self, lines: &[u8]) -> Result<()> {
        match self {
            // Bare, as a closed pipe is no error of ours.
            Output::Stdout(out) => Ok(out.write_all(lines)?),
            Output::File(draft) => draft.encoder.write(lines),
        }
    }

    pub(crate) fn finish(self) -> Result<()> {
        match self {
            Output::Stdout(mut out) => Ok(out.flush()?),
            Output::File(draft) => draft.finish(),
        }
    }
}

/// A file that has another name until it is whole, and is removed if it never is.
pub(crate) struct Unfinished {
    path: PathBuf,
    temporary: PathBuf,
    renamed: bool,
}

impl Unfinished {
    pub(crate) fn create(path: &Path) -> Result<(Unfinished, File)> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
        let file = File::create(&temporary).with_context(|| format!("write `{}`", path.display()))?;
        Ok((Unfinished { path: path.to_owned(), temporary, renamed: false }, file))
    }

    /// Gives it its name.
    pub(crate) fn finish(mut self) -> Result<()> {
        let renamed = std::fs::rename(&self.temporary, &self.path);
        renamed.with_context(|| format!("write `{}`", self.path.display()))?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// A file that is being written.
pub(crate) struct Draft {
    file: Unfinished,
    encoder: Encoder,
}

impl Draft {
    fn new(path: &Path) -> Result<Draft> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let endings = [".jsonl", ".jsonl.gz", ".jsonl.zst", ".csv", ".parquet"];
        let Some(ending) = endings.into_iter().find(|ending| name.ends_with(ending)) else {
            bail!(
                "`{}`: its name must end with .jsonl, .jsonl.gz, .jsonl.zst, .csv or .parquet, which says the format",
                path.display()
            );
        };
        let (unfinished, file) = Unfinished::create(path)?;
        let plain = |file| BufWriter::new(file);
        let encoder = match ending {
            ".jsonl" => Encoder::Plain(plain(file)),
            ".jsonl.gz" => Encoder::Gzip(GzEncoder::new(plain(file), flate2::Compression::default())),
            ".jsonl.zst" => Encoder::Zstd(Zstd { context: zstd_safe::CCtx::create(), out: plain(file) }),
            ".csv" => Encoder::Csv(Box::new(Csv::new(file)?)),
            _ => parquet(file)?,
        };
        Ok(Draft { file: unfinished, encoder })
    }

    fn finish(self) -> Result<()> {
        self.encoder.finish()?;
        self.file.finish()
    }
}

#[cfg(feature = "parquet")]
fn parquet(file: File) -> Result<Encoder> {
    Ok(Encoder::Parquet(Box::new(crate::parquet::HitWriter::new(file)?)))
}

#[cfg(not(feature = "parquet"))]
fn parquet(_file: File) -> Result<Encoder> {
    bail!("writing Parquet needs the feature `parquet`, which this build does not have: use .jsonl or .csv")
}

enum Encoder {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
    Zstd(Zstd),
    Csv(Box<Csv>),
    #[cfg(feature = "parquet")]
    Parquet(Box<crate::parquet::HitWriter>),
}

impl Encoder {
    fn write(&mut self, lines: &[u8]) -> Result<()> {
        match self {
            Encoder::Plain(out) => out.write_all(lines)?,
            Encoder::Gzip(out) => out.write_all(lines)?,
            Encoder::Zstd(zstd) => zstd.write(lines)?,
            Encoder::Csv(csv) => csv.write(lines)?,
            #[cfg(feature = "parquet")]
            Encoder::Parquet(parquet) => parquet.write(lines)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        match self {
            Encoder::Plain(mut out) => out.flush()?,
            Encoder::Gzip(out) => out.finish()?.flush()?,
            Encoder::Zstd(zstd) => zstd.finish()?,
            Encoder::Csv(mut csv) => csv.out.flush()?,
            #[cfg(feature = "parquet")]
            Encoder::Parquet(parquet) => parquet.finish()?,
        }
        Ok(())
    }
}

/// A zstd stream.
struct Zstd {
    context: zstd_safe::CCtx<'static>,
    out: BufWriter<File>,
}

impl Zstd {
    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        let mut space = vec![0; zstd_safe::CCtx::out_size()];
        while !bytes.is_empty() {
            let mut input = zstd_safe::InBuffer::around(bytes);
            let mut output = zstd_safe::OutBuffer::around(&mut space[..]);
            let wrote = self.context.compress_stream(&mut output, &mut input);
            wrote.map_err(|code| anyhow::anyhow!("zstd: {}", zstd_safe::get_error_name(code)))?;
            let read = input.pos();
            self.out.write_all(output.as_slice())?;
            bytes = &bytes[read..];
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        let mut space = vec![0; zstd_safe::CCtx::out_size()];
        loop {
            let mut output = zstd_safe::OutBuffer::around(&mut space[..]);
            let left = self.context.end_stream(&mut output);
            let left = left.map_err(|code| anyhow::anyhow!("zstd: {}", zstd_safe::get_error_name(code)))?;
            self.out.write_all(output.as_slice())?;
            if left == 0 {
                return Ok(self.out.flush()?);
            }
        }
    }
}

/// The columns of a table of hits: captures are a JSON object in theirs.
pub(crate) const COLUMNS: [&str; 22] = [
    "pattern",
    "url",
    "date",
    "record_type",
    "record_id",
    "status",
    "mime",
    "payload_digest",
    "object",
    "offset",
    "length",
    "skip",
    "row",
    "layer",
    "field",
    "start",
    "end",
    "match",
    "match_base64",
    "captures",
    "before",
    "after",
];

/// A value of a hit's JSON as a cell has it; empty where there is none.
fn cell(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

struct Csv {
    out: csv::Writer<File>,
}

impl Csv {
    fn new(file: File) -> Result<Csv> {
        let mut out = csv::Writer::from_writer(file);
        out.write_record(COLUMNS)?;
        Ok(Csv { out })
    }

    fn write(&mut self, lines: &[u8]) -> Result<()> {
        for hit in serde_json::Deserializer::from_slice(lines).into_iter::<serde_json::Value>() {
            let hit = hit?;
            self.out.write_record(COLUMNS.map(|column| cell(&hit[column])))?;
        }
        Ok(())
    }
}
