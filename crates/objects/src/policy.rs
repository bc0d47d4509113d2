//! What a job may read: whose data, and which files. It is drawn up once, stands in the job's plan, and holds wherever a
//! mapper runs.
//!
//! URIs are compared as they are understood, not as they are written: scheme and host in lower case, without the
//! scheme's own port, escapes undone where there are any. One that climbs (`..`) is refused, and a prefix ends where a name ends, so that
//! `s3://crawl` does not open `s3://crawl-of-others`.

use crate::{Error, uri};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What may be read. The default is all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// How a URI must begin, if that is limited.
    pub within: Option<Vec<String>>,
    /// How no URI may begin: the service's own output and state.
    pub never: Vec<String>,
    /// The folders that files must lie beneath, without a link on the way, if that is limited.
    pub roots: Option<Vec<PathBuf>>,
    /// Whether servers must have public addresses, whatever else the process may reach.
    pub public: bool,
    /// Hosts of the site's own that the service may connect to: by HTTP they are read only where `within` names them.
    pub site: Vec<String>,
}

impl Policy {
    /// Whether all may be read.
    pub fn is_open(&self) -> bool {
        *self == Policy::default()
    }

    /// Checks a URI or a path of this machine.
    ///
    /// # Errors
    /// [`Error::Denied`] with the reason.
    pub fn check(&self, entry: &str) -> Result<(), Error> {
        if self.is_open() {
            return Ok(());
        }
        let denied = |why: &str| Error::Denied(format!("`{entry}` {why}"));
        let whole = understood(entry).ok_or_else(|| {
            denied("can't be understood in one way: name it as a URI without `..` and `//`")
        })?;
        let begins = |prefixes: &[String]| {
            prefixes.iter().filter_map(|prefix| understood(prefix)).any(|prefix| is_beneath(&whole, &prefix))
        };
        if begins(&self.never) || self.is_own_elsewhere(&whole) {
            return Err(denied("is the service's own, and no dataset"));
        }
        if self.within.as_ref().is_some_and(|within| !begins(within)) {
            return Err(denied(
                "is not among the datasets of the tenant (`dragnet tenant set NAME --dataset …`)",
            ));
        }
        if self.is_unnamed_site(&whole) {
            return Err(denied("is a server of the site's own, which the tenant's datasets do not name"));
        }
        match whole.strip_prefix("file://") {
            Some(path) if self.roots.is_some() && self.root_of(Path::new(path)).is_none() => {
                Err(denied("lies outside of the folders that hold data (`serve --data-root`)"))
            }
            _ => Ok(()),
        }
    }

    /// Whether it lies in HDFS where the service's own does, whatever the name of the NameNode: it has several. Staging of
    /// jobs, anybody's, and shipped mappers are known by the names of their folders.
    fn is_own_elsewhere(&self, whole: &str) -> bool {
        if whole.starts_with("hdfs://")
            && whole.split('/').any(|name| matches!(name, ".staging" | ".dragnet"))
        {
            return true;
        }
        let path = |uri: &str| Some(format!("hdfs:///{}", uri.strip_prefix("hdfs://")?.split_once('/')?.1));
        let never = self.never.iter().filter_map(|prefix| path(&understood(prefix)?));
        path(whole).is_some_and(|whole| never.into_iter().any(|prefix| is_beneath(&whole, &prefix)))
    }

    /// Whether it is a web server of the site's own that only a prefix for any server would open.
    fn is_unnamed_site(&self, whole: &str) -> bool {
        let Some(within) = self.within.as_ref().filter(|_| whole.starts_with("http")) else { return false };
        let Some(host) = host(whole) else { return false };
        let names =
            |prefix: &String| understood(prefix).is_some_and(|prefix| self::host(&prefix) == Some(host));
        self.site.iter().any(|site| site.eq_ignore_ascii_case(host)) && !within.iter().any(names)
    }

    fn root_of<'a>(&self, path: &'a Path) -> Option<(PathBuf, &'a Path)> {
        let roots = self.roots.iter().flatten();
        roots.filter_map(|root| Some((root.clone(), path.strip_prefix(root).ok()?))).next()
    }

    /// Opens a file to read it. Beneath a root no link is followed, whoever puts one there meanwhile, and what is opened
    /// is a file: no device and no FIFO, at which a reader would hang.
    ///
    /// # Errors
    /// What the system says; permission denied for what lies outside.
    pub fn open_file(&self, path: &Path) -> io::Result<File> {
        if self.roots.is_none() {
            let nonblock = OFlags::NONBLOCK.bits() as i32;
            return OpenOptions::new().read(true).custom_flags(nonblock).open(path);
        }
        let (root, rest) = self.root_of(path).ok_or(io::ErrorKind::PermissionDenied)?;
        let root =
            rustix::fs::open(&root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = File::from(rustix::fs::openat2(root, rest, flags, Mode::empty(), resolve)?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is no regular file")),
        }
    }
}

