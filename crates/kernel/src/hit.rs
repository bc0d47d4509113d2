//! A hit: one match, with enough to find it again.

use crate::digest::Canonical;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The longest match that is shown whole, in bytes of the layer; a longer one is cut and says so.
pub(crate) const MATCH_BYTES_MAX: usize = 4096;
/// How much of the layer is shown before and after a match, in bytes.
pub(crate) const CONTEXT_BYTES: usize = 60;

/// One match of one pattern in one layer of one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    /// The pattern's name.
    pub pattern: String,
    /// The record's URL, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The record's date as the archive states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// `response`, `request`, `resource`, …
    pub record_type: String,
    /// The record's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_id: Option<String>,
    /// The HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The media type, without its parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime: Option<String>,
    /// The payload digest that the archive states; it is not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_digest: Option<String>,
    /// The object's URI.
    pub object: String,
    /// The first stored byte to fetch.
    pub offset: u64,
    /// How many stored bytes to fetch.
    pub length: u64,
    /// Decoded bytes from there to the record's first byte.
    pub skip: u64,
    /// The layer's name.
    pub layer: String,
    /// First byte of the match in the layer.
    pub start: u64,
    /// The byte after its last.
    pub end: u64,
    /// The match; lossy where it is not UTF-8.
    #[serde(rename = "match")]
    pub matched: String,
    /// The match's bytes in base64 (RFC 4648, 4), where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_base64: Option<String>,
    /// What the pattern's groups matched, by name or number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub captures: BTreeMap<String, String>,
    /// The text before the match on its line.
    pub before: String,
    /// The text after the match on its line.
    pub after: String,
    /// Whether the match was cut.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

impl Hit {
    /// What of the hit goes into the digest; `shown` is the match's bytes as cut.
    pub(crate) fn canonical<'a>(&'a self, place: u64, shown: &'a [u8]) -> Canonical<'a> {
        Canonical {
            place,
            offset: self.offset,
            skip: self.skip,
            pattern: &self.pattern,
            layer: &self.layer,
            start: self.start,
            end: self.end,
            matched: shown,
        }
    }
}

/// The text before and after `start..end` on the same line, at most [`CONTEXT_BYTES`] each.
pub(crate) fn context(layer: &[u8], start: usize, end: usize) -> (String, String) {
    let before = &layer[start.saturating_sub(CONTEXT_BYTES)..start];
    let before = memchr::memrchr(b'\n', before).map_or(before, |n| &before[n + 1..]);
    let after = &layer[end..layer.len().min(end + CONTEXT_BYTES)];
    let after = &after[..memchr::memchr(b'\n', after).unwrap_or(after.len())];
    // A character that the limit splits is left out, not shown as broken.
    let continues = |b: &u8| b & 0xc0 == 0x80;
    let before = &before[before.iter().take(3).take_while(|b| continues(b)).count()..];
    let after = after.strip_suffix(b"\r").unwrap_or(after);
    let whole = match std::str::from_utf8(after) {
        Err(e) if e.error_len().is_none() => e.valid_up_to(),
        _ => after.len(),
    };
    (String::from_utf8_lossy(before).into_owned(), String::from_utf8_lossy(&after[..whole]).into_owned())
}

/// Base64 with padding (RFC 4648, 4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let sextet = (bits >> (18 - 6 * i)) & 63;
            out.push(if i <= chunk.len() { ALPHABET[sextet as usize] as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_base64_as_the_rfc_has_it() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
