//! Bytes that are filled at the back and read from the front, in memory that is kept.
//!
//! A `Vec` zeroes what it grows by, each time; at a member of 25 kB that costs more than searching it. And its
//! memory begins where the allocator likes, mostly 16 bytes into a page: a kernel that copies a file there
//! with one string instruction takes twice as long as it takes to a cache line's start.

use std::cell::RefCell;
use std::ops::Deref;

thread_local! {
    /// Memory of buffers that are no more: a scan of a shard needs a few, and the next one the same.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Spare pieces of memory that a thread keeps, and the largest of them.
const SPARE_MAX: usize = 8;
const SPARE_BYTES_MAX: usize = 4 << 20;

/// The most that a buffer grows by beyond what is asked for: a large record is not to take twice what it has.
const STEP_BYTES_MAX: usize = 32 << 20;

/// A cache line, in bytes.
const LINE_BYTES: usize = 64;

/// Room for `n` bytes in `memory`, from a cache line's start on: what is read into it is read quickly.
pub fn aligned(memory: &mut Vec<u8>, n: usize) -> &mut [u8] {
    if memory.len() < n + LINE_BYTES {
        memory.resize(n + LINE_BYTES, 0);
    }
    let at = memory.as_ptr().align_offset(LINE_BYTES);
    &mut memory[at..at + n]
}

/// Initialised memory of which `len` bytes from `from` on are in use.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    from: usize,
    len: usize,
}

impl Buffer {
    /// At least `n` bytes behind those in use, to be written to and then [`Buffer::commit`]ted.
    pub(crate) fn space(&mut self, n: usize) -> &mut [u8] {
        let end = self.from + self.len;
        if self.bytes.len() - end < n {
            let grown = (end + n).max(self.bytes.len() + (self.bytes.len() / 2).min(STEP_BYTES_MAX));
            self.bytes.reserve_exact(grown - self.bytes.len());
            self.bytes.resize(grown, 0);
        }
        &mut self.bytes[end..]
    }

    /// Takes the first `n` bytes of the space into use.
    pub(crate) fn commit(&mut self, n: usize) {
        self.len += n;
        debug_assert!(self.from + self.len <= self.bytes.len());
    }

    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.space(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.commit(bytes.len());
    }

    /// Drops the first `n` bytes, and moves the others so that the space behind them begins with a cache
    /// line; memory beyond `keep` that is not in use is given back.
    pub(crate) fn drop_front(&mut self, n: usize, keep: usize) {
        let kept = self.from + n..self.from + self.len;
        self.len -= n;
        self.from = 0;
        if self.bytes.len() > 2 * keep && self.len < keep {
            self.bytes.copy_within(kept, 0);
            self.bytes.truncate(keep);
            self.bytes.shrink_to_fit();
            return;
        }
        let end = self.bytes.as_ptr().align_offset(LINE_BYTES) + self.len.next_multiple_of(LINE_BYTES);
        if end <= self.bytes.len() {
            self.from = end - self.len;
        }
        self.bytes.copy_within(kept, self.from);
    }

    pub(crate) fn truncate(&mut self, n: usize) {
        self.len = self.len.min(n);
    }

    pub(crate) fn clear(&mut self) {
        self.from = 0;
        self.len = 0;
    }
}

impl Buffer {
    /// A buffer that never has much more than `most` bytes: it leaves the larger spare pieces to others.
    pub(crate) fn at_most(most: usize) -> Buffer {
        Buffer::spare(|bytes| bytes.len() <= most)
    }

    /// The largest spare piece that `suits`.
    fn spare(suits: impl Fn(&Vec<u8>) -> bool) -> Buffer {
        let take = |spare: &RefCell<Vec<Vec<u8>>>| {
            let mut spare = spare.borrow_mut();
            let largest = (0..spare.len()).filter(|n| suits(&spare[*n])).max_by_key(|n| spare[*n].len())?;
            Some(spare.swap_remove(largest))
        };
        let bytes = SPARE.try_with(take).ok().flatten().unwrap_or_default();
        Buffer { bytes, from: 0, len: 0 }
    }
}

impl Default for Buffer {
    fn default() -> Buffer {
        Buffer::spare(|_| true)
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
        &self.bytes[self.from..self.from + self.len]
    }
}
