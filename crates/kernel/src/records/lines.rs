//! A block of `Name: value` lines, as heads of WARC records and of HTTP messages are: read in one pass that
//! notes where the wanted values stand and copies none. An archive has a head for every few kilobytes, so
//! this is what a scan does most, after decompression.

use std::borrow::Cow;

/// How many fields of a head are noted.
const FIELDS: usize = 8;

/// Where the wanted values of a head stand.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines {
    /// Bytes of the head, its empty line included.
    pub(crate) len: usize,
    /// From the byte after the colon to the value's last line end; empty where there is no such field.
    values: [Span; FIELDS],
    /// Values of fields that were given before.
    more: Vec<(usize, Span)>,
}

type Span = (u32, u32);

/// Says which field a line is, and where its colon stands. It is only asked for lines that hold something.
pub(crate) type Which = fn(&[u8]) -> Option<(usize, usize)>;

impl Lines {
    /// Reads a head; `None` where `bytes` hold no empty line. The first line is no field.
    pub(crate) fn read(bytes: &[u8], which: Which) -> Option<Lines> {
        let mut lines = Lines::default();
        let mut at = memchr::memchr(b'\n', bytes)? + 1;
        let mut current = None;
        loop {
            let end = at + memchr::memchr(b'\n', &bytes[at..])?;
            match bytes[at] {
                b'\n' => break lines.len = end + 1,
                b'\r' if end == at + 1 => break lines.len = end + 1,
                b' ' | b'\t' => lines.fold(current, end),
                _ => {
                    current = which(&bytes[at..end]);
                    if let Some((field, colon)) = current {
                        lines.note(field, ((at + colon + 1) as u32, end as u32));
                    }
                }
            }
            at = end + 1;
        }
        Some(lines)
    }

    /// A head of `len` bytes without fields.
    pub(crate) fn none(len: usize) -> Lines {
        Lines { len, ..Lines::default() }
    }

    /// All of `bytes` as a head that lacks its empty line.
    pub(crate) fn unended(bytes: &[u8], which: Which) -> Lines {
        let mut ended = bytes.to_vec();
        ended.extend_from_slice(b"\n\n");
        let lines = Lines::read(&ended, which).unwrap_or_default();
        Lines { len: bytes.len(), ..lines }
    }

    fn note(&mut self, field: usize, span: Span) {
        match &mut self.values[field] {
            first @ (0, 0) => *first = span,
            _ => self.more.push((field, span)),
        }
    }

    /// A line that continues the one before it (ISO 28500, 4; RFC 9112, 5.2).
    fn fold(&mut self, current: Option<(usize, usize)>, end: usize) {
        let Some((field, _)) = current else { return };
        match self.more.last_mut() {
            Some((last, span)) if *last == field => span.1 = end as u32,
            _ => self.values[field].1 = end as u32,
        }
    }

    /// The first value of a field, unfolded.
    pub(crate) fn value<'a>(&self, head: &'a [u8], field: usize) -> Option<Cow<'a, [u8]>> {
        match self.values[field] {
            (0, 0) => None,
            span => Some(unfolded(head, span)),
        }
    }

    /// Every value of a field.
    pub(crate) fn values<'a>(&self, head: &'a [u8], field: usize) -> impl Iterator<Item = Cow<'a, [u8]>> {
        let more = self.more.iter().filter(move |(other, _)| *other == field).map(|(_, span)| *span);
        let first = Some(self.values[field]).filter(|span| *span != (0, 0));
        first.into_iter().chain(more).map(move |span| unfolded(head, span))
    }
}

fn unfolded(head: &[u8], (from, to): Span) -> Cow<'_, [u8]> {
    let value = &head[from as usize..(to as usize).min(head.len())];
    if memchr::memchr(b'\n', value).is_none() {
        return Cow::Borrowed(value.trim_ascii());
    }
    let parts = value.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|part| !part.is_empty());
    Cow::Owned(parts.collect::<Vec<_>>().join(&b' '))
}

/// Which of some names a line has, in any case, and where its colon stands.
pub(crate) fn named(line: &[u8], names: &[(&str, usize)]) -> Option<(usize, usize)> {
    names.iter().find_map(|(name, field)| {
        // One byte tells most of them apart.
        let colon = match line.get(name.len())? {
            b':' => name.len(),
            b' ' | b'\t' => name.len() + line[name.len()..].iter().position(|b| *b == b':')?,
            _ => return None,
        };
        let right = line[..name.len()].eq_ignore_ascii_case(name.as_bytes());
        (right && line[name.len()..colon].trim_ascii().is_empty()).then_some((*field, colon))
    })
}
