//! The key that endpoints' secrets are made of. It lies in a file beside the service, and the store has no more of a secret
//! than the salt that it was made with: who reads the store, or a dump of it, can sign nothing.

use base16ct::{lower, mixed};
use getrandom::Error as Random;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of a key, and of a secret that is made of it: the specification asks for 24 to 64 of a secret.
const BYTES: usize = 32;

/// A key, and what tells it from others.
#[derive(Clone)]
pub struct Key {
    bytes: [u8; BYTES],
    /// Eight hexadecimal digits that say nothing of it.
    name: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.name)
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file can't be read or made.
    #[error("the key of webhooks `{}`: {error}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It holds something else.
    #[error("`{}` holds no key of webhooks: 64 hexadecimal digits", .0.display())]
    Content(PathBuf),
    /// The kernel gave no randomness.
    #[error("no random bytes: {0}")]
    Random(#[from] Random),
}

impl Key {
    /// The key that a file holds as hexadecimal digits; one is made where there is no file, for its owner's eyes alone. All
    /// processes that make or tell endpoints of one store need the same.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn at(file: &Path) -> Result<Key, KeyError> {
        let wrong = |error| KeyError::File { file: file.into(), error };
        let text = match fs::read_to_string(file) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                make(file)?;
                fs::read_to_string(file)
            }
            read => read,
        };
        let bytes = bytes_of(text.map_err(wrong)?.trim()).ok_or_else(|| KeyError::Content(file.into()))?;
        Ok(Key::of(bytes))
    }

    pub(crate) fn of(bytes: [u8; BYTES]) -> Key {
        let name = derived(&bytes, b"name");
        Key { bytes, name: lower::encode_string(&name[..4]) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The secret that belongs to a salt.
    pub(crate) fn secret(&self, salt: &str) -> [u8; BYTES] {
        derived(&self.bytes, format!("secret {salt}").as_bytes())
    }
}

/// A key of its own for each use, as RFC 5869 expands one.
fn derived(key: &[u8; BYTES], what: &[u8]) -> [u8; BYTES] {
    // HMAC fills a key up with zeros to a block of its hash (RFC 2104, 2).
    let mut block = [0; 64];
    block[..BYTES].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(what);
    mac.update(&[1]);
    mac.finalize().into_bytes().into()
}

/// Of two processes at once one makes the file, whole, and both have it.
fn make(file: &Path) -> Result<(), KeyError> {
    let wrong = |error| KeyError::File { file: file.into(), error };
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A name that nobody else has: what is linked must not be opened again.
    let beside = file.with_extension(format!("new-{}", Key::of(bytes).name()));
    let made = || {
        let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        writeln!(new, "{}", lower::encode_string(&bytes))?;
        if rustix::process::geteuid().is_root() {
            // An operator makes it for the service, whose folder it is.
            let of = fs::metadata(folder)?;
            std::os::unix::fs::fchown(&new, Some(of.uid()), Some(of.gid()))?;
        }
        new.sync_all()?;
        match fs::hard_link(&beside, file) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
            _ => File::open(folder)?.sync_all(),
        }
    };
    let made = made();
    let _ = fs::remove_file(&beside);
    made.map_err(wrong)
}

fn bytes_of(digits: &str) -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    let read = mixed::decode(digits, &mut bytes).ok()?.len();
    (read == BYTES).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("webhook.key");
        let keys: Vec<Key> = std::thread::scope(|scope| {
            let at_once: Vec<_> = (0..4).map(|_| scope.spawn(|| Key::at(&file).unwrap())).collect();
            at_once.into_iter().map(|key| key.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| key.bytes == keys[0].bytes));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_ne!(keys[0].secret("a"), keys[0].secret("b"));
        assert!(!format!("{:?}", keys[0]).contains(&lower::encode_string(&keys[0].bytes)));
        for text in ["", "soon", &"g".repeat(64), &"0".repeat(63), &"é".repeat(32)] {
            fs::write(&file, text).unwrap();
            assert!(Key::at(&file).unwrap_err().to_string().contains("64 hexadecimal digits"), "{text}");
        }
    }
}
