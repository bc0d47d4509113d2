//! A real Hadoop of `services/hadoop.sh`, which one test has at a time, as its servers are killed under way.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest that a cluster on busy cores may take for a step.
const PATIENCE: Duration = Duration::from_secs(180);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A cluster that is this test's alone.
pub(crate) struct Cluster {
    folder: PathBuf,
    addresses: BTreeMap<String, String>,
    _alone: MutexGuard<'static, ()>,
}

impl Cluster {
    pub(crate) fn take() -> Option<Cluster> {
        let Some(folder) = std::env::var_os("DRAGNET_TEST_HADOOP").filter(|folder| !folder.is_empty()) else {
            eprintln!(
                "skipped: DRAGNET_TEST_HADOOP names no cluster (`services/hadoop.sh start DIR` starts one)"
            );
            return None;
        };
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = PathBuf::from(folder);
        let mut cluster = Cluster { folder, addresses: BTreeMap::new(), _alone: alone };
        // A test that failed may have left something dead.
        cluster.start();
        let text = std::fs::read_to_string(cluster.folder.join("ports.env")).unwrap();
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        cluster.addresses = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some(cluster)
    }

    fn script(&self, arguments: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../services/hadoop.sh");
        let (verb, rest) = arguments.split_first().unwrap();
        let output = Command::new(script).arg(verb).arg(&self.folder).args(rest).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub(crate) fn start(&self) {
        self.script(&["start"]);
    }

    pub(crate) fn kill(&self, daemon: &str) {
        self.script(&["kill", daemon]);
    }

    pub(crate) fn address(&self, name: &str) -> &str {
        &self.addresses[name]
    }

    pub(crate) fn conf(&self) -> &str {
        self.address("HADOOP_CONF_DIR")
    }

    fn get(&self, name: &str, path: &str) -> Json {
        let url = format!("{}{path}", self.address(name));
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent.get(url).header("Accept", "application/json").call().unwrap();
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
    }

    /// The applications of a job, in the order in which they were submitted.
    pub(crate) fn applications(&self, job: &str) -> Vec<Json> {
        let found = self.get("RM_URL", &format!("/ws/v1/cluster/apps?applicationTags=dragnet-{job}"));
        let mut apps = found["apps"]["app"].as_array().cloned().unwrap_or_default();
        apps.sort_by_key(|app| app["id"].as_str().unwrap().to_owned());
        apps
    }

    /// Kills the node, and all that it remembers of its containers, and waits until the cluster counts it as lost.
    pub(crate) fn lose_node(&self) {
        self.kill("nodemanager");
        std::fs::remove_dir_all(self.folder.join("data/nm-state")).unwrap();
        patiently("a lost node", || {
            let nodes = self.get("RM_URL", "/ws/v1/cluster/nodes");
            nodes["nodes"]["node"]
                .as_array()
                .is_some_and(|nodes| nodes.iter().all(|node| node["state"] == "LOST"))
        });
    }

    /// Names in a folder of HDFS.
    pub(crate) fn list(&self, path: &str) -> Vec<String> {
        let found = self.get("WEBHDFS_URL", &format!("{path}?op=LISTSTATUS"));
        let entries = found["FileStatuses"]["FileStatus"].as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["pathSuffix"].as_str().unwrap().to_owned()).collect()
    }

    /// Nothing of a job that has ended is left on the cluster.
    pub(crate) fn assert_released(&self, job: &str) {
        let applications = self.applications(job);
        assert!(!applications.is_empty());
        let user = applications[0]["user"].as_str().unwrap();
        let staged = self.list(&format!("/tmp/hadoop-yarn/staging/{user}/.staging"));
        for app in &applications {
            assert!(matches!(app["state"].as_str(), Some("FINISHED" | "KILLED")), "{app}");
            let folder = app["id"].as_str().unwrap().replace("application", "job");
            assert!(!staged.contains(&folder), "{folder} is staged");
        }
        assert!(!self.list(&format!("/user/{user}/.dragnet/runs")).contains(&job.to_owned()));
    }

    /// `kill -9` to the ApplicationMaster of an application.
    pub(crate) fn kill_master(&self, application: &str) {
        let of_master = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            let is_java = line.split('\0').next().is_some_and(|program| program.ends_with("/java"));
            is_java && line.contains("MRAppMaster") && line.contains(application)
        };
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
        let masters: Vec<i32> = pids.filter(of_master).collect();
        assert_eq!(masters.len(), 1, "{application}");
        kill_process(Pid::from_raw(masters[0]).unwrap(), Signal::KILL).unwrap();
    }

    /// Kills a server and waits until another has taken its place.
    pub(crate) fn kill_and_start(&self, daemon: &str) {
        self.kill(daemon);
        self.start();
    }

    /// What a command of Hadoop's own client prints.
    pub(crate) fn hadoop(&self, arguments: &[&str]) -> String {
        let output = Command::new(self.address("HADOOP_COMMAND")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A new folder in HDFS, with copies of local folders in it.
    pub(crate) fn folder_with(&self, copies: &[(&str, &Path)]) -> String {
        let root = format!("{}/test-{}", self.address("HDFS_URI"), uuid::Uuid::new_v4().simple());
        self.hadoop(&["fs", "-mkdir", "-p", &root]);
        for (name, folder) in copies {
            self.hadoop(&["fs", "-put", folder.to_str().unwrap(), &format!("{root}/{name}")]);
        }
        root
    }
}

/// Looks until it holds, as long as a cluster may take.
pub(crate) fn patiently(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
