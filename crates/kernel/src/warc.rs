//! The header of a WARC record (ISO 28500:2017, 5), read as crawlers write it and not only as the standard
//! has it: names in any case, folded values, LF alone at a line's end, `<…>` around a URI, any bytes.

/// The longest header that is read, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 4 << 20;

/// What the scan needs of a record's header.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) record_type: String,
    pub(crate) url: Option<String>,
    pub(crate) date: Option<String>,
    pub(crate) record_id: Option<String>,
    pub(crate) payload_digest: Option<String>,
    pub(crate) content_type: Option<String>,
    /// `None` where it is missing, doubled with another value, or not a number of 64 bits.
    pub(crate) content_length: Option<u64>,
}

/// Where the header that `bytes` begin with ends: after the first empty line. `None` where they hold none.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    for newline in memchr::memchr_iter(b'\n', bytes) {
        match &bytes[newline + 1..] {
            [b'\n', ..] => return Some(newline + 2),
            [b'\r', b'\n', ..] => return Some(newline + 3),
            _ => {}
        }
    }
    None
}

/// The fields of a block of `Name: value` lines, values unfolded; the first line is left out.
pub(crate) fn fields(head: &[u8]) -> impl Iterator<Item = (&[u8], Vec<u8>)> {
    let mut lines =
        head.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).skip(1).peekable();
    std::iter::from_fn(move || {
        loop {
            let line = lines.next()?;
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            let mut value = line[colon + 1..].trim_ascii().to_vec();
            while let Some(more) = lines.next_if(|line| matches!(line.first(), Some(b' ' | b'\t'))) {
                if !value.is_empty() {
                    value.push(b' ');
                }
                value.extend_from_slice(more.trim_ascii());
            }
            return Some((line[..colon].trim_ascii(), value));
        }
    })
}

/// Reads the header in `head`, its empty line included or not.
pub(crate) fn parse(head: &[u8]) -> Head {
    let mut parsed = Head::default();
    let mut lengths = Vec::new();
    for (name, value) in fields(head) {
        let text = || String::from_utf8_lossy(&value).into_owned();
        match name.to_ascii_lowercase().as_slice() {
            b"warc-type" => parsed.record_type = text().to_ascii_lowercase(),
            b"warc-target-uri" => parsed.url = Some(uri(&text())),
            b"warc-date" => parsed.date = Some(text()),
            b"warc-record-id" => parsed.record_id = Some(text()),
            b"warc-payload-digest" => parsed.payload_digest = Some(text()),
            b"content-type" => parsed.content_type = Some(text()),
            b"content-length" => lengths.push(length(&value)),
            _ => {}
        }
    }
    parsed.content_length = match lengths.as_slice() {
        [first, rest @ ..] if rest.iter().all(|other| other == first) => *first,
        _ => None,
    };
    parsed
}

/// WARC 1.0 has the URI in angle brackets, 1.1 without.
fn uri(text: &str) -> String {
    text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text).to_owned()
}

/// Digits only: `+5`, `0x5` and what does not fit 64 bits are no length.
fn length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_headers_as_they_are_found() {
        let table: &[(&str, &[u8], Head)] = &[
            (
                "as the standard has it",
                b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: <http://a/b c>\r\nContent-Length: 5\r\n\r\n",
                Head {
                    record_type: "response".into(),
                    url: Some("http://a/b c".into()),
                    content_length: Some(5),
                    ..Head::default()
                },
            ),
            (
                "LF only, names in any case, a folded value after an empty first line",
                b"WARC/1.1\nwarc-TYPE:Resource\nWarc-Date:\n 2024-05-20\n\tT00:00:00Z\ncontent-length:0\n\n",
                Head {
                    record_type: "resource".into(),
                    date: Some("2024-05-20 T00:00:00Z".into()),
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
                Head { record_id: Some("\u{fffd}".into()), ..Head::default() },
            ),
        ];
        for (name, bytes, expected) in table {
            assert_eq!(head_end(bytes), Some(bytes.len()), "{name}: the head's end");
            assert_eq!(parse(bytes), *expected, "{name}");
        }
    }
}
