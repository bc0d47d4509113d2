//! From decoded bytes to WARC records, each with where it is stored; damage comes out as gaps.
//!
//! In gzip, a member's border is stronger than a record's Content-Length: where the two disagree the border
//! decides and only that record is in doubt. In a plain file there is no border, so what follows a wrong
//! length is found again by its look, and what lies between is a gap.

use crate::coverage::{Reason, Skip};
use crate::frames::{Event, Frames, find_warc_member};
use crate::gzip::Fault;
use crate::object::{ReadAt, Window};
use crate::{Error, RECORD_BYTES_MAX, Seam, warc};
use std::collections::VecDeque;

/// A record, its bytes borrowed from the reader.
pub(crate) struct Record<'a> {
    pub(crate) seam: Seam,
    /// Stored bytes from the seam's offset that hold all of the record.
    pub(crate) length: u64,
    pub(crate) head: warc::Head,
    pub(crate) head_bytes: &'a [u8],
    pub(crate) block: &'a [u8],
    /// Why the block may not be what its writer meant.
    pub(crate) doubt: Option<String>,
}

/// What comes next.
pub(crate) enum Item<'a> {
    Record(Record<'a>),
    Gap(Skip),
    /// The first record at or after the range's end, or the object's end.
    End(Seam),
}

pub(crate) struct Records<'a> {
    object: &'a dyn ReadAt,
    size: u64,
    /// Records that begin at or after this stored offset belong to somebody else.
    end: u64,
    frames: Frames<'a>,
    buf: Vec<u8>,
    /// The next unread byte in `buf`.
    pos: usize,
    /// In a plain file, the stored offset of `buf[0]`.
    base: u64,
    members: VecDeque<Member>,
    fault: Option<(u64, Fault)>,
    at_end: bool,
    /// Decoded bytes of an oversized record that are still to be passed over.
    discard: u64,
}

struct Member {
    offset: u64,
    /// Where it begins in `buf`; negative once its head has been dropped.
    at: i64,
    /// Its stored end, once it is known.
    end: Option<u64>,
    /// Whether a record was read from it, so that a later fault in it does not take that back.
    read: bool,
}

/// Where a record's block ends, and why that may be wrong.
struct Block {
    end: usize,
    next: usize,
    doubt: Option<String>,
}

impl<'a> Records<'a> {
    pub(crate) fn new(object: &'a dyn ReadAt, size: u64, gzip: bool, begin: Seam, end: u64) -> Records<'a> {
        let frames = match gzip {
            true => Frames::gzip(object, size, begin.offset),
            false => Frames::plain(object, size, begin.offset),
        };
        Records {
            object,
            size,
            end,
            frames,
            buf: Vec::new(),
            pos: 0,
            base: begin.offset,
            members: VecDeque::new(),
            fault: None,
            at_end: false,
            discard: begin.skip,
        }
    }

    /// The next record, gap or end.
    pub(crate) fn next(&mut self) -> Result<Item<'_>, Error> {
        if let Some(gap) = self.pass_over()? {
            return Ok(Item::Gap(gap));
        }
        self.compact();
        self.skip_line_ends()?;
        if self.pos == self.buf.len() {
            return match self.fault.take() {
                Some((start, fault)) => self.recover(start, fault),
                None => Ok(Item::End(Seam::at(self.size))),
            };
        }
        let seam = self.place(self.pos);
        if seam.offset >= self.end {
            return Ok(Item::End(seam));
        }
        let Some(head_end) = self.head_end()? else {
            return self.not_a_record(seam);
        };
        let head = warc::parse(&self.buf[self.pos..head_end]);
        let Some(block) = self.block(head_end, &head)? else {
            return self.not_a_record(seam);
        };
        let length = self.stored_end(block.next)? - seam.offset;
        if let Some(member) = self.member_of(self.pos) {
            self.members[member].read = true;
        }
        let start = std::mem::replace(&mut self.pos, block.next);
        Ok(Item::Record(Record {
            seam,
            length,
            head,
            head_bytes: &self.buf[start..head_end],
            block: &self.buf[head_end..block.end],
            doubt: block.doubt,
        }))
    }

