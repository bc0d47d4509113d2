//! From a dataset's entries to objects, each once, in a fixed order.

use crate::spec::Source;
use dragnet_kernel::coverage::{Reason, Skip};
use dragnet_kernel::{Kind, ReadAt, Stated};
use dragnet_run::{Object, uri, version_of};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// What a dataset comes to.
#[derive(Debug, Default)]
pub struct Resolved {
    /// Every object, in the order of the entries and by name within a folder or glob.
    pub objects: Vec<Object>,
    /// Objects that can't be read or are no documents, by their place.
    pub skipped: Vec<(usize, Skip)>,
}

/// Why a dataset can't be resolved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An entry names nothing that is there.
    #[error("`{0}` does not exist: check the path, as the service sees it")]
    Missing(String),
    /// A glob matches nothing.
    #[error("`{0}` matches no file")]
    NoMatch(String),
    /// An entry that is not understood.
    #[error("{0}")]
    Entry(String),
    /// A folder or manifest can't be read.
    #[error("read `{path}`: {source}")]
    Read {
        /// The folder or manifest.
        path: String,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// The path of an entry: absolute, or a `file:` URI.
///
/// # Errors
/// [`Error::Entry`] for other schemes and for relative paths.
pub fn path_of(entry: &str) -> Result<PathBuf, Error> {
    if uri::scheme(entry).is_some() {
        return uri::to_path(entry).map_err(|e| Error::Entry(e.to_string()));
    }
    if !entry.starts_with('/') {
        return Err(Error::Entry(format!(
            "`{entry}` is relative: the service needs an absolute path or a `file:` URI"
        )));
    }
    Ok(PathBuf::from(entry))
}

/// Resolves a dataset.
///
/// # Errors
/// See [`Error`]: an entry that is missing or unreadable as a whole; single files that can't be read are
/// in [`Resolved::skipped`].
pub fn resolve(dataset: &[Source]) -> Result<Resolved, Error> {
    let mut resolved = Resolved::default();
    paths(dataset, &mut |named| {
        resolved.add(named);
        true
    })?;
    Ok(resolved)
}

/// An object as a dataset names it.
#[derive(Debug)]
pub struct Named {
    /// Where it is.
    pub path: PathBuf,
    /// What a manifest states of it.
    pub stated: Option<Stated>,
}

/// Calls `found` with each object, each once and in order, until it says no.
///
/// # Errors
/// As [`resolve`].
pub fn paths(dataset: &[Source], found: &mut dyn FnMut(Named) -> bool) -> Result<(), Error> {
    let mut seen = HashSet::new();
    let several = dataset.len() > 1 || dataset.iter().any(|source| matches!(source, Source::Manifest { .. }));
    let mut goes_on = true;
    // One folder or glob names nothing twice.
    let mut once = |named: Named| {
        if goes_on && (!several || seen.insert(named.path.clone())) {
            goes_on = found(named);
        }
        goes_on
    };
    for source in dataset {
        match source {
            Source::Uri(entry) => entry_paths(entry, &mut |path| once(Named { path, stated: None }))?,
            Source::Manifest { manifest, base } => manifest_paths(manifest, base.as_deref(), &mut once)?,
        }
    }
    Ok(())
}

impl Resolved {
    fn add(&mut self, named: Named) {
        let place = self.objects.len();
        let path = &named.path;
        let (object, skip) = match look(path) {
            Ok(Ok(object)) => (Object { stated: named.stated, ..object }, None),
            Ok(Err(reason)) => (empty(path), Some(Skip::new(0, 0, reason))),
            Err(e) => (empty(path), Some(Skip::new(0, 0, Reason::Unreadable).because(e.to_string()))),
        };
        self.objects.push(object);
        self.skipped.extend(skip.map(|skip| (place, skip)));
    }
}

fn empty(path: &Path) -> Object {
    Object { uri: uri::of_path(path), size: 0, version: String::new(), kind: Kind::DOCUMENT, stated: None }
}

/// The object at a path, or why it is none.
fn look(path: &Path) -> std::io::Result<Result<Object, Reason>> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device() || kind.is_dir()
    {
        return Ok(Err(Reason::NotADocument));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let size = metadata.len();
    let kind = Kind::of(&file as &dyn ReadAt, &path.to_string_lossy()).map_err(std::io::Error::other)?;
    Ok(Ok(Object { uri: uri::of_path(path), size, version: version_of(&metadata), kind, stated: None }))
}

/// Takes a path, and says whether more are wanted.
type Found<'a> = dyn FnMut(PathBuf) -> bool + 'a;

fn entry_paths(entry: &str, found: &mut Found<'_>) -> Result<(), Error> {
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

/// The lines of a manifest: a path or URI each, then, behind tabs, the size and the digest that are stated
/// of it, if any.
fn manifest_paths(
    manifest: &str,
    base: Option<&str>,
    found: &mut dyn FnMut(Named) -> bool,
) -> Result<(), Error> {
    let path = path_of(manifest)?;
    let read = |source| Error::Read { path: manifest.to_owned(), source };
    let bytes = fs::read(&path).map_err(read)?;
    let text = if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).map_err(read)?;
        text
    } else {
        String::from_utf8(bytes)
            .map_err(|e| Error::Entry(format!("`{manifest}` is not a list of paths: {e}")))?
    };
    let base = match base {
        Some(base) => path_of(base)?,
        None => path.parent().unwrap_or(Path::new("/")).to_owned(),
    };
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, stated) = stated(line).map_err(|why| Error::Entry(format!("`{manifest}`: {why}")))?;
        let absolute = uri::scheme(name).is_some() || name.starts_with('/');
        let path = if absolute { path_of(name)? } else { base.join(name) };
        // One object has one name here; what is not there is a named gap.
        if !found(Named { path: path.canonicalize().unwrap_or(path), stated }) {
            break;
        }
    }
    Ok(())
}

