//! The scan of one range of one object: records in, hits to a sink, coverage and seams out.

use crate::coverage::{Coverage, Reason, Skip, Undecoded};
use crate::frames::{Event, Frames, find_warc_member};
use crate::gzip::Fault;
use crate::hit::{self, Hit, MATCH_BYTES_MAX};
use crate::records::{Item, Record, Records, find_warc_record};
use crate::search::Search;
use crate::{Digest, Error, Kind, Layer, RECORD_BYTES_MAX, ReadAt, Seam, http, layer};
use regex::bytes::Regex;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What is to be scanned.
#[derive(Debug, Clone, Copy)]
pub struct Range<'a> {
    /// The object's URI, for the hits.
    pub uri: &'a str,
    /// The object's place in the plan, for the digest.
    pub place: u64,
    /// The object's size in the plan, in stored bytes; what was appended since is not read.
    pub size: u64,
    /// First stored byte of the range.
    pub start: u64,
    /// The byte after its last: records that begin before it belong to the range.
    pub end: u64,
    /// Where the first record begins, if that is known; else it is found by its look.
    pub begin: Option<Seam>,
    /// The most hits that the range gives; the scan ends with the record that reaches it.
    pub hits_max: Option<u64>,
}

/// Takes each hit as it is found.
pub type Sink<'a> = dyn FnMut(&Hit) -> std::io::Result<()> + 'a;

/// What a scan found out.
#[derive(Debug, Clone)]
pub struct Scanned {
    /// Where the first record of the range begins; `None` where none does.
    pub first: Option<Seam>,
    /// Where the first record after the range begins, or the object's end.
    pub next: Seam,
    /// What was read and what was not, of the bytes from `first` to `next`.
    pub coverage: Coverage,
    /// How many hits went to the sink.
    pub hits: u64,
    /// The sum over them.
    pub digest: Digest,
    /// Whether `hits_max` ended the scan before the range did.
    pub capped: bool,
}

/// Scans a range.
///
/// # Errors
/// [`Error::Read`] and [`Error::Shrunk`] where the bytes could not be had, [`Error::Sink`] where the sink
/// failed; never for what the bytes are.
pub fn scan(
    object: &dyn ReadAt,
    kind: Kind,
    range: &Range<'_>,
    search: &Search,
    sink: &mut Sink<'_>,
) -> Result<Scanned, Error> {
    let scan = Scan {
        range,
        search,
        sink,
        coverage: Coverage::default(),
        hits: 0,
        digest: Digest::default(),
        overflow: false,
    };
    match kind {
        Kind::WarcGzip | Kind::Warc => scan.warc(object, kind == Kind::WarcGzip),
        Kind::Document | Kind::DocumentGzip => scan.document(object, kind == Kind::DocumentGzip),
    }
}

struct Scan<'a, 'b> {
    range: &'a Range<'a>,
    search: &'a Search,
    sink: &'a mut Sink<'b>,
    coverage: Coverage,
    hits: u64,
    digest: Digest,
    /// Whether `hits_max` left out hits of a record that was read.
    overflow: bool,
}

/// What all hits of a record have in common.
#[derive(Default)]
struct About {
    url: Option<String>,
    date: Option<String>,
    record_type: String,
    record_id: Option<String>,
    payload_digest: Option<String>,
    status: Option<u16>,
    mime: Option<String>,
    seam: Option<Seam>,
    length: u64,
    /// Hits so far in this record.
    hits: u64,
    /// Whether the limit on hits per record left some out.
    cut: bool,
}

