//! The character encoding of a page, found as the HTML standard has it, and its text as UTF-8.

use encoding_rs::{Encoding, REPLACEMENT, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use std::borrow::Cow;

/// What is known of a page's encoding before its bytes are looked at as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charset {
    /// A mark, a header or a `<meta>` names it.
    Named(&'static Encoding),
    /// Nothing does: UTF-8 where the bytes are that, else windows-1252.
    Unnamed,
}

impl Charset {
    /// By byte order mark, then the transport's charset, then `<meta>` (HTML standard, 13.2.3.2).
    pub(crate) fn of(bytes: &[u8], content_type: Option<&[u8]>) -> Charset {
        let by_mark = Encoding::for_bom(bytes).map(|(encoding, _)| encoding);
        let by_transport = || content_type.and_then(parameter).and_then(Encoding::for_label);
        let named = by_mark.or_else(by_transport).or_else(|| meta_charset(bytes));
        named.map_or(Charset::Unnamed, Charset::Named)
    }

    /// Whether every ASCII character of the text is that same byte in the page, and nothing else is: then
    /// an ASCII literal can be looked for before anything is decoded.
    pub(crate) fn keeps_ascii(self) -> bool {
        match self {
            Charset::Named(encoding) => encoding.is_ascii_compatible(),
            Charset::Unnamed => true,
        }
    }

    /// The bytes as UTF-8. The second part says why that could not be done, where it could not.
    pub(crate) fn to_utf8(self, bytes: Cow<'_, [u8]>) -> (Cow<'_, [u8]>, Option<String>) {
        let encoding = match self {
            Charset::Named(encoding) => encoding,
            Charset::Unnamed if std::str::from_utf8(&bytes).is_ok() => UTF_8,
            Charset::Unnamed => WINDOWS_1252,
        };
        if encoding == UTF_8 {
            // What is not UTF-8 in it stays as it is: a pattern may be after just that.
            return (bytes, None);
        }
        if encoding == REPLACEMENT {
            // The standard shows nothing of such a page, as it can be made to mean anything.
            return (bytes, Some("its charset is one that browsers refuse to decode".into()));
        }
        (Cow::Owned(encoding.decode(&bytes).0.into_owned().into_bytes()), None)
    }
}

/// The charset in a Content-Type.
fn parameter(content_type: &[u8]) -> Option<&[u8]> {
    content_type.split(|b| *b == b';').skip(1).find_map(|parameter| {
        let equals = memchr::memchr(b'=', parameter)?;
        let is_charset = parameter[..equals].trim_ascii().eq_ignore_ascii_case(b"charset");
        let value = parameter[equals + 1..].trim_ascii();
        let quote = |b: &u8| matches!(b, b'"' | b'\'');
        let from = value.iter().take_while(|b| quote(b)).count();
        let to = value.len() - value[from..].iter().rev().take_while(|b| quote(b)).count();
        is_charset.then(|| &value[from..to])
    })
}

/// The encoding that a `<meta>` in the first 1,024 bytes names, UTF-16 read as UTF-8 as the standard has it.
fn meta_charset(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = &bytes[..bytes.len().min(1024)];
    for at in memchr::memchr_iter(b'<', head) {
        let tag = &head[at + 1..];
        if !tag.get(..4).is_some_and(|name| name.eq_ignore_ascii_case(b"meta")) {
            continue;
        }
        let tag = tag[..memchr::memchr(b'>', tag).unwrap_or(tag.len())].to_ascii_lowercase();
        if let Some(at) = memchr::memmem::find(&tag, b"charset=") {
            let label = tag[at + 8..].trim_ascii_start();
            let label = label.strip_prefix(b"\"").or_else(|| label.strip_prefix(b"'")).unwrap_or(label);
            let end = label.iter().position(|b| matches!(b, b'"' | b'\'' | b';' | b' ' | b'/' | b'>'));
            let encoding = Encoding::for_label(&label[..end.unwrap_or(label.len())])?;
            let utf16 = encoding == UTF_16LE || encoding == UTF_16BE;
            return Some(if utf16 { UTF_8 } else { encoding });
        }
    }
    None
}

/// Whether a charset means anything for this media type.
pub(crate) fn is_text(mime: &[u8]) -> bool {
    if mime.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"text/")) {
        return true;
    }
    let mime = mime.to_ascii_lowercase();
    let has = |part: &str| memchr::memmem::find(&mime, part.as_bytes()).is_some();
    ["html", "xml", "json", "javascript", "ecmascript"].iter().any(|p| has(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_charset_in_the_standards_order() {
        let table: &[(&str, &[u8], Option<&str>, &str)] = &[
            ("mark before transport", b"\xff\xfeh\0i\0", Some("text/html; charset=latin1"), "hi"),
            (
                "transport before meta",
                b"<meta charset=koi8-r>\xe9",
                Some("text/html; charset=\"latin1\""),
                "<meta charset=koi8-r>é",
            ),
            (
                "meta",
                b"<meta http-equiv=x content=\"text/html; charset=gbk\">\xc4\xe3",
                Some("text/html"),
                "<meta http-equiv=x content=\"text/html; charset=gbk\">你",
            ),
            ("nothing, and UTF-8", "é".as_bytes(), None, "é"),
            ("nothing, and not UTF-8", b"\xe9", None, "é"),
        ];
        for (name, bytes, content_type, expected) in table {
            assert_eq!(
                &*Charset::of(bytes, content_type.map(str::as_bytes)).to_utf8(Cow::Borrowed(bytes)).0,
                expected.as_bytes(),
                "{name}"
            );
        }
    }
}
