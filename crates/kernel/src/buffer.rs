//! Bytes that are filled at the back and read from the front, in memory that is kept.
//!
//! A `Vec` zeroes what it grows by, each time; at a member of 25 kB that costs more than searching it.

use std::cell::RefCell;
use std::ops::Deref;

thread_local! {
    /// Memory of buffers that are no more: a scan of a shard needs a few, and the next one the same.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Spare pieces of memory that a thread keeps, and the largest of them.
const SPARE_MAX: usize = 4;
const SPARE_BYTES_MAX: usize = 4 << 20;

/// Initialised memory of which the first `len` bytes are in use.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    /// At least `n` bytes behind those in use, to be written to and then [`Buffer::commit`]ted.
    pub(crate) fn space(&mut self, n: usize) -> &mut [u8] {
        if self.bytes.len() - self.len < n {
            let grown = (self.len + n).max(self.bytes.len() + self.bytes.len() / 2);
            self.bytes.resize(grown, 0);
        }
        &mut self.bytes[self.len..]
    }

    /// Takes the first `n` bytes of the space into use.
    pub(crate) fn commit(&mut self, n: usize) {
        self.len += n;
        debug_assert!(self.len <= self.bytes.len());
    }

    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.space(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.commit(bytes.len());
    }

    /// Drops the first `n` bytes; memory beyond `keep` that is not in use is given back.
    pub(crate) fn drop_front(&mut self, n: usize, keep: usize) {
        self.bytes.copy_within(n..self.len, 0);
        self.len -= n;
        if self.bytes.len() > 2 * keep && self.len < keep {
            self.bytes.truncate(keep);
            self.bytes.shrink_to_fit();
        }
    }

    pub(crate) fn truncate(&mut self, n: usize) {
        self.len = self.len.min(n);
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }
}

impl Default for Buffer {
    fn default() -> Buffer {
        let spare = SPARE.try_with(|spare| spare.borrow_mut().pop());
        Buffer { bytes: spare.ok().flatten().unwrap_or_default(), len: 0 }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.capacity() > SPARE_BYTES_MAX {
            return;
        }
        let bytes = std::mem::take(&mut self.bytes);
        // At the thread's end there is nothing to keep it in.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push(bytes);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
