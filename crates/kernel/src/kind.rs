//! What an object is: found by its first bytes, never by its name alone.

use crate::buffer::Buffer;
use crate::frames::{self, Frames};
use crate::object::{ReadAt, read_full};
use crate::records::{arc, warc};
use crate::{Error, wacz};
use serde::{Deserialize, Serialize};

/// An object's format and how it is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kind {
    /// What the decoded bytes are.
    pub format: Format,
    /// How they are stored.
    #[serde(default, skip_serializing_if = "Codec::is_plain")]
    pub codec: Codec,
}

/// What the decoded bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// WARC records (ISO 28500), and so WET and WAT.
    Warc,
    /// ARC records, versions 1 and 2 (Internet Archive, 1996).
    Arc,
    /// A zip archive that holds WARC files (WACZ 1.1).
    Wacz,
    /// A JSON value on each line.
    JsonLines,
    /// Apache Parquet.
    Parquet,
    /// Text, HTML or anything else: the object is one document.
    Document,
}

/// How bytes are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// As they are.
    #[default]
    Plain,
    /// Gzip members (RFC 1952).
    Gzip,
    /// Zstandard frames (RFC 8878).
    Zstd,
    /// Bzip2 streams.
    Bzip2,
    /// Xz streams.
    Xz,
}

impl Codec {
    fn is_plain(&self) -> bool {
        *self == Codec::Plain
    }

    /// The codec whose streams begin as `bytes` do.
    fn of(bytes: &[u8]) -> Codec {
        match bytes {
            [0x1f, 0x8b, 8, flags, ..] if flags & 0xe0 == 0 => Codec::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Codec::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..] => Codec::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Codec::Xz,
            _ => Codec::Plain,
        }
    }
}

/// How much of an object is looked at.
const HEAD_BYTES: usize = 4096;
/// How far noise may go before the first member or record, for a file whose name says that it is an archive.
const NOISE_BYTES: usize = 64 << 10;

impl Kind {
    /// One document that is not compressed.
    pub const DOCUMENT: Kind = Kind { format: Format::Document, codec: Codec::Plain };
    /// WARC, a gzip member for each record, as crawlers write it.
    pub const WARC_GZIP: Kind = Kind { format: Format::Warc, codec: Codec::Gzip };

    /// Looks at an object's first bytes. The name is asked only where they leave it open: JSON on a line of
    /// its own, and an archive with noise before its first record.
    ///
    /// # Errors
    /// [`Error::Read`] when they can't be read.
    pub fn of(object: &dyn ReadAt, name: &str) -> Result<Kind, Error> {
        let mut space = [0; HEAD_BYTES];
        let head = match object.in_memory() {
            Some(all) => &all[..all.len().min(HEAD_BYTES)],
            None => {
                let n = read_full(object, 0, &mut space)?;
                &space[..n]
            }
        };
        let named = Named::of(name);
        let codec = Codec::of(head);
        if codec == Codec::Plain {
            if let Some(format) = plain_format(head, named) {
                return Ok(Kind { format, codec });
            }
            if named == Named::Archive
                && let Some(kind) = behind_noise(object)?
            {
                return Ok(kind);
            }
            return Ok(Kind::DOCUMENT);
        }
        let decoded = first_bytes(object, codec)?;
        Ok(Kind { format: plain_format(&decoded, named).unwrap_or(Format::Document), codec })
    }

    /// Whether a byte range of the object can be searched without what comes before it.
    pub fn splits(self) -> bool {
        match self.format {
            Format::Warc | Format::Arc | Format::JsonLines => {
                matches!(self.codec, Codec::Plain | Codec::Gzip | Codec::Zstd)
            }
            Format::Wacz | Format::Parquet => true,
            Format::Document => false,
        }
    }
}

/// What a name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Archive,
    JsonLines,
    Other,
}

impl Named {
    fn of(name: &str) -> Named {
        let name = name.rsplit('/').next().unwrap_or(name);
        let has = |part: &str| name.split('.').skip(1).any(|p| p.eq_ignore_ascii_case(part));
        if has("warc") || has("arc") || has("wet") || has("wat") {
            Named::Archive
        } else if has("jsonl") || has("ndjson") || has("jsonlines") {
            Named::JsonLines
        } else {
            Named::Other
        }
    }
}

/// The format of bytes that are not compressed; `None` where they are any document.
fn plain_format(head: &[u8], named: Named) -> Option<Format> {
    let text = head.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(0);
    if warc::begins(&head[text..]) == Some(true) {
        return Some(Format::Warc);
    }
    if head[text..].starts_with(b"filedesc:") && arc::begins(&head[text..]) == Some(true) {
        return Some(Format::Arc);
    }
    if head.starts_with(b"PAR1") {
        return Some(Format::Parquet);
    }
    if wacz::begins(head) {
        return Some(Format::Wacz);
    }
    let json = matches!(head.first(), Some(b'{')) && json_on_a_line(head);
    (json || named == Named::JsonLines).then_some(Format::JsonLines)
}

/// Whether the first line is a JSON object, as far as the head shows, and another begins behind it: a
/// pretty-printed document has its first line's end inside the object.
fn json_on_a_line(head: &[u8]) -> bool {
    let Some(end) = memchr::memchr(b'\n', head) else {
        // A line longer than the head: a name for its first member, and no other sign.
        return head.len() >= HEAD_BYTES && head[1..].trim_ascii_start().starts_with(b"\"");
    };
    let line = head[..end].trim_ascii_end();
    let next = head[end + 1..].trim_ascii_start();
    line.ends_with(b"}") && line.len() > 2 && (next.is_empty() || next.starts_with(b"{"))
}

/// An archive's kind, where its name promises one and something else stands first.
fn behind_noise(object: &dyn ReadAt) -> Result<Option<Kind>, Error> {
    let mut bytes = vec![0; NOISE_BYTES];
    let n = read_full(object, 0, &mut bytes)?;
    bytes.truncate(n);
    for (at, _) in bytes.iter().enumerate().filter(|(_, b)| matches!(b, 0x1f | 0x28 | b'W')) {
        let rest = &bytes[at..];
        if warc::begins(rest) == Some(true) {
            return Ok(Some(Kind { format: Format::Warc, codec: Codec::Plain }));
        }
        let codec = Codec::of(rest);
        if matches!(codec, Codec::Gzip | Codec::Zstd) {
            let slice = crate::object::Slice { object, start: at as u64 };
            if warc::begins(&first_bytes(&slice, codec)?) == Some(true) {
                return Ok(Some(Kind { format: Format::Warc, codec }));
            }
        }
    }
    Ok(None)
}

/// The first decoded bytes of an object, as far as they can be had.
fn first_bytes(object: &dyn ReadAt, codec: Codec) -> Result<Buffer, Error> {
    // The size is not known here; where the object turns out to end is learned by reading past it.
    match decode_head(object, u64::MAX, codec) {
        Err(Error::Shrunk { end, .. }) => decode_head(object, end, codec),
        other => other,
    }
}

fn decode_head(object: &dyn ReadAt, size: u64, codec: Codec) -> Result<Buffer, Error> {
    let mut frames = Frames::new(object, size, codec, 0);
    let mut out = Buffer::default();
    while out.len() < HEAD_BYTES {
        if let frames::Event::Fault { .. } | frames::Event::End = frames.next(&mut out)? {
            break;
        }
    }
    Ok(out)
}