/// A URI or path as it is understood. None for one that climbs or can't be understood, or that could be understood in
/// two ways: of a store's key, one that has an empty name in it, as some drop it.
fn understood(entry: &str) -> Option<String> {
    let uri = if entry.starts_with('/') { uri::of_path(Path::new(entry)) } else { entry.to_owned() };
    if uri.len() >= 5 && uri[..5].eq_ignore_ascii_case("file:") {
        let path = uri::to_path(&format!("file:{}", &uri[5..])).ok()?;
        let plain: PathBuf = path.components().collect();
        return (!climbs(path.to_str()?)).then(|| format!("file://{}", plain.display()));
    }
    let (scheme, rest) = uri.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let (authority, key) = rest.split_once('/').unwrap_or((rest, ""));
    let authority = plain_authority(&scheme, authority)?;
    // Over HTTP a key is escaped; elsewhere it is what it says.
    let is_web = scheme.starts_with("http");
    let key = if is_web { unescaped(key)? } else { key.to_owned() };
    let is_plain = is_web || !key.trim_end_matches('/').split('/').any(str::is_empty) || key.is_empty();
    (is_plain && !climbs(&key)).then(|| format!("{scheme}://{authority}/{key}"))
}

/// A server or bucket in the one way of writing it.
pub(crate) fn plain_authority(scheme: &str, authority: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:[]".contains(c);
    if !authority.chars().all(is_plain) {
        return None;
    }
    let authority = authority.to_ascii_lowercase();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => (host, port),
        _ => (authority.as_str(), ""),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    // A client that puts the bucket into the path would have it resolved away, and the key be the bucket.
    if host.starts_with('.') || host.ends_with('.') || (host.is_empty() && authority != host) {
        return None;
    }
    let is_own = matches!((scheme, port), (_, "") | ("http", "80") | ("https", "443"));
    Some(if is_own { host.to_owned() } else { format!("{host}:{port}") })
}

/// The host of a URI as it is understood, without brackets and port.
fn host(whole: &str) -> Option<&str> {
    let authority = whole.split_once("://")?.1.split('/').next()?;
    match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => authority.split(':').next(),
    }
}

fn climbs(path: &str) -> bool {
    path.split(['/', '\\']).any(|name| matches!(name, ".." | "."))
}

fn unescaped(key: &str) -> Option<String> {
    let path = uri::to_path(&format!("file:///{key}")).ok()?;
    Some(path.to_str()?.strip_prefix('/')?.to_owned())
}