/// A manifest's line: what it names, and what it states of it.
fn stated(line: &str) -> Result<(&str, Option<Stated>), String> {
    let mut columns = line.split('\t').map(str::trim);
    let name = columns.next().unwrap_or(line);
    let mut stated = Stated::default();
    for column in columns.filter(|column| !column.is_empty()) {
        if column.bytes().all(|b| b.is_ascii_digit()) {
            stated.size = Some(column.parse().map_err(|_| format!("`{column}` is no size"))?);
        } else if column.to_ascii_lowercase().starts_with("sha") && column.contains(':') {
            stated.digest = Some(column.to_owned());
        } else {
            return Err(format!(
                "`{column}` behind `{name}` is neither a size in bytes nor a digest such as `sha256:…`"
            ));
        }
    }
    Ok((name, (stated != Stated::default()).then_some(stated)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_become_objects_once_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("d/e")).unwrap();
        for name in ["d/b.html", "d/a.txt", "d/e/c.txt", "x*.txt"] {
            fs::write(root.join(name), "text").unwrap();
        }
        fs::write(root.join("list"), "# a comment\nd/b.html\n\nd/a.txt\n").unwrap();
        let at = |name: &str| root.join(name).display().to_string();
        let table: Vec<(Vec<Source>, Vec<&str>)> = vec![
            (vec![Source::Uri(at("d"))], vec!["d/a.txt", "d/b.html", "d/e/c.txt"]),
            (vec![Source::Uri(at("d/*.txt"))], vec!["d/a.txt"]),
            (vec![Source::Uri(at("d/**/*.txt"))], vec!["d/a.txt", "d/e/c.txt"]),
            (vec![Source::Uri(at("x*.txt"))], vec!["x*.txt"]),
            (
                vec![Source::Uri(at("d/b.html")), Source::Uri(at("d"))],
                vec!["d/b.html", "d/a.txt", "d/e/c.txt"],
            ),
            (vec![Source::Manifest { manifest: at("list"), base: None }], vec!["d/b.html", "d/a.txt"]),
        ];
        for (sources, expected) in table {
            let resolved = resolve(&sources).unwrap();
            let found: Vec<String> = resolved.objects.into_iter().map(|o| o.uri).collect();
            let expected: Vec<String> =
                expected.into_iter().map(|name| uri::of_path(&root.join(name))).collect();
            assert_eq!(found, expected, "{sources:?}");
        }
        for (entry, part) in
            [(at("none"), "does not exist"), (at("*.warc"), "matches no file"), ("a/b".into(), "is relative")]
        {
            let said = resolve(&[Source::Uri(entry)]).unwrap_err().to_string();
            assert!(said.contains(part), "{said}");
        }
    }
}
