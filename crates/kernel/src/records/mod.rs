//! From decoded bytes to WARC and ARC records, each with where it is stored; damage comes out as gaps.
//!
//! In gzip, a member's border is stronger than a record's Content-Length: where the two disagree the border
//! decides and only that record is in doubt. In a plain file there is no border, so what follows a wrong
//! length is found again by its look, and what lies between is a gap.

pub(crate) mod arc;
pub(crate) mod lines;
pub(crate) mod tape;
pub(crate) mod warc;

use crate::coverage::{Reason, Skip};
use crate::frames::{Fault, Look, find_member};
use crate::kind::Codec;
use crate::object::{ReadAt, Window};
use crate::{Error, RECORD_BYTES_MAX, Seam};
use lines::Lines;
use std::borrow::Cow;
use tape::Tape;

/// What the scan needs of a record's header, as its bytes are.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    pub(crate) record_type: Option<Cow<'a, [u8]>>,
    pub(crate) url: Option<Cow<'a, [u8]>>,
    pub(crate) date: Option<Cow<'a, [u8]>>,
    pub(crate) record_id: Option<Cow<'a, [u8]>>,
    pub(crate) payload_digest: Option<Cow<'a, [u8]>>,
    pub(crate) content_type: Option<Cow<'a, [u8]>>,
    /// `None` where it is missing, doubled with another value, or not a number of 64 bits.
    pub(crate) content_length: Option<u64>,
    /// Whether it holds a part of a record that was cut (ISO 28500, 7).
    pub(crate) is_segment: bool,
}

impl Head<'_> {
    pub(crate) fn is_response(&self) -> bool {
        self.record_type.as_deref() == Some(b"response")
    }
}

/// A record, its bytes borrowed from the reader.
pub(crate) struct Record<'a> {
    pub(crate) seam: Seam,
    /// Stored bytes from the seam's offset that hold all of the record.
    pub(crate) length: u64,
    pub(crate) head: &'a [u8],
    lines: Lines,
    framing: Framing,
    pub(crate) block: &'a [u8],
    /// Why the block may not be what its writer meant.
    pub(crate) doubt: Option<String>,
    /// Whether the stored bytes hold nothing else.
    pub(crate) alone: bool,
}

impl<'a> Record<'a> {
    /// What its header says.
    pub(crate) fn parse(&self) -> Head<'a> {
        self.framing.parse(self.head, &self.lines)
    }
}

/// How records stand one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Warc,
    Arc,
}

impl Framing {
    /// Whether a record begins with these bytes; `None` where more are needed to tell.
    fn begins(self) -> Look {
        match self {
            Framing::Warc => warc::begins,
            Framing::Arc => arc::begins,
        }
    }

    fn lines(self, bytes: &[u8]) -> Option<Lines> {
        match self {
            Framing::Warc => warc::lines(bytes),
            Framing::Arc => arc::lines(bytes),
        }
    }

    fn head_bytes_max(self) -> usize {
        match self {
            Framing::Warc => warc::HEAD_BYTES_MAX,
            Framing::Arc => arc::HEAD_BYTES_MAX,
        }
    }

    fn parse<'a>(self, head: &'a [u8], lines: &Lines) -> Head<'a> {
        match self {
            Framing::Warc => warc::parse(head, lines),
            Framing::Arc => arc::parse(head),
        }
    }

    fn content_length(self, head: &[u8], lines: &Lines) -> Option<u64> {
        match self {
            Framing::Warc => warc::content_length(head, lines),
            Framing::Arc => arc::parse(head).content_length,
        }
    }

    /// What a record looks like in a plain file, with the line end before it.
    fn mark(self) -> &'static [u8] {
        match self {
            Framing::Warc => b"\nWARC/",
            Framing::Arc => b"\nhttp",
        }
    }
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
    codec: Codec,
    framing: Framing,
    /// Records that begin at or after this stored offset belong to somebody else.
    end: u64,
    tape: Tape<'a>,
}

/// Line ends behind a block that are looked at.
const LINE_ENDS_MAX: usize = 64 << 10;

/// Where a record's block ends, and why that may be wrong.
struct Block {
    end: usize,
    next: usize,
    doubt: Option<String>,
    /// Whether no other record begins in the member that it ends in.
    alone: bool,
}

