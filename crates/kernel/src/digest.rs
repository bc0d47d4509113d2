//! The digest of a set of hits: the same whatever the order in which they were found.
//!
//! `v1:` is the sum modulo 2^256 of SHA-256 over each hit's canonical form, the hash read as a big-endian
//! number. The canonical form is, all integers as 8 bytes big-endian and each text preceded by its length
//! in bytes as such an integer:
//!
//! ```text
//! place of the object in the plan, offset, skip, pattern, layer, start, end, match
//! ```
//!
//! `match` is the bytes that the hit shows: those of `match_base64` where it has one, else of `match`.

use base16ct::lower;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// A sum of hashes modulo 2^256, most significant word first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest([u64; 4]);

/// What of a hit goes into the digest.
#[derive(Debug, Clone, Copy)]
pub struct Canonical<'a> {
    /// The object's place in the plan, from 0.
    pub place: u64,
    /// Stored offset.
    pub offset: u64,
    /// Decoded bytes from there to the record.
    pub skip: u64,
    /// The pattern's name.
    pub pattern: &'a str,
    /// The layer's name.
    pub layer: &'a str,
    /// First byte of the match in the layer.
    pub start: u64,
    /// The byte after its last.
    pub end: u64,
    /// The bytes that the hit shows.
    pub matched: &'a [u8],
}

impl Digest {
    /// Adds one hit.
    pub fn add_hit(&mut self, hit: Canonical<'_>) {
        let mut hash = Sha256::new();
        let number = |hash: &mut Sha256, n: u64| hash.update(n.to_be_bytes());
        let text = |hash: &mut Sha256, bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        number(&mut hash, hit.place);
        number(&mut hash, hit.offset);
        number(&mut hash, hit.skip);
        text(&mut hash, hit.pattern.as_bytes());
        text(&mut hash, hit.layer.as_bytes());
        number(&mut hash, hit.start);
        number(&mut hash, hit.end);
        text(&mut hash, hit.matched);
        let bytes: [u8; 32] = hash.finalize().into();
        self.add(&Digest::from_bytes(&bytes));
    }

    /// SHA-256 of a file's bytes, in hexadecimal: not a sum, but the same hash.
    pub fn of_file(bytes: &[u8]) -> String {
        lower::encode_string(&Sha256::digest(bytes))
    }

    /// Adds another sum.
    pub fn add(&mut self, other: &Digest) {
        let mut carry = false;
        for (word, other) in self.0.iter_mut().zip(other.0).rev() {
            let (sum, over1) = word.overflowing_add(other);
            let (sum, over2) = sum.overflowing_add(u64::from(carry));
            *word = sum;
            carry = over1 || over2;
        }
    }

    fn from_bytes(bytes: &[u8; 32]) -> Digest {
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_be_bytes(*chunk);
        }
        Digest(words)
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d] = self.0;
        write!(f, "v1:{a:016x}{b:016x}{c:016x}{d:016x}")
    }
}

impl std::str::FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Digest, String> {
        let wrong = || format!("`{text}` is no digest: expected `v1:` and 64 hexadecimal digits");
        let hex =
            text.strip_prefix("v1:").filter(|hex| hex.len() == 64 && hex.is_ascii()).ok_or_else(wrong)?;
        let mut words = [0; 4];
        for (i, word) in words.iter_mut().enumerate() {
            *word = u64::from_str_radix(&hex[i * 16..][..16], 16).map_err(|_| wrong())?;
        }
        Ok(Digest(words))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_modulo_2_to_the_256() {
        let mut all_ones = Digest([u64::MAX; 4]);
        all_ones.add(&Digest([0, 0, 0, 1]));
        assert_eq!(all_ones, Digest::default());
        let mut carried = Digest([0, 0, u64::MAX, u64::MAX]);
        carried.add(&Digest([1, 0, 0, 2]));
        assert_eq!(carried, Digest([1, 1, 0, 1]));
        assert_eq!(carried.to_string().parse::<Digest>().unwrap(), carried);
    }
}
