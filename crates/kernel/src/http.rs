//! An HTTP message as a crawler stored it: its head, and what was done to its body (RFC 9112, RFC 9110).

use crate::RECORD_BYTES_MAX;
use crate::records::lines::{Lines, named};
use dragnet_libdeflate as libdeflate;
use std::borrow::Cow;
use std::io::Read;

/// The head of a stored HTTP message.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    /// Bytes of the head, its empty line included.
    pub(crate) len: usize,
    pub(crate) status: Option<u16>,
    pub(crate) content_type: Option<Cow<'a, [u8]>>,
    head: &'a [u8],
    lines: Lines,
}

/// The fields that are noted, by their place in [`Lines`].
const CONTENT_TYPE: usize = 0;
const CONTENT_ENCODING: usize = 1;
const TRANSFER_ENCODING: usize = 2;

/// One letter tells most names apart.
fn which(line: &[u8]) -> Option<(usize, usize)> {
    let names: &[(&str, usize)] = match (line[0], line.get(8).map(u8::to_ascii_lowercase)) {
        (b'c' | b'C', Some(b't')) => &[("Content-Type", CONTENT_TYPE)],
        (b'c' | b'C', Some(b'e')) => &[("Content-Encoding", CONTENT_ENCODING)],
        (b't' | b'T', Some(b'-')) => &[("Transfer-Encoding", TRANSFER_ENCODING)],
        _ => return None,
    };
    named(line, names)
}

/// Whether a block that is said to be an HTTP message begins like one: what does not (a truncated capture, a
/// file in an ARC) has no head to take off. Requests begin with any word.
pub(crate) fn begins(block: &[u8], is_request: bool) -> bool {
    // Line ends before it are lawful (RFC 9112, 2.2).
    let block = block.trim_ascii_start();
    let starts = |word: &[u8]| block.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    is_request || starts(b"HTTP/") || starts(b"ICY ")
}

/// Reads the head that `block` begins with; a block without an empty line is all head.
pub(crate) fn parse(block: &[u8]) -> Head<'_> {
    let before = block.len() - block.trim_ascii_start().len();
    let block = &block[before..];
    let lines = Lines::read(block, which).unwrap_or_else(|| Lines::unended(block, which));
    let head = &block[..lines.len];
    let line_end = memchr::memchr(b'\n', head).unwrap_or(head.len());
    Head {
        len: before + lines.len,
        status: status(&head[..line_end]),
        content_type: lines.value(head, CONTENT_TYPE),
        head,
        lines,
    }
}

impl Head<'_> {
    /// The codings in the order in which they are undone.
    fn codings(&self) -> Vec<String> {
        let list = |field: usize| {
            let values = self.lines.values(self.head, field);
            let text =
                values.map(|value| String::from_utf8_lossy(&value).to_ascii_lowercase()).collect::<Vec<_>>();
            let split = text.iter().flat_map(|value| value.split(',')).map(|coding| coding.trim().to_owned());
            split.filter(|coding| !coding.is_empty()).rev().collect::<Vec<_>>()
        };
        [list(TRANSFER_ENCODING), list(CONTENT_ENCODING)].concat()
    }
}

fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/")?;
    let code = rest.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).nth(1)?;
    std::str::from_utf8(code).ok()?.parse().ok()
}

/// A coding that could not be undone, or not to its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// What was decoded before it broke.
    pub(crate) so_far: Vec<u8>,
    pub(crate) reason: String,
}

/// Undoes the codings of bodies, with decoders that are kept.
#[derive(Default)]
pub(crate) struct Codings {
    /// Made when it is first needed: most small files never do.
    deflate: Option<libdeflate::Decoder>,
}

impl Codings {
    /// The body of `block`, with the codings of its head undone. A coding that the crawler already had
    /// undone is left out, and the rest applied.
    pub(crate) fn body<'a>(&mut self, block: &'a [u8], head: &Head<'_>) -> Result<Cow<'a, [u8]>, Broken> {
        let mut body = Cow::Borrowed(&block[head.len..]);
        let mut trouble: Option<String> = None;
        for coding in head.codings() {
            if body.is_empty() {
                break;
            }
            match self.undo(&coding, &body, RECORD_BYTES_MAX) {
                Ok(Some(decoded)) => body = Cow::Owned(decoded),
                Ok(None) => {}
                Err(broken) if broken.so_far.is_empty() => {
                    return Err(Broken { reason: trouble.unwrap_or(broken.reason), ..broken });
                }
                // What came before the break may be coded further.
                Err(broken) => {
                    body = Cow::Owned(broken.so_far);
                    trouble.get_or_insert(broken.reason);
                }
            }
        }
        match trouble {
            Some(reason) => Err(Broken { so_far: body.into_owned(), reason }),
            None => Ok(body),
        }
    }

