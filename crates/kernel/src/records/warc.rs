//! The header of a WARC record (ISO 28500:2017, 5), read as crawlers write it and not only as the standard
//! has it: names in any case, folded values, LF alone at a line's end, `<…>` around a URI, any bytes.

use super::Head;
use super::lines::{Lines, named};
use base16ct::lower;
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;

/// The longest header that is read, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 4 << 20;

/// The fields that are noted, by their place in [`Lines`].
const TYPE: usize = 0;
const DATE: usize = 1;
const URL: usize = 2;
const RECORD_ID: usize = 3;
const PAYLOAD_DIGEST: usize = 4;
const CONTENT_TYPE: usize = 5;
const CONTENT_LENGTH: usize = 6;
const SEGMENT: usize = 7;

/// Whether a record begins here; `None` where more bytes are needed to tell.
pub(crate) fn begins(bytes: &[u8]) -> Option<bool> {
    let magic = b"WARC/";
    let n = bytes.len().min(magic.len());
    if bytes[..n] != magic[..n] { Some(false) } else { (n == magic.len()).then_some(true) }
}

/// Reads the header that `bytes` begin with; `None` where they hold no empty line.
pub(crate) fn lines(bytes: &[u8]) -> Option<Lines> {
    Lines::read(bytes, which)
}

/// One letter tells most names apart: those behind `WARC-` and `Content-`.
fn which(line: &[u8]) -> Option<(usize, usize)> {
    let letter = |at: usize| line.get(at).map(u8::to_ascii_lowercase);
    let names: &[(&str, usize)] = match (line[0], letter(5), letter(8)) {
        (b'w' | b'W', Some(b't'), _) => &[("WARC-Type", TYPE), ("WARC-Target-URI", URL)],
        (b'w' | b'W', Some(b'd'), _) => &[("WARC-Date", DATE)],
        (b'w' | b'W', Some(b'r'), _) => &[("WARC-Record-ID", RECORD_ID)],
        (b'w' | b'W', Some(b'p'), _) => &[("WARC-Payload-Digest", PAYLOAD_DIGEST)],
        (b'w' | b'W', Some(b's'), _) => &[("WARC-Segment-Number", SEGMENT)],
        (b'c' | b'C', _, Some(b'l')) => &[("Content-Length", CONTENT_LENGTH)],
        (b'c' | b'C', _, Some(b't')) => &[("Content-Type", CONTENT_TYPE)],
        _ => return None,
    };
    named(line, names)
}

/// What the lines of a header say.
pub(crate) fn parse<'a>(head: &'a [u8], lines: &Lines) -> Head<'a> {
    Head {
        record_type: lines.value(head, TYPE),
        url: lines.value(head, URL).map(uri),
        date: lines.value(head, DATE),
        record_id: lines.value(head, RECORD_ID),
        payload_digest: lines.value(head, PAYLOAD_DIGEST),
        content_type: lines.value(head, CONTENT_TYPE),
        content_length: content_length(head, lines),
        is_segment: lines.value(head, SEGMENT).is_some(),
    }
}

/// `None` where it is missing, doubled with another value, or not a number of 64 bits.
pub(crate) fn content_length(head: &[u8], lines: &Lines) -> Option<u64> {
    let mut lengths = lines.values(head, CONTENT_LENGTH).map(|value| length(&value));
    let first = lengths.next()?;
    // Doubled with the same value is lawful enough; with another it is no length.
    first.filter(|_| lengths.all(|other| other == first))
}

