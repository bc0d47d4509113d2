//! The scan of one range of one object: records in, hits to a sink, coverage and seams out.

use crate::charset::{self, Charset};
use crate::coverage::{Coverage, Reason, Skip, Undecoded};
use crate::hit::{self, Hit, MATCH_BYTES_MAX, Stored};
use crate::http::{self, Codings};
use crate::kind::{Codec, Format};
use crate::object::Slice;
use crate::records::{self, Framing, Head, Item, Record, Records};
use crate::search::{Asks, Search};
use crate::{Error, Kind, Layer, ReadAt, Seam, html, verify, wacz};
use std::borrow::Cow;
use std::ops::ControlFlow;

/// What is to be scanned.
#[derive(Debug, Clone, Copy)]
pub struct Range<'a> {
    /// The object's URI, for the hits.
    pub uri: &'a str,
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

/// Takes what a scan finds.
pub trait Sink {
    /// Takes a hit.
    ///
    /// # Errors
    /// What ends the scan, as [`Error::Sink`].
    fn hit(&mut self, hit: &Hit<'_>) -> std::io::Result<()>;

    /// Whether it wants to see hits, and not only their number.
    fn wants_hits(&self) -> bool {
        true
    }

    /// Whether it wants to see every record.
    fn lists_records(&self) -> bool {
        false
    }

    /// Takes a record that was read, before it is searched.
    ///
    /// # Errors
    /// As [`Sink::hit`].
    fn record(&mut self, _entry: &Entry<'_>) -> std::io::Result<()> {
        Ok(())
    }
}

impl<F: FnMut(&Hit<'_>) -> std::io::Result<()>> Sink for F {
    fn hit(&mut self, hit: &Hit<'_>) -> std::io::Result<()> {
        self(hit)
    }
}

/// A record as a list shows it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Entry<'a> {
    /// The object's URI.
    pub object: &'a str,
    /// Where it is stored.
    #[serde(flatten)]
    pub stored: Stored,
    /// `response`, `request`, …
    pub record_type: Cow<'a, str>,
    /// The record's id, where it has one.
    pub record_id: Option<Cow<'a, str>>,
    /// The record's URL, where it has one.
    pub url: Option<Cow<'a, str>>,
    /// The record's date as the archive states it.
    pub date: Option<Cow<'a, str>>,
    /// The record's Content-Length as read; of what has none, its bytes.
    pub payload_length: Option<u64>,
}

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
    sink: &mut dyn Sink,
) -> Result<Scanned, Error> {
    let scan = Scan {
        range,
        search,
        sink,
        coverage: Coverage::default(),
        hits: 0,
        overflow: false,
        filtered: None,
        failed: None,
        codings: Codings::default(),
        asks: Asks::default(),
    };
    match kind.format {
        Format::Warc => scan.archive(object, kind.codec, Framing::Warc),
        Format::Arc => scan.archive(object, kind.codec, Framing::Arc),
        Format::Wacz => scan.wacz(object),
        Format::JsonLines => scan.json_lines(object, kind.codec),
        #[cfg(feature = "parquet")]
        Format::Parquet => scan.parquet(object),
        #[cfg(not(feature = "parquet"))]
        Format::Parquet => scan.undecodable(
            "reading Parquet needs the feature `parquet`, which this build does not have".into(),
        ),
        Format::Document => scan.document(object, kind.codec),
    }
}

pub(crate) struct Scan<'a> {
    pub(crate) range: &'a Range<'a>,
    pub(crate) search: &'a Search,
    sink: &'a mut dyn Sink,
    pub(crate) coverage: Coverage,
    pub(crate) hits: u64,
    /// Whether `hits_max` left out hits of a record that was read.
    overflow: bool,
    /// What the filter left out: the first one's offset, all their stored bytes and their number.
    filtered: Option<(u64, u64, u64)>,
    /// Why the sink ended the scan.
    failed: Option<std::io::Error>,
    codings: Codings,
    asks: Asks,
}

/// What all hits of a record have in common.
pub(crate) struct About<'r> {
    pub(crate) head: &'r Head<'r>,
    pub(crate) record_type: Cow<'r, str>,
    pub(crate) content_type: Option<&'r [u8]>,
    pub(crate) status: Option<u16>,
    pub(crate) stored: Stored,
    /// The field that is searched as its body.
    pub(crate) field: Option<&'r str>,
    /// Hits so far in this record.
    hits: u64,
    /// Whether the limit on hits per record left some out.
    cut: bool,
}

