//! `dragnet replay`: back from hits to the records that they were found in, by one read of a range each.

use crate::output::{MARK, Unfinished, object_name};
use anyhow::{Context, Result, bail};
use dragnet_kernel::{Hit, ReadAt, Stored};
use dragnet_objects::{Blob, Policy, Remote};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufWriter, IsTerminal, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Replay {
    /// Files of hits as JSON lines [default: standard input]
    #[arg(value_name = "HITS")]
    hits: Vec<PathBuf>,
    /// Copy each hit's record once into a WARC file; gzip members are copied verbatim
    #[arg(long, value_name = "FILE")]
    warc: Option<PathBuf>,
}

impl Replay {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let mut warc = self.warc.as_deref().map(Copies::new).transpose()?;
        let mut out = std::io::stdout().lock();
        let mut take = |line: &str| -> Result<()> {
            let hit: Hit<'_> = serde_json::from_str(line).with_context(|| format!("`{line}` is no hit"))?;
            match &mut warc {
                Some(warc) => warc.add(&hit),
                None => show(&mut out, &hit),
            }
        };
        if self.hits.is_empty() {
            for line in std::io::stdin().lock().lines() {
                take(&line?)?;
            }
        }
        for file in &self.hits {
            let opened = File::open(file).with_context(|| format!("read `{}`", file.display()))?;
            for line in std::io::BufReader::new(opened).lines() {
                take(&line?)?;
            }
        }
        if let Some(warc) = warc {
            say!("{} records", warc.finish()?);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The object of a hit, and its size.
fn open(hit: &Hit<'_>) -> Result<(Blob, u64)> {
    let Stored::Bytes { offset, length, .. } = hit.stored else {
        bail!(
            "a hit in a table has a row and no bytes: query `{}` for row {}",
            object_name(&hit.object),
            hit.stored.offset()
        );
    };
    let (blob, size) = if dragnet_run::is_remote(&hit.object) {
        let failed = || format!("read `{}`", hit.object);
        let head = dragnet_objects::head(&Policy::default(), &hit.object).with_context(failed)?;
        // One range is read, and nothing ahead of it.
        (Blob::Remote(Remote::open(&Policy::default(), &head, 0).with_context(failed)?), head.size)
    } else {
        let path = dragnet_run::uri::to_path(&hit.object)?;
        let file = File::open(&path).with_context(|| format!("read `{}`", path.display()))?;
        let size = file.metadata()?.len();
        (Blob::File(file), size)
    };
    if offset.checked_add(length).is_none_or(|end| end > size) {
        bail!(
            "`{}` has {size} bytes and the hit is at {offset}+{length}: it is not the file that was searched",
            object_name(&hit.object)
        );
    }
    Ok((blob, size))
}

fn read_exact(object: &Blob, buf: &mut [u8], offset: u64) -> Result<()> {
    let mut n = 0;
    while n < buf.len() {
        match object.read_at(offset + n as u64, &mut buf[n..])? {
            0 => bail!("it ends at {}", offset + n as u64),
            more => n += more,
        }
    }
    Ok(())
}

/// The layer of a hit, with the match marked in its place.
fn show(out: &mut impl Write, hit: &Hit<'_>) -> Result<()> {
    let (file, size) = open(hit)?;
    let name = object_name(&hit.object);
    let at = hit.stored.offset();
    let Some(replayed) = dragnet_kernel::replay(&file, size, hit)? else {
        bail!("`{name}` at {at} does not hold this match: it is not the file that was searched");
    };
    let (start, end) = if std::io::stdout().is_terminal() { MARK } else { (">>>", "<<<") };
    let url = hit.url.as_deref().unwrap_or_default();
    writeln!(
        out,
        "# {name} at {at}: {} {url}, layer {}, bytes {}..{}",
        hit.record_type, hit.layer, hit.start, hit.end
    )?;
    let Range { start: from, end: to } = replayed.at;
    for piece in [
        &replayed.layer[..from],
        start.as_bytes(),
        &replayed.layer[from..to],
        end.as_bytes(),
        &replayed.layer[to..],
    ] {
        out.write_all(piece)?;
    }
    Ok(writeln!(out)?)
}

/// A WARC file of records that hits stand in, each once.
struct Copies {
    out: BufWriter<File>,
    file: Unfinished,
    seen: HashSet<(String, u64, u64)>,
}

impl Copies {
    fn new(path: &Path) -> Result<Copies> {
        let (unfinished, file) = Unfinished::create(path)?;
        Ok(Copies { out: BufWriter::new(file), file: unfinished, seen: HashSet::new() })
    }

    fn add(&mut self, hit: &Hit<'_>) -> Result<()> {
        let (offset, skip) = (hit.stored.offset(), hit.stored.skip());
        if !self.seen.insert((hit.object.clone().into_owned(), offset, skip)) {
            return Ok(());
        }
        let (file, size) = open(hit)?;
        let name = object_name(&hit.object);
        let Some(record) = dragnet_kernel::record_of(&file, size, hit)? else {
            bail!(
                "`{name}` at {offset} holds no record of an archive: only those can be copied into a WARC file"
            );
        };
        let mut stored = vec![0; hit.stored.length() as usize];
        read_exact(&file, &mut stored, offset)?;
        // A member that holds this record alone is copied as it is.
        if record.alone && stored.starts_with(&[0x1f, 0x8b]) {
            return Ok(self.out.write_all(&stored)?);
        }
        let mut member = GzEncoder::new(&mut self.out, Compression::default());
        member.write_all(&record.bytes)?;
        member.finish()?;
        Ok(())
    }

    fn finish(mut self) -> Result<usize> {
        self.out.flush()?;
        self.file.finish()?;
        Ok(self.seen.len())
    }
}