    /// Undoes one coding. `Ok(None)` where the bytes are not so coded.
    fn undo(&mut self, coding: &str, bytes: &[u8], max: usize) -> Result<Option<Vec<u8>>, Broken> {
        match coding {
            "identity" => Ok(None),
            "chunked" => chunked(bytes),
            "gzip" | "x-gzip" if !bytes.starts_with(&[0x1f, 0x8b]) => Ok(None),
            "gzip" | "x-gzip" => match self.whole_gzip(bytes, max) {
                Some(decoded) => Ok(Some(decoded)),
                None => read_all(coding, flate2::read::MultiGzDecoder::new(bytes), max).map(Some),
            },
            "deflate" => self.deflate(bytes, max),
            "br" => match read_all(coding, brotli_decompressor::Decompressor::new(bytes, 64 << 10), max) {
                Ok(decoded) => Ok(Some(decoded)),
                // Brotli has no magic number: what breaks at once and is text was never coded.
                Err(broken) if broken.so_far.len() < bytes.len() / 2 && is_plain(bytes) => Ok(None),
                Err(broken) => Err(broken),
            },
            "zstd" if !bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) => Ok(None),
            "zstd" => zstd(bytes, max).map(Some),
            other => Err(Broken {
                so_far: Vec::new(),
                reason: format!("the coding `{other}` is not one that is decoded: gzip, deflate, br, zstd"),
            }),
        }
    }

    /// Sound members, decoded in one call each; `None` where anything else is there.
    fn whole_gzip(&mut self, bytes: &[u8], max: usize) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let n = self.whole(libdeflate::Format::Gzip, &bytes[at..], &mut out, max)?;
            at += n;
        }
        Some(out)
    }

    /// Appends what the stream at the start of `bytes` decodes to, and says how long it is.
    fn whole(
        &mut self,
        format: libdeflate::Format,
        bytes: &[u8],
        out: &mut Vec<u8>,
        max: usize,
    ) -> Option<usize> {
        let from = out.len();
        let mut room = (bytes.len() * 6).clamp(4 << 10, max);
        loop {
            out.resize(from + room, 0);
            let decoder = self.deflate.get_or_insert_with(libdeflate::Decoder::new);
            match decoder.decode(format, bytes, &mut out[from..]) {
                Ok(decoded) => {
                    out.truncate(from + decoded.written);
                    return Some(decoded.consumed);
                }
                Err(libdeflate::Error::OutputTooSmall) if from + room < max => {
                    room = (room * 4).min(max - from);
                }
                Err(_) => return None,
            }
        }
    }

    /// `deflate` means zlib (RFC 9110, 8.4.1.2), and is often sent raw.
    fn deflate(&mut self, bytes: &[u8], max: usize) -> Result<Option<Vec<u8>>, Broken> {
        let mut out = Vec::new();
        if self.whole(libdeflate::Format::Zlib, bytes, &mut out, max).is_some() {
            return Ok(Some(out));
        }
        // Almost any text begins like a raw stream: what is text was not coded.
        if is_plain(bytes) {
            return Ok(None);
        }
        out.clear();
        if self.whole(libdeflate::Format::Deflate, bytes, &mut out, max) == Some(bytes.len()) {
            return Ok(Some(out));
        }
        let zlib = match read_all("deflate", flate2::read::ZlibDecoder::new(bytes), max) {
            Ok(decoded) => return Ok(Some(decoded)),
            Err(broken) => broken,
        };
        match read_all("deflate", flate2::read::DeflateDecoder::new(bytes), max) {
            Ok(decoded) if decoded.len() >= zlib.so_far.len() => Ok(Some(decoded)),
            Err(raw) if raw.so_far.len() > zlib.so_far.len() => Err(raw),
            _ => Err(zlib),
        }
    }
}

/// Whether the bytes are text as they stand.
fn is_plain(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| !text.contains('\0'))
}

pub(crate) fn zstd(bytes: &[u8], max: usize) -> Result<Vec<u8>, Broken> {
    let mut context = zstd_safe::DCtx::create();
    let mut out = Vec::new();
    let mut input = zstd_safe::InBuffer::around(bytes);
    let mut ended = false;
    let broken = |so_far, why: &str| Err(Broken { so_far, reason: format!("the coding `zstd` {why}") });
    while input.pos() < bytes.len() || !ended {
        let from = out.len();
        if from >= max {
            return broken(out, &format!("decodes to more than {max} bytes"));
        }
        out.resize((from + (128 << 10)).min(max), 0);
        let mut space = zstd_safe::OutBuffer::around(&mut out[from..]);
        let result = context.decompress_stream(&mut space, &mut input);
        let written = space.pos();
        out.truncate(from + written);
        match result {
            Ok(hint) => ended = hint == 0,
            Err(code) => return broken(out, &format!("breaks: {}", zstd_safe::get_error_name(code))),
        }
        if input.pos() == bytes.len() && written == 0 && !ended {
            return broken(out, "ends too early");
        }
    }
    Ok(out)
}