impl<'r> About<'r> {
    pub(crate) fn new(head: &'r Head<'r>, stored: Stored) -> About<'r> {
        let record_type = match head.record_type.as_deref().unwrap_or_default() {
            lower if !lower.iter().any(u8::is_ascii_uppercase) => String::from_utf8_lossy(lower),
            mixed => Cow::Owned(String::from_utf8_lossy(mixed).to_ascii_lowercase()),
        };
        let content_type = head.content_type.as_deref();
        About { head, record_type, content_type, status: None, stored, field: None, hits: 0, cut: false }
    }

    /// The media type without its parameters.
    fn mime(&self) -> Option<&[u8]> {
        let value = self.content_type?;
        Some(value[..memchr::memchr(b';', value).unwrap_or(value.len())].trim_ascii())
    }
}

fn lossy<'a>(value: &'a Option<Cow<'_, [u8]>>) -> Option<Cow<'a, str>> {
    value.as_deref().map(String::from_utf8_lossy)
}

/// Where a range of an archive ended.
enum Ended {
    /// At a record that somebody else has.
    Before(Seam),
    /// At the archive's end.
    Through,
    /// At the limit on hits.
    Full(Seam),
}

impl Scan<'_> {
    /// An object that is one archive.
    fn archive(mut self, object: &dyn ReadAt, codec: Codec, framing: Framing) -> Result<Scanned, Error> {
        let Range { size, start, end, begin, .. } = *self.range;
        let begin = match begin {
            Some(seam) => Some(seam),
            None if start == 0 => Some(Seam::at(0)),
            None => records::find(object, size, codec, framing, start, end)?,
        };
        let Some(begin) = begin.filter(|seam| seam.offset < end) else {
            return Ok(self.none_begins(begin));
        };
        match self.records(object, size, codec, framing, begin, 0)? {
            Ended::Before(next) => Ok(self.finish(begin, next, false)),
            Ended::Through => {
                if begin == Seam::at(0)
                    && self.filtered.is_none()
                    && self.coverage.records.is_empty()
                    && self.coverage.skipped.is_empty()
                {
                    let skip = Skip::new(0, 0, Reason::NotADocument).because("the archive holds no record");
                    self.coverage.skip(skip);
                }
                Ok(self.finish(begin, Seam::at(size), false))
            }
            Ended::Full(next) => Ok(self.finish(begin, next, true)),
        }
    }

    /// The WARC files in a zip archive, each where it is.
    fn wacz(mut self, object: &dyn ReadAt) -> Result<Scanned, Error> {
        let Range { size, start, end, begin, .. } = *self.range;
        let parts = match wacz::parts(object, size)? {
            Ok(parts) => parts,
            Err(why) => return self.undecodable(why),
        };
        let begin = match begin {
            Some(seam) => Some(seam),
            None if start == 0 => Some(Seam::at(0)),
            None => wacz::find(object, &parts, start, end)?,
        };
        let Some(begin) = begin.filter(|seam| seam.offset < end) else {
            return Ok(self.none_begins(begin));
        };
        let mut at = begin;
        for part in parts.iter().filter(|part| part.end() > begin.offset) {
            if part.start > at.offset {
                self.coverage.skip(Skip::new(at.offset, part.start - at.offset, Reason::NotADocument));
                at = Seam::at(part.start);
            }
            if at.offset >= end {
                return Ok(self.finish(begin, at, false));
            }
            let Some((framing, codec)) = part.archive else {
                let skip = Skip::new(part.start, part.len, Reason::Undecodable);
                self.coverage.skip(skip.because(format!("`{}` {}", part.name, part.why)));
                at = Seam::at(part.end());
                continue;
            };
            let inner = Slice { object, start: part.start };
            let from = Seam { offset: at.offset - part.start, skip: at.skip };
            let shifted = |seam: Seam| Seam { offset: seam.offset + part.start, skip: seam.skip };
            match self.records(&inner, part.len, codec, framing, from, part.start)? {
                Ended::Before(next) => return Ok(self.finish(begin, shifted(next), false)),
                Ended::Full(next) => return Ok(self.finish(begin, shifted(next), true)),
                Ended::Through => at = Seam::at(part.end()),
            }
        }
        self.coverage.skip(Skip::new(at.offset, size - at.offset, Reason::NotADocument));
        Ok(self.finish(begin, Seam::at(size), false))
    }

    /// The records of an archive that stands `base` bytes into the object; seams are the archive's.
    fn records(
        &mut self,
        archive: &dyn ReadAt,
        size: u64,
        codec: Codec,
        framing: Framing,
        begin: Seam,
        base: u64,
    ) -> Result<Ended, Error> {
        let end = (self.range.end - base).min(size);
        let mut records = Records::new(archive, size, codec, framing, begin, end);
        let mut at = begin;
        loop {
            match records.next()? {
                Item::Record(record) => {
                    if self.is_full() {
                        return Ok(Ended::Full(record.seam));
                    }
                    at = record.seam;
                    self.record(&record, base)?;
                }
                Item::Gap(gap) => {
                    if self.is_full() && gap.reason != Reason::RecordCap {
                        return Ok(Ended::Full(Seam::at(gap.offset.max(at.offset))));
                    }
                    self.coverage.skip(Skip { offset: gap.offset + base, ..gap });
                }
                Item::End(next) if next.offset >= size => return Ok(Ended::Through),
                Item::End(next) => return Ok(Ended::Before(next)),
            }
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.range.hits_max.is_some_and(|max| self.hits >= max)
    }

    /// No record begins in the range; the next one, where it is known, begins behind it.
    pub(crate) fn none_begins(self, next: Option<Seam>) -> Scanned {
        let next = next.unwrap_or(Seam::at(self.range.end));
        self.done(None, next, false)
    }

    /// The object's bytes hold documents that can't be had: to search them would only seem to search those.
    pub(crate) fn undecodable(mut self, why: String) -> Result<Scanned, Error> {
        let Range { size, start, begin, .. } = *self.range;
        if start > 0 && begin.is_none() {
            return Ok(self.none_begins(None));
        }
        self.coverage.skip(Skip::new(0, size, Reason::Undecodable).because(why));
        Ok(self.done(Some(Seam::at(0)), Seam::at(size), false))
    }

    pub(crate) fn finish(mut self, first: Seam, next: Seam, capped: bool) -> Scanned {
        if let Some((offset, length, records)) = self.filtered.take() {
            let skip = Skip::new(offset, length, Reason::Filtered);
            self.coverage.skip(skip.because(format!("{records} records, the first of them here")));
        }
        self.coverage.read = (next.offset - first.offset).saturating_sub(self.coverage.skipped_bytes());
        self.done(Some(first), next, capped)
    }

    pub(crate) fn done(mut self, first: Option<Seam>, next: Seam, capped: bool) -> Scanned {
        if self.overflow {
            // No byte was left out, and yet the answer is cut: a skip of no length says so.
            self.coverage.skip(Skip::new(next.offset, 0, Reason::HitsCap));
        }
        let capped = capped || self.overflow;
        Scanned { first, next, coverage: self.coverage, hits: self.hits, capped }
    }

    /// Counts a record that the filter leaves out, by the stored bytes that hold nothing else.
    pub(crate) fn leave_out(&mut self, offset: u64, length: u64) {
        let (_, bytes, records) = self.filtered.get_or_insert((offset, 0, 0));
        *bytes += length;
        *records += 1;
    }

    /// Whether bytes in which ASCII stands for itself may hold a match.
    pub(crate) fn may_match(&mut self, bytes: &[u8]) -> bool {
        let mut asks = std::mem::take(&mut self.asks);
        let may_match = self.search.may_match(bytes, &mut asks);
        self.asks = asks;
        may_match
    }

    /// Whether the sink wants to see every record.
    pub(crate) fn lists_records(&self) -> bool {
        self.sink.lists_records()
    }

    /// Counts a record and shows it to the sink.
    pub(crate) fn count(&mut self, about: &About<'_>, payload_length: Option<u64>) -> Result<(), Error> {
        match self.coverage.records.get_mut(&*about.record_type) {
            Some(n) => *n += 1,
            None => _ = self.coverage.records.insert(about.record_type.clone().into_owned(), 1),
        }
        if !self.sink.lists_records() {
            return Ok(());
        }
        let entry = Entry {
            object: self.range.uri,
            stored: about.stored,
            record_type: Cow::Borrowed(&about.record_type),
            record_id: lossy(&about.head.record_id),
            url: lossy(&about.head.url),
            date: lossy(&about.head.date),
            payload_length,
        };
        self.sink.record(&entry).map_err(Error::Sink)
    }

    /// A record of an archive.
    fn record(&mut self, record: &Record<'_>, base: u64) -> Result<(), Error> {
        let (head, block) = (&record.parse(), record.block);
        let Seam { offset, skip } = record.seam;
        let stored = Stored::Bytes { offset: offset + base, length: record.length, skip };
        let mut about = About::new(head, stored);
        let is_http = about.mime().is_some_and(|mime| mime.eq_ignore_ascii_case(b"application/http"));
        let begins = is_http && http::begins(block, about.record_type == "request");
        let http = begins.then(|| http::parse(block));
        if is_http {
            about.content_type = http.as_ref().and_then(|http| http.content_type.as_deref());
            about.status = http.as_ref().and_then(|http| http.status);
        }
        if !self.search.filter.takes(head, about.mime(), about.status) {
            self.leave_out(offset + base, if record.alone { record.length } else { 0 });
            return Ok(());
        }
        self.count(&about, head.content_length)?;
        if let Some(doubt) = &record.doubt {
            self.undecoded(&about, Layer::Raw, Layer::Raw, doubt.clone());
        }
        if head.is_segment {
            let reason = "a segment of a record: a match over its border is not seen";
            let layer = self.search.layers[0];
            self.undecoded(&about, layer, layer, reason.into());
        }
        if self.search.verify {
            for differs in verify::differences(record.head, head, block, http.as_ref()) {
                self.undecoded(&about, Layer::Raw, Layer::Raw, differs);
            }
        }
        let search = self.search;
        let asked = |layer: Layer| search.layers.contains(&layer);
        if asked(Layer::Warc) {
            self.search_layer(&mut about, Layer::Warc, record.head, 0)?;
        }
        if asked(Layer::Raw) {
            self.search_layer(&mut about, Layer::Raw, block, 0)?;
        }
        if asked(Layer::Headers)
            && let Some(http) = &http
        {
            self.search_layer(&mut about, Layer::Headers, &block[..http.len], 0)?;
        }
        if asked(Layer::Body) || asked(Layer::Text) {
            match &http {
                Some(http) => self.http_body(&mut about, block, http)?,
                None => self.page(&mut about, Cow::Borrowed(block))?,
            }
        }
        self.note_cut(&about);
        Ok(())
    }

    fn http_body(&mut self, about: &mut About<'_>, block: &[u8], http: &http::Head<'_>) -> Result<(), Error> {
        match self.codings.body(block, http) {
            Ok(body) => self.page(about, body),
            Err(broken) if broken.so_far.is_empty() => {
                self.page_undecoded(about, Layer::Raw, &broken.reason);
                // Where that layer is asked for as well, it is searched once.
                if !self.search.layers.contains(&Layer::Raw) {
                    self.search_layer(about, Layer::Raw, block, http.len)?;
                }
                Ok(())
            }
            Err(broken) => {
                let reason = format!("{}: what came before is searched", broken.reason);
                self.page_undecoded(about, Layer::Body, &reason);
                self.page(about, Cow::Owned(broken.so_far))
            }
        }
    }

    /// The layers of a body whose codings are undone.
    pub(crate) fn page(&mut self, about: &mut About<'_>, body: Cow<'_, [u8]>) -> Result<(), Error> {
        let asked = |layer: Layer| self.search.layers.contains(&layer);
        let (wants_body, wants_text) = (asked(Layer::Body), asked(Layer::Text));
        let mut body = body;
        if about.content_type.is_none_or(charset::is_text) {
            let charset = Charset::of(&body, about.content_type);
            let is_utf8 = charset == Charset::Named(encoding_rs::UTF_8);
            // What is not there in ASCII need not be decoded; text may bring together what tags hold apart.
            if !is_utf8 && !wants_text && charset.keeps_ascii() && !self.may_match(&body) {
                return Ok(());
            }
            let (decoded, reason) = charset.to_utf8(body);
            body = decoded;
            if let Some(reason) = reason {
                self.page_undecoded(about, Layer::Raw, &reason);
            }
        }
        if wants_body {
            self.search_layer(about, Layer::Body, &body, 0)?;
        }
        if wants_text {
            match is_html(about.mime(), &body) {
                true => self.search_layer(about, Layer::Text, &html::to_text(&body), 0)?,
                false => self.search_layer(about, Layer::Text, &body, 0)?,
            }
        }
        Ok(())
    }

    /// Names the layers that are made of the body, where that can't be had as asked for.
    fn page_undecoded(&mut self, about: &About<'_>, searched_instead: Layer, reason: &str) {
        for layer in [Layer::Body, Layer::Text] {
            if self.search.layers.contains(&layer) {
                self.undecoded(about, layer, searched_instead, reason.to_owned());
            }
        }
    }

    pub(crate) fn undecoded(
        &mut self,
        about: &About<'_>,
        layer: Layer,
        searched_instead: Layer,
        reason: String,
    ) {
        self.coverage.undecoded.push(Undecoded {
            offset: about.stored.offset(),
            length: about.stored.length(),
            record_id: lossy(&about.head.record_id).map(Cow::into_owned),
            layer: layer.name().into(),
            searched_instead: searched_instead.name().into(),
            reason,
        });
    }

    pub(crate) fn note_cut(&mut self, about: &About<'_>) {
        if about.cut {
            let max = self.search.hits_per_record.unwrap_or_default();
            let layer = self.search.layers[0];
            self.undecoded(about, layer, layer, Undecoded::more_hits_than(max));
        }
    }

    /// Searches a layer from a byte on; hits count from the layer's first byte.
    pub(crate) fn search_layer(
        &mut self,
        about: &mut About<'_>,
        layer: Layer,
        bytes: &[u8],
        from: usize,
    ) -> Result<(), Error> {
        let search = self.search;
        let wants_hits = self.sink.wants_hits();
        let mut asks = std::mem::take(&mut self.asks);
        let _ = search.each(&bytes[from..], &mut asks, &mut |pattern, found| {
            if self.is_full() {
                self.overflow = true;
                return ControlFlow::Break(());
            }
            if search.hits_per_record.is_some_and(|max| about.hits >= max) {
                about.cut = true;
                return ControlFlow::Break(());
            }
            about.hits += 1;
            self.hits += 1;
            if !wants_hits {
                return ControlFlow::Continue(());
            }
            self.hit(about, layer, pattern, &bytes[from..], found, from)
        });
        self.asks = asks;
        self.failed.take().map_or(Ok(()), |e| Err(Error::Sink(e)))
    }

    fn hit(
        &mut self,
        about: &About<'_>,
        layer: Layer,
        pattern: usize,
        bytes: &[u8],
        found: std::ops::Range<usize>,
        from: usize,
    ) -> ControlFlow<()> {
        let shown = &bytes[found.start..found.end.min(found.start + MATCH_BYTES_MAX)];
        let (before, after) = hit::context(bytes, found.start, found.end);
        let matched = String::from_utf8_lossy(shown);
        let captures = self.search.captures(pattern, bytes, found.start);
        let hit = Hit {
            pattern: Cow::Borrowed(self.search.name(pattern)),
            url: lossy(&about.head.url),
            date: lossy(&about.head.date),
            record_type: Cow::Borrowed(&about.record_type),
            record_id: lossy(&about.head.record_id),
            status: about.status,
            mime: about.mime().map(|mime| match mime.iter().any(u8::is_ascii_uppercase) {
                true => Cow::Owned(String::from_utf8_lossy(mime).to_ascii_lowercase()),
                false => String::from_utf8_lossy(mime),
            }),
            payload_digest: lossy(&about.head.payload_digest),
            object: Cow::Borrowed(self.range.uri),
            stored: about.stored,
            layer: Cow::Borrowed(layer.name()),
            field: about.field.map(Cow::Borrowed),
            start: (from + found.start) as u64,
            end: (from + found.end) as u64,
            match_base64: matches!(matched, Cow::Owned(_)).then(|| hit::base64(shown)),
            matched,
            captures: captures
                .into_iter()
                .map(|(name, group)| {
                    (name, String::from_utf8_lossy(&group[..group.len().min(MATCH_BYTES_MAX)]))
                })
                .collect(),
            before,
            after,
            truncated: shown.len() < found.len(),
            around: bytes,
            at: found,
        };
        match self.sink.hit(&hit) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                self.failed = Some(e);
                ControlFlow::Break(())
            }
        }
    }
}

/// Whether a body is HTML: by its media type, or where it has none by how it begins.
fn is_html(mime: Option<&[u8]>, body: &[u8]) -> bool {
    let Some(mime) = mime else {
        let start = body.trim_ascii_start();
        return start.first() == Some(&b'<');
    };
    let mime = mime.to_ascii_lowercase();
    memchr::memmem::find(&mime, b"html").is_some()
}
