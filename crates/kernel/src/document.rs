//! An object that is one document: text, HTML or anything else.

use crate::buffer::Buffer;
use crate::coverage::{Reason, Skip};
use crate::frames::{Event, Fault, Frames};
use crate::hit::Stored;
use crate::kind::Codec;
use crate::records::Head;
use crate::scan::{About, Scan, Scanned};
use crate::{Error, Layer, RECORD_BYTES_MAX, Range, ReadAt, Seam};
use std::borrow::Cow;

impl Scan<'_> {
    /// The whole object is one record, and belongs to the range that holds its first byte.
    pub(crate) fn document(mut self, object: &dyn ReadAt, codec: Codec) -> Result<Scanned, Error> {
        let Range { uri, size, start, begin, .. } = *self.range;
        let next = Seam::at(size);
        if start > 0 && begin.is_none() {
            return Ok(self.none_begins(None));
        }
        if self.is_full() {
            return Ok(self.done(None, Seam::at(0), true));
        }
        let (bytes, skip) = match object.in_memory() {
            Some(all) if codec == Codec::Plain && size <= RECORD_BYTES_MAX as u64 => {
                (Decoded::At(&all[..all.len().min(size as usize)]), None)
            }
            _ => {
                let (bytes, skip) = read(object, size, codec)?;
                (Decoded::Here(bytes), skip)
            }
        };
        if is_binary(&bytes) {
            self.coverage.skip(Skip::new(0, size, Reason::Binary));
            return Ok(self.done(Some(Seam::at(0)), next, false));
        }
        let head = Head {
            record_type: Some(Cow::Borrowed(b"resource")),
            url: Some(Cow::Borrowed(uri.as_bytes())),
            ..Head::default()
        };
        let mut about = About::new(&head, Stored::Bytes { offset: 0, length: size, skip: 0 });
        if !self.search.filter.takes(&head, None, None) {
            self.coverage.skip(Skip::new(0, size, Reason::Filtered));
            return Ok(self.done(Some(Seam::at(0)), next, false));
        }
        self.count(&about, Some(bytes.len() as u64))?;
        // A file has no record and no HTTP headers.
        if self.search.layers.contains(&Layer::Raw) {
            self.search_layer(&mut about, Layer::Raw, &bytes, 0)?;
        }
        if self.search.layers.contains(&Layer::Body) || self.search.layers.contains(&Layer::Text) {
            self.page(&mut about, Cow::Borrowed(&bytes))?;
        }
        self.note_cut(&about);
        if let Some(skip) = skip {
            self.coverage.skip(skip);
        }
        Ok(self.finish(Seam::at(0), next, false))
    }
}

/// A document's bytes, where they are or decoded.
enum Decoded<'a> {
    At(&'a [u8]),
    Here(Buffer),
}

impl std::ops::Deref for Decoded<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Decoded::At(bytes) => bytes,
            Decoded::Here(buffer) => buffer,
        }
    }
}

/// A document's decoded bytes, and what of it could not be had.
fn read(object: &dyn ReadAt, size: u64, codec: Codec) -> Result<(Buffer, Option<Skip>), Error> {
    let mut frames = Frames::new(object, size, codec, 0);
    let mut bytes = Buffer::default();
    loop {
        let at = frames.offset();
        if bytes.len() >= RECORD_BYTES_MAX && at < size {
            bytes.truncate(RECORD_BYTES_MAX);
            let detail = format!("only the first {RECORD_BYTES_MAX} bytes of a document are searched");
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

/// A NUL in the first 8 KiB, and no UTF-16 byte order mark.
fn is_binary(bytes: &[u8]) -> bool {
    let marked = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    !marked && memchr::memchr(0, &bytes[..bytes.len().min(8 << 10)]).is_some()
}
