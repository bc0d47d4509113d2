//! A map-only Hadoop Streaming job: its properties, its `job.xml`, and what is posted to submit it.

use super::conf::Conf;
use super::staging::Staged;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// The mapper as the tasks start it: the program is linked into their folder under this name.
pub(crate) const MAPPER: &str = "mapper";
/// What stands behind it. Four attempts of six hours bridge an outage of a day, as controllers do, that four failures in a
/// minute would not.
const MAPPER_ARGUMENTS: &str = "map --patience-s 21600";
/// How often a map task is tried. What fails then goes to the next round, in a task of its own.
pub(crate) const ATTEMPTS_MAX: u32 = 4;

/// What stands behind the mapper's name, with its share of a host.
pub(crate) fn mapper_arguments(share: &[(&str, u64)], flags: &[String]) -> String {
    let share = share.iter().map(|(flag, value)| format!(" {flag} {value}"));
    let flags = flags.iter().map(|flag| format!(" {flag}"));
    let all: String = share.chain(flags).collect();
    format!("{MAPPER_ARGUMENTS}{all}")
}

/// A job that is about to be submitted.
pub(crate) struct Job<'a> {
    pub(crate) conf: &'a Conf,
    pub(crate) user: &'a str,
    /// The reserved id.
    pub(crate) application: &'a str,
    pub(crate) name: String,
    pub(crate) tags: Vec<String>,
    /// The job's staging folder, with scheme and host.
    pub(crate) folder: String,
    /// The lines, in HDFS.
    pub(crate) lines: &'a Staged,
    pub(crate) maps: usize,
    /// What is set where it is limited how many run at once.
    pub(crate) limits: Vec<(&'static str, String)>,
    /// What the mapper is started with.
    pub(crate) mapper_arguments: String,
    /// The mapper's program, in HDFS.
    pub(crate) mapper: &'a Staged,
    /// Hadoop Streaming's jar, in HDFS, for clusters whose nodes don't have it on their class path.
    pub(crate) streaming: Option<&'a Staged>,
}

