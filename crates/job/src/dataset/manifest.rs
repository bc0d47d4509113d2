//! Manifests: lists of objects, a line each, as crawls publish them (`warc.paths.gz`).

use super::{Error, Named, Place, on_server, path_of};
use dragnet_kernel::{ReadAt, Stated};
use dragnet_objects::Policy;
use dragnet_run::uri;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The most bytes of a manifest, stored or decoded: a million lines.
const BYTES_MAX: u64 = 128 << 20;

/// What a manifest's relative lines are relative to.
enum Base {
    Folder(PathBuf),
    /// `scheme://authority/…/`.
    Server(String),
}

/// The lines of a manifest: a path or URI each, then, behind tabs, the size and the digest that are stated
/// of it, if any.
pub(super) fn named(
    policy: &Policy,
    manifest: &str,
    base: Option<&str>,
    found: &mut dyn FnMut(Named) -> bool,
) -> Result<(), Error> {
    let read = |source| Error::Read { path: manifest.to_owned(), source };
    let bytes = if dragnet_run::is_remote(manifest) {
        served(policy, manifest)?
    } else {
        let path = path_of(manifest)?;
        if !std::fs::metadata(&path).map_err(read)?.is_file() {
            return Err(Error::Entry(format!("`{manifest}` is no file, so it is no manifest")));
        }
        bounded(manifest, policy.open_file(&path).map_err(read)?)?
    };
    let text = if bytes.starts_with(&[0x1f, 0x8b]) {
        bounded(manifest, flate2::read::MultiGzDecoder::new(&bytes[..]))?
    } else {
        bytes
    };
    let text = String::from_utf8(text)
        .map_err(|e| Error::Entry(format!("`{manifest}` is not a list of paths: {e}")))?;
    let base = Base::of(manifest, base)?;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, stated) = stated(line).map_err(|why| Error::Entry(format!("`{manifest}`: {why}")))?;
        if !found(Named { place: base.place(name)?, stated }) {
            break;
        }
    }
    Ok(())
}

/// All of it, unless that is more than a manifest can have.
fn bounded(manifest: &str, from: impl Read) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = from.take(BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|source| Error::Read { path: manifest.to_owned(), source })?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(Error::Entry(format!(
            "`{manifest}` has more than {BYTES_MAX} bytes: that is no manifest"
        )));
    }
    Ok(bytes)
}

fn served(policy: &Policy, manifest: &str) -> Result<Vec<u8>, Error> {
    let failed = |e| on_server(manifest, e);
    let head = dragnet_objects::head(policy, manifest).map_err(failed)?;
    if head.size > BYTES_MAX {
        return Err(Error::Entry(format!("`{manifest}` has {} bytes: that is no manifest", head.size)));
    }
    let object = dragnet_objects::Remote::open(policy, &head, head.size).map_err(failed)?;
    let (mut bytes, mut n) = (vec![0; head.size as usize], 0);
    while n < bytes.len() {
        let more = object.read_at(n as u64, &mut bytes[n..]);
        n += more
            .map_err(|source| match dragnet_objects::Error::in_io(&source) {
                Some(said) => failed(said.clone()),
                None => Error::Read { path: manifest.to_owned(), source },
            })?
            .max(1);
    }
    Ok(bytes)
}

impl Base {
    fn of(manifest: &str, base: Option<&str>) -> Result<Base, Error> {
        Ok(match base {
            Some(base) if dragnet_run::is_remote(base) => {
                Base::Server(format!("{}/", base.trim_end_matches('/')))
            }
            Some(base) => Base::Folder(path_of(base)?),
            // A crawl's list names its files from the root of the host or bucket that it lies in.
            None if dragnet_run::is_remote(manifest) => {
                let (scheme, authority, _) = uri::parts(manifest).map_err(|e| Error::Entry(e.to_string()))?;
                Base::Server(format!("{scheme}://{authority}/"))
            }
            None => Base::Folder(path_of(manifest)?.parent().unwrap_or(Path::new("/")).to_owned()),
        })
    }

    fn place(&self, name: &str) -> Result<Place, Error> {
        let path = match self {
            _ if dragnet_run::is_remote(name) => return Ok(Place::served(name.to_owned())),
            _ if uri::scheme(name).is_some() => path_of(name)?,
            Base::Server(root) => {
                return Ok(Place::served(format!("{root}{}", name.trim_start_matches('/'))));
            }
            _ if name.starts_with('/') => path_of(name)?,
            Base::Folder(folder) => folder.join(name),
        };
        // One object has one name here; what is not there is a named gap.
        Ok(Place::File(path.canonicalize().unwrap_or(path)))
    }
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