/// Whether a URI is the prefix, or lies below it. `https://` holds all of a scheme, and one that ends in `/` all below.
fn is_beneath(whole: &str, prefix: &str) -> bool {
    // What has no authority was given one that is empty.
    let prefix = prefix.strip_suffix(":///").map_or(prefix.to_owned(), |scheme| format!("{scheme}://"));
    match whole.strip_prefix(&prefix) {
        Some(rest) => rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'),
        None => prefix.strip_suffix('/') == Some(whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_a_name_ends() {
        let policy = |prefix: &str| Policy { within: Some(vec![prefix.into()]), ..Policy::default() };
        let rows = [
            ("s3://crawl", "s3://crawl/a", true),
            ("s3://crawl", "s3://crawl-of-others/a", false),
            ("s3://crawl/2024", "s3://crawl/2024/a", true),
            ("s3://crawl/2024", "s3://crawl/20245", false),
            ("s3://crawl/2024/", "s3://crawl/2024", true),
            ("s3://crawl/2024/", "s3://crawl/2025/a", false),
            ("s3://crawl/a/", "s3://crawl/a/../b", false),
            ("s3://crawl/a/", "s3://crawl/a/%2e%2E/b", true),
            ("s3://crawl/a/", "s3://crawl/%61/b", false),
            ("s3://crawl/", "s3://crawl//a", false),
            ("s3://crawl/", "s3://crawl/a//b", false),
            ("s3://crawl/", "s3://crawl/a/b/", true),
            ("s3://crawl", "s3://crawl#/a", false),
            ("https://host/a/", "https://host/%61/b", true),
            ("https://host/a/", "https://host/a/%2e%2E/b", false),
            ("https://host/", "https://host./x", true),
            ("hdfs://node:8020/a/", "hdfs://NODE.:8020/a/b", true),
            ("file:///data/", "/data//a", true),
            ("https://host/", "HTTPS://Host:443/x", true),
            ("https://host/", "https://host:8443/x", false),
            ("https://host/", "https://host.evil/x", false),
            ("https://host/", "https://u:p@host/x", false),
            ("https://host/", "http://host/x", false),
            ("s3://", "s3://crawl/a", true),
            ("s3://", "s3://./crawl/a", false),
            ("s3://", "s3://../crawl/a", false),
            ("https://", "https://any/x", true),
            ("https://", "http://any/x", false),
            ("file:///data/", "/data/a", true),
            ("file:///data/", "file:///data/a%20b", true),
            ("file:///data/", "/data/../etc/passwd", false),
            ("file:///data/", "/database", false),
            ("/data", "file://localhost/data/a", true),
            ("file:///data/", "smile", false),
        ];
        for (prefix, entry, may) in rows {
            assert_eq!(policy(prefix).check(entry).is_ok(), may, "{prefix} {entry}");
        }
        let never = ["file:///state/output", "s3://own/out", "hdfs://node:8020/out"];
        let own = Policy { never: never.map(str::to_owned).to_vec(), ..Policy::default() };
        let rows = [
            ("/state/output/t/job/plan.json", false),
            ("/state//output/t/job/plan.json", false),
            ("/state/data", true),
            ("s3://own/out/t/plan.json", false),
            ("s3://OWN./out/t/plan.json", false),
            ("s3://own//out/t/plan.json", false),
            ("s3://own#/out/t/plan.json", false),
            ("s3://own/data", true),
            ("hdfs://node.:8020/out/t", false),
            ("hdfs://10.0.0.1:8020/out/t", false),
            ("hdfs://cluster/out/t", false),
            ("hdfs://node:8020/data", true),
            ("hdfs://node:8020/user/me/.staging/job_1/job.xml", false),
            ("hdfs://node:8020/user/me/.dragnet/", false),
        ];
        for (entry, may) in rows {
            assert_eq!(own.check(entry).is_ok(), may, "{entry}");
        }
        assert!(Policy::default().check("/data/../etc").is_ok());
    }

    #[test]
    fn the_sites_own_servers_are_read_where_they_are_named() {
        let rows = [
            ("http://", "http://nn.site:9870/logs/", false),
            ("http://", "http://NN.site./logs/", false),
            ("http://", "http://elsewhere/a", true),
            ("http://nn.site:9870/data/", "http://nn.site:9870/data/a", true),
            ("http://nn.site:9870/data/", "http://nn.site:9870/logs/a", false),
            ("http://", "http://[fd00::1]:80/a", false),
            ("hdfs://nn.site:8020/", "hdfs://nn.site:8020/a", true),
        ];
        for (prefix, entry, may) in rows {
            let site = vec!["nn.site".to_owned(), "fd00::1".to_owned()];
            let policy = Policy { within: Some(vec![prefix.into()]), site, ..Policy::default() };
            assert_eq!(policy.check(entry).is_ok(), may, "{prefix} {entry}");
        }
    }

    #[test]
    fn files_are_opened_beneath_their_root_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("its path");
        let (data, out) = (root.join("data"), root.join("out"));
        for path in [&data, &out, &data.join("below")] {
            std::fs::create_dir_all(path).expect("a folder");
        }
        std::fs::write(data.join("below/a"), "a").expect("a file");
        std::fs::write(out.join("b"), "b").expect("a file");
        std::os::unix::fs::symlink(out.join("b"), data.join("link")).expect("a link");
        std::os::unix::fs::symlink(&out, data.join("linked")).expect("a link");
        rustix::fs::mknodat(rustix::fs::CWD, data.join("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0)
            .expect("a FIFO");
        let policy = Policy { roots: Some(vec![data.clone()]), ..Policy::default() };
        let rows = [
            ("below/a", true),
            ("link", false),
            ("linked/b", false),
            ("../out/b", false),
            ("fifo", false),
            ("below", false),
        ];
        for (name, opens) in rows {
            assert_eq!(policy.open_file(&data.join(name)).is_ok(), opens, "{name}");
        }
        assert!(policy.open_file(&out.join("b")).is_err());
        assert!(policy.open_file(Path::new("/dev/zero")).is_err());
        assert!(Policy::default().open_file(&data.join("link")).is_ok());
    }
}
