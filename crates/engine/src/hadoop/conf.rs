//! A Hadoop client's configuration: the `*-site.xml` of one folder say where everything is.
//!
//! All of them together also go into a job's `job.xml`: its ApplicationMaster reads nothing else. Values are
//! kept as they are written, and expanded only where this program needs them.

use crate::Error;
use std::collections::BTreeMap;
use std::path::Path;

const FILES: [&str; 4] = ["core-site.xml", "hdfs-site.xml", "mapred-site.xml", "yarn-site.xml"];
/// How deep `${…}` may refer to what refers to something else.
const DEPTH_MAX: u32 = 20;

/// What the files say; a property that stands in several has its last value.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conf {
    properties: BTreeMap<String, String>,
}

impl Conf {
    /// Reads those of the four files that are there, and puts `more` above them.
    pub(crate) fn read(folder: &Path, more: &[(String, String)]) -> Result<Conf, Error> {
        let mut conf = Conf::default();
        let mut found = false;
        for name in FILES {
            let path = folder.join(name);
            let wrong = |reason: String| Error::Configuration { path: path.display().to_string(), reason };
            match std::fs::read_to_string(&path) {
                Ok(text) => conf.add(&text).map_err(wrong)?,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(wrong(e.to_string())),
            }
            found = true;
        }
        if !found {
            let reason = format!("it holds none of {}", FILES.join(", "));
            return Err(Error::Configuration { path: folder.display().to_string(), reason });
        }
        conf.properties.extend(more.iter().cloned());
        Ok(conf)
    }

    #[cfg(test)]
    pub(crate) fn of(properties: &[(&str, &str)]) -> Conf {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Conf { properties: properties.iter().map(own).collect() }
    }

    fn add(&mut self, xml: &str) -> Result<(), String> {
        let document = roxmltree::Document::parse(xml).map_err(|e| e.to_string())?;
        for property in document.descendants().filter(|node| node.has_tag_name("property")) {
            let text = |tag| {
                property.children().find(|child| child.has_tag_name(tag)).map(|child| {
                    child.children().filter_map(|part| part.text()).collect::<String>().trim().to_owned()
                })
            };
            if let (Some(name), Some(value)) = (text("name"), text("value")) {
                self.properties.insert(name, value);
            }
        }
        Ok(())
    }

    /// All properties as they are written.
    pub(crate) fn properties(&self) -> &BTreeMap<String, String> {
        &self.properties
    }

