//! From a dataset's entries to objects, each once, in a fixed order.

mod files;
mod manifest;
mod sample;
mod servers;

use crate::spec::Source;
use dragnet_kernel::coverage::{Reason, Skip};
use dragnet_kernel::{Kind, ReadAt, Stated};
use dragnet_objects::{Head, Policy, Remote};
use dragnet_run::{Object, uri, version_of};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Objects of one dataset: all of their names are held at once, by a process that serves others too.
const OBJECTS_MAX: usize = 2_000_000;

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
    /// A server that is down or asks for patience: the dataset may be resolved later.
    #[error("`{host}` does not serve now: {reason}")]
    Away {
        /// The server, bucket or cluster.
        host: String,
        /// What it said.
        reason: String,
    },
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

/// What a server's answer means for the entry that named it.
fn on_server(entry: &str, e: dragnet_objects::Error) -> Error {
    match e {
        dragnet_objects::Error::Away { host, reason } => Error::Away { host, reason },
        dragnet_objects::Error::Missing => Error::Missing(entry.to_owned()),
        dragnet_objects::Error::Uri(said) => Error::Entry(said),
        other => Error::Entry(format!("`{entry}`: {other}")),
    }
}

/// Checks an entry by its look alone.
///
/// # Errors
/// [`Error::Entry`].
pub fn check(entry: &str) -> Result<(), Error> {
    if !dragnet_run::is_remote(entry) {
        return path_of(entry).map(drop);
    }
    dragnet_objects::check(entry).map_err(|e| Error::Entry(e.to_string()))
}

/// Resolves a dataset, or an even sample of its objects, as far as the policy allows.
///
/// # Errors
/// See [`Error`]: an entry that is missing or unreadable as a whole; single files that can't be read are
/// in [`Resolved::skipped`].
pub fn resolve(policy: &Policy, dataset: &[Source], sample: Option<usize>) -> Result<Resolved, Error> {
    let mut named = Vec::new();
    objects(policy, dataset, sample, &mut |object| {
        named.push(object);
        true
    })?;
    let looked = looks(policy, &named)?;
    let mut resolved = Resolved::default();
    for (named, (object, gap)) in named.into_iter().zip(looked) {
        let place = resolved.objects.len();
        resolved.objects.push(Object { stated: named.stated, ..object });
        resolved.skipped.extend(gap.map(|gap| (place, gap)));
    }
    Ok(resolved)
}

/// An object as a dataset names it.
#[derive(Debug)]
pub struct Named {
    /// Where it is.
    pub place: Place,
    /// What a manifest states of it.
    pub stated: Option<Stated>,
}

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On this machine.
    File(PathBuf),
    /// On a server.
    Served {
        /// Its URI.
        uri: String,
        /// What a listing said of it.
        head: Option<Head>,
    },
}

impl Place {
    fn served(uri: String) -> Place {
        Place::Served { uri, head: None }
    }

    /// The object's URI.
    pub fn uri(&self) -> String {
        match self {
            Place::File(path) => uri::of_path(path),
            Place::Served { uri, .. } => uri.clone(),
        }
    }
}

/// Calls `found` with each object, each once and in order, until it says no; with `sample` only with so many of
/// them, spread evenly.
///
/// # Errors
/// As [`resolve`].
pub fn objects(
    policy: &Policy,
    dataset: &[Source],
    sample: Option<usize>,
    found: &mut dyn FnMut(Named) -> bool,
) -> Result<(), Error> {
    let Some(wanted) = sample else { return all(policy, dataset, found) };
    let mut named = Vec::new();
    all(policy, dataset, &mut |object| {
        named.push(object);
        true
    })?;
    let chosen = sample::places(named.len(), wanted);
    let chosen = named.into_iter().enumerate().filter(|(place, _)| chosen.binary_search(place).is_ok());
    for (_, object) in chosen {
        if !found(object) {
            break;
        }
    }
    Ok(())
}

fn all(policy: &Policy, dataset: &[Source], found: &mut dyn FnMut(Named) -> bool) -> Result<(), Error> {
    let mut seen = HashSet::new();
    let several = dataset.len() > 1 || dataset.iter().any(|source| matches!(source, Source::Manifest { .. }));
    let (mut goes_on, mut refused, mut objects) = (true, Ok(()), 0);
    // One folder or glob names nothing twice. What it holds that may not be read refuses it as a whole.
    let mut once = |named: Named| {
        if goes_on && !policy.is_open() {
            refused = policy.check(&named.place.uri()).map_err(denied);
            goes_on = refused.is_ok();
        }
        if goes_on && (!several || seen.insert(named.place.uri())) {
            objects += 1;
            refused = if objects > OBJECTS_MAX { Err(too_many()) } else { Ok(()) };
            goes_on = refused.is_ok() && found(named);
        }
        goes_on
    };
    for source in dataset {
        allows(policy, source)?;
        match source {
            Source::Uri(entry) if dragnet_run::is_remote(entry) => {
                servers::named(policy, entry, &mut |place| once(Named { place, stated: None }))?;
            }
            Source::Uri(entry) => {
                files::named(entry, &mut |path| once(Named { place: Place::File(path), stated: None }))?;
            }
            Source::Manifest { manifest, base } => {
                manifest::named(policy, manifest, base.as_deref(), &mut once)?
            }
        }
    }
    refused
}

fn too_many() -> Error {
    Error::Entry(format!("it names more than {OBJECTS_MAX} objects: search it by several jobs"))
}

