//! An output in a folder of this machine: a put-if-absent is a hard link, and all is synced before it is relied on.

use dragnet_objects::Put;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A folder of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// After a success it survives a power cut.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) -> io::Result<Put> {
        let path = self.path(name);
        let folder = path.parent().unwrap_or(&self.0);
        make_folder(folder)?;
        let temporary = folder.join(format!(".{}", uuid::Uuid::new_v4().simple()));
        let written = write_synced(&temporary, bytes).and_then(|()| fs::hard_link(&temporary, &path));
        let removed = fs::remove_file(&temporary);
        match written {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(Put::Exists),
            Err(e) => return Err(e),
        }
        removed?;
        sync_folder(folder)?;
        Ok(Put::Won)
    }

    pub(super) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(super) fn exists(&self, name: &str) -> io::Result<bool> {
        self.path(name).try_exists()
    }

    pub(super) fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.path(folder)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// An empty file that need not survive a power cut.
    pub(super) fn mark(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        make_folder(path.parent().unwrap_or(&self.0))?;
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).map(drop)
    }

    pub(super) fn part(&self, name: &str) -> io::Result<PartFile> {
        let path = self.path(name);
        make_folder(path.parent().unwrap_or(&self.0))?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(PartFile { file: io::BufWriter::with_capacity(256 << 10, file), path })
    }

    /// Removes what `keep` does not keep, temporary files and empty folders too.
    pub(super) fn clean(&self, keep: &dyn Fn(&str) -> bool) -> io::Result<usize> {
        let mut removed = 0;
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                other => other?,
            };
            for entry in entries {
                let entry = entry?;
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(path);
                    continue;
                }
                let name = path.strip_prefix(&self.0).unwrap_or(&path).to_string_lossy().into_owned();
                if !keep(&name) {
                    self.remove(&name)?;
                    removed += 1;
                }
            }
            // Only an empty one goes.
            if folder != self.0 {
                let _ = fs::remove_dir(&folder);
            }
        }
        Ok(removed)
    }
}

/// A file of hits that is being written.
pub(super) struct PartFile {
    file: io::BufWriter<File>,
    path: PathBuf,
}

impl PartFile {
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    pub(super) fn sync(mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_data()?;
        sync_folder(self.path.parent().unwrap_or(&self.path))
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_data()
}

fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(Path::new("/"));
    make_folder(parent)?;
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
        // The folder's own name must survive as well.
        _ => sync_folder(parent),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