    /// A property with its `${…}` replaced.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.properties.get(name).map(|value| self.expand(value, DEPTH_MAX))
    }

    /// A property, or Hadoop's own default for it.
    pub(crate) fn or(&self, name: &str, default: &str) -> String {
        self.get(name).unwrap_or_else(|| self.expand(default, DEPTH_MAX))
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        self.get(name).and_then(|value| value.parse().ok()).unwrap_or(default)
    }

    fn expand(&self, value: &str, depth: u32) -> String {
        let Some((before, rest)) = value.split_once("${").filter(|_| depth > 0) else {
            return value.to_owned();
        };
        let Some((name, after)) = rest.split_once('}') else { return value.to_owned() };
        // What is not known stays as it is: it may be a variable of another program.
        let middle = match self.properties.get(name) {
            Some(value) => self.expand(value, depth - 1),
            None => format!("${{{name}}}"),
        };
        format!("{before}{middle}{}", self.expand(after, depth - 1))
    }

    /// The file system in which files are staged, as `hdfs://HOST:PORT`.
    pub(crate) fn default_fs(&self) -> String {
        self.or("fs.defaultFS", "file:///").trim_end_matches('/').to_owned()
    }

    /// Where applications of a user are staged.
    pub(crate) fn staging(&self, user: &str) -> String {
        let root = self.or("yarn.app.mapreduce.am.staging-dir", "/tmp/hadoop-yarn/staging");
        let root = root.replace("${user.name}", user);
        let path = root.strip_prefix(&self.default_fs()).unwrap_or(&root);
        format!("{}/{user}/.staging", path.trim_end_matches('/'))
    }

    /// A user's home folder in HDFS.
    pub(crate) fn home(&self, user: &str) -> String {
        format!("{}/{user}", self.or("dfs.user.home.dir.prefix", "/user"))
    }

    /// Who an anonymous web request is, where the cluster says so.
    pub(crate) fn web_user(&self) -> Option<String> {
        self.get("hadoop.http.staticuser.user").filter(|user| !user.is_empty() && user != "dr.who")
    }

    /// The web addresses of the ResourceManagers, of which one is active.
    pub(crate) fn resource_managers(&self) -> Vec<String> {
        let (scheme, key, port) = match self.or("yarn.http.policy", "HTTP_ONLY").as_str() {
            "HTTPS_ONLY" => ("https", "yarn.resourcemanager.webapp.https.address", 8090),
            _ => ("http", "yarn.resourcemanager.webapp.address", 8088),
        };
        let address = |id: &str| {
            let host = format!("${{yarn.resourcemanager.hostname{id}}}:{port}");
            let address = self.or(&format!("{key}{id}"), &host);
            let local = format!("127.0.0.1:{port}");
            format!("{scheme}://{}", if address.contains("${") { local } else { address })
        };
        let ids = match self.or("yarn.resourcemanager.ha.enabled", "false").as_str() {
            "true" => self.or("yarn.resourcemanager.ha.rm-ids", ""),
            _ => String::new(),
        };
        let ids: Vec<&str> = ids.split(',').map(str::trim).filter(|id| !id.is_empty()).collect();
        if ids.is_empty() {
            return vec![address("")];
        }
        ids.into_iter().map(|id| address(&format!(".{id}"))).collect()
    }

    /// The web proxy before ApplicationMasters, where it is no part of the ResourceManagers.
    pub(crate) fn web_proxy(&self) -> Option<String> {
        self.get("yarn.web-proxy.address")
            .filter(|address| !address.is_empty())
            .map(|a| format!("http://{a}"))
    }

    /// The web address of the history server.
    pub(crate) fn history_server(&self) -> String {
        match self.or("mapreduce.jobhistory.http.policy", "HTTP_ONLY").as_str() {
            "HTTPS_ONLY" => {
                format!("https://{}", self.or("mapreduce.jobhistory.webapp.https.address", "127.0.0.1:19890"))
            }
            _ => format!("http://{}", self.or("mapreduce.jobhistory.webapp.address", "127.0.0.1:19888")),
        }
    }

    /// Memory of an ApplicationMaster, in MiB.
    pub(crate) fn master_memory_mib(&self) -> u64 {
        let old = self.number("yarn.app.mapreduce.am.resource.mb", 1536);
        self.number("yarn.app.mapreduce.am.resource.memory-mb", old)
    }

    /// Cores of an ApplicationMaster.
    pub(crate) fn master_cores(&self) -> u64 {
        let old = self.number("yarn.app.mapreduce.am.resource.cpu-vcores", 1);
        self.number("yarn.app.mapreduce.am.resource.vcores", old)
    }

    /// How often an ApplicationMaster is started.
    pub(crate) fn master_attempts_max(&self) -> u64 {
        self.number("mapreduce.am.max-attempts", 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_files_say() {
        let folder = std::env::temp_dir().join(format!("dragnet-conf-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let none = Conf::read(&folder, &[]).unwrap_err().to_string();
        assert!(none.contains("it holds none of core-site.xml"), "{none}");
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        write(
            "core-site.xml",
            "<configuration><property><name> a </name><value> 1 &amp; 2 </value><final>true</final></property><property><name>none</name></property></configuration>",
        );
        write(
            "yarn-site.xml",
            "<configuration><property><name>b</name><value/></property><property><name>a</name><value>3</value></property></configuration>",
        );
        let read = Conf::read(&folder, &[("c".into(), "${a}".into())]).unwrap();
        assert_eq!(read.get("a").as_deref(), Some("3"), "the last file says it");
        assert_eq!(read.get("b").as_deref(), Some(""));
        assert_eq!((read.get("c").as_deref(), read.get("none")), (Some("3"), None));
        write("core-site.xml", "<configuration>");
        assert!(
            matches!(Conf::read(&folder, &[]), Err(Error::Configuration { path, .. }) if path.ends_with("core-site.xml"))
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn values_refer_to_others() {
        let conf =
            Conf::of(&[("host", "h"), ("both", "${host}:${port}"), ("port", "1"), ("loop", "${loop}x")]);
        assert_eq!(conf.get("both").as_deref(), Some("h:1"));
        assert_eq!(conf.or("none", "${host}/${unknown}"), "h/${unknown}");
        assert!(conf.get("loop").unwrap().ends_with('x'), "and it ends");
    }

    #[test]
    fn addresses() {
        type Row<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
        let rows: [Row<'_>; 5] = [
            (&[], &["http://127.0.0.1:8088"]),
            (&[("yarn.resourcemanager.hostname", "rm")], &["http://rm:8088"]),
            (&[("yarn.resourcemanager.webapp.address", "rm:80")], &["http://rm:80"]),
            (
                &[("yarn.http.policy", "HTTPS_ONLY"), ("yarn.resourcemanager.hostname", "rm")],
                &["https://rm:8090"],
            ),
            (
                &[
                    ("yarn.resourcemanager.ha.enabled", "true"),
                    ("yarn.resourcemanager.ha.rm-ids", "a, b"),
                    ("yarn.resourcemanager.hostname.a", "one"),
                    ("yarn.resourcemanager.webapp.address.b", "two:80"),
                ],
                &["http://one:8088", "http://two:80"],
            ),
        ];
        for (properties, expected) in rows {
            assert_eq!(Conf::of(properties).resource_managers(), expected, "{properties:?}");
        }
        let full = Conf::of(&[
            ("fs.defaultFS", "hdfs://n:8020/"),
            ("yarn.app.mapreduce.am.staging-dir", "hdfs://n:8020/user"),
            ("mapreduce.jobhistory.webapp.address", "jhs:1"),
        ]);
        assert_eq!(full.default_fs(), "hdfs://n:8020");
        assert_eq!(full.staging("me"), "/user/me/.staging");
        assert_eq!(full.history_server(), "http://jhs:1");
        assert_eq!(Conf::of(&[]).staging("me"), "/tmp/hadoop-yarn/staging/me/.staging");
    }
}
