//! An object: stored bytes that can be read at any offset.

use crate::Error;
use crate::buffer::Buffer;

/// Random access to an object's stored bytes.
pub trait ReadAt {
    /// Reads up to `buf.len()` bytes at `offset`; 0 at or past the end.
    ///
    /// # Errors
    /// Whatever the storage reports: the caller may try again.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize>;

    /// All of the object, where it is in memory anyway.
    fn in_memory(&self) -> Option<&[u8]> {
        None
    }
}

impl ReadAt for std::fs::File {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buf, offset)
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        let rest = self.get(offset.min(self.len() as u64) as usize..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn in_memory(&self) -> Option<&[u8]> {
        Some(self)
    }
}

/// A part of an object as an object of its own: offsets count from where it begins.
pub(crate) struct Slice<'a> {
    pub(crate) object: &'a dyn ReadAt,
    pub(crate) start: u64,
}

impl ReadAt for Slice<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        self.object.read_at(self.start + offset, buf)
    }
}

/// Fills as much of `buf` as the object has from `offset` on, and says how much that is.
pub(crate) fn read_full(object: &dyn ReadAt, offset: u64, buf: &mut [u8]) -> Result<usize, Error> {
    let mut n = 0;
    while n < buf.len() {
        let at = offset + n as u64;
        match object.read_at(at, &mut buf[n..]).map_err(|source| Error::Read { offset: at, source })? {
            0 => break,
            more => n += more,
        }
    }
    Ok(n)
}

/// A window on an object's stored bytes that moves forward, so that memory does not grow with the object.
pub(crate) struct Window<'a> {
    object: &'a dyn ReadAt,
    size: u64,
    buf: Buffer,
    base: u64,
    start: usize,
    /// How much is read next: little at first, as many a window is opened for a guess.
    chunk: usize,
}

/// How much is read at once, at most.
const READ_BYTES: usize = 512 << 10;
/// How much is read at first.
const CHUNK_BYTES: usize = READ_BYTES / 32;

impl<'a> Window<'a> {
    pub(crate) fn new(object: &'a dyn ReadAt, size: u64, offset: u64) -> Window<'a> {
        Window {
            object,
            size,
            buf: Buffer::at_most(2 * READ_BYTES),
            base: offset,
            start: 0,
            chunk: CHUNK_BYTES,
        }
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

    /// Whether the object ends where the bytes at hand do.
    pub(crate) fn is_at_end(&self) -> bool {
        self.base + self.buf.len() as u64 >= self.size
    }

    pub(crate) fn advance(&mut self, n: usize) {
        self.start += n;
        debug_assert!(self.start <= self.buf.len());
    }

    /// Passes over stored bytes; false where the object ends before.
    pub(crate) fn pass_over(&mut self, n: u64) -> Result<bool, Error> {
        let to = self.offset() + n;
        self.seek(to.min(self.size));
        Ok(to <= self.size)
    }

    /// Moves to `offset`, keeping what is at hand where it can.
    pub(crate) fn seek(&mut self, offset: u64) {
        if offset >= self.base && offset <= self.base + self.buf.len() as u64 {
            self.start = (offset - self.base) as usize;
        } else {
            self.buf.clear();
            self.base = offset;
            self.start = 0;
            self.chunk = CHUNK_BYTES;
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
        // Also where nothing is dropped: in memory that was used before, the first read is aligned too.
        if self.start > 0 || self.buf.is_empty() {
            self.buf.drop_front(self.start, READ_BYTES);
            self.base += self.start as u64;
            self.start = 0;
        }
        let n = self.object.read_at(at, &mut self.buf.space(want)[..want]);
        let n = n.map_err(|source| Error::Read { offset: at, source })?;
        if n == 0 {
            return Err(Error::Shrunk { end: at, size: self.size });
        }
        self.buf.commit(n);
        Ok(true)
    }
}
