//! Entries that name files of this machine: a file, a folder, a glob.

use super::{Error, path_of};
use std::fs;
use std::path::{Path, PathBuf};

/// Takes a path, and says whether more are wanted.
pub(super) type Found<'a> = dyn FnMut(PathBuf) -> bool + 'a;

pub(super) fn named(entry: &str, found: &mut Found<'_>) -> Result<(), Error> {
    let path = path_of(entry)?;
    // A name that is there is that file, whatever characters are in it.
    if !path.exists() && entry.contains(['*', '?', '[', '{']) {
        return glob_paths(entry, &path, found);
    }
    let path = path.canonicalize().map_err(|_| Error::Missing(entry.to_owned()))?;
    if path.is_dir() {
        return walk(&path, found).map(|_| ());
    }
    found(path);
    Ok(())
}

fn glob_paths(entry: &str, path: &Path, found: &mut Found<'_>) -> Result<(), Error> {
    let text = path.to_string_lossy();
    let glob = globset::GlobBuilder::new(&text).literal_separator(true).build();
    let glob = glob.map_err(|e| Error::Entry(format!("`{entry}`: {e}")))?.compile_matcher();
    let special = text.find(['*', '?', '[', '{']).unwrap_or(text.len());
    let folder = Path::new(&text[..text[..special].rfind('/').map_or(0, |n| n + 1)]).to_owned();
    let real = folder.canonicalize().map_err(|_| Error::NoMatch(entry.to_owned()))?;
    let mut matched = false;
    walk(&real, &mut |file| {
        let named = file.strip_prefix(&real).map_or_else(|_| file.clone(), |rest| folder.join(rest));
        if !glob.is_match(&named) {
            return true;
        }
        matched = true;
        found(file)
    })?;
    if matched { Ok(()) } else { Err(Error::NoMatch(entry.to_owned())) }
}

/// Every file below a folder, by name; links to folders are not followed, so that no loop can be.
fn walk(folder: &Path, found: &mut Found<'_>) -> Result<bool, Error> {
    let read = |source| Error::Read { path: folder.display().to_string(), source };
    let mut entries: Vec<fs::DirEntry> =
        fs::read_dir(folder).map_err(read)?.collect::<Result<_, _>>().map_err(read)?;
    entries.sort_by_cached_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type().map_err(read)?;
        let goes_on = if kind.is_dir() {
            walk(&path, found)?
        } else {
            kind.is_symlink() && path.is_dir() || found(path)
        };
        if !goes_on {
            return Ok(false);
        }
    }
    Ok(true)
}
