//! `dragnet pack`: files and folders as WARC 1.1, a `resource` record and a gzip member for each.

use crate::exit;
use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

#[derive(Debug, clap::Args)]
pub(crate) struct Pack {
    /// The archive to write
    #[arg(short = 'o', long, value_name = "FILE.warc.gz")]
    output: PathBuf,
    /// Files and folders to pack
    #[arg(value_name = "DATA", required = true)]
    data: Vec<PathBuf>,
}

impl Pack {
    pub(crate) fn run(self) -> Result<ExitCode> {
        if self.output.exists() {
            bail!("`{}` exists: it is not written over", self.output.display());
        }
        let mut archive = Archive::create(&self.output)?;
        for path in &self.data {
            for file in files_below(path)? {
                archive.add(&file)?;
            }
        }
        let records = archive.finish()?;
        say!("{records} records in `{}`", self.output.display());
        Ok(exit::HITS.into())
    }
}

/// Every file below a path, by name.
pub(crate) fn files_below(path: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let kind = fs::symlink_metadata(&path).with_context(|| format!("read `{}`", path.display()))?;
        if kind.is_file() {
            files.push(path);
        } else if kind.is_dir() {
            let mut entries: Vec<PathBuf> =
                fs::read_dir(&path)?.flatten().map(|entry| entry.path()).collect();
            entries.sort_unstable();
            open.extend(entries.into_iter().rev());
        }
    }
    Ok(files)
}

/// An archive that is being written, under a temporary name until it is whole.
pub(crate) struct Archive {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    records: u64,
}

impl Archive {
    pub(crate) fn create(path: &Path) -> Result<Archive> {
        let temporary = path.with_extension("part");
        let file = File::create(&temporary).with_context(|| format!("write `{}`", temporary.display()))?;
        let mut archive =
            Archive { path: path.to_owned(), temporary, file: BufWriter::new(file), records: 0 };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let info =
            format!("software: dragnet/{}\r\nformat: WARC File Format 1.1\r\n", env!("CARGO_PKG_VERSION"));
        let fields = [
            ("WARC-Type", "warcinfo"),
            ("WARC-Filename", &name),
            ("Content-Type", "application/warc-fields"),
        ];
        archive.record(&fields, &time(0), info.as_bytes())?;
        Ok(archive)
    }

    /// Adds a file as it is.
    pub(crate) fn add(&mut self, path: &Path) -> Result<()> {
        let path = path.canonicalize().with_context(|| format!("read `{}`", path.display()))?;
        let block = fs::read(&path).with_context(|| format!("read `{}`", path.display()))?;
        let modified = fs::metadata(&path)?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let uri = dragnet_run::uri::of_path(&path);
        let fields =
            [("WARC-Type", "resource"), ("WARC-Target-URI", &uri), ("Content-Type", media_type(&path))];
        self.records += 1;
        self.record(&fields, &time(modified.as_secs() as i64), &block)
    }

    fn record(&mut self, fields: &[(&str, &str)], date: &str, block: &[u8]) -> Result<()> {
        let mut member = GzEncoder::new(&mut self.file, Compression::default());
        write!(member, "WARC/1.1\r\n")?;
        for (name, value) in fields {
            write!(member, "{name}: {value}\r\n")?;
        }
        write!(member, "WARC-Date: {date}\r\nWARC-Record-ID: <urn:uuid:{}>\r\n", uuid::Uuid::new_v4())?;
        write!(member, "Content-Length: {}\r\n\r\n", block.len())?;
        member.write_all(block)?;
        member.write_all(b"\r\n\r\n")?;
        member.finish()?;
        Ok(())
    }

    /// Ends the archive; returns how many files are in it.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.file.flush()?;
        fs::rename(&self.temporary, &self.path)
            .with_context(|| format!("write `{}`", self.path.display()))?;
        Ok(self.records)
    }
}

fn time(seconds: i64) -> String {
    dragnet_job::view::time(seconds * 1000)
}

fn media_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => "text/html",
        Some("md") => "text/markdown",
        Some("json") => "application/json",
        Some("xml") => "application/xml",
        Some("rs" | "txt" | "toml" | "c" | "h" | "py" | "js" | "css") => "text/plain",
        _ => "application/octet-stream",
    }
}
