//! How a key looks, and what of it is stored.
//!
//! ```text
//! dnk_4fT9QmZ0bX_KJx…43 characters…w3aB0c1D
//!     ╰── id ──╯ ╰──── secret ────╯╰─ crc ─╯
//! ```
//!
//! The prefix lets scanners of public code find a key that was leaked, and the checksum (as GitHub's tokens have
//! one) tells them, and us, a key from something that only looks like one without asking a store. All of it is
//! letters, digits and `_`, so that a double click takes the whole.
//!
//! The store has SHA-256 of the key. A slow hash as for passwords would add nothing: the secret has 256 random bits,
//! so there is no list of likely ones to try, and each request would pay for it.

use base16ct::lower;
use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;

const PREFIX: &str = "dnk_";
const ID_CHARS: usize = 10;
/// 62^43 > 2^256.
const SECRET_CHARS: usize = 43;
/// 62^6 > 2^32.
const CHECK_CHARS: usize = 6;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A whole key. It shows itself to nobody by accident: `{:?}` gives its public part.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// A key as somebody typed it, which may be none.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// A new key.
    ///
    /// # Errors
    /// Where the kernel gives no randomness.
    pub fn random() -> Result<(Secret, Presented), getrandom::Error> {
        let id = format!("{PREFIX}{}", random(ID_CHARS)?);
        let body = format!("{id}_{}", random(SECRET_CHARS)?);
        let key = body.clone() + &check(&body);
        let presented = Presented { id, hash: Sha256::digest(key.as_bytes()).into() };
        Ok((Secret(key), presented))
    }

    /// The key itself: for the header of a request, and for the one time that it is shown.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is looked up and compared of it.
    ///
    /// # Errors
    /// [`KeyError`] when it is no key.
    pub fn presented(&self) -> Result<Presented, KeyError> {
        let rest = self.0.strip_prefix(PREFIX).ok_or(KeyError::NoKey)?;
        let (id, secret) = rest.split_once('_').ok_or(KeyError::NoKey)?;
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric());
        let lengths = (ID_CHARS, SECRET_CHARS + CHECK_CHARS);
        if (id.len(), secret.len()) != lengths || !plain(id) || !plain(secret) {
            return Err(KeyError::NoKey);
        }
        let (body, stated) = self.0.split_at(self.0.len() - CHECK_CHARS);
        if check(body) != stated {
            return Err(KeyError::Mistyped);
        }
        Ok(Presented { id: format!("{PREFIX}{id}"), hash: Sha256::digest(self.0.as_bytes()).into() })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.presented() {
            Ok(presented) => write!(f, "Secret({}_…)", presented.id),
            Err(_) => write!(f, "Secret(…)"),
        }
    }
}

/// What is known of a key that somebody shows, before the store is asked.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Presented {
    /// Its public part, by which it stands in lists and logs.
    pub id: String,
    hash: [u8; 32],
}

impl Presented {
    /// As it is stored.
    pub(crate) fn hex(&self) -> String {
        lower::encode_string(&self.hash)
    }

    /// Whether it is another that is known; takes as long whatever differs.
    pub fn is_same(&self, known: &Presented) -> bool {
        self.hash.ct_eq(&known.hash).into()
    }

    /// Whether it is the stored one; takes as long whatever differs.
    pub(crate) fn is(&self, stored: &str) -> bool {
        self.hex().as_bytes().ct_eq(stored.as_bytes()).into()
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Presented({})", self.id)
    }
}

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It does not look like one.
    #[error("this is no API key: one begins with `dnk_`")]
    NoKey,
    /// Its checksum is not its own.
    #[error("the API key is mistyped or cut off: its checksum is wrong")]
    Mistyped,
}

fn random(chars: usize) -> Result<String, getrandom::Error> {
    let mut text = String::with_capacity(chars);
    let mut bytes = [0; 64];
    while text.len() < chars {
        getrandom::fill(&mut bytes)?;
        // 248 is four times 62: what lies above would make some characters likelier.
        let even = bytes.iter().filter(|byte| **byte < 248);
        text.extend(even.map(|byte| char::from(DIGITS[usize::from(byte % 62)])).take(chars - text.len()));
    }
    Ok(text)
}

fn check(body: &str) -> String {
    let mut rest = crc32fast::hash(body.as_bytes()) as usize;
    let mut digits = [b'0'; CHECK_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[rest % 62];
        rest /= 62;
    }
    digits.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_is_one_word_and_stays_secret() {
        let (key, made) = Secret::random().unwrap();
        let presented = key.presented().unwrap();
        assert_eq!(presented, made);
        assert_eq!(key.expose().len(), 4 + 10 + 1 + 43 + 6);
        assert!(key.expose().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        assert!(presented.is(&presented.hex()));
        assert_ne!(Secret::random().unwrap().0.expose(), key.expose());
        let secret = key.expose().strip_prefix(&format!("{}_", presented.id)).unwrap();
        let shown = format!("{key:?} {presented:?} {key:#?}");
        assert!(!shown.contains(secret) && !shown.contains(&presented.hex()), "{shown}");
        assert!(!presented.hex().contains(secret));
    }

    proptest! {
        /// Of changes of one character none is taken: CRC-32 finds every error of up to 32 bits in a row.
        #[test]
        fn one_wrong_character_is_found(place in 0_usize..64, other in "[ -~]") {
            let key = Secret::random().unwrap().0.0;
            let mut wrong: Vec<char> = key.chars().collect();
            let other = other.chars().next().unwrap();
            prop_assume!(wrong[place] != other);
            wrong[place] = other;
            let wrong = Secret::new(wrong.into_iter().collect::<String>());
            prop_assert!(wrong.presented().is_err(), "{}", wrong.expose());
        }

        #[test]
        fn nothing_else_is_a_key(text in ".{0,80}") {
            prop_assert!(Secret::new(text).presented().is_err());
        }
    }
}
