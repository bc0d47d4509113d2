//! Entries that name objects on servers: one object, all below a prefix, a glob of keys.

use super::{Error, Place, glob_at, on_server};
use dragnet_objects::{Head, Policy};

pub(super) fn named(policy: &Policy, entry: &str, found: &mut dyn FnMut(Place) -> bool) -> Result<(), Error> {
    if let Some(special) = glob_at(entry) {
        return globbed(policy, entry, special, found);
    }
    if !entry.ends_with('/') {
        match dragnet_objects::head(policy, entry) {
            Ok(head) => {
                give([head], found);
                return Ok(());
            }
            // It may be a folder that is named without its slash; a web server has none.
            Err(dragnet_objects::Error::Missing) if !entry.starts_with("http") => {}
            Err(e) => return Err(on_server(entry, e)),
        }
    }
    let below = dragnet_objects::list(policy, entry).map_err(|e| on_server(entry, e))?;
    if below.is_empty() {
        return Err(Error::Missing(entry.to_owned()));
    }
    give(below, found);
    Ok(())
}

fn globbed(
    policy: &Policy,
    entry: &str,
    special: usize,
    found: &mut dyn FnMut(Place) -> bool,
) -> Result<(), Error> {
    let glob = globset::GlobBuilder::new(entry).literal_separator(true).build();
    let glob = glob.map_err(|e| Error::Entry(format!("`{entry}`: {e}")))?.compile_matcher();
    let folder = &entry[..entry[..special].rfind('/').map_or(0, |n| n + 1)];
    let below = dragnet_objects::list(policy, folder).map_err(|e| on_server(entry, e))?;
    let matching: Vec<Head> = below.into_iter().filter(|head| glob.is_match(&head.uri)).collect();
    if matching.is_empty() {
        return Err(Error::NoMatch(entry.to_owned()));
    }
    give(matching, found);
    Ok(())
}

/// Hands out objects until no more are wanted; what only stands for a folder is none.
fn give(heads: impl IntoIterator<Item = Head>, found: &mut dyn FnMut(Place) -> bool) {
    for head in heads.into_iter().filter(|head| !head.uri.ends_with('/')) {
        if !found(Place::Served { uri: head.uri.clone(), head: Some(head) }) {
            return;
        }
    }
}