impl<'a> Records<'a> {
    pub(crate) fn new(
        object: &'a dyn ReadAt,
        size: u64,
        codec: Codec,
        framing: Framing,
        begin: Seam,
        end: u64,
    ) -> Records<'a> {
        Records { object, size, codec, framing, end, tape: Tape::new(object, size, codec, begin) }
    }

    /// The next record, gap or end.
    pub(crate) fn next(&mut self) -> Result<Item<'_>, Error> {
        if let Some(gap) = self.tape.pass_over()? {
            return Ok(Item::Gap(gap));
        }
        self.tape.compact();
        self.skip_line_ends()?;
        if self.tape.pos == self.tape.buf.len() {
            return match self.tape.fault.take() {
                Some((start, fault)) => self.recover(start, fault),
                None => Ok(Item::End(Seam::at(self.size))),
            };
        }
        let seam = self.tape.place(self.tape.pos);
        if seam.offset >= self.end {
            return Ok(Item::End(seam));
        }
        let Some(lines) = self.lines()? else {
            return self.not_a_record(seam);
        };
        let head_end = self.tape.pos + lines.len;
        let content_length = self.framing.content_length(&self.tape.buf[self.tape.pos..head_end], &lines);
        let Some(block) = self.block(head_end, content_length)? else {
            return self.not_a_record(seam);
        };
        let length = self.tape.stored_end(block.next) - seam.offset;
        if let Some(member) = self.tape.member_of(self.tape.pos) {
            self.tape.members[member].read = true;
        }
        let start = std::mem::replace(&mut self.tape.pos, block.next);
        Ok(Item::Record(Record {
            seam,
            length,
            head: &self.tape.buf[start..head_end],
            lines,
            framing: self.framing,
            alone: seam.skip == 0 && block.alone,
            block: &self.tape.buf[head_end..block.end],
            doubt: block.doubt,
        }))
    }

    fn skip_line_ends(&mut self) -> Result<(), Error> {
        loop {
            while matches!(self.tape.buf.get(self.tape.pos), Some(b'\r' | b'\n')) {
                self.tape.pos += 1;
            }
            if self.tape.pos < self.tape.buf.len() {
                return Ok(());
            }
            self.tape.compact();
            if !self.tape.fill()? {
                return Ok(());
            }
        }
    }

    /// The header at `pos`; `None` where no record begins there.
    fn lines(&mut self) -> Result<Option<Lines>, Error> {
        loop {
            let bytes = &self.tape.buf[self.tape.pos..];
            if self.framing.begins()(bytes) == Some(false) {
                return Ok(None);
            }
            let lines = self.framing.lines(bytes);
            // A header that another record's member cuts off is none.
            let len = lines.as_ref().map_or(bytes.len(), |lines| lines.len);
            if self.border_after(self.tape.pos).is_some_and(|border| border < self.tape.pos + len) {
                return Ok(None);
            }
            if lines.is_some() {
                return Ok(lines);
            }
            if len > self.framing.head_bytes_max() || !self.tape.fill()? {
                return Ok(None);
            }
        }
    }

    /// Where the block that begins at `from` ends.
    fn block(&mut self, from: usize, content_length: Option<u64>) -> Result<Option<Block>, Error> {
        let Some(length) = content_length else {
            if !self.tape.has_members() {
                return Ok(None);
            }
            return Ok(self.decode_to_member_end(from)?.map(|end| Block {
                end,
                next: end,
                alone: true,
                doubt: Some("no usable Content-Length: the record is taken to its member's end".into()),
            }));
        };
        let ends_in_object =
            (self.tape.base + from as u64).checked_add(length).is_some_and(|end| end <= self.size);
        if !self.tape.has_members() && !ends_in_object {
            return Ok(None);
        }
        let kept =
            length.min((RECORD_BYTES_MAX - (from - self.tape.pos).min(RECORD_BYTES_MAX)) as u64) as usize;
        let want = from + kept;
        while self.tape.buf.len() < want {
            if let Some(border) = self.border_after(from) {
                return Ok(Some(self.cut_at_border(from, border, length)));
            }
            if !self.tape.fill()? {
                let whole_members = self.tape.at_end && self.tape.has_members();
                let end = self.tape.buf.len();
                return Ok(whole_members.then(|| self.cut_at_border(from, end, length)));
            }
        }
        if let Some(border) = self.border_after(from).filter(|border| *border < want) {
            return Ok(Some(self.cut_at_border(from, border, length)));
        }
        if (kept as u64) < length {
            self.tape.discard = length - kept as u64;
            let doubt = format!("the record has {length} bytes, of which {kept} were searched");
            return Ok(Some(Block { end: want, next: want, doubt: Some(doubt), alone: false }));
        }
        self.check_what_follows(from, want, length)
    }

    /// In gzip, what stands in the member after the block and is neither a line end nor a record belongs
    /// to the block: its Content-Length is too short.
    fn check_what_follows(&mut self, from: usize, end: usize, length: u64) -> Result<Option<Block>, Error> {
        let right = Block { end, next: end, doubt: None, alone: true };
        if !self.tape.has_members() {
            return Ok(Some(right));
        }
        let mut at = end;
        loop {
            if self.tape.members.iter().any(|m| m.at > from as i64 && m.at <= at as i64 && m.at >= end as i64)
            {
                return Ok(Some(right));
            }
            match self.tape.buf.get(at) {
                // Endless line ends are passed over where the next record is looked for.
                Some(b'\r' | b'\n') if at - end > LINE_ENDS_MAX => {
                    return Ok(Some(Block { alone: false, ..right }));
                }
                Some(b'\r' | b'\n') => at += 1,
                Some(_) => {
                    let rest = &self.tape.buf[at..];
                    match self.framing.begins()(rest) {
                        Some(true) => return Ok(Some(Block { alone: false, ..right })),
                        Some(false) => break,
                        None if !self.tape.fill()? => break,
                        None => {}
                    }
                }
                None => {
                    if !self.tape.fill()? {
                        // A fault after the block, before its member's check sums held: the block is not
                        // to be trusted.
                        let sound = self.tape.at_end
                            || self
                                .tape
                                .member_of(end.saturating_sub(1))
                                .is_none_or(|m| self.tape.members[m].end.is_some());
                        return Ok(sound.then_some(right));
                    }
                }
            }
        }
        Ok(self.decode_to_member_end(end)?.map(|member_end| Block {
            end: trim_line_ends(&self.tape.buf, from, member_end),
            next: member_end,
            alone: true,
            doubt: Some(format!(
                "Content-Length is {length}, and its member holds more: all of it was searched"
            )),
        }))
    }

    /// The first member border after `from` behind which another record begins.
    fn border_after(&self, from: usize) -> Option<usize> {
        let border = self.tape.members.iter().map(|m| m.at).find(|at| *at > from as i64)? as usize;
        (self.framing.begins()(&self.tape.buf[border..]) == Some(true)).then_some(border)
    }

    fn cut_at_border(&self, from: usize, border: usize, length: u64) -> Block {
        Block {
            end: trim_line_ends(&self.tape.buf, from, border),
            next: border,
            alone: true,
            doubt: Some(format!(
                "Content-Length is {length}, and its member ends before: it was taken to there"
            )),
        }
    }

    /// Decodes to the end of the member that holds the byte at `from`, or at the record limit.
    fn decode_to_member_end(&mut self, from: usize) -> Result<Option<usize>, Error> {
        loop {
            if let Some(next) = self.tape.members.iter().map(|m| m.at).find(|at| *at > from as i64) {
                return Ok(Some(next as usize));
            }
            if self.tape.members.back().is_some_and(|m| m.end.is_some()) {
                return Ok(Some(self.tape.buf.len()));
            }
            if self.tape.buf.len() - self.tape.pos >= RECORD_BYTES_MAX || !self.tape.fill()? {
                return Ok(None);
            }
        }
    }

    /// No record begins at `seam`, or it can't be read to its end.
    fn not_a_record<'b>(&'b mut self, seam: Seam) -> Result<Item<'b>, Error> {
        match self.tape.fault.take() {
            Some((_, fault)) => {
                let start = seam.offset;
                self.recover(start, fault)
            }
            None if self.tape.has_members() => self.recover(seam.offset, Fault::Damaged),
            None if self.framing.begins()(&self.tape.buf[self.tape.pos..]) != Some(false) => {
                self.recover(seam.offset, Fault::Truncated)
            }
            None => self.recover(seam.offset, Fault::Damaged),
        }
    }

    fn find(&self, from: u64) -> Result<Option<Seam>, Error> {
        find(self.object, self.size, self.codec, self.framing, from, self.size)
    }

    /// Names the gap that begins at or around `start` and goes on behind it.
    fn recover<'b>(&'b mut self, start: u64, fault: Fault) -> Result<Item<'b>, Error> {
        // What was read from the broken member before it broke stays read.
        let kept = self.tape.members.iter().any(|m| m.offset == start && m.read);
        let from = if kept { self.tape.offset().max(start + 1) } else { start };
        let (reason, next) = match fault {
            Fault::Truncated if self.tape.has_members() => (Reason::Truncated, None),
            // In a plain file a length that goes past the end may as well be a wrong one.
            Fault::Truncated => match self.find(start + 1)? {
                Some(next) => (Reason::Damaged, Some(next)),
                None => (Reason::Truncated, None),
            },
            Fault::Damaged => (Reason::Damaged, self.find(start + 1)?),
        };
        let to = next.map_or(self.size, |seam| seam.offset);
        let from = from.min(to);
        self.tape.restart(to);
        Ok(Item::Gap(Skip::new(from, to - from, reason)))
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

