//! `file:` URIs (RFC 8089), percent-encoded so that any file name has one.

use crate::Error;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The URI of an absolute path.
pub fn of_path(path: &Path) -> String {
    let mut rest = path.as_os_str().as_bytes();
    let mut uri = String::with_capacity(rest.len() + 8);
    uri.push_str("file://");
    while !rest.is_empty() {
        let plain = rest.iter().position(|b| !is_plain(*b)).unwrap_or(rest.len());
        uri.push_str(&String::from_utf8_lossy(&rest[..plain]));
        if let Some(other) = rest.get(plain) {
            uri.push_str(&format!("%{other:02X}"));
        }
        rest = &rest[(plain + 1).min(rest.len())..];
    }
    uri
}

/// Whether a byte of a path stands in a URI as it is (RFC 3986, 3.3).
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~!$&()*+,;=:@".contains(&byte)
}

/// The path of a `file:` URI.
///
/// # Errors
/// [`Error::Uri`] for another scheme, a host, or a broken escape.
pub fn to_path(uri: &str) -> Result<PathBuf, Error> {
    let wrong = |reason: &str| Error::Uri(format!("`{uri}`: {reason}"));
    let Some(rest) = uri.strip_prefix("file:") else { return Err(unknown_scheme(uri)) };
    let path = match rest.strip_prefix("//") {
        Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
        None => rest,
    };
    if !path.starts_with('/') {
        return Err(wrong("a file URI has an absolute path and no host: `file:///…`"));
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let hex = rest.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            .ok_or_else(|| wrong("`%` is not followed by two hexadecimal digits"))?;
        bytes.push(byte);
        rest = &rest[2..];
    }
    Ok(PathBuf::from(OsStr::from_bytes(&bytes)))
}

/// A URI beyond this machine in its parts: scheme, server or bucket, and the key, still escaped.
///
/// # Errors
/// [`Error::Uri`] for one without a server or bucket, or with a query, which no key has.
pub fn parts(uri: &str) -> Result<(&str, &str, &str), Error> {
    let wrong = |reason: &str| Error::Uri(format!("`{uri}`: {reason}"));
    let (scheme, rest) = uri.split_once("://").ok_or_else(|| wrong("it has no `//` and server or bucket"))?;
    let (authority, key) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.is_empty() {
        return Err(wrong("it names no server or bucket"));
    }
    if authority.contains('@') {
        return Err(Error::Uri(format!(
            "a `{scheme}` URI with a password in it: credentials come from the environment"
        )));
    }
    if key.contains(['?', '#']) && scheme.starts_with("http") {
        return Err(wrong("an object's URI has no query and no fragment; escape `?` as `%3F`"));
    }
    Ok((scheme, authority, key))
}

/// The scheme of a URI; `None` for a path.
pub fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let mut chars = scheme.chars();
    let valid =
        chars.next()?.is_ascii_alphabetic() && chars.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    // One letter before a colon is a file's name far more often than a scheme.
    (valid && scheme.len() > 1).then_some(scheme)
}

/// The error for a URI whose scheme this build does not read: it names the feature that would.
pub fn unknown_scheme(uri: &str) -> Error {
    let feature = match scheme(uri) {
        Some("s3" | "gs" | "az" | "http" | "https") => "objects",
        Some("hdfs") => "hadoop",
        _ => {
            return Error::Uri(format!(
                "`{uri}`: only paths and `file:`, `s3:`, `gs:`, `az:`, `http:` and `hdfs:` URIs are read"
            ));
        }
    };
    Error::Uri(format!("`{uri}`: reading it needs the feature `{feature}`, which this build does not have"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_comes_back() {
        for bytes in [&b"/a/b.warc.gz"[..], b"/with space/%/#?", b"/\xff\xfe/\n", "/ü".as_bytes()] {
            let path = Path::new(OsStr::from_bytes(bytes));
            assert_eq!(to_path(&of_path(path)).unwrap(), path);
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_uri() {
        let table = [
            ("s3://b/k", "feature `objects`"),
            ("hdfs://h/p", "feature `hadoop`"),
            ("ftp://h/p", "only paths"),
            ("file://host/p", "no host"),
            ("file:///%zz", "hexadecimal"),
        ];
        for (uri, part) in table {
            let said = to_path(uri).unwrap_err().to_string();
            assert!(said.contains(part) && said.contains(uri), "{uri}: {said}");
        }
    }
}
