//! An HTTP message as a crawler stored it: its head, and what was done to its body (RFC 9112, RFC 9110).

use crate::warc;
use std::borrow::Cow;
use std::io::Read;

/// The head of a stored HTTP message.
#[derive(Debug, Default)]
pub(crate) struct Head {
    /// Bytes of the head, its empty line included.
    pub(crate) len: usize,
    pub(crate) status: Option<u16>,
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Vec<String>,
    pub(crate) transfer_encoding: Vec<String>,
}

/// Reads the head that `block` begins with; a block without an empty line is all head.
pub(crate) fn parse(block: &[u8]) -> Head {
    let len = warc::head_end(block).unwrap_or(block.len());
    let line_end = memchr::memchr(b'\n', block).unwrap_or(block.len());
    let mut head = Head { len, status: status(&block[..line_end]), ..Head::default() };
    for (name, value) in warc::fields(&block[..len]) {
        let value = String::from_utf8_lossy(&value).into_owned();
        let codings = || value.split(',').map(|c| c.trim().to_ascii_lowercase()).filter(|c| !c.is_empty());
        match name.to_ascii_lowercase().as_slice() {
            b"content-type" => head.content_type = Some(value),
            b"content-encoding" => head.content_encoding.extend(codings()),
            b"transfer-encoding" => head.transfer_encoding.extend(codings()),
            _ => {}
        }
    }
    head
}

fn status(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line).ok()?;
    line.starts_with("HTTP/").then(|| line.split_ascii_whitespace().nth(1)?.parse().ok())?
}

/// Undoes one coding of a body. `Ok(None)` where the crawler already had: the bytes are not so coded.
pub(crate) fn decode(coding: &str, bytes: &[u8], max: usize) -> Result<Option<Vec<u8>>, String> {
    match coding {
        "identity" => Ok(None),
        "chunked" => chunked(bytes),
        "gzip" | "x-gzip" if !bytes.starts_with(&[0x1f, 0x8b]) => Ok(None),
        "gzip" | "x-gzip" => read_all(coding, flate2::read::MultiGzDecoder::new(bytes), max).map(Some),
        "deflate" => deflate(bytes, max),
        other => Err(format!("the coding `{other}` is not decoded by this version")),
    }
}

/// `deflate` means zlib (RFC 9110, 8.4.1.2), and is often sent raw.
fn deflate(bytes: &[u8], max: usize) -> Result<Option<Vec<u8>>, String> {
    let zlib = read_all("deflate", flate2::read::ZlibDecoder::new(bytes), max);
    match zlib.or_else(|_| read_all("deflate", flate2::read::DeflateDecoder::new(bytes), max)) {
        Ok(decoded) => Ok(Some(decoded)),
        Err(_) if std::str::from_utf8(bytes).is_ok() => Ok(None),
        Err(reason) => Err(reason),
    }
}

fn read_all(coding: &str, decoder: impl Read, max: usize) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    decoder
        .take(max as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|e| format!("the coding `{coding}` breaks: {e}"))?;
    if out.len() > max {
        return Err(format!("the coding `{coding}` decodes to more than {max} bytes"));
    }
    Ok(out)
}

/// Chunked coding (RFC 9112, 7.1), extensions and trailers left out; `None` where the bytes are not so coded.
/// A body that the crawler cut off is what is there of it.
fn chunked(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, String> {
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
            (Err(_), _) => return Err("the coding `chunked` breaks".into()),
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

/// The bytes as UTF-8, by byte order mark, then the transport's charset, then `<meta>` (the order of the
/// HTML standard, 13.2.3.2); without any of them UTF-8 where it is that, else windows-1252.
///
/// The second part says why it could not be done, where it could not.
pub(crate) fn to_utf8<'a>(
    bytes: Cow<'a, [u8]>,
    content_type: Option<&str>,
) -> (Cow<'a, [u8]>, Option<String>) {
    let by_mark = encoding_rs::Encoding::for_bom(&bytes).map(|(encoding, _)| encoding);
    let by_transport = || {
        content_type.and_then(charset).and_then(|label| encoding_rs::Encoding::for_label(label.as_bytes()))
    };
    let by_meta = || meta_charset(&bytes);
    let encoding = match by_mark.or_else(by_transport).or_else(by_meta) {
        Some(encoding) => encoding,
        None if std::str::from_utf8(&bytes).is_ok() => encoding_rs::UTF_8,
        None => encoding_rs::WINDOWS_1252,
    };
    if encoding == encoding_rs::UTF_8 {
        // What is not UTF-8 in it stays as it is: a pattern may be after just that.
        return (bytes, None);
    }
    if encoding == encoding_rs::REPLACEMENT {
        // The standard shows nothing of such a page, as it can be made to mean anything.
        return (bytes, Some("its charset is one that browsers refuse to decode".into()));
    }
    (Cow::Owned(encoding.decode(&bytes).0.into_owned().into_bytes()), None)
}

fn charset(content_type: &str) -> Option<&str> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches(['"', '\'']))
    })
}

/// The encoding that a `<meta>` in the first 1,024 bytes names, UTF-16 read as UTF-8 as the standard has it.
fn meta_charset(bytes: &[u8]) -> Option<&'static encoding_rs::Encoding> {
    let head = bytes[..bytes.len().min(1024)].to_ascii_lowercase();
    let mut from = 0;
    while let Some(n) = memchr::memmem::find(&head[from..], b"<meta") {
        let tag = &head[from + n..];
        let tag = &tag[..memchr::memchr(b'>', tag).unwrap_or(tag.len())];
        if let Some(at) = memchr::memmem::find(tag, b"charset=") {
            let label = tag[at + 8..].trim_ascii_start();
            let label = label.strip_prefix(b"\"").or_else(|| label.strip_prefix(b"'")).unwrap_or(label);
            let end = label.iter().position(|b| matches!(b, b'"' | b'\'' | b';' | b' ' | b'/' | b'>'));
            let encoding = encoding_rs::Encoding::for_label(&label[..end.unwrap_or(label.len())])?;
            let utf16 = encoding == encoding_rs::UTF_16LE || encoding == encoding_rs::UTF_16BE;
            return Some(if utf16 { encoding_rs::UTF_8 } else { encoding });
        }
        from += n + 5;
    }
    None
}

/// Whether a charset means anything for this type.
pub(crate) fn is_text(mime: &str) -> bool {
    let mime = mime.to_ascii_lowercase();
    mime.starts_with("text/")
        || ["html", "xml", "json", "javascript", "ecmascript"].iter().any(|part| mime.contains(part))
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
            ("raw deflate", "deflate", &[0x4b, 0x4c, 0x4a, 0x06, 0x00], Some(b"abc")),
        ];
        for (name, coding, bytes, expected) in table {
            assert_eq!(decode(coding, bytes, 1 << 20).unwrap().as_deref(), *expected, "{name}");
        }
        assert!(decode("br", b"", 1 << 20).is_err());
        assert!(decode("chunked", b"1\r\na\r\nzz\r\n", 1 << 20).is_err());
    }

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
            assert_eq!(&*to_utf8(Cow::Borrowed(bytes), *content_type).0, expected.as_bytes(), "{name}");
        }
    }
}