/// What holds for every job, whichever way it is submitted.
///
/// Hadoop's verdict on the job counts for nothing, as commit records alone say what was done: so a task that
/// fails never fails the job, and the others go on.
pub(crate) fn settings(conf: &Conf, limits: Vec<(&'static str, String)>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut set = |name: &str, value: String| drop(all.insert(name.to_owned(), value));
    set("mapreduce.framework.name", "yarn".into());
    set("mapreduce.job.reduces", "0".into());
    set("mapreduce.map.maxattempts", ATTEMPTS_MAX.to_string());
    set("mapreduce.map.failures.maxpercent", "100".into());
    set("stream.map.input.ignoreKey", "true".into());
    limits.into_iter().for_each(|(name, value)| set(name, value));
    // By default counters come once in six seconds.
    set(
        "mapreduce.task.progress-report.interval",
        conf.or("mapreduce.task.progress-report.interval", "1000"),
    );
    all
}

impl Job<'_> {
    /// `job.xml`: all of the client's configuration, and the job above it.
    pub(crate) fn xml(&self) -> String {
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<configuration>\n");
        for (name, value) in self.properties() {
            let (name, value) = (escape(&name), escape(&value));
            xml.push_str(&format!("<property><name>{name}</name><value>{value}</value></property>\n"));
        }
        xml + "</configuration>\n"
    }

    fn properties(&self) -> BTreeMap<String, String> {
        let mut all = self.conf.properties().clone();
        // A job's configuration is shown to many: mappers have credentials from their machine.
        all.retain(|name, _| !is_secret(name));
        all.extend(settings(self.conf, self.limits.clone()));
        let text = "org.apache.hadoop.io.Text";
        let local = [
            ("mapreduce.job.name", self.name.as_str()),
            ("mapreduce.job.user.name", self.user),
            ("mapreduce.job.dir", &self.folder),
            ("mapreduce.job.working.dir", &self.folder),
            ("mapred.mapper.class", "org.apache.hadoop.streaming.PipeMapper"),
            ("mapred.map.runner.class", "org.apache.hadoop.streaming.PipeMapRunner"),
            ("mapred.mapper.new-api", "false"),
            ("mapred.reducer.new-api", "false"),
            ("mapred.input.format.class", "org.apache.hadoop.mapred.lib.NLineInputFormat"),
            // What mappers write to stdout is nobody's: so there is no output folder either.
            ("mapred.output.format.class", "org.apache.hadoop.mapred.lib.NullOutputFormat"),
            ("mapreduce.job.output.key.class", text),
            ("mapreduce.job.output.value.class", text),
            ("mapreduce.map.output.key.class", text),
            ("mapreduce.map.output.value.class", text),
            ("stream.map.input.writer.class", "org.apache.hadoop.streaming.io.TextInputWriter"),
            ("stream.map.output.reader.class", "org.apache.hadoop.streaming.io.TextOutputReader"),
            ("mapreduce.input.fileinputformat.inputdir", &self.lines.uri),
        ];
        let mut set = |name: &str, value: String| drop(all.insert(name.to_owned(), value));
        local.into_iter().for_each(|(name, value)| set(name, value.to_owned()));
        set("mapreduce.job.tags", self.tags.join(","));
        set("mapreduce.job.maps", self.maps.to_string());
        // Streaming reads it as the value of a form.
        set(
            "stream.map.streamprocessor",
            format!(".%2F{MAPPER}+{}", self.mapper_arguments.replace(' ', "+")),
        );
        set("mapreduce.job.cache.files", format!("{}#{MAPPER}", self.mapper.uri));
        set("mapreduce.job.cache.files.timestamps", self.mapper.modified_ms.to_string());
        set("mapreduce.job.cache.files.filesizes", self.mapper.bytes.to_string());
        set("mapreduce.job.cache.files.visibilities", "false".into());
        if let Some(streaming) = self.streaming {
            set("mapreduce.job.jar", streaming.uri.clone());
        }
        all
    }

    /// What is posted to the ResourceManager: an application whose container runs MapReduce's own master.
    pub(crate) fn submission(&self, xml: &Staged) -> Json {
        let environment: Vec<Json> = self
            .environment()
            .into_iter()
            .map(|(key, value)| json!({ "key": key, "value": value }))
            .collect();
        let file = json!({ "key": "job.xml", "value": {
            "resource": xml.uri, "type": "FILE", "visibility": "APPLICATION",
            "size": xml.bytes, "timestamp": xml.modified_ms,
        } });
        let queue = self.properties().remove("mapreduce.job.queuename").unwrap_or_else(|| "default".into());
        json!({
            "application-id": self.application,
            "application-name": self.name,
            "application-type": "MAPREDUCE",
            "application-tags": { "tag": self.tags },
            "queue": queue,
            "priority": 0,
            "max-app-attempts": self.conf.master_attempts_max(),
            "resource": { "memory": self.conf.master_memory_mib(), "vCores": self.conf.master_cores() },
            "am-container-spec": {
                "commands": { "command": self.command() },
                "environment": { "entry": environment },
                "local-resources": { "entry": [file] },
            },
        })
    }

    fn command(&self) -> String {
        let opens: Vec<String> = ["java.lang", "java.net", "java.util"]
            .map(|package| format!("--add-opens=java.base/{package}=ALL-UNNAMED"))
            .into();
        let options = [
            self.conf.or("yarn.app.mapreduce.am.admin-command-opts", ""),
            self.conf.or("yarn.app.mapreduce.am.command-opts", "-Xmx1024m"),
        ];
        // Java 8 doesn't know the opens, and ignores them by the flag before them.
        format!(
            "{{{{JAVA_HOME}}}}/bin/java -Dlog4j.configuration=container-log4j.properties \
             -Dyarn.app.container.log.dir=<LOG_DIR> -Dyarn.app.container.log.filesize=0 \
             -Dhadoop.root.logger=INFO,CLA -Dhadoop.root.logfile=syslog {} \
             -XX:+IgnoreUnrecognizedVMOptions {} org.apache.hadoop.mapreduce.v2.app.MRAppMaster \
             1><LOG_DIR>/stdout 2><LOG_DIR>/stderr",
            options.join(" "),
            opens.join(" "),
        )
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let yarn = "$HADOOP_CONF_DIR,$HADOOP_COMMON_HOME/share/hadoop/common/*,\
                    $HADOOP_COMMON_HOME/share/hadoop/common/lib/*,$HADOOP_HDFS_HOME/share/hadoop/hdfs/*,\
                    $HADOOP_HDFS_HOME/share/hadoop/hdfs/lib/*,$HADOOP_YARN_HOME/share/hadoop/yarn/*,\
                    $HADOOP_YARN_HOME/share/hadoop/yarn/lib/*";
        let mapreduce = "$HADOOP_MAPRED_HOME/share/hadoop/mapreduce/*,\
                         $HADOOP_MAPRED_HOME/share/hadoop/mapreduce/lib/*";
        let lists = [
            self.conf.or("mapreduce.application.classpath", mapreduce),
            self.conf.or("yarn.application.classpath", yarn),
        ];
        let entries = lists.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|e| !e.is_empty());
        let class_path: Vec<&str> = ["$PWD"].into_iter().chain(entries).collect();
        let mut all: BTreeMap<String, String> = self
            .conf
            .or("yarn.app.mapreduce.am.env", "")
            .split(',')
            .filter_map(|pair| pair.trim().split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        all.insert("CLASSPATH".into(), class_path.join(":"));
        all.entry("LD_LIBRARY_PATH".into()).or_insert_with(|| "$PWD".into());
        all.insert("HADOOP_USER_NAME".into(), self.user.to_owned());
        all
    }
}

