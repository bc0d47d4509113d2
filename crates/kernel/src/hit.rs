//! A hit: one match, with enough to find it again.

use crate::digest::{Canonical, Digest};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// The longest match that is shown whole, in bytes of the layer; a longer one is cut and says so.
pub(crate) const MATCH_BYTES_MAX: usize = 4096;
/// How much of the layer is shown before and after a match, in bytes.
pub(crate) const CONTEXT_BYTES: usize = 60;

/// One match of one pattern in one layer of one record. What it says is borrowed from the record: making
/// one costs next to nothing, and who keeps it writes it down or makes it its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit<'a> {
    /// The pattern's name.
    pub pattern: Cow<'a, str>,
    /// The record's URL, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Cow<'a, str>>,
    /// The record's date as the archive states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<Cow<'a, str>>,
    /// `response`, `request`, `resource`, …
    pub record_type: Cow<'a, str>,
    /// The record's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_id: Option<Cow<'a, str>>,
    /// The HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The media type, without its parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime: Option<Cow<'a, str>>,
    /// The payload digest that the archive states; it is checked only where that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_digest: Option<Cow<'a, str>>,
    /// The object's URI.
    pub object: Cow<'a, str>,
    /// Where in the object.
    #[serde(flatten)]
    pub stored: Stored,
    /// The layer's name.
    pub layer: Cow<'a, str>,
    /// Of JSON lines the field that is the layer, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<Cow<'a, str>>,
    /// First byte of the match in the layer.
    pub start: u64,
    /// The byte after its last.
    pub end: u64,
    /// The match; lossy where it is not UTF-8.
    #[serde(rename = "match")]
    pub matched: Cow<'a, str>,
    /// The match's bytes in base64 (RFC 4648, 4), where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_base64: Option<String>,
    /// What the pattern's groups matched, by name or number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub captures: BTreeMap<String, Cow<'a, str>>,
    /// The text before the match on its line.
    pub before: Cow<'a, str>,
    /// The text after the match on its line.
    pub after: Cow<'a, str>,
    /// Whether the match was cut.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// The layer, and where the match is in it; both empty in a hit that was read back.
    #[serde(skip)]
    pub(crate) around: &'a [u8],
    #[serde(skip)]
    pub(crate) at: Range<usize>,
}

/// Where a record is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Stored {
    /// In bytes of the object.
    Bytes {
        /// The first stored byte to fetch.
        offset: u64,
        /// How many stored bytes to fetch.
        length: u64,
        /// Decoded bytes from there to the record's first byte.
        skip: u64,
    },
    /// In a row of a table, from 0.
    Row {
        /// The row's number.
        row: u64,
    },
}

impl Stored {
    /// The first stored byte, or the row.
    pub fn offset(self) -> u64 {
        match self {
            Stored::Bytes { offset, .. } => offset,
            Stored::Row { row } => row,
        }
    }

    /// Stored bytes; 0 for a row.
    pub fn length(self) -> u64 {
        match self {
            Stored::Bytes { length, .. } => length,
            Stored::Row { .. } => 0,
        }
    }

    /// Decoded bytes before the record; 0 for a row.
    pub fn skip(self) -> u64 {
        match self {
            Stored::Bytes { skip, .. } => skip,
            Stored::Row { .. } => 0,
        }
    }
}

impl Hit<'_> {
    /// What of a hit that was just found goes into the digest; `place` is the object's place in the plan.
    pub fn canonical(&self, place: u64) -> Canonical<'_> {
        Canonical {
            place,
            offset: self.stored.offset(),
            skip: self.stored.skip(),
            pattern: &self.pattern,
            layer: &self.layer,
            start: self.start,
            end: self.end,
            matched: &self.around[self.at.start..self.at.end.min(self.at.start + MATCH_BYTES_MAX)],
        }
    }

    /// Adds a hit that was read back from JSON to a digest; `place` is the object's place in the plan.
    pub fn add_to(&self, digest: &mut Digest, place: u64) {
        let decoded = self.match_base64.as_deref().map(from_base64);
        digest.add_hit(Canonical {
            place,
            offset: self.stored.offset(),
            skip: self.stored.skip(),
            pattern: &self.pattern,
            layer: &self.layer,
            start: self.start,
            end: self.end,
            matched: decoded.as_deref().unwrap_or(self.matched.as_bytes()),
        });
    }

    /// The bytes of the layer; none in a hit that was read back from JSON.
    pub fn around(&self) -> &[u8] {
        self.around
    }

    /// Where the match is in [`Hit::around`].
    pub fn at(&self) -> Range<usize> {
        self.at.clone()
    }
}

/// The text before and after `start..end` on the same line, at most [`CONTEXT_BYTES`] each.
pub(crate) fn context(layer: &[u8], start: usize, end: usize) -> (Cow<'_, str>, Cow<'_, str>) {
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
    (String::from_utf8_lossy(before), String::from_utf8_lossy(&after[..whole]))
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

/// What [`base64`] wrote; other characters are passed over.
pub(crate) fn from_base64(text: &str) -> Vec<u8> {
    let sextet = |b: u8| match b {
        b'A'..=b'Z' => Some(b - b'A'),
        b'a'..=b'z' => Some(b - b'a' + 26),
        b'0'..=b'9' => Some(b - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let sextets: Vec<u8> = text.bytes().filter_map(sextet).collect();
    let each = sextets.chunks(4).flat_map(|chunk| {
        let bits = chunk.iter().fold(0u32, |bits, s| bits << 6 | u32::from(*s)) << (6 * (4 - chunk.len()));
        (1..chunk.len()).map(move |n| (bits >> (24 - 8 * n)) as u8)
    });
    each.collect()
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
            assert_eq!(from_base64(text), bytes.as_bytes());
        }
    }
}