    /// Decodes a little more. False where nothing more comes: the object's end or a fault.
    fn fill(&mut self) -> Result<bool, Error> {
        if self.at_end || self.fault.is_some() {
            return Ok(false);
        }
        match self.frames.next(&mut self.buf)? {
            Event::Member(offset) => {
                let at = self.buf.len() as i64;
                self.members.push_back(Member { offset, at, end: None, read: false });
            }
            Event::Data => {}
            Event::MemberEnd(offset) => {
                if let Some(member) = self.members.back_mut() {
                    member.end = Some(offset);
                }
            }
            Event::Fault { start, fault } => {
                self.fault = Some((start, fault));
                return Ok(false);
            }
            Event::End => {
                self.at_end = true;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn skip_line_ends(&mut self) -> Result<(), Error> {
        loop {
            while matches!(self.buf.get(self.pos), Some(b'\r' | b'\n')) {
                self.pos += 1;
            }
            if self.pos < self.buf.len() || !self.fill()? {
                return Ok(());
            }
        }
    }

    /// The end of the header at `pos`; `None` where no record begins there.
    fn head_end(&mut self) -> Result<Option<usize>, Error> {
        loop {
            let bytes = &self.buf[self.pos..];
            let magic = b"WARC/";
            if bytes[..bytes.len().min(magic.len())] != magic[..bytes.len().min(magic.len())] {
                return Ok(None);
            }
            if let Some(n) = warc::head_end(bytes) {
                return Ok(Some(self.pos + n));
            }
            if bytes.len() > warc::HEAD_BYTES_MAX || !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Where the block that begins at `from` ends.
    fn block(&mut self, from: usize, head: &warc::Head) -> Result<Option<Block>, Error> {
        let Some(length) = head.content_length else {
            if !self.frames.is_gzip() {
                return Ok(None);
            }
            return Ok(self.decode_to_member_end(from)?.map(|end| Block {
                end,
                next: end,
                doubt: Some("no usable Content-Length: the record is taken to its member's end".into()),
            }));
        };
        let ends_in_object =
            (self.base + from as u64).checked_add(length).is_some_and(|end| end <= self.size);
        if !self.frames.is_gzip() && !ends_in_object {
            return Ok(None);
        }
        let kept = length.min((RECORD_BYTES_MAX - (from - self.pos).min(RECORD_BYTES_MAX)) as u64) as usize;
        let want = from + kept;
        while self.buf.len() < want {
            if let Some(border) = self.border_after(from) {
                return Ok(Some(self.cut_at_border(from, border, length)));
            }
            if !self.fill()? {
                let whole_members = self.at_end && self.frames.is_gzip();
                let end = self.buf.len();
                return Ok(whole_members.then(|| self.cut_at_border(from, end, length)));
            }
        }
        if let Some(border) = self.border_after(from).filter(|border| *border < want) {
            return Ok(Some(self.cut_at_border(from, border, length)));
        }
        if (kept as u64) < length {
            self.discard = length - kept as u64;
            let doubt = format!("the record has {length} bytes, of which {kept} were searched");
            return Ok(Some(Block { end: want, next: want, doubt: Some(doubt) }));
        }
        self.check_what_follows(from, want, length)
    }

    /// In gzip, what stands in the member after the block and is neither a line end nor a record belongs
    /// to the block: its Content-Length is too short.
    fn check_what_follows(&mut self, from: usize, end: usize, length: u64) -> Result<Option<Block>, Error> {
        let right = Block { end, next: end, doubt: None };
        if !self.frames.is_gzip() {
            return Ok(Some(right));
        }
        let mut at = end;
        loop {
            if self.members.iter().any(|m| m.at > from as i64 && m.at <= at as i64 && m.at >= end as i64) {
                return Ok(Some(right));
            }
            match self.buf.get(at) {
                Some(b'\r' | b'\n') => at += 1,
                Some(_) => {
                    let rest = &self.buf[at..];
                    if rest.starts_with(b"WARC/") {
                        return Ok(Some(right));
                    }
                    if rest.len() >= 5 || !self.fill()? {
                        break;
                    }
                }
                None => {
                    if !self.fill()? {
                        // A fault after the block, before its member's check sums held: the block is not
                        // to be trusted.
                        let sound = self.at_end
                            || self
                                .member_of(end.saturating_sub(1))
                                .is_none_or(|m| self.members[m].end.is_some());
                        return Ok(sound.then_some(right));
                    }
                }
            }
        }
        Ok(self.decode_to_member_end(end)?.map(|member_end| Block {
            end: trim_line_ends(&self.buf, from, member_end),
            next: member_end,
            doubt: Some(format!(
                "Content-Length is {length}, and its member holds more: all of it was searched"
            )),
        }))
    }

    /// The first member border after `from` behind which another record begins.
    fn border_after(&self, from: usize) -> Option<usize> {
        let border = self.members.iter().map(|m| m.at).find(|at| *at > from as i64)? as usize;
        self.buf[border..].starts_with(b"WARC/").then_some(border)
    }

    fn cut_at_border(&self, from: usize, border: usize, length: u64) -> Block {
        Block {
            end: trim_line_ends(&self.buf, from, border),
            next: border,
            doubt: Some(format!(
                "Content-Length is {length}, and its member ends before: it was taken to there"
            )),
        }
    }

    /// Decodes to the end of the member that holds the byte at `from`, or at the record limit.
    fn decode_to_member_end(&mut self, from: usize) -> Result<Option<usize>, Error> {
        loop {
            if let Some(next) = self.members.iter().map(|m| m.at).find(|at| *at > from as i64) {
                return Ok(Some(next as usize));
            }
            if self.members.back().is_some_and(|m| m.end.is_some()) {
                return Ok(Some(self.buf.len()));
            }
            if self.buf.len() - self.pos >= RECORD_BYTES_MAX || !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// The stored bytes up to which a reader must fetch to decode all before `end`.
    fn stored_end(&mut self, end: usize) -> Result<u64, Error> {
        if !self.frames.is_gzip() {
            return Ok(self.base + end as u64);
        }
        let last = end.saturating_sub(1);
        loop {
            let member = self.member_of(last).map(|m| &self.members[m]);
            match member.and_then(|m| m.end) {
                Some(stored) => return Ok(stored),
                // A member that goes on far past the record need not be fetched whole.
                None if self.buf.len() > end + (1 << 20) || !self.fill()? => return Ok(self.frames.offset()),
                None => {}
            }
        }
    }

    fn member_of(&self, index: usize) -> Option<usize> {
        self.members.iter().rposition(|m| m.at <= index as i64)
    }

    fn place(&self, index: usize) -> Seam {
        match self.member_of(index) {
            Some(m) => {
                let member = &self.members[m];
                Seam { offset: member.offset, skip: (index as i64 - member.at) as u64 }
            }
            None => Seam::at(self.base + index as u64),
        }
    }

    /// No record begins at `seam`, or it can't be read to its end.
    fn not_a_record<'b>(&'b mut self, seam: Seam) -> Result<Item<'b>, Error> {
        match self.fault.take() {
            Some((_, fault)) => {
                let start = seam.offset;
                self.recover(start, fault)
            }
            None if self.frames.is_gzip() => self.recover(seam.offset, Fault::Damaged),
            None if self.buf[self.pos..].starts_with(b"WARC/") => self.recover(seam.offset, Fault::Truncated),
            None => self.recover(seam.offset, Fault::Damaged),
        }
    }

    /// Names the gap that begins at or around `start` and goes on behind it.
    fn recover<'b>(&'b mut self, start: u64, fault: Fault) -> Result<Item<'b>, Error> {
        // What was read from the broken member before it broke stays read.
        let kept = self.members.iter().any(|m| m.offset == start && m.read);
        let from = if kept { self.frames.offset().max(start + 1) } else { start };
        let (reason, next) = match fault {
            Fault::Truncated if self.frames.is_gzip() => (Reason::Truncated, None),
            // In a plain file a length that goes past the end may as well be a wrong one.
            Fault::Truncated => match find_warc_record(self.object, self.size, start + 1, self.size)? {
                Some(next) => (Reason::Damaged, Some(next)),
                None => (Reason::Truncated, None),
            },
            Fault::Damaged if self.frames.is_gzip() => {
                (Reason::Damaged, find_warc_member(self.object, self.size, start + 1, self.size)?)
            }
            Fault::Damaged => {
                (Reason::Damaged, find_warc_record(self.object, self.size, start + 1, self.size)?)
            }
        };
        let to = next.map_or(self.size, |seam| seam.offset);
        let from = from.min(to);
        self.restart(to);
        Ok(Item::Gap(Skip::new(from, to - from, reason)))
    }

    fn restart(&mut self, offset: u64) {
        self.frames.seek(offset);
        self.buf.clear();
        self.pos = 0;
        self.base = offset;
        self.members.clear();
        self.fault = None;
        self.at_end = false;
        self.discard = 0;
    }

    /// Passes over what is to be discarded: the rest of an oversized record (a gap), or what precedes the
    /// first record in its member.
    fn pass_over(&mut self) -> Result<Option<Skip>, Error> {
        if self.discard == 0 {
            return Ok(None);
        }
        let from = if self.frames.is_gzip() { self.frames.offset() } else { self.base + self.pos as u64 };
        let begun = self.pos > 0;
        while self.discard > 0 {
            let at_hand = ((self.buf.len() - self.pos) as u64).min(self.discard);
            self.pos += at_hand as usize;
            self.discard -= at_hand;
            self.compact();
            if self.discard > 0 && !self.fill()? {
                self.discard = 0;
            }
        }
        let to = if self.frames.is_gzip() { self.frames.offset() } else { self.base + self.pos as u64 };
        Ok(begun.then(|| Skip::new(from, to.max(from) - from, Reason::RecordCap)))
    }

    /// Drops what has been read.
    fn compact(&mut self) {
        if self.pos == 0 {
            return;
        }
        let dropped = self.pos;
        self.buf.drain(..dropped);
        self.pos = 0;
        self.base += dropped as u64;
        for member in &mut self.members {
            member.at -= dropped as i64;
        }
        // The member that holds the next byte stays: it says where that byte is stored.
        while self.members.len() > 1
            && self.members[1].at <= 0
            && (!self.buf.is_empty() || self.members[1].at < 0)
        {
            self.members.pop_front();
        }
        if self.buf.capacity() > 4 << 20 && self.buf.len() < 1 << 20 {
            self.buf.shrink_to(1 << 20);
        }
    }
}

fn trim_line_ends(bytes: &[u8], from: usize, to: usize) -> usize {
    // A record ends in two line ends (ISO 28500, 4): those are not the block's.
    let mut end = to;
    for _ in 0..2 {
        let block = &bytes[from..end];
        if block.ends_with(b"\r\n") {
            end -= 2;
        } else if block.ends_with(b"\n") {
            end -= 1;
        }
    }
    end
}

/// Finds the first place at or after `from`, and before `to`, of a plain file where a record begins by its
/// look: at a line's start, with a usable length, and another record or the end behind its block. A guess.
pub(crate) fn find_warc_record(
    object: &dyn ReadAt,
    size: u64,
    from: u64,
    to: u64,
) -> Result<Option<Seam>, Error> {
    let mut window = Window::new(object, size, from.saturating_sub(1));
    while window.offset() < to {
        let at = window.offset();
        let bytes = window.peek(6)?;
        if bytes.len() < 6 {
            return Ok(None);
        }
        let Some(n) = memchr::memmem::find(bytes, b"\nWARC/") else {
            let n = bytes.len() - 5;
            window.advance(n);
            continue;
        };
        let candidate = at + n as u64 + 1;
        if candidate >= to {
            return Ok(None);
        }
        if chain_runs_on(object, size, candidate)? {
            return Ok(Some(Seam::at(candidate)));
        }
        window.advance(n + 1);
    }
    Ok(None)
}

/// The longest header in a guess: a longer one is lawful, but then the chain finds it and not the look.
const GUESSED_HEAD_BYTES_MAX: usize = 64 << 10;

fn chain_runs_on(object: &dyn ReadAt, size: u64, offset: u64) -> Result<bool, Error> {
    let mut window = Window::new(object, size, offset);
    let mut want = 4096;
    let head_end = loop {
        let bytes = window.peek(want)?;
        match warc::head_end(bytes) {
            Some(n) => break n,
            None if bytes.len() < want || want > GUESSED_HEAD_BYTES_MAX => return Ok(false),
            None => want *= 4,
        }
    };
    let head = warc::parse(&window.peek(head_end)?[..head_end]);
    let Some(length) = head.content_length else { return Ok(false) };
    let Some(end) = (offset + head_end as u64).checked_add(length).filter(|end| *end <= size) else {
        return Ok(false);
    };
    window.seek(end);
    let after = window.peek(64)?;
    let text = after.iter().position(|b| !matches!(b, b'\r' | b'\n'));
    Ok(text.is_none_or(|n| n > 0 && after[n..].starts_with(b"WARC/")))
}