/// Where the first character stands that makes an entry a glob, if one does; the brackets around a server's address don't.
fn glob_at(entry: &str) -> Option<usize> {
    let key = entry.find("://").map_or(0, |scheme| {
        let authority = scheme + 3;
        entry[authority..].find('/').map_or(entry.len(), |at| authority + at)
    });
    Some(key + entry[key..].find(['*', '?', '[', '{'])?)
}

/// Checks an entry of a dataset before anything is read: of a glob, what stands before its first special character.
///
/// # Errors
/// [`Error::Entry`].
pub fn allows(policy: &Policy, source: &Source) -> Result<(), Error> {
    if policy.is_open() {
        return Ok(());
    }
    match source {
        Source::Uri(entry) => {
            let plain = glob_at(entry).map_or(entry.as_str(), |at| &entry[..at]);
            // A file whose name has such a character is that file, and stands in a folder that is checked.
            let folder =
                plain.rfind('/').filter(|_| plain.len() < entry.len()).map_or(plain, |at| &plain[..=at]);
            policy.check(folder).map_err(denied)
        }
        Source::Manifest { manifest, .. } => policy.check(manifest).map_err(denied),
    }
}

fn denied(e: dragnet_objects::Error) -> Error {
    Error::Entry(e.to_string())
}

/// Objects on servers that are looked at side by side: each look waits for two answers.
const LOOKS: usize = 16;

/// What is at each place, in order.
fn looks(policy: &Policy, named: &[Named]) -> Result<Vec<Looked>, Error> {
    if named.iter().all(|named| matches!(named.place, Place::File(_))) {
        return named.iter().map(|named| look(policy, &named.place)).collect();
    }
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(named.len())));
    std::thread::scope(|scope| {
        for _ in 0..LOOKS.min(named.len()) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(object) = named.get(n) else { return };
                    let looked = look(policy, &object.place);
                    if looked.is_err() {
                        next.store(named.len(), Ordering::Relaxed);
                    }
                    found.lock().unwrap_or_else(PoisonError::into_inner).push((n, looked));
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_unstable_by_key(|(n, _)| *n);
    found.into_iter().map(|(_, looked)| looked).collect()
}

/// An object, and why it is not read.
pub(crate) type Looked = (Object, Option<Skip>);

/// What is at a place.
pub(crate) fn look(policy: &Policy, place: &Place) -> Result<Looked, Error> {
    let unread = |gap: Skip| {
        let (size, version) = (0, String::new());
        (Object { uri: place.uri(), size, version, kind: Kind::DOCUMENT, stated: None }, Some(gap))
    };
    let unreadable = |why: String| unread(Skip::new(0, 0, Reason::Unreadable).because(why));
    Ok(match place {
        Place::File(path) => match look_at_file(policy, path) {
            Ok(Ok(object)) => (object, None),
            Ok(Err(reason)) => unread(Skip::new(0, 0, reason)),
            Err(e) => unreadable(e.to_string()),
        },
        Place::Served { uri, head } => match look_at_server(policy, uri, head.clone()) {
            Ok(object) => (object, None),
            Err(dragnet_objects::Error::Away { host, reason }) => return Err(Error::Away { host, reason }),
            Err(e) => unreadable(e.to_string()),
        },
    })
}

fn look_at_server(policy: &Policy, uri: &str, head: Option<Head>) -> Result<Object, dragnet_objects::Error> {
    let head = head.map_or_else(|| dragnet_objects::head(policy, uri), Ok)?;
    // Its first bytes tell what it is; nothing is read ahead of them.
    let remote = Remote::open(policy, &head, 0)?;
    let kind = Kind::of(&remote as &dyn ReadAt, uri).map_err(|e| match &e {
        dragnet_kernel::Error::Read { source, .. } => dragnet_objects::Error::in_io(source)
            .cloned()
            .unwrap_or_else(|| dragnet_objects::Error::Other(e.to_string())),
        _ => dragnet_objects::Error::Other(e.to_string()),
    })?;
    Ok(Object { uri: head.uri, size: head.size, version: head.version, kind, stated: None })
}

/// The object at a path, or why it is none.
fn look_at_file(policy: &Policy, path: &Path) -> std::io::Result<Result<Object, Reason>> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device() || kind.is_dir()
    {
        return Ok(Err(Reason::NotADocument));
    }
    let file = policy.open_file(path)?;
    let metadata = file.metadata()?;
    let size = metadata.len();
    let kind = Kind::of(&file as &dyn ReadAt, &path.to_string_lossy()).map_err(std::io::Error::other)?;
    Ok(Ok(Object { uri: uri::of_path(path), size, version: version_of(&metadata), kind, stated: None }))
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
            let resolved = resolve(&Policy::default(), &sources, None).unwrap();
            let found: Vec<String> = resolved.objects.into_iter().map(|o| o.uri).collect();
            let expected: Vec<String> =
                expected.into_iter().map(|name| uri::of_path(&root.join(name))).collect();
            assert_eq!(found, expected, "{sources:?}");
        }
        for (entry, part) in
            [(at("none"), "does not exist"), (at("*.warc"), "matches no file"), ("a/b".into(), "is relative")]
        {
            let said = resolve(&Policy::default(), &[Source::Uri(entry)], None).unwrap_err().to_string();
            assert!(said.contains(part), "{said}");
        }
    }
}
