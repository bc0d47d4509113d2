//! JSON lines: each line is a record, and its layer the line itself or a field of it.
//!
//! To unescape a field of every line costs as much as to decompress it. So whole stretches of lines are
//! searched for a literal of the pattern first, and only lines that hold one are parsed.

use crate::coverage::{Reason, Skip};
use crate::frames::{Fault, find_member};
use crate::hit::Stored;
use crate::kind::Codec;
use crate::object::{ReadAt, Window};
use crate::records::Head;
use crate::records::tape::Tape;
use crate::scan::{About, Scan, Scanned};
use crate::{Error, Layer, RECORD_BYTES_MAX, Range, Seam};
use sonic_rs::{JsonValueTrait, LazyValue};
use std::borrow::Cow;

/// Decoded bytes that are searched together, where lines are short.
const STRETCH_BYTES: usize = 256 << 10;

impl Scan<'_> {
    pub(crate) fn json_lines(mut self, object: &dyn ReadAt, codec: Codec) -> Result<Scanned, Error> {
        let Range { size, start, end, begin, .. } = *self.range;
        let begin = match begin {
            Some(seam) => Some(seam),
            None if start == 0 => Some(Seam::at(0)),
            None => find(object, size, codec, start, end)?,
        };
        let Some(begin) = begin.filter(|seam| seam.offset < end) else {
            return Ok(self.none_begins(begin));
        };
        let mut lines =
            Lines { object, size, codec, end, tape: Tape::new(object, size, codec, begin), looked: 0 };
        loop {
            match lines.next()? {
                Item::Lines(stretch) => {
                    if let Some(next) = self.stretch(&stretch)? {
                        return Ok(self.finish(begin, next, true));
                    }
                }
                Item::Gap(gap) => {
                    if self.is_full() {
                        return Ok(self.finish(begin, Seam::at(gap.offset), true));
                    }
                    self.coverage.skip(gap);
                }
                Item::End(next) => return Ok(self.finish(begin, next, false)),
            }
        }
    }

    /// Searches the lines of a stretch; where the limit on hits ends it, says where the next line begins.
    fn stretch(&mut self, stretch: &Stretch<'_>) -> Result<Option<Seam>, Error> {
        let bytes = stretch.bytes;
        let plain =
            self.search.layers == [Layer::Body] && self.search.filter.is_empty() && !self.lists_records();
        if plain
            && !self.is_full()
            && self.none_may_match(bytes)
            && let Some(lines) = count_objects(bytes)
        {
            *self.coverage.records.entry(RECORD_TYPE.into()).or_default() += lines;
            return Ok(None);
        }
        let mut at = 0;
        while at < bytes.len() {
            let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |n| at + n + 1);
            let line = bytes[at..end].trim_ascii_end();
            if !line.is_empty() {
                if self.is_full() {
                    return Ok(Some(stretch.place(at)));
                }
                // As for the stretch: so it is the line alone that decides whether it is parsed, and named
                // where it is no JSON, however the lines are cut into stretches and shards. What does not
                // even begin like an object is named in any case.
                if plain && line[0] == b'{' && self.none_may_match(line) {
                    *self.coverage.records.entry(RECORD_TYPE.into()).or_default() += 1;
                    at = end;
                    continue;
                }
                let Seam { offset, skip } = stretch.place(at);
                let length = stretch.stored_end(end) - offset;
                self.line(line, Stored::Bytes { offset, length, skip })?;
            }
            at = end;
        }
        Ok(None)
    }

    /// Whether no line can hold a match. A literal of ASCII stands in the JSON as it is, or one of its
    /// characters is escaped by its number.
    fn none_may_match(&mut self, bytes: &[u8]) -> bool {
        if self.search.field.is_some() && may_escape_ascii(bytes) {
            return false;
        }
        self.search.has_plain_literals() && !self.may_match(bytes)
    }

    fn line(&mut self, line: &[u8], stored: Stored) -> Result<(), Error> {
        let fields = object(line.trim_ascii());
        let field = |name: &str| fields.and_then(|line| text_of(line, name));
        let url = field("url");
        let head = Head {
            record_type: Some(Cow::Borrowed(RECORD_TYPE.as_bytes())),
            url: url.as_deref().map(|url| Cow::Borrowed(url.as_bytes())),
            ..Head::default()
        };
        let mut about = About::new(&head, stored);
        if !self.search.filter.takes(&head, None, None) {
            self.leave_out(stored.offset(), if stored.skip() == 0 { stored.length() } else { 0 });
            return Ok(());
        }
        self.count(&about, Some(line.len() as u64))?;
        if self.search.layers.contains(&Layer::Raw) {
            self.search_layer(&mut about, Layer::Raw, line, 0)?;
        }
        if self.search.layers.contains(&Layer::Body) || self.search.layers.contains(&Layer::Text) {
            let search = self.search;
            let body = match &search.field {
                None => Some(Cow::Borrowed(line)),
                Some(path) => match fields {
                    Some(fields) => {
                        about.field = Some(path);
                        text_of(fields, path).map(|text| Cow::Owned(text.into_bytes()))
                    }
                    None => {
                        let reason = "the line is no JSON value: all of it is searched";
                        self.undecoded(&about, Layer::Body, Layer::Raw, reason.into());
                        Some(Cow::Borrowed(line))
                    }
                },
            };
            if let Some(body) = body {
                for layer in [Layer::Body, Layer::Text] {
                    if search.layers.contains(&layer) {
                        self.search_layer(&mut about, layer, &body, 0)?;
                    }
                }
            }
        }
        self.note_cut(&about);
        Ok(())
    }
}

