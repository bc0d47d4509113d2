//! An object: stored bytes that can be read at any offset, and what kind of document they are.

use crate::{Error, gzip};
use serde::{Deserialize, Serialize};

/// Random access to an object's stored bytes.
pub trait ReadAt {
    /// Reads up to `buf.len()` bytes at `offset`; 0 at or past the end.
    ///
    /// # Errors
    /// Whatever the storage reports: the caller may try again.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize>;
}

impl ReadAt for std::fs::File {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buf, offset)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        let rest = self.get(offset.min(self.len() as u64) as usize..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
}

/// What an object is, found by its first bytes and not by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// WARC records in gzip members (ISO 28500 annex D), as crawlers write them.
    WarcGzip,
    /// WARC records as they are.
    Warc,
    /// Text, HTML or anything else: the object is one document.
    Document,
    /// One document, compressed by gzip.
    DocumentGzip,
}

impl Kind {
    /// Looks at the first bytes of an object.
    ///
    /// # Errors
    /// [`Error::Read`] when they can't be read.
    pub fn of(object: &dyn ReadAt) -> Result<Kind, Error> {
        let mut head = vec![0; 4096];
        let n = object.read_at(0, &mut head).map_err(|source| Error::Read { offset: 0, source })?;
        let head = &head[..n];
        let kind = if gzip::looks_like_member(head) {
            if is_warc(&gzip::first_bytes(head)) { Kind::WarcGzip } else { Kind::DocumentGzip }
        } else if is_warc(head) {
            Kind::Warc
        } else {
            Kind::Document
        };
        Ok(kind)
    }

    /// Whether a byte range of the object can be searched without what comes before it.
    pub fn splits(self) -> bool {
        matches!(self, Kind::WarcGzip | Kind::Warc)
    }
}

fn is_warc(bytes: &[u8]) -> bool {
    let start = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(0);
    bytes[start..].starts_with(b"WARC/")
}

/// A window on an object's stored bytes that moves forward, so that memory does not grow with the object.
pub(crate) struct Window<'a> {
    object: &'a dyn ReadAt,
    size: u64,
    buf: Vec<u8>,
    base: u64,
    start: usize,
    /// How much is read next: little at first, as many a window is opened for a guess.
    chunk: usize,
}

/// How much is read at once, at most.
const READ_BYTES: usize = 512 << 10;

impl<'a> Window<'a> {
    pub(crate) fn new(object: &'a dyn ReadAt, size: u64, offset: u64) -> Window<'a> {
        Window { object, size, buf: Vec::new(), base: offset, start: 0, chunk: READ_BYTES / 32 }
    }

    /// The stored offset of the next byte.
    pub(crate) fn offset(&self) -> u64 {
        self.base + self.start as u64
    }

    /// The bytes at hand from [`Window::offset`] on: at least `n`, or all that the object still has.
    pub(crate) fn peek(&mut self, n: usize) -> Result<&[u8], Error> {
        while self.buf.len() - self.start < n {
            if !self.fill()? {
                break;
            }
        }
        Ok(&self.buf[self.start..])
    }

    pub(crate) fn advance(&mut self, n: usize) {
        self.start += n;
        debug_assert!(self.start <= self.buf.len());
    }

    /// Moves to `offset`, keeping what is at hand where it can.
    pub(crate) fn seek(&mut self, offset: u64) {
        if offset >= self.base && offset <= self.base + self.buf.len() as u64 {
            self.start = (offset - self.base) as usize;
        } else {
            self.buf.clear();
            self.base = offset;
            self.start = 0;
        }
    }

    fn fill(&mut self) -> Result<bool, Error> {
        let at = self.base + self.buf.len() as u64;
        if at >= self.size {
            return Ok(false);
        }
        // The plan's size is the object's end, whatever was appended to it since.
        let want = (self.size - at).min(self.chunk as u64) as usize;
        self.chunk = (self.chunk * 2).min(READ_BYTES);
        if self.start > 0 {
            self.buf.drain(..self.start);
            self.base += self.start as u64;
            self.start = 0;
        }
        let old = self.buf.len();
        self.buf.resize(old + want, 0);
        let n = match self.object.read_at(at, &mut self.buf[old..]) {
            Ok(n) => n,
            Err(source) => {
                self.buf.truncate(old);
                return Err(Error::Read { offset: at, source });
            }
        };
        self.buf.truncate(old + n);
        if n == 0 {
            return Err(Error::Shrunk { end: at, size: self.size });
        }
        Ok(true)
    }
}
