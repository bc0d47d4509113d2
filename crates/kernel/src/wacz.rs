//! WACZ (Web Archive Collection Zipped 1.1, Webrecorder): the WARC files inside it, read where they are.
//!
//! The standard wants them stored and not compressed in the zip, so that a range of them can be read. Pages
//! and indexes beside them are no documents of the crawl.

use crate::kind::{Codec, Format, Kind};
use crate::object::{ReadAt, Slice};
use crate::records::{self, Framing};
use crate::{Error, Seam};
use std::io::{Read, Seek, SeekFrom};

/// A WARC file in the archive.
pub(crate) struct Part {
    pub(crate) name: String,
    /// Its first byte in the object.
    pub(crate) start: u64,
    pub(crate) len: u64,
    /// How to read it; `None` where that can't be done.
    pub(crate) archive: Option<(Framing, Codec)>,
    /// Why not.
    pub(crate) why: &'static str,
}

impl Part {
    pub(crate) fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// Whether a zip archive begins here whose first entry is one that a WACZ has.
pub(crate) fn begins(bytes: &[u8]) -> bool {
    let Some(name) = bytes.strip_prefix(b"PK\x03\x04").and_then(|rest| rest.get(26..)) else { return false };
    let known: [&[u8]; 5] = [b"archive/", b"pages/", b"indexes/", b"datapackage", b"fuzzy.json"];
    known.iter().any(|known| name.starts_with(known))
}

/// The WARC files of a WACZ, in the order in which they are stored; why it can't be read, if it can't.
pub(crate) fn parts(object: &dyn ReadAt, size: u64) -> Result<Result<Vec<Part>, String>, Error> {
    let mut reader = Reader { object, size, at: 0, failed: None };
    let zip = zip::ZipArchive::new(&mut reader);
    let listed = zip.map_err(|e| e.to_string()).and_then(|mut zip| {
        let mut parts = Vec::new();
        for n in 0..zip.len() {
            let entry = zip.by_index_raw(n).map_err(|e| e.to_string())?;
            let name = entry.name().map_err(|e| e.to_string())?.into_owned();
            let lower = name.to_ascii_lowercase();
            let is_warc =
                [".warc", ".warc.gz", ".warc.zst", ".arc", ".arc.gz"].iter().any(|e| lower.ends_with(e));
            if !is_warc || entry.is_dir() {
                continue;
            }
            let start = entry.data_start().ok_or("an entry's place is unknown")?;
            let why =
                if entry.encrypted() { "is encrypted" } else { "is compressed by zip: store it instead" };
            let stored = entry.compression() == zip::CompressionMethod::Stored && !entry.encrypted();
            let len = entry.compressed_size();
            let archive = stored.then_some((Framing::Warc, Codec::Plain));
            parts.push(Part { name, start, len, archive, why });
        }
        parts.sort_by_key(|part| part.start);
        // What the directory says of one entry must not reach into the next, nor past the end.
        let apart = parts.windows(2).all(|pair| pair[0].end() <= pair[1].start);
        let inside = parts.iter().all(|part| part.start.checked_add(part.len).is_some_and(|end| end <= size));
        if apart && inside { Ok(parts) } else { Err("its directory is damaged".into()) }
    });
    if let Some(source) = reader.failed {
        return Err(Error::Read { offset: reader.at, source });
    }
    let mut parts = match listed {
        Ok(parts) => parts,
        Err(why) => return Ok(Err(format!("the zip archive can't be read: {why}"))),
    };
    for part in parts.iter_mut().filter(|part| part.archive.is_some()) {
        let kind = Kind::of(&Slice { object, start: part.start }, &part.name)?;
        part.archive = match kind.format {
            Format::Warc => Some((Framing::Warc, kind.codec)),
            Format::Arc => Some((Framing::Arc, kind.codec)),
            _ => None,
        };
        part.why = "holds no WARC record";
    }
    Ok(Ok(parts))
}

/// Where the first record of a range begins: at a part's start for certain, inside one by its look.
pub(crate) fn find(object: &dyn ReadAt, parts: &[Part], from: u64, to: u64) -> Result<Option<Seam>, Error> {
    for part in parts.iter().filter(|part| part.end() > from) {
        if part.start >= to {
            break;
        }
        if part.start >= from {
            return Ok(Some(Seam::at(part.start)));
        }
        let Some((framing, codec)) = part.archive else { continue };
        let inner = Slice { object, start: part.start };
        let to = to.min(part.end()) - part.start;
        if let Some(seam) = records::find(&inner, part.len, codec, framing, from - part.start, to)? {
            return Ok(Some(Seam { offset: seam.offset + part.start, skip: seam.skip }));
        }
    }
    Ok(None)
}

/// An object as the zip library reads it; what the storage reports is kept, as it is no fault of the bytes.
struct Reader<'a> {
    object: &'a dyn ReadAt,
    size: u64,
    at: u64,
    failed: Option<std::io::Error>,
}

impl Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = (buf.len() as u64).min(self.size.saturating_sub(self.at)) as usize;
        match self.object.read_at(self.at, &mut buf[..n]) {
            Ok(n) => {
                self.at += n as u64;
                Ok(n)
            }
            Err(e) => {
                let kind = e.kind();
                self.failed = Some(e);
                Err(kind.into())
            }
        }
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let at = match to {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::End(n) => self.size.checked_add_signed(n),
            SeekFrom::Current(n) => self.at.checked_add_signed(n),
        };
        self.at = at.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