/// A line's record type.
const RECORD_TYPE: &str = "line";

/// A member of lines looks like nothing in particular.
fn holds_bytes(bytes: &[u8]) -> Option<bool> {
    (!bytes.is_empty()).then_some(true)
}

/// How deep JSON may be nested: its parser goes as deep on the stack.
const NESTING_MAX: usize = 128;

/// How deep brackets are nested, outside of strings.
fn nesting(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for b in json.bytes() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The line, if it is a JSON object; JSON is UTF-8 (RFC 8259, 8.1).
fn object(line: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(line).ok()?;
    let looks_right = text.starts_with('{') && text.ends_with('}') && nesting(text) <= NESTING_MAX;
    (looks_right && sonic_rs::from_str::<LazyValue<'_>>(text).is_ok()).then_some(text)
}

/// The text at a path, such as `page.text`: a string unescaped, anything else as it is written.
fn text_of(object: &str, path: &str) -> Option<String> {
    let value = sonic_rs::get(object, path.split('.')).ok()?;
    match value.as_str() {
        Some(text) => Some(text.to_owned()),
        None => Some(value.as_raw_str().to_owned()),
    }
}

/// Whether an ASCII character that need not be may be written as `\u00xx`.
fn may_escape_ascii(bytes: &[u8]) -> bool {
    memchr::memmem::find_iter(bytes, b"\\u00").any(|at| matches!(bytes.get(at + 4), Some(b'2'..=b'7')))
}

/// How many lines there are that hold something; `None` where one does not begin like an object, and so must
/// be looked at by itself.
fn count_objects(bytes: &[u8]) -> Option<u64> {
    let (mut lines, mut from) = (0, 0);
    for end in memchr::memchr_iter(b'\n', bytes).chain(std::iter::once(bytes.len())) {
        let line = bytes[std::mem::replace(&mut from, end + 1)..end].trim_ascii_end();
        match line.first() {
            Some(b'{') => lines += 1,
            Some(_) => return None,
            None => {}
        }
    }
    Some(lines)
}

/// Where the first line of a range begins, by the look: in a plain file for certain, in a compressed one at
/// a member's start if that looks like a line's.
fn find(object: &dyn ReadAt, size: u64, codec: Codec, from: u64, to: u64) -> Result<Option<Seam>, Error> {
    if codec != Codec::Plain {
        return find_member(object, size, codec, holds_bytes, from, to)?
            .map_or(Ok(None), |seam| line_in_member(object, size, codec, seam));
    }
    let mut window = Window::new(object, size, from - 1);
    loop {
        let at = window.offset();
        let bytes = window.peek(1)?;
        let (found, n) = (memchr::memchr(b'\n', bytes), bytes.len());
        match found {
            Some(n) => return Ok(Some(Seam::at(at + n as u64 + 1))),
            None if n == 0 => return Ok(None),
            None => window.advance(n),
        }
    }
}

/// The first line that begins in the member at `seam` or behind it.
fn line_in_member(object: &dyn ReadAt, size: u64, codec: Codec, seam: Seam) -> Result<Option<Seam>, Error> {
    let mut tape = Tape::new(object, size, codec, seam);
    let mut looked = 0;
    loop {
        if tape.buf.first() == Some(&b'{') {
            return Ok(Some(seam));
        }
        if let Some(n) = memchr::memchr(b'\n', &tape.buf[looked..]) {
            let at = looked + n + 1;
            // The line's own first byte says in which member it begins.
            while tape.buf.len() <= at && tape.fill()? {}
            return Ok(Some(if tape.buf.len() > at { tape.place(at) } else { Seam::at(size) }));
        }
        looked = tape.buf.len();
        if looked > RECORD_BYTES_MAX || !tape.fill()? {
            return Ok(None);
        }
    }
}

/// What comes next.
enum Item<'a> {
    Lines(Stretch<'a>),
    Gap(Skip),
    End(Seam),
}

/// Whole lines.
struct Stretch<'a> {
    bytes: &'a [u8],
    tape: &'a Tape<'a>,
    /// Where `bytes` begin on the tape.
    from: usize,
}

impl Stretch<'_> {
    fn place(&self, at: usize) -> Seam {
        self.tape.place(self.from + at)
    }

    fn stored_end(&self, at: usize) -> u64 {
        self.tape.stored_end(self.from + at)
    }
}

