//! The header line of an ARC record (Internet Archive, "Arc File Format", 1996): `URL IP date mime length`
//! in version 1, and five more fields before the length in version 2. A URL may hold spaces, so the fields
//! are counted from the right.

use super::Head;
use super::lines::Lines;
use super::warc::length;
use std::borrow::Cow;

/// The longest header line that is read, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;

/// Whether a record begins here; `None` where more bytes are needed to tell.
pub(crate) fn begins(bytes: &[u8]) -> Option<bool> {
    let shown = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    match memchr::memchr(b'\n', shown) {
        Some(end) => Some(fields(&shown[..end]).is_some()),
        None if shown.len() == HEAD_BYTES_MAX || !may_begin(shown) => Some(false),
        None => None,
    }
}

/// Whether the first bytes may be those of a URL: a scheme.
fn may_begin(bytes: &[u8]) -> bool {
    let scheme = &bytes[..memchr::memchr(b':', bytes).unwrap_or(bytes.len().min(32))];
    scheme.iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b))
}

/// Reads the header that `bytes` begin with.
pub(crate) fn lines(bytes: &[u8]) -> Option<Lines> {
    Some(Lines::none(memchr::memchr(b'\n', bytes)? + 1))
}

struct Fields<'a> {
    url: &'a [u8],
    date: &'a [u8],
    mime: &'a [u8],
    length: u64,
}

fn fields(line: &[u8]) -> Option<Fields<'_>> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if !may_begin(line) {
        return None;
    }
    // Version 1 has the date third from the right, version 2 eighth.
    [5, 10].into_iter().find_map(|count| {
        let mut from_right = line.rsplitn(count, |b| *b == b' ');
        let length = length(from_right.next()?)?;
        let mut others: Vec<&[u8]> = from_right.collect();
        if others.len() != count - 1 {
            return None;
        }
        others.reverse();
        let [url, _ip, date, mime, ..] = others[..] else { return None };
        let dated = (8..=14).contains(&date.len()) && date.iter().all(u8::is_ascii_digit);
        let has_scheme = memchr::memchr(b':', url).is_some_and(|n| n > 0);
        (dated && has_scheme).then_some(Fields { url, date, mime, length })
    })
}

/// Reads a header line.
pub(crate) fn parse(head: &[u8]) -> Head<'_> {
    let line = head.strip_suffix(b"\n").unwrap_or(head);
    let Some(fields) = fields(line) else { return Head::default() };
    let record_type: &[u8] = match fields.url {
        url if url.starts_with(b"filedesc:") => b"warcinfo",
        url if url.starts_with(b"http") => b"response",
        _ => b"resource",
    };
    let is_http = record_type == b"response";
    let content_type: &[u8] = if is_http { b"application/http; msgtype=response" } else { fields.mime };
    Head {
        record_type: Some(Cow::Borrowed(record_type)),
        url: Some(Cow::Borrowed(fields.url)),
        date: Some(Cow::Owned(timestamp(fields.date))),
        content_type: Some(Cow::Borrowed(content_type)),
        content_length: Some(fields.length),
        ..Head::default()
    }
}

/// What a header line says of a block that is no HTTP message, whatever its URL.
pub(crate) fn parse_resource(head: &[u8]) -> Head<'_> {
    let line = head.strip_suffix(b"\n").unwrap_or(head);
    let mime = fields(line).map(|fields| Cow::Borrowed(fields.mime));
    Head { record_type: Some(Cow::Borrowed(b"resource")), content_type: mime, ..parse(head) }
}

/// `20240520093000` as WARC writes it, `2024-05-20T09:30:00Z`; what has no time of day is at its start.
fn timestamp(digits: &[u8]) -> Vec<u8> {
    let mut all = digits.to_vec();
    all.resize(14, b'0');
    let part = |from: usize, to: usize| &all[from..to];
    [
        part(0, 4),
        b"-",
        part(4, 6),
        b"-",
        part(6, 8),
        b"T",
        part(8, 10),
        b":",
        part(10, 12),
        b":",
        part(12, 14),
        b"Z",
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_versions() {
        let table: &[(&str, Option<(&str, u64)>)] = &[
            ("http://h/a 1.2.3.4 19960923142103 text/html 202", Some(("http://h/a", 202))),
            ("http://h/a b 1.2.3.4 19960923142103 text/html 202", Some(("http://h/a b", 202))),
            (
                "http://h/a 1.2.3.4 19960923142103 text/html 200 - - 209 IAH.arc 202",
                Some(("http://h/a", 202)),
            ),
            ("filedesc://a.arc 0.0.0.0 19960923142103 text/plain 76", Some(("filedesc://a.arc", 76))),
            ("http://h/a 1.2.3.4 19960923142103 text/html -1", None),
            ("http://h/a 1.2.3.4 yesterday text/html 202", None),
            ("just some words of a page, 202", None),
            ("", None),
        ];
        for (line, expected) in table {
            let head = parse(line.as_bytes());
            let found = head.url.as_deref().zip(head.content_length);
            assert_eq!(found, expected.map(|(url, n)| (url.as_bytes(), n)), "{line}");
            assert_eq!(begins(format!("{line}\n").as_bytes()), Some(expected.is_some()), "{line}");
        }
        assert_eq!(timestamp(b"19960923142103"), b"1996-09-23T14:21:03Z");
    }
}
