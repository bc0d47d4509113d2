//! The digests that an archive states of its records, checked where that is asked for.

use crate::http;
use crate::records::{Head, warc};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

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
    let (algorithm, value) = stated.split_once(':')?;
    let digest: fn(&[u8]) -> Vec<u8> = match algorithm.to_ascii_lowercase().as_str() {
        "sha1" | "sha-1" => |bytes| Sha1::digest(bytes).to_vec(),
        "sha256" | "sha-256" => |bytes| Sha256::digest(bytes).to_vec(),
        _ => return None,
    };
    let mut found = readings.iter().map(|bytes| digest(bytes));
    let first = found.next()?;
    let is = |digest: &[u8]| {
        value.eq_ignore_ascii_case(&base32(digest)) || value.eq_ignore_ascii_case(&hex(digest))
    };
    if is(&first) || found.any(|digest| is(&digest)) {
        return None;
    }
    Some(format!("{field} is {stated}, and that of the bytes {algorithm}:{}", base32(&first)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
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