impl Scan<'_, '_> {
    fn warc(mut self, object: &dyn ReadAt, gzip: bool) -> Result<Scanned, Error> {
        let range = self.range;
        let begin = match range.begin {
            Some(seam) => Some(seam),
            None if range.start == 0 => Some(Seam::at(0)),
            None if gzip => find_warc_member(object, range.size, range.start, range.end)?,
            None => find_warc_record(object, range.size, range.start, range.end)?,
        };
        let Some(begin) = begin.filter(|seam| seam.offset < range.end) else {
            let next = begin.unwrap_or(Seam::at(range.end));
            return Ok(self.done(None, next, false));
        };
        let mut records = Records::new(object, range.size, gzip, begin, range.end);
        let mut at = begin;
        loop {
            match records.next()? {
                Item::Record(record) => {
                    if self.is_full() {
                        let next = record.seam;
                        return Ok(self.finish(begin, next, true));
                    }
                    at = record.seam;
                    self.record(&record)?;
                }
                Item::Gap(gap) => {
                    if self.is_full() && gap.reason != Reason::RecordCap {
                        let next = Seam::at(gap.offset.max(at.offset));
                        return Ok(self.finish(begin, next, true));
                    }
                    self.coverage.skip(gap);
                }
                Item::End(next) => return Ok(self.finish(begin, next, false)),
            }
        }
    }

    fn is_full(&self) -> bool {
        self.range.hits_max.is_some_and(|max| self.hits >= max)
    }

    fn finish(mut self, first: Seam, next: Seam, capped: bool) -> Scanned {
        self.coverage.read = (next.offset - first.offset).saturating_sub(self.coverage.skipped_bytes());
        self.done(Some(first), next, capped)
    }

    fn done(mut self, first: Option<Seam>, next: Seam, capped: bool) -> Scanned {
        if self.overflow {
            // No byte was left out, and yet the answer is cut: a skip of no length says so.
            self.coverage.skip(Skip::new(next.offset, 0, Reason::HitsCap));
        }
        let capped = capped || self.overflow;
        Scanned { first, next, coverage: self.coverage, hits: self.hits, digest: self.digest, capped }
    }

    fn record(&mut self, record: &Record<'_>) -> Result<(), Error> {
        let head = &record.head;
        *self.coverage.records.entry(head.record_type.clone()).or_default() += 1;
        let mut about = About {
            url: head.url.clone(),
            date: head.date.clone(),
            record_type: head.record_type.clone(),
            record_id: head.record_id.clone(),
            payload_digest: head.payload_digest.clone(),
            seam: Some(record.seam),
            length: record.length,
            ..About::default()
        };
        if let Some(doubt) = &record.doubt {
            self.undecoded(&about, Layer::Raw, Layer::Raw, doubt.clone());
        }
        let is_http = head
            .content_type
            .as_deref()
            .is_some_and(|t| t.to_ascii_lowercase().starts_with("application/http"));
        let http = is_http.then(|| http::parse(record.block));
        let content_type = match &http {
            Some(http) => http.content_type.as_deref(),
            None => head.content_type.as_deref(),
        };
        about.mime = content_type.map(|t| t.split(';').next().unwrap_or(t).trim().to_ascii_lowercase());
        about.status = http.as_ref().and_then(|http| http.status);
        for layer in &self.search.layers {
            match (layer, &http) {
                (Layer::Warc, _) => self.search_layer(&mut about, *layer, record.head_bytes, 0)?,
                (Layer::Raw, _) => self.search_layer(&mut about, *layer, record.block, 0)?,
                (Layer::Body, None) => {
                    let (body, reason) = match content_type.is_none_or(http::is_text) {
                        true => http::to_utf8(Cow::Borrowed(record.block), content_type),
                        false => (Cow::Borrowed(record.block), None),
                    };
                    if let Some(reason) = reason {
                        self.undecoded(&about, *layer, Layer::Raw, reason);
                    }
                    self.search_layer(&mut about, *layer, &body, 0)?;
                }
                (Layer::Headers, Some(http)) => {
                    self.search_layer(&mut about, *layer, &record.block[..http.len], 0)?
                }
                (Layer::Headers, None) => {}
                (Layer::Body, Some(http)) => {
                    let (body, undecoded) = layer::http_body(record.block, http);
                    match undecoded {
                        None => self.search_layer(&mut about, *layer, &body, 0)?,
                        Some(undecoded) => {
                            let instead = undecoded.searched_instead;
                            self.undecoded(&about, *layer, instead, undecoded.reason);
                            // Where that layer is asked for as well, it is searched once.
                            if !self.search.layers.contains(&instead) {
                                self.search_layer(&mut about, instead, record.block, http.len)?;
                            }
                        }
                    }
                }
            }
        }
        self.note_cut(&about);
        Ok(())
    }