/// Finds where a record begins, by its look, at or after `from` and before `to`: a guess.
pub(crate) fn find(
    object: &dyn ReadAt,
    size: u64,
    codec: Codec,
    framing: Framing,
    from: u64,
    to: u64,
) -> Result<Option<Seam>, Error> {
    match codec {
        Codec::Plain => find_record(object, size, framing, from, to),
        codec => find_member(object, size, codec, framing.begins(), from, to),
    }
}

/// In a plain file a record begins at a line's start, with a usable length, and another record or the end
/// stands behind its block.
fn find_record(
    object: &dyn ReadAt,
    size: u64,
    framing: Framing,
    from: u64,
    to: u64,
) -> Result<Option<Seam>, Error> {
    let mark = framing.mark();
    let mut window = Window::new(object, size, from.saturating_sub(1));
    while window.offset() < to {
        let at = window.offset();
        let bytes = window.peek(mark.len())?;
        if bytes.len() < mark.len() {
            return Ok(None);
        }
        let Some(n) = memchr::memmem::find(bytes, mark) else {
            let n = bytes.len() - (mark.len() - 1);
            window.advance(n);
            continue;
        };
        let candidate = at + n as u64 + 1;
        if candidate >= to {
            return Ok(None);
        }
        if chain_runs_on(object, size, framing, candidate)? {
            return Ok(Some(Seam::at(candidate)));
        }
        window.advance(n + 1);
    }
    Ok(None)
}

/// The longest header in a guess: a longer one is lawful, but then the chain finds it and not the look.
const GUESSED_HEAD_BYTES_MAX: usize = 64 << 10;

fn chain_runs_on(object: &dyn ReadAt, size: u64, framing: Framing, offset: u64) -> Result<bool, Error> {
    let mut window = Window::new(object, size, offset);
    let mut want = 4096;
    let lines = loop {
        let bytes = window.peek(want)?;
        match framing.lines(bytes) {
            Some(lines) => break lines,
            None if bytes.len() < want || want > GUESSED_HEAD_BYTES_MAX => return Ok(false),
            None => want *= 4,
        }
    };
    let head = &window.peek(lines.len)?[..lines.len];
    if framing.begins()(head) != Some(true) {
        return Ok(false);
    }
    let Some(length) = framing.content_length(head, &lines) else { return Ok(false) };
    let Some(end) = (offset + lines.len as u64).checked_add(length).filter(|end| *end <= size) else {
        return Ok(false);
    };
    window.seek(end);
    let after = window.peek(4096)?;
    let text = after.iter().position(|b| !matches!(b, b'\r' | b'\n'));
    Ok(text.is_none_or(|n| n > 0 && framing.begins()(&after[n..]) != Some(false)))
}