/// Whether a property is a secret, by its name, as Hadoop's own `hadoop.security.sensitive-config-keys` has it, and Azure's
/// and Google's: `fs.s3a.secret.key`, `ssl.client.keystore.password`, `fs.azure.account.key.ACCOUNT` and their like.
fn is_secret(name: &str) -> bool {
    const WORDS: [&str; 11] = [
        "secret",
        "password",
        "keystore.pass",
        "credential",
        "oauth",
        "session.token",
        "session.key",
        "account.key",
        "private.key",
        "encryption.key",
        ".sas.",
    ];
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word)) || name.ends_with("access.key")
}

/// A secret of the site's that Hadoop's own client would write into every job's `job.xml`, which many can read. What
/// [`is_secret`] leaves out of a file without harm, it would be a pity to refuse: names of classes, files, endpoints and
/// switches are none.
pub(crate) fn secret_for_all(conf: &Conf) -> Option<&str> {
    const ENDS: [&str; 9] = [
        "secret",
        "password",
        "pass",
        "token",
        "secret.key",
        "access.key",
        "session.key",
        "private.key",
        "encryption.key",
    ];
    let is_one = |name: &str| {
        let name = name.to_ascii_lowercase();
        is_secret(&name) && ENDS.iter().any(|end| name.ends_with(end))
            || name.contains("account.key")
            || name.contains(".sas.") && !name.contains("provider")
    };
    let secrets = conf.properties().iter().filter(|(_, value)| !value.is_empty());
    secrets.map(|(name, _)| name.as_str()).find(|name| is_one(name))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged(name: &str) -> Staged {
        Staged { uri: format!("hdfs://n/{name}"), bytes: 5, modified_ms: 7 }
    }

    #[test]
    fn a_secret_that_all_would_see_is_named() {
        let rows = [
            (("fs.s3a.secret.key", "hidden"), Some("fs.s3a.secret.key")),
            (("fs.s3a.secret.key", ""), None),
            (("hadoop.security.credential.provider.path", "jceks://hdfs/s3.jceks"), None),
            (("hadoop.http.authentication.signature.secret.file", "/etc/s"), None),
            (
                ("fs.azure.account.key.data.dfs.core.windows.net", "x"),
                Some("fs.azure.account.key.data.dfs.core.windows.net"),
            ),
            (("fs.azure.account.oauth2.client.secret", "x"), Some("fs.azure.account.oauth2.client.secret")),
            (("ssl.client.keystore.password", "x"), Some("ssl.client.keystore.password")),
            (("fs.s3a.aws.credentials.provider", "org.apache.EnvironmentVariableCredentialsProvider"), None),
            (("fs.azure.account.oauth.provider.type", "org.apache.ClientCredsTokenProvider"), None),
            (("fs.azure.account.oauth2.client.endpoint", "https://login/token"), None),
            (("hadoop.security.credstore.java-keystore-provider.password-file", "jceks.password"), None),
            (("hadoop.security.credential.clear-text-fallback", "true"), None),
            (("fs.defaultFS", "hdfs://n"), None),
        ];
        for (property, expected) in rows {
            assert_eq!(secret_for_all(&Conf::of(&[property])), expected, "{property:?}");
        }
    }

    #[test]
    fn a_job_is_the_site_s_configuration_and_ours_above_it() {
        let more = [
            ("mapreduce.map.maxattempts", "9"),
            ("mapreduce.job.queuename", "all"),
            ("site.value", "<a & b>"),
            ("fs.s3a.access.key", "AKIA"),
            ("fs.azure.account.key.data.dfs.core.windows.net", "hidden"),
            ("fs.s3a.session.token", "hidden"),
            ("fs.s3a.secret.key", "hidden"),
            ("ssl.client.keystore.password", "hidden"),
            ("yarn.app.mapreduce.am.env", "HADOOP_MAPRED_HOME=/opt/hadoop, X=1"),
            ("mapreduce.application.classpath", "/a/*, /b/*"),
            ("yarn.application.classpath", "/c"),
        ];
        let conf = Conf::of(&more);
        let (lines, mapper, xml) = (staged("lines"), staged("m-1"), staged("job.xml"));
        let job = Job {
            conf: &conf,
            user: "me",
            application: "application_1_2",
            name: "n".into(),
            tags: vec!["dragnet-r".into(), "dragnet-r-1".into()],
            folder: "hdfs://n/s".into(),
            lines: &lines,
            maps: 3,
            limits: vec![
                ("mapreduce.job.running.map.limit", "2".into()),
                ("mapreduce.job.queuename", "turns".into()),
            ],
            mapper_arguments: mapper_arguments(&[("--host-connections", 4)], &["--public-addresses".into()]),
            mapper: &mapper,
            streaming: None,
        };
        let text = job.xml();
        let properties: BTreeMap<String, String> = job.properties();
        assert!(text.contains("<value>&lt;a &amp; b&gt;</value>"), "{text}");
        for (name, value) in [
            ("mapreduce.map.maxattempts", "4"),
            ("mapreduce.job.cache.files", "hdfs://n/m-1#mapper"),
            ("mapreduce.job.tags", "dragnet-r,dragnet-r-1"),
            (
                "stream.map.streamprocessor",
                ".%2Fmapper+map+--patience-s+21600+--host-connections+4+--public-addresses",
            ),
            ("mapreduce.job.running.map.limit", "2"),
            ("mapreduce.job.queuename", "turns"),
        ] {
            assert_eq!(properties[name], value, "{name}");
        }
        assert!(!properties.contains_key("mapreduce.job.jar"));
        assert!(!text.contains("AKIA") && !text.contains("hidden"), "{text}");
        let body = job.submission(&xml);
        assert_eq!(body["application-tags"], json!({ "tag": ["dragnet-r", "dragnet-r-1"] }));
        assert_eq!(
            (&body["queue"], &body["resource"]),
            (&json!("turns"), &json!({ "memory": 1536, "vCores": 1 }))
        );
        let environment = job.environment();
        assert_eq!(environment["CLASSPATH"], "$PWD:/a/*:/b/*:/c");
        assert_eq!(
            (environment["HADOOP_MAPRED_HOME"].as_str(), environment["X"].as_str()),
            ("/opt/hadoop", "1")
        );
    }
}
