//! The digests that an archive states of its records, and a manifest of whole objects.

use crate::coverage::{Reason, Skip};
use crate::object::{ReadAt, Window};
use crate::records::{Head, warc};
use crate::{Error, http};
use base16ct::lower;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::Sha256;
use sha2::digest::DynDigest;

/// What differs between the digests that a record states and those of its bytes.
pub(crate) fn differences(
    head_bytes: &[u8],
    head: &Head<'_>,
    block: &[u8],
    http: Option<&http::Head<'_>>,
) -> Vec<String> {
    let mut differences = Vec::new();
    if let Some(stated) = warc::field(head_bytes, "WARC-Block-Digest") {
        differences.extend(difference("WARC-Block-Digest", stated, &[block]));
    }
    // A revisit and a continuation state the digest of a payload that they do not hold.
    let holds_payload = !matches!(head.record_type.as_deref(), Some(b"revisit" | b"continuation"));
    if let Some(stated) = head.payload_digest.as_deref().filter(|_| holds_payload) {
        let payload = http.map_or(block, |http| &block[http.len..]);
        // Some writers digest the chunks, others what is in them.
        let unchunked = http::chunked(payload).ok().flatten();
        let readings: Vec<&[u8]> = [payload].into_iter().chain(unchunked.as_deref()).collect();
        differences.extend(difference("WARC-Payload-Digest", stated, &readings));
    }
    differences
}

/// `None` where the stated digest is that of one of the readings, or of an algorithm that is not known.
fn difference(field: &str, stated: &[u8], readings: &[&[u8]]) -> Option<String> {
    let stated = std::str::from_utf8(stated).ok()?.trim();
    let (algorithm, value) = Algorithm::of(stated)?;
    let mut found = readings.iter().map(|bytes| algorithm.of_bytes(bytes));
    let first = found.next()?;
    if is(value, &first) || found.any(|digest| is(value, &digest)) {
        return None;
    }
    Some(format!("{field} is {stated}, and that of the bytes {}:{}", algorithm.name(), base32(&first)))
}

/// What a manifest states of an object: a cut at the border of two members can't be seen in any other way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stated {
    /// Stored bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The digest of all of them, as `sha256:` or `sha1:` and hexadecimal or base32 digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

impl Stated {
    /// A gap that takes up no byte, where an object of `size` bytes is not what was stated, or that can't be
    /// told. The object is read once from end to end where a digest is stated and the size is right.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Shrunk`]: not to get the bytes says nothing of them.
    pub fn differs(&self, object: &dyn ReadAt, size: u64) -> Result<Option<Skip>, Error> {
        let gap = |why: String| Ok(Some(Skip::new(size, 0, Reason::Changed).because(why)));
        if let Some(stated) = self.size.filter(|stated| *stated != size) {
            return gap(format!("the manifest states {stated} bytes, and it has {size}"));
        }
        let Some(stated) = &self.digest else { return Ok(None) };
        let Some((algorithm, value)) = Algorithm::of(stated) else {
            return gap(format!("the manifest states `{stated}`, which is no sha256: or sha1: digest"));
        };
        let digest = algorithm.of_object(object, size)?;
        if is(value, &digest) {
            return Ok(None);
        }
        gap(format!(
            "the manifest states {stated}, and it has {}:{}",
            algorithm.name(),
            lower::encode_string(&digest)
        ))
    }
}

#[derive(Clone, Copy)]
enum Algorithm {
    Sha1,
    Sha256,
}

impl Algorithm {
    /// The algorithm of a labelled digest, and what it states.
    fn of(stated: &str) -> Option<(Algorithm, &str)> {
        let (label, value) = stated.trim().split_once(':')?;
        match label.to_ascii_lowercase().as_str() {
            "sha1" | "sha-1" => Some((Algorithm::Sha1, value)),
            "sha256" | "sha-256" => Some((Algorithm::Sha256, value)),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Algorithm::Sha1 => "sha1",
            Algorithm::Sha256 => "sha256",
        }
    }

    fn hasher(self) -> Box<dyn DynDigest> {
        match self {
            Algorithm::Sha1 => Box::new(Sha1::default()),
            Algorithm::Sha256 => Box::new(Sha256::default()),
        }
    }

    fn of_bytes(self, bytes: &[u8]) -> Box<[u8]> {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finalize()
    }

    fn of_object(self, object: &dyn ReadAt, size: u64) -> Result<Box<[u8]>, Error> {
        let mut hasher = self.hasher();
        let mut window = Window::new(object, size, 0);
        loop {
            let bytes = window.peek(1)?;
            if bytes.is_empty() {
                return Ok(hasher.finalize());
            }
            hasher.update(bytes);
            let n = bytes.len();
            window.advance(n);
        }
    }
}

/// Whether a stated value is a digest, in base32 or hexadecimal.
fn is(value: &str, digest: &[u8]) -> bool {
    value.eq_ignore_ascii_case(&base32(digest)) || value.eq_ignore_ascii_case(&lower::encode_string(digest))
}

/// Base32 without padding (RFC 4648, 6), as archives write digests.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut out = String::new();
    for chunk in bytes.chunks(5) {
        let bits = chunk.iter().fold(0u64, |bits, b| bits << 8 | u64::from(*b)) << (8 * (5 - chunk.len()));
        for n in 0..(chunk.len() * 8).div_ceil(5) {
            out.push(char::from(ALPHABET[(bits >> (35 - 5 * n) & 31) as usize]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_base32_as_the_rfc_has_it() {
        for (bytes, text) in [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foobar", "MZXW6YTBOI")] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn names_what_differs_and_nothing_else() {
        let table: [(&str, bool); 6] = [
            ("sha1:VGMT4NSHA2AWVOR6EVYXQUGCNSONBWE5", false),
            ("SHA-1:a9993e364706816aba3e25717850c26c9cd0d89d", false),
            ("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", false),
            ("sha1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", true),
            ("md5:900150983cd24fb0d6963f7d28e17f72", false),
            ("nonsense", false),
        ];
        for (stated, differs) in table {
            assert_eq!(difference("D", stated.as_bytes(), &[b"abc"]).is_some(), differs, "{stated}");
        }
    }
}