    /// The whole object is one record.
    fn document(mut self, object: &dyn ReadAt, gzip: bool) -> Result<Scanned, Error> {
        let size = self.range.size;
        let next = Seam::at(size);
        if self.is_full() {
            return Ok(self.done(None, Seam::at(0), true));
        }
        let (bytes, skip) = read_document(object, size, gzip)?;
        if let Some(why) = undecodable(&bytes) {
            self.coverage.skip(Skip::new(0, size, Reason::Undecodable).because(why));
            return Ok(self.done(Some(Seam::at(0)), next, false));
        }
        if is_binary(&bytes) {
            self.coverage.skip(Skip::new(0, size, Reason::Binary));
            return Ok(self.done(Some(Seam::at(0)), next, false));
        }
        *self.coverage.records.entry("resource".into()).or_default() += 1;
        let mut about = About {
            url: Some(self.range.uri.to_owned()),
            record_type: "resource".into(),
            seam: Some(Seam::at(0)),
            length: size,
            ..About::default()
        };
        for layer in &self.search.layers {
            match layer {
                Layer::Raw => self.search_layer(&mut about, *layer, &bytes, 0)?,
                Layer::Body => {
                    let (body, reason) = http::to_utf8(Cow::Borrowed(&bytes), None);
                    if let Some(reason) = reason {
                        self.undecoded(&about, *layer, Layer::Raw, reason);
                    }
                    self.search_layer(&mut about, *layer, &body, 0)?;
                }
                // A file has no record and no HTTP headers.
                Layer::Warc | Layer::Headers => {}
            }
        }
        self.note_cut(&about);
        if let Some(skip) = skip {
            self.coverage.skip(skip);
        }
        Ok(self.finish(Seam::at(0), next, false))
    }

    fn undecoded(&mut self, about: &About, layer: Layer, searched_instead: Layer, reason: String) {
        self.coverage.undecoded.push(Undecoded {
            offset: about.seam.map_or(0, |seam| seam.offset),
            length: about.length,
            record_id: about.record_id.clone(),
            layer: layer.name().into(),
            searched_instead: searched_instead.name().into(),
            reason,
        });
    }

    fn note_cut(&mut self, about: &About) {
        if about.cut {
            let max = self.search.hits_per_record.unwrap_or_default();
            let reason = format!("the record has more than {max} hits, the limit for one record");
            let layer = self.search.layers[0];
            self.undecoded(about, layer, layer, reason);
        }
    }

    /// Searches a layer from a byte on; hits count from the layer's first byte.
    fn search_layer(
        &mut self,
        about: &mut About,
        layer: Layer,
        bytes: &[u8],
        from: usize,
    ) -> Result<(), Error> {
        let search = self.search;
        for (name, regex) in &search.patterns {
            for found in regex.find_iter(&bytes[from..]) {
                if found.is_empty() {
                    continue;
                }
                if self.is_full() {
                    self.overflow = true;
                    return Ok(());
                }
                if search.hits_per_record.is_some_and(|max| about.hits >= max) {
                    about.cut = true;
                    return Ok(());
                }
                about.hits += 1;
                self.hit(about, layer, name, regex, bytes, from + found.start()..from + found.end())?;
            }
        }
        Ok(())
    }

