//! What each tenant's jobs may read on this service.

use dragnet_objects::Policy;
use dragnet_pattern::{Error, Statement, Store};
use dragnet_tenant::{ANY, DEFAULT, PUBLIC, Tenant};
use std::path::{Path, PathBuf};

/// What holds the machine's and each process's secrets, as the environment of the service, and no data.
const MACHINE: [&str; 3] = ["file:///proc", "file:///sys", "file:///dev"];

/// What the service itself says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guard {
    /// The folders that files must lie beneath, for whomever; none for no such limit.
    pub roots: Vec<PathBuf>,
    /// URIs of the service's own output and state, which are no dataset of a tenant.
    pub own: Vec<String>,
    /// Whether tenants read from public addresses alone.
    pub public: bool,
    /// Hosts that may be connected to all the same: whose list names one reads from it.
    pub site: Vec<String>,
}

impl Guard {
    /// The policy of a tenant. The default tenant, who needs no key, is whoever runs the service: its own rights on the
    /// machine are the limit, and the roots if there are any. Once it has a list it is a tenant as any other.
    pub fn policy(&self, tenant: &Tenant) -> Policy {
        let roots = (!self.roots.is_empty()).then(|| self.roots.clone());
        let within = tenant.settings.datasets.clone();
        if tenant.id == DEFAULT && within.is_none() {
            return Policy { roots, ..Policy::default() };
        }
        let never: Vec<String> = self.own.iter().cloned().chain(MACHINE.map(str::to_owned)).collect();
        if within.as_ref().is_some_and(|within| within.iter().any(|prefix| prefix == ANY)) {
            // A link could lead to what is the service's own.
            let roots = roots.or(Some(vec!["/".into()]));
            return Policy { within: None, never, roots, public: self.public, site: Vec::new() };
        }
        let within = within.unwrap_or_else(|| PUBLIC.map(str::to_owned).to_vec());
        let roots = roots.unwrap_or_else(|| within.iter().filter_map(|prefix| folder(prefix)).collect());
        let (roots, site) = (Some(roots), self.site.clone());
        Policy { within: Some(within), never, roots, public: self.public, site }
    }
}

/// Where the output is and was, of all services of the store: jobs' output stays where it was when they were accepted.
///
/// # Errors
/// Those of the store.
pub async fn outputs(store: &dyn Store) -> Result<Vec<String>, Error> {
    let rows = store.query(Statement::new("select uri from output_root order by uri", Vec::new())).await?;
    Ok(rows.iter().map(|row| row[0].text().to_owned()).collect())
}

/// Notes where the output of this service is. Returns where that of all of them is and was.
///
/// # Errors
/// Those of the store.
pub async fn note_output(store: &dyn Store, now: &str) -> Result<Vec<String>, Error> {
    let mut outputs = outputs(store).await?;
    // A start writes nothing that stands there: another process may stand still with the lock of the store.
    if !outputs.iter().any(|known| known == now) {
        let note = "insert into output_root (uri) values (?1) on conflict (uri) do nothing";
        store.write(vec![Statement::new(note, vec![now.into()])]).await?;
        outputs.push(now.to_owned());
    }
    Ok(outputs)
}

/// The folder of a prefix that names files, as it really is.
fn folder(prefix: &str) -> Option<PathBuf> {
    let path = match dragnet_run::uri::scheme(prefix) {
        Some("file") => dragnet_run::uri::to_path(prefix).ok()?,
        Some(_) => return None,
        None => PathBuf::from(prefix),
    };
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("/")).to_owned() };
    Some(folder.canonicalize().unwrap_or(folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dragnet_tenant::Settings;

    #[test]
    fn a_tenant_reads_what_it_was_given() {
        let guard = Guard { own: vec!["file:///srv/state".into()], ..Guard::default() };
        let policy = |id: &str, datasets: Option<&[&str]>| {
            let datasets = datasets.map(|all| all.iter().map(|one| (*one).to_owned()).collect());
            guard.policy(&Tenant {
                id: id.into(),
                settings: Settings { datasets, ..Settings::default() },
                removed_ms: None,
            })
        };
        let rows: [(&str, Option<&[&str]>, &str, bool); 13] = [
            (DEFAULT, None, "/etc/hosts", true),
            (DEFAULT, None, "s3://any/a", true),
            ("acme", None, "https://host/a", true),
            ("acme", None, "/etc/hosts", false),
            ("acme", None, "s3://any/a", false),
            ("acme", Some(&["any"]), "/etc/hosts", true),
            ("acme", Some(&["any"]), "/srv/state/output/other/job", false),
            ("acme", Some(&["any"]), "/proc/self/environ", false),
            (DEFAULT, Some(&["s3://x/"]), "s3://x/a", true),
            (DEFAULT, Some(&["s3://x/"]), "/srv/state/output/other/job", false),
            ("acme", Some(&["s3://acme/", "file:///srv/"]), "s3://acme/a", true),
            ("acme", Some(&["s3://acme/", "file:///srv/"]), "https://host/a", false),
            ("acme", Some(&["file:///srv/"]), "/srv/state/output/other/job", false),
        ];
        for (tenant, datasets, entry, may) in rows {
            assert_eq!(policy(tenant, datasets).check(entry).is_ok(), may, "{tenant} {datasets:?} {entry}");
        }
    }
}
