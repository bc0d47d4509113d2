//! A process as an owner of claims: a random name, and on one machine a lock that the kernel frees when the
//! process dies, so that its claims are free at once and need not wait for their leases.

use crate::{Error, Store};
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// This process, from its start to its end. Its lock's file stays behind: whoever finds it without a lock
/// frees what it still held, also after a graceful stop that ran out of time.
#[derive(Debug)]
pub struct Owner {
    id: String,
    // Held for as long as the process lives.
    _lock: File,
}

impl Owner {
    /// Takes a new random name and its lock in `folder`, which must be on a local file system.
    ///
    /// # Errors
    /// [`Error::Open`] where the folder or the lock can't be made.
    pub fn new(folder: &Path) -> Result<Owner, Error> {
        let open =
            |e: std::io::Error| Error::Open(format!("make an owner's lock in `{}`: {e}", folder.display()));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(open)?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        // The lock is taken under a hidden name, so that nobody sees the file without its lock.
        let hidden = folder.join(format!(".{id}"));
        let path = folder.join(&id);
        let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&hidden).map_err(open)?;
        lock.lock().map_err(open)?;
        std::fs::rename(&hidden, &path).map_err(open)?;
        Ok(Owner { id, _lock: lock })
    }

    /// The random name.
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// Frees the claims of every process in `folder` whose lock the kernel has freed. Returns how many
/// processes were found dead.
///
/// # Errors
/// Those of [`Store::free`]; a lock file that can't be looked at is left to the leases.
pub async fn reap(store: &dyn Store, folder: &Path) -> Result<usize, Error> {
    let mut dead = 0;
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(0) };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let Ok(file) = File::open(entry.path()) else { continue };
        match file.try_lock() {
            Ok(()) => {
                store.free(&name).await?;
                let _ = std::fs::remove_file(entry.path());
                dead += 1;
            }
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
    Ok(dead)
}
