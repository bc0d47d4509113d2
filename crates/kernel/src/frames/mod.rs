//! From stored bytes to decoded ones, with the stored offset of every member kept beside them.
//!
//! A *member* is what decodes by itself: a gzip member, a zstd frame, a bzip2 or xz stream. A plain file has
//! none: there the stored offset of a byte is all that is needed. All are given as the same events, so that
//! records are framed by one piece of code.
//!
//! A sound member of ordinary size is decoded in one call, which is what makes a scan quick. Whatever is
//! not (broken, cut off, huge) is decoded step by step, which is what makes it exact. Both depend on the
//! member alone, never on how much of the object happens to be at hand: so a member is cut the same way
//! wherever reading began.

mod gzip;
mod other;
mod zstd;

use crate::buffer::Buffer;
use crate::kind::Codec;
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

/// Why a member could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The bytes are not a member, or break inside it.
    Damaged,
    /// The object ends inside the member.
    Truncated,
}

/// Decoded bytes per step.
const OUT_BYTES: usize = 128 << 10;
/// Stored bytes per step, counted from the member's start.
const IN_BYTES: usize = 64 << 10;
/// The largest member that is decoded in one call: stored bytes, decoded bytes.
const WHOLE_IN_BYTES_MAX: usize = 2 << 20;
const WHOLE_OUT_BYTES_MAX: usize = 8 << 20;

/// Decoded bytes that a member is given room for at first.
const ROOM_BYTES: usize = 64 << 10;

/// How a member begins.
enum Opening {
    /// Its first bytes are right, and so many of them are its header's.
    Member(usize),
    /// Not a member of its own but lawful: so many bytes to pass over.
    PassOver(u64),
    /// More bytes are needed to tell.
    Short,
    Fault(Fault),
}

/// What one step did.
struct Step {
    consumed: usize,
    written: usize,
    ended: bool,
}

/// A codec: how its members begin, and how they are decoded.
trait Decode {
    /// Looks at the first bytes of a member.
    fn open(&mut self, bytes: &[u8]) -> Opening;

    /// Decodes the whole member that `input` begins with: bytes consumed and written.
    fn whole(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), Whole>;

    /// Decodes a little of the member; [`Decode::open`] has been called for it, and its header consumed.
    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, Fault>;

    /// What follows the compressed data: how many bytes, and whether they are right.
    fn trailer_len(&self) -> usize {
        0
    }

    fn check(&mut self, _trailer: &[u8]) -> Result<(), Fault> {
        Ok(())
    }
}

/// Why a member was not decoded in one call.
enum Whole {
    MoreInput,
    MoreOutput,
    No,
}

/// The decoder of one object from one offset on.
pub(crate) struct Frames<'a> {
    window: Window<'a>,
    /// `None` for a plain file.
    codec: Option<Box<dyn Decode>>,
    state: State,
    /// Where the member at hand begins.
    start: u64,
}

enum State {
    Between,
    Opened { header: usize },
    Inside,
    Ended,
    Broken(Fault),
}

