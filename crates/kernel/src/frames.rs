//! From stored bytes to decoded ones, with the stored offset of every member kept beside them.
//!
//! A plain file has no members: there the stored offset of a byte is all that is needed. Both are given as
//! the same events, so that records are framed by one piece of code.

use crate::gzip::{self, Fault, Inflate};
use crate::object::{ReadAt, Window};
use crate::{Error, Seam};

/// What comes next in an object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A member begins at this stored offset.
    Member(u64),
    /// Decoded bytes were appended.
    Data,
    /// The member's check sums hold; it ends before this stored offset.
    MemberEnd(u64),
    /// The member that began at `start` can't be read.
    Fault { start: u64, fault: Fault },
    /// The object's end.
    End,
}

/// The decoder of one object from one offset on.
pub(crate) enum Frames<'a> {
    Plain(Window<'a>),
    Gzip(Box<Members<'a>>),
}

impl<'a> Frames<'a> {
    pub(crate) fn plain(object: &'a dyn ReadAt, size: u64, offset: u64) -> Frames<'a> {
        Frames::Plain(Window::new(object, size, offset))
    }

    pub(crate) fn gzip(object: &'a dyn ReadAt, size: u64, offset: u64) -> Frames<'a> {
        Frames::Gzip(Box::new(Members {
            window: Window::new(object, size, offset),
            inflate: Inflate::new(),
            state: State::Between,
            start: offset,
        }))
    }

    /// Decodes a little more and appends it to `out`.
    pub(crate) fn next(&mut self, out: &mut Vec<u8>) -> Result<Event, Error> {
        match self {
            Frames::Plain(window) => {
                let bytes = window.peek(1)?;
                if bytes.is_empty() {
                    return Ok(Event::End);
                }
                let n = bytes.len().min(gzip::OUT_BYTES);
                out.extend_from_slice(&bytes[..n]);
                window.advance(n);
                Ok(Event::Data)
            }
            Frames::Gzip(members) => members.next(out),
        }
    }

    /// How far the stored bytes have been consumed.
    pub(crate) fn offset(&self) -> u64 {
        match self {
            Frames::Plain(window) => window.offset(),
            Frames::Gzip(members) => members.window.offset(),
        }
    }

    /// Goes to where a member, or a byte of a plain file, begins.
    pub(crate) fn seek(&mut self, offset: u64) {
        match self {
            Frames::Plain(window) => window.seek(offset),
            Frames::Gzip(members) => {
                members.window.seek(offset);
                members.state = State::Between;
            }
        }
    }

    pub(crate) fn is_gzip(&self) -> bool {
        matches!(self, Frames::Gzip(_))
    }
}

enum State {
    Between,
    Inside,
    Trailer,
}

pub(crate) struct Members<'a> {
    window: Window<'a>,
    inflate: Inflate,
    state: State,
    start: u64,
}

impl Members<'_> {
    fn next(&mut self, out: &mut Vec<u8>) -> Result<Event, Error> {
        match self.state {
            State::Between => self.open(),
            State::Inside => self.inflate(out),
            State::Trailer => self.close(),
        }
    }

    fn open(&mut self) -> Result<Event, Error> {
        // Zero padding at the end of an archive is lawful (tapes and block devices leave it); zeros before
        // another member are noise, and noise is named.
        let zeros_from = self.window.offset();
        let at_end = loop {
            let bytes = self.window.peek(1)?;
            let zeros = bytes.iter().take_while(|b| **b == 0).count();
            if zeros == 0 {
                break bytes.is_empty();
            }
            self.window.advance(zeros);
        };
        if !at_end && self.window.offset() > zeros_from {
            return Ok(self.fault_at(zeros_from, Fault::Damaged));
        }
        self.start = self.window.offset();
        let mut want = 64;
        loop {
            let bytes = self.window.peek(want)?;
            if bytes.is_empty() {
                return Ok(Event::End);
            }
            match gzip::header_len(bytes) {
                Ok(Some(header)) => {
                    self.window.advance(header);
                    self.inflate.reset();
                    self.state = State::Inside;
                    return Ok(Event::Member(self.start));
                }
                Ok(None) if bytes.len() < want => return Ok(self.fault_at(self.start, Fault::Truncated)),
                Ok(None) => want *= 4,
                Err(fault) => return Ok(self.fault_at(self.start, fault)),
            }
        }
    }

    fn inflate(&mut self, out: &mut Vec<u8>) -> Result<Event, Error> {
        let input = self.window.peek(1)?;
        let at_end = input.is_empty();
        let old = out.len();
        match self.inflate.step(input, out) {
            Ok(step) => {
                self.window.advance(step.consumed);
                if step.ended {
                    self.state = State::Trailer;
                } else if at_end && out.len() == old {
                    return Ok(self.fault_at(self.start, Fault::Truncated));
                }
                Ok(Event::Data)
            }
            Err(fault) => Ok(self.fault_at(self.start, fault)),
        }
    }

    fn close(&mut self) -> Result<Event, Error> {
        let bytes = self.window.peek(8)?;
        let Some(trailer) = bytes.first_chunk::<8>() else {
            return Ok(self.fault_at(self.start, Fault::Truncated));
        };
        let trailer = *trailer;
        match self.inflate.check(&trailer) {
            Ok(()) => {
                self.window.advance(8);
                self.state = State::Between;
                Ok(Event::MemberEnd(self.window.offset()))
            }
            Err(fault) => Ok(self.fault_at(self.start, fault)),
        }
    }

    fn fault_at(&mut self, start: u64, fault: Fault) -> Event {
        self.state = State::Between;
        Event::Fault { start, fault }
    }
}

/// Finds the first place at or after `from`, and before `to`, where a gzip member holds the start of a
/// WARC record and the chain of members runs on from it. A guess: a stored archive inside this one looks
/// the same, so only the seam before it can confirm it.
pub(crate) fn find_warc_member(
    object: &dyn ReadAt,
    size: u64,
    from: u64,
    to: u64,
) -> Result<Option<Seam>, Error> {
    let mut window = Window::new(object, size, from);
    let mut out = Vec::new();
    while window.offset() < to {
        let at = window.offset();
        let bytes = window.peek(4)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let found = memchr::memmem::find(bytes, &[0x1f, 0x8b, 8]);
        let Some(n) = found else {
            let n = bytes.len().saturating_sub(2).max(1);
            window.advance(n);
            continue;
        };
        let candidate = at + n as u64;
        window.advance(n);
        if candidate >= to {
            return Ok(None);
        }
        if is_warc_member(object, size, candidate, &mut out)? {
            return Ok(Some(Seam::at(candidate)));
        }
        window.advance(1);
    }
    Ok(None)
}

/// Whether a whole, sound member that begins with a WARC record stands at `offset`, and another member or
/// the object's end after it.
fn is_warc_member(object: &dyn ReadAt, size: u64, offset: u64, out: &mut Vec<u8>) -> Result<bool, Error> {
    let mut frames = Frames::gzip(object, size, offset);
    let mut begins_as_warc = false;
    out.clear();
    loop {
        match frames.next(out)? {
            Event::Member(_) => {}
            Event::Data => {
                if !begins_as_warc && out.len() >= 5 {
                    if !out.starts_with(b"WARC/") {
                        return Ok(false);
                    }
                    begins_as_warc = true;
                }
                out.truncate(5);
            }
            Event::MemberEnd(_) => break,
            Event::Fault { .. } | Event::End => return Ok(false),
        }
    }
    // A fault after a sound member that begins with a record is that next member's own affair, unless
    // nothing after it is a member at all.
    Ok(begins_as_warc && matches!(frames.next(out)?, Event::Member(_) | Event::End))
}