fn read_all(coding: &str, decoder: impl Read, max: usize) -> Result<Vec<u8>, Broken> {
    let mut out = Vec::new();
    match decoder.take(max as u64 + 1).read_to_end(&mut out) {
        Ok(_) if out.len() <= max => Ok(out),
        Ok(_) => {
            out.truncate(max);
            Err(Broken {
                so_far: out,
                reason: format!("the coding `{coding}` decodes to more than {max} bytes"),
            })
        }
        Err(e) => Err(Broken { so_far: out, reason: format!("the coding `{coding}` breaks: {e}") }),
    }
}

/// Chunked coding (RFC 9112, 7.1), extensions and trailers left out; `None` where the bytes are not so coded.
/// A body that the crawler cut off is what is there of it.
pub(crate) fn chunked(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
    let mut out = Vec::new();
    let mut begun = false;
    loop {
        let line_end = memchr::memchr(b'\n', bytes);
        let line = std::str::from_utf8(&bytes[..line_end.unwrap_or(bytes.len())]).unwrap_or("no size");
        let size = usize::from_str_radix(line.split(';').next().unwrap_or(line).trim(), 16);
        let (size, line_end) = match (size, line_end) {
            (Ok(size), Some(line_end)) => (size, line_end),
            _ if !begun => return Ok(None),
            (_, None) => return Ok(Some(out)),
            (Err(_), _) => return Err(Broken { so_far: out, reason: "the coding `chunked` breaks".into() }),
        };
        begun = true;
        bytes = &bytes[line_end + 1..];
        if size == 0 {
            return Ok(Some(out));
        }
        let here = size.min(bytes.len());
        out.extend_from_slice(&bytes[..here]);
        bytes = &bytes[here..];
        bytes = bytes.strip_prefix(b"\r\n").or_else(|| bytes.strip_prefix(b"\n")).unwrap_or(bytes);
        if bytes.is_empty() {
            return Ok(Some(out));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undoes_codings() {
        type Row<'a> = (&'a str, &'a str, &'a [u8], Option<&'a [u8]>);
        let table: &[Row<'_>] = &[
            (
                "chunks with extension and trailer",
                "chunked",
                b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: v\r\n\r\n",
                Some(b"abcde"),
            ),
            ("already undone by the crawler", "chunked", b"<html>no chunks</html>", None),
            ("cut off in a later size line", "chunked", b"3\r\nabc\r\n2", Some(b"abc")),
            ("cut off", "chunked", b"ff\r\nabc", Some(b"abc")),
            ("gzip already undone", "gzip", b"<html>", None),
            (
                "zlib",
                "deflate",
                &[0x78, 0x9c, 0x4b, 0x4c, 0x4a, 0x06, 0x00, 0x02, 0x4d, 0x01, 0x27],
                Some(b"abc"),
            ),
            ("brotli", "br", &[0x0b, 0x01, 0x80, b'a', b'b', b'c', 0x03], Some(b"abc")),
            ("brotli already undone", "br", b"<html>not coded at all", None),
            (
                "zstd, two frames",
                "zstd",
                &[
                    0x28, 0xb5, 0x2f, 0xfd, 0x20, 2, 0x11, 0, 0, b'a', b'b', 0x28, 0xb5, 0x2f, 0xfd, 0x20, 1,
                    9, 0, 0, b'c',
                ],
                Some(b"abc"),
            ),
            ("zstd already undone", "zstd", b"<html>", None),
            ("indented JSON begins like raw deflate", "deflate", b"{\n  \"key\": \"needle\"\n}", None),
            ("raw deflate", "deflate", &[0x4b, 0x4c, 0x4a, 0x06, 0x00], Some(b"abc")),
        ];
        for (name, coding, bytes, expected) in table {
            assert_eq!(
                Codings::default().undo(coding, bytes, 1 << 20).unwrap().as_deref(),
                *expected,
                "{name}"
            );
        }
        let broken = Codings::default().undo("chunked", b"1\r\na\r\nzz\r\n", 1 << 20);
        assert_eq!(broken.map_err(|broken| broken.so_far), Err(b"a".to_vec()));
    }
}