impl<'a> Frames<'a> {
    pub(crate) fn new(object: &'a dyn ReadAt, size: u64, codec: Codec, offset: u64) -> Frames<'a> {
        let decoder: Option<Box<dyn Decode>> = match codec {
            Codec::Plain => None,
            Codec::Gzip => Some(Box::new(gzip::Gzip::new())),
            Codec::Zstd => Some(Box::new(zstd::Zstd::new(object))),
            Codec::Bzip2 => Some(Box::new(other::Bzip2::new())),
            Codec::Xz => Some(Box::new(other::Xz::new())),
        };
        let window = Window::new(object, size, offset);
        Frames { window, codec: decoder, state: State::Between, start: offset }
    }

    /// Decodes a little more and appends it to `out`.
    pub(crate) fn next(&mut self, out: &mut Buffer) -> Result<Event, Error> {
        if self.codec.is_none() {
            return self.plain(out);
        }
        match self.state {
            State::Between => self.open(),
            State::Opened { header } => self.whole(header, out),
            State::Inside => self.step(out),
            State::Broken(fault) => Ok(self.fault_at(self.start, fault)),
            State::Ended => {
                self.state = State::Between;
                Ok(Event::MemberEnd(self.window.offset()))
            }
        }
    }

    /// How far the stored bytes have been consumed.
    pub(crate) fn offset(&self) -> u64 {
        self.window.offset()
    }

    /// Goes to where a member, or a byte of a plain file, begins.
    pub(crate) fn seek(&mut self, offset: u64) {
        self.window.seek(offset);
        self.state = State::Between;
    }

    pub(crate) fn has_members(&self) -> bool {
        self.codec.is_some()
    }

    fn plain(&mut self, out: &mut Buffer) -> Result<Event, Error> {
        let bytes = self.window.peek(1)?;
        if bytes.is_empty() {
            return Ok(Event::End);
        }
        let n = bytes.len();
        out.extend(bytes);
        self.window.advance(n);
        Ok(Event::Data)
    }

    fn open(&mut self) -> Result<Event, Error> {
        let Some(codec) = &mut self.codec else { return Ok(Event::End) };
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
        let mut want = 64;
        loop {
            self.start = self.window.offset();
            let bytes = self.window.peek(want)?;
            if bytes.is_empty() {
                return Ok(Event::End);
            }
            match codec.open(bytes) {
                Opening::Member(header) => {
                    self.state = State::Opened { header };
                    return Ok(Event::Member(self.start));
                }
                Opening::PassOver(n) => match self.window.pass_over(n)? {
                    true => want = 64,
                    false => return Ok(self.fault_at(self.start, Fault::Truncated)),
                },
                Opening::Short if bytes.len() < want => {
                    return Ok(self.fault_at(self.start, Fault::Truncated));
                }
                Opening::Short => want *= 4,
                Opening::Fault(fault) => return Ok(self.fault_at(self.start, fault)),
            }
        }
    }

    /// Decodes the member in one call, if it is sound and of ordinary size.
    fn whole(&mut self, header: usize, out: &mut Buffer) -> Result<Event, Error> {
        let (mut want, mut room) = (1, ROOM_BYTES);
        loop {
            let input = self.window.peek(want)?;
            let input = &input[..input.len().min(WHOLE_IN_BYTES_MAX)];
            let space = out.space(room);
            let space_len = space.len().min(WHOLE_OUT_BYTES_MAX);
            let input_len = input.len();
            let Some(codec) = &mut self.codec else { return Ok(Event::End) };
            match codec.whole(input, &mut space[..space_len]) {
                Ok((consumed, written)) => {
                    out.commit(written);
                    self.window.advance(consumed);
                    self.state = State::Ended;
                    return Ok(Event::Data);
                }
                Err(Whole::MoreInput) if input_len < WHOLE_IN_BYTES_MAX && !self.window.is_at_end() => {
                    want = (input_len * 2).min(WHOLE_IN_BYTES_MAX);
                }
                Err(Whole::MoreOutput) if space_len < WHOLE_OUT_BYTES_MAX => {
                    room = (space_len * 4).min(WHOLE_OUT_BYTES_MAX);
                }
                Err(_) => break,
            }
        }
        self.window.advance(header);
        self.state = State::Inside;
        Ok(Event::Data)
    }

    fn step(&mut self, out: &mut Buffer) -> Result<Event, Error> {
        let Some(codec) = &mut self.codec else { return Ok(Event::End) };
        // The pieces of input are counted from the member's start, so that the steps are the same from
        // wherever the object is read.
        let into_piece = (self.window.offset() - self.start) as usize % IN_BYTES;
        let want = IN_BYTES - into_piece;
        let input = self.window.peek(want)?;
        let input = &input[..input.len().min(want)];
        let at_end = input.is_empty();
        match codec.step(input, &mut out.space(OUT_BYTES)[..OUT_BYTES]) {
            Ok(step) => {
                out.commit(step.written);
                self.window.advance(step.consumed);
                if step.ended {
                    self.state = self.close()?;
                } else if step.written == 0 && step.consumed == 0 {
                    let fault = if at_end { Fault::Truncated } else { Fault::Damaged };
                    return Ok(self.fault_at(self.start, fault));
                }
                Ok(Event::Data)
            }
            Err(fault) => Ok(self.fault_at(self.start, fault)),
        }
    }

    /// Reads what follows the compressed data, so that [`Frames::offset`] is the member's end with its last
    /// decoded bytes.
    fn close(&mut self) -> Result<State, Error> {
        let Some(codec) = &mut self.codec else { return Ok(State::Ended) };
        let len = codec.trailer_len();
        let Some(trailer) = self.window.peek(len)?.get(..len) else {
            return Ok(State::Broken(Fault::Truncated));
        };
        Ok(match codec.check(trailer) {
            Ok(()) => {
                self.window.advance(len);
                State::Ended
            }
            Err(fault) => State::Broken(fault),
        })
    }

    fn fault_at(&mut self, start: u64, fault: Fault) -> Event {
        self.state = State::Between;
        Event::Fault { start, fault }
    }
}

/// What a member must begin with to be taken for one of this file.
pub(crate) type Look = fn(&[u8]) -> Option<bool>;

/// Finds the first place at or after `from`, and before `to`, where a member begins as `look` wants it and
/// the chain of members runs on from it. A guess: a stored archive inside this one looks the same, so only
/// the seam before it can confirm it.
pub(crate) fn find_member(
    object: &dyn ReadAt,
    size: u64,
    codec: Codec,
    look: Look,
    from: u64,
    to: u64,
) -> Result<Option<Seam>, Error> {
    let magic: &[u8] = match codec {
        Codec::Gzip => &[0x1f, 0x8b, 8],
        Codec::Zstd => &zstd::MAGIC,
        // These are not split: their streams are as large as the file.
        Codec::Plain | Codec::Bzip2 | Codec::Xz => return Ok(None),
    };
    let mut window = Window::new(object, size, from);
    // One decoder for all guesses: a dictionary is loaded once.
    let mut frames = Frames::new(object, size, codec, from);
    let mut out = Buffer::default();
    while window.offset() < to {
        let at = window.offset();
        let bytes = window.peek(magic.len())?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let Some(n) = memchr::memmem::find(bytes, magic) else {
            let n = bytes.len().saturating_sub(magic.len() - 1).max(1);
            window.advance(n);
            continue;
        };
        let candidate = at + n as u64;
        window.advance(n);
        if candidate >= to {
            return Ok(None);
        }
        if is_member(&mut frames, look, candidate, &mut out)? {
            return Ok(Some(Seam::at(candidate)));
        }
        window.advance(1);
    }
    Ok(None)
}

/// Whether a whole, sound member that begins as `look` wants it stands at `offset`, and another member or
/// the object's end after it.
fn is_member(frames: &mut Frames<'_>, look: Look, offset: u64, out: &mut Buffer) -> Result<bool, Error> {
    /// Decoded bytes that are kept to look at.
    const LOOK_BYTES: usize = 64 << 10;
    frames.seek(offset);
    let mut looks_right = false;
    out.clear();
    loop {
        match frames.next(out)? {
            Event::Member(_) => {}
            Event::Data => {
                if !looks_right {
                    match look(out) {
                        Some(true) => looks_right = true,
                        Some(false) => return Ok(false),
                        None if out.len() > LOOK_BYTES => return Ok(false),
                        None => {}
                    }
                }
                if looks_right {
                    out.clear();
                }
            }
            Event::MemberEnd(_) => break,
            Event::Fault { .. } | Event::End => return Ok(false),
        }
    }
    // A fault after a sound member that begins right is that next member's own affair, unless nothing after
    // it is a member at all.
    Ok(looks_right && matches!(frames.next(out)?, Event::Member(_) | Event::End))
}