struct Lines<'a> {
    object: &'a dyn ReadAt,
    size: u64,
    codec: Codec,
    /// Lines that begin at or after this stored offset belong to somebody else.
    end: u64,
    tape: Tape<'a>,
    /// Up to where the tape holds no line's end.
    looked: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<Item<'_>, Error> {
        if let Some(gap) = self.tape.pass_over()? {
            return Ok(Item::Gap(gap));
        }
        self.tape.compact();
        self.looked = 0;
        let Some(whole) = self.fill_lines()? else {
            return match self.tape.fault.take() {
                Some((start, fault)) => self.recover(start, fault),
                None => Ok(Item::End(Seam::at(self.size))),
            };
        };
        let from = self.tape.pos;
        let to = self.cut_at_end(whole);
        if to == from {
            return Ok(Item::End(self.tape.place(from)));
        }
        for member in self.tape.members.iter_mut().filter(|m| m.at < to as i64) {
            member.read = true;
        }
        self.tape.pos = to;
        Ok(Item::Lines(Stretch { bytes: &self.tape.buf[from..to], tape: &self.tape, from }))
    }

    /// Decodes until whole lines are at hand, and says where the last of them ends.
    fn fill_lines(&mut self) -> Result<Option<usize>, Error> {
        let from = self.tape.pos;
        loop {
            let at_hand = self.tape.buf.len();
            if at_hand - from >= STRETCH_BYTES
                && let Some(n) = memchr::memrchr(b'\n', &self.tape.buf[self.looked.max(from)..])
            {
                return Ok(Some(self.looked.max(from) + n + 1));
            }
            if at_hand - from >= STRETCH_BYTES {
                self.looked = at_hand;
            }
            if at_hand - from > RECORD_BYTES_MAX {
                return self.oversized(from).map(Some);
            }
            if !self.tape.fill()? {
                let bytes = &self.tape.buf[from..];
                // A line that a fault cuts off is no line.
                let whole = match self.tape.fault {
                    Some(_) => memchr::memrchr(b'\n', bytes).map(|n| n + 1),
                    None => (!bytes.is_empty()).then_some(bytes.len()),
                };
                return Ok(whole.map(|n| from + n));
            }
        }
    }

    /// A line that is longer than what is searched of one: what follows is passed over to its end.
    fn oversized(&mut self, from: usize) -> Result<usize, Error> {
        let to = from + RECORD_BYTES_MAX;
        // The rest is discarded by what is decoded of it, so it is looked for by and by.
        let mut rest = 0u64;
        loop {
            let seen = to + rest as usize;
            if let Some(n) = memchr::memchr(b'\n', &self.tape.buf[seen.min(self.tape.buf.len())..]) {
                rest += n as u64 + 1;
                break;
            }
            rest = (self.tape.buf.len() - to) as u64;
            if self.tape.buf.len() - from > 2 * RECORD_BYTES_MAX || !self.tape.fill()? {
                break;
            }
        }
        self.tape.discard = rest;
        Ok(to)
    }

    /// The end of the last line at hand, up to `whole`, that begins before the range's end.
    fn cut_at_end(&self, whole: usize) -> usize {
        let from = self.tape.pos;
        // The first byte that is stored at or behind the range's end.
        let outside = match self.tape.has_members() {
            true => self.tape.members.iter().find(|m| m.offset >= self.end).map(|m| m.at),
            false => Some(self.end as i64 - self.tape.base as i64),
        };
        match outside {
            Some(at) if at <= from as i64 => from,
            Some(at) if at < whole as i64 => {
                let last = at as usize - 1;
                memchr::memchr(b'\n', &self.tape.buf[last..whole]).map_or(whole, |n| last + n + 1)
            }
            _ => whole,
        }
    }

    /// Names the gap at a member that can't be read, and goes on at the next one.
    fn recover(&mut self, start: u64, fault: Fault) -> Result<Item<'a>, Error> {
        let kept = self.tape.members.iter().any(|m| m.offset == start && m.read);
        let from = if kept { self.tape.offset().max(start + 1) } else { start };
        let next = match fault {
            Fault::Truncated => None,
            Fault::Damaged => {
                find_member(self.object, self.size, self.codec, holds_bytes, start + 1, self.size)?
            }
        };
        let reason = if fault == Fault::Truncated { Reason::Truncated } else { Reason::Damaged };
        let to = match next {
            Some(seam) => line_in_member(self.object, self.size, self.codec, seam)?,
            None => None,
        };
        let to = to.unwrap_or(Seam::at(self.size));
        self.tape.restart(to.offset);
        self.tape.discard = to.skip;
        let gap = Skip::new(from.min(to.offset), to.offset - from.min(to.offset), reason);
        Ok(Item::Gap(gap.because("a line that began before it is lost with it")))
    }
}