    fn hit(
        &mut self,
        about: &About,
        layer: Layer,
        name: &str,
        regex: &Regex,
        bytes: &[u8],
        range: std::ops::Range<usize>,
    ) -> Result<(), Error> {
        let shown = &bytes[range.start..range.end.min(range.start + MATCH_BYTES_MAX)];
        let seam = about.seam.unwrap_or(Seam::at(0));
        let (before, after) = hit::context(bytes, range.start, range.end);
        let hit = Hit {
            pattern: name.to_owned(),
            url: about.url.clone(),
            date: about.date.clone(),
            record_type: about.record_type.clone(),
            record_id: about.record_id.clone(),
            status: about.status,
            mime: about.mime.clone(),
            payload_digest: about.payload_digest.clone(),
            object: self.range.uri.to_owned(),
            offset: seam.offset,
            length: about.length,
            skip: seam.skip,
            layer: layer.name().to_owned(),
            start: range.start as u64,
            end: range.end as u64,
            matched: String::from_utf8_lossy(shown).into_owned(),
            match_base64: std::str::from_utf8(shown).is_err().then(|| hit::base64(shown)),
            captures: captures(regex, bytes, range.start),
            before,
            after,
            truncated: shown.len() < range.len(),
        };
        self.digest.add_hit(hit.canonical(self.range.place, shown));
        self.hits += 1;
        (self.sink)(&hit).map_err(Error::Sink)
    }
}

fn captures(regex: &Regex, bytes: &[u8], start: usize) -> BTreeMap<String, String> {
    if regex.captures_len() == 1 {
        return BTreeMap::new();
    }
    let Some(captures) = regex.captures_at(bytes, start) else { return BTreeMap::new() };
    let groups = regex.capture_names().enumerate().skip(1);
    groups
        .filter_map(|(n, name)| {
            let group = captures.get(n)?.as_bytes();
            let shown = &group[..group.len().min(MATCH_BYTES_MAX)];
            Some((name.map_or(n.to_string(), str::to_owned), String::from_utf8_lossy(shown).into_owned()))
        })
        .collect()
}

/// A document's decoded bytes, and what of it could not be had.
fn read_document(object: &dyn ReadAt, size: u64, gzip: bool) -> Result<(Vec<u8>, Option<Skip>), Error> {
    let mut frames = if gzip { Frames::gzip(object, size, 0) } else { Frames::plain(object, size, 0) };
    let mut bytes = Vec::with_capacity(if gzip { 0 } else { (size as usize).min(RECORD_BYTES_MAX) });
    loop {
        let at = frames.offset();
        if bytes.len() >= RECORD_BYTES_MAX && at < size {
            let detail =
                format!("only the first {RECORD_BYTES_MAX} bytes of a document are searched by this version");
            return Ok((bytes, Some(Skip::new(at, size - at, Reason::RecordCap).because(detail))));
        }
        match frames.next(&mut bytes)? {
            Event::End => return Ok((bytes, None)),
            Event::Fault { fault, .. } => {
                let reason = if fault == Fault::Truncated { Reason::Truncated } else { Reason::Damaged };
                let at = frames.offset().min(size);
                return Ok((bytes, Some(Skip::new(at, size - at, reason))));
            }
            Event::Member(_) | Event::Data | Event::MemberEnd(_) => {}
        }
    }
}

/// Formats that hold documents and that this version does not open: to search their bytes would only seem
/// to search the documents.
fn undecodable(bytes: &[u8]) -> Option<&'static str> {
    const FORMATS: [(&[u8], &str); 4] = [
        (b"PAR1", "reading Parquet needs the feature `parquet`, which this build does not have"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd is not read by this version: decompress the file first"),
        (b"BZh", "bzip2 is not read by this version: decompress the file first"),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz is not read by this version: decompress the file first"),
    ];
    FORMATS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, why)| *why)
}

/// A NUL in the first 8 KiB, and no UTF-16 byte order mark.
fn is_binary(bytes: &[u8]) -> bool {
    let marked = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    !marked && memchr::memchr(0, &bytes[..bytes.len().min(8 << 10)]).is_some()
}