/// The header of a record that was stored without one. Its id follows from its bytes (RFC 9562, 5.8), so that
/// a copy of the same record has the same.
pub(crate) fn head(record: &Head<'_>, block: &[u8]) -> Vec<u8> {
    let value = |value: &Option<Cow<'_, [u8]>>| value.as_deref().unwrap_or_default().to_vec();
    let named = [&record.record_type, &record.url, &record.date].map(value).join(&b'\n');
    let hash = Sha256::new().chain_update(named).chain_update(b"\n").chain_update(block).finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    (id[6], id[8]) = (id[6] & 0x0f | 0x80, id[8] & 0x3f | 0x80);
    let hex = lower::encode_string(&id);
    let id = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    let mut head = b"WARC/1.1\r\n".to_vec();
    let fields = [
        ("WARC-Type", value(&record.record_type)),
        ("WARC-Record-ID", format!("<urn:uuid:{id}>").into_bytes()),
        ("WARC-Target-URI", value(&record.url)),
        ("WARC-Date", value(&record.date)),
        ("Content-Type", value(&record.content_type)),
        ("Content-Length", block.len().to_string().into_bytes()),
    ];
    // A warcinfo record speaks of a file, and has no URI (ISO 28500, 5.12 and 6.2).
    let is_info = record.record_type.as_deref() == Some(b"warcinfo");
    for (name, value) in fields.into_iter().filter(|(name, _)| !is_info || *name != "WARC-Target-URI") {
        head.extend([name.as_bytes(), b": ", &value, b"\r\n"].concat());
    }
    head.extend(b"\r\n");
    head
}

/// The value of a field that is asked for too seldom to be noted.
pub(crate) fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|b| *b == b'\n').find_map(|line| Some(line[named(line, &[(name, 0)])?.1 + 1..].trim_ascii()))
}

/// WARC 1.0 has the URI in angle brackets, 1.1 without.
fn uri(value: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    let bare = |text: &[u8]| text.len() >= 2 && text.starts_with(b"<") && text.ends_with(b">");
    match value {
        Cow::Borrowed(text) if bare(text) => Cow::Borrowed(&text[1..text.len() - 1]),
        Cow::Owned(text) if bare(&text) => Cow::Owned(text[1..text.len() - 1].to_vec()),
        other => other,
    }
}

/// Digits only: `+5`, `0x5` and what does not fit 64 bits are no length.
pub(super) fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |n, b| match b {
        b'0'..=b'9' => n.checked_mul(10)?.checked_add(u64::from(b - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Option<Cow<'_, [u8]>> {
        Some(Cow::Borrowed(value.as_bytes()))
    }

    #[test]
    fn reads_headers_as_they_are_found() {
        let table: &[(&str, &[u8], Head<'_>)] = &[
            (
                "as the standard has it",
                b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: <http://a/b c>\r\nContent-Length: 5\r\n\r\n",
                Head {
                    record_type: text("response"),
                    url: text("http://a/b c"),
                    content_length: Some(5),
                    ..Head::default()
                },
            ),
            (
                "LF only, names in any case, a folded value after an empty first line",
                b"WARC/1.1\nwarc-TYPE:Resource\nWarc-Date:\n 2024-05-20\n\tT00:00:00Z\ncontent-length:0\n\n",
                Head {
                    record_type: text("Resource"),
                    date: text("2024-05-20 T00:00:00Z"),
                    content_length: Some(0),
                    ..Head::default()
                },
            ),
            ("a sign is no digit", b"WARC/1.0\r\nContent-Length: +5\r\n\r\n", Head::default()),
            ("too large", b"WARC/1.0\r\nContent-Length: 18446744073709551616\r\n\r\n", Head::default()),
            ("doubled and different", b"WARC/1.0\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", Head::default()),
            (
                "doubled and the same",
                b"WARC/1.0\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                Head { content_length: Some(5), ..Head::default() },
            ),
            (
                "bytes that are not UTF-8",
                b"WARC/1.0\r\nWARC-Record-ID: \xff\r\n\r\n",
                Head { record_id: Some(Cow::Borrowed(b"\xff")), ..Head::default() },
            ),
        ];
        for (name, bytes, expected) in table {
            let lines = lines(bytes).unwrap();
            assert_eq!(lines.len, bytes.len(), "{name}: the head's end");
            assert_eq!(parse(bytes, &lines), *expected, "{name}");
        }
    }
}
