//! Jobs on a real Hadoop, any of whose servers may die: the digest and the bill of the local engine.
//!
//! `services/hadoop.sh` starts the cluster; without one these tests are skipped. It runs one job at a time,
//! as its servers are killed under way.

use crate::harness::{Sandbox, Service, spec, undisturbed};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest that a cluster on busy cores may take for a step.
const PATIENCE: Duration = Duration::from_secs(180);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A cluster that is this test's alone.
struct Cluster {
    folder: PathBuf,
    addresses: BTreeMap<String, String>,
    _alone: MutexGuard<'static, ()>,
}

impl Cluster {
    fn take() -> Option<Cluster> {
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

    fn start(&self) {
        self.script(&["start"]);
    }

    fn kill(&self, daemon: &str) {
        self.script(&["kill", daemon]);
    }

    fn address(&self, name: &str) -> &str {
        &self.addresses[name]
    }

    fn conf(&self) -> &str {
        self.address("HADOOP_CONF_DIR")
    }

    fn get(&self, name: &str, path: &str) -> Json {
        let url = format!("{}{path}", self.address(name));
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent.get(url).header("Accept", "application/json").call().unwrap();
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
    }

    /// The applications of a job, in the order in which they were submitted.
    fn applications(&self, job: &str) -> Vec<Json> {
        let found = self.get("RM_URL", &format!("/ws/v1/cluster/apps?applicationTags=dragnet-{job}"));
        let mut apps = found["apps"]["app"].as_array().cloned().unwrap_or_default();
        apps.sort_by_key(|app| app["id"].as_str().unwrap().to_owned());
        apps
    }

    /// Names in a folder of HDFS.
    fn list(&self, path: &str) -> Vec<String> {
        let found = self.get("WEBHDFS_URL", &format!("{path}?op=LISTSTATUS"));
        let entries = found["FileStatuses"]["FileStatus"].as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["pathSuffix"].as_str().unwrap().to_owned()).collect()
    }

    /// Nothing of a job that has ended is left on the cluster.
    fn assert_released(&self, job: &str) {
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
    fn kill_master(&self, application: &str) {
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
}

/// A mapper that waits while a file is there: what runs on the cluster stands still as long as a test wants.
struct Gate {
    file: PathBuf,
    mapper: PathBuf,
}

/// What it counts before it waits.
const GATE_BYTES: u64 = 1000;

impl Gate {
    fn closed(sandbox: &Sandbox) -> Gate {
        let file = sandbox.write("gate", b"");
        let script = format!(
            "#!/bin/sh\necho reporter:counter:dragnet,bytes_read,{GATE_BYTES} >&2\n\
             while [ -e '{}' ]; do sleep 0.1; done\nexec '{}' \"$@\"\n",
            file.display(),
            env!("CARGO_BIN_EXE_dragnet")
        );
        let mapper = sandbox.write("gated-mapper", script.as_bytes());
        std::fs::set_permissions(&mapper, std::fs::Permissions::from_mode(0o755)).unwrap();
        Gate { file, mapper }
    }

    fn open(&self) {
        std::fs::remove_file(&self.file).unwrap();
    }
}

impl Drop for Gate {
    /// A test that fails must not leave mappers that wait for ever.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

fn on_hadoop(spec: &Json) -> Json {
    let mut spec = spec.clone();
    spec["engine"] = json!("hadoop");
    spec
}

fn patiently(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The result of a job, which may take as long as a cluster takes.
fn result(service: &Service, id: &str) -> Json {
    patiently("the job's end", || {
        !matches!(service.job(id)["status"].as_str(), Some("accepted" | "running"))
    });
    service.result(id)
}

/// Four map tasks with a shard each: as many as the small cluster runs at once.
fn four(sandbox: &Sandbox) -> Json {
    let pages: Vec<Vec<u8>> = (0..200).map(|n| crate::harness::gzip(&crate::harness::page(n), 6)).collect();
    let data = sandbox.write("data/pages.warc.gz", &pages.concat());
    let size = pages.iter().map(Vec::len).sum::<usize>();
    let mut spec = spec(&data);
    spec["shard_bytes"] = json!(size.div_ceil(4));
    spec
}

fn metric(job: &Json, name: &str) -> u64 {
    job["controllers"]["monitor"]["metrics"][name].as_u64().unwrap_or(0)
}

/// The program itself is shipped, and Hadoop Streaming's jar with it, to nodes that don't have it.
#[test]
fn a_job_on_hadoop_gives_what_the_local_engine_gives() {
    let Some(cluster) = Cluster::take() else { return };
    let sandbox = Sandbox::new();
    let spec = spec(&sandbox.corpus());
    let expected = undisturbed(&spec);
    let conf = without_streaming(&cluster, &sandbox);
    let streaming = cluster.address("HADOOP_STREAMING_JAR");
    let conf = conf.to_str().unwrap();
    let service = sandbox.serve_with(&["--hadoop-conf", conf, "--hadoop-streaming-jar", streaming], None);
    let id = service.submit(&on_hadoop(&spec));
    assert_eq!(result(&service, &id), expected);
    assert_eq!(service.hits(&id).len() as u64, expected["coverage"]["totals"]["hits"].as_u64().unwrap());
    let applications = cluster.applications(&id);
    assert!(applications.len() > 1, "what began wrongly ran again, in a round of its own");
    assert!(applications.iter().all(|app| app["finalStatus"] != "FAILED"), "{applications:?}");
    cluster.assert_released(&id);
}

/// The client's configuration with a class path that lacks Hadoop Streaming.
fn without_streaming(cluster: &Cluster, sandbox: &Sandbox) -> PathBuf {
    let streaming = Path::new(cluster.address("HADOOP_STREAMING_JAR"));
    let all = streaming.parent().unwrap();
    for jar in std::fs::read_dir(all).unwrap().flatten().filter(|jar| jar.path() != streaming) {
        std::fs::create_dir_all(sandbox.path("jars")).unwrap();
        std::os::unix::fs::symlink(jar.path(), sandbox.path("jars").join(jar.file_name())).unwrap();
    }
    for file in std::fs::read_dir(cluster.conf()).unwrap().flatten().filter(|file| file.path().is_file()) {
        let text = std::fs::read_to_string(file.path()).unwrap();
        let jars = sandbox.path("jars").display().to_string();
        let text = text.replace(&format!("{}/*", all.display()), &format!("{jars}/*"));
        sandbox.write(&format!("conf/{}", file.file_name().display()), text.as_bytes());
    }
    sandbox.path("conf")
}

/// The service is killed before and after it submits; then the ApplicationMaster, then the node's and the
/// cluster's manager. It stays one application.
#[cfg(feature = "crash-points")]
#[test]
fn a_job_on_hadoop_survives_whoever_is_killed() {
    let Some(cluster) = Cluster::take() else { return };
    let sandbox = Sandbox::new();
    let spec = four(&sandbox);
    let expected = undisturbed(&spec);
    let gate = Gate::closed(&sandbox);
    let flags = ["--hadoop-conf", cluster.conf(), "--mapper", gate.mapper.to_str().unwrap()];
    let mut service = sandbox.serve_with(&flags, Some("hadoop.reserved"));
    let _ = service.try_post("/v1/jobs", Some("one"), &on_hadoop(&spec).to_string());
    for point in ["hadoop.staged", "hadoop.submitted"] {
        service.wait();
        service = sandbox.serve_with(&flags, Some(point));
    }
    service.wait();
    assert!(service.said().contains("crash point hadoop.submitted"), "{}", service.said());
    let service = sandbox.serve_with(&flags, None);
    let id = service.get("/v1/jobs").json()["jobs"][0]["id"].as_str().unwrap().to_owned();

    let held = |service: &Service| {
        let job = service.job(&id);
        metric(&job, "tasks_running") == 4 && metric(&job, "bytes_read") >= 4 * GATE_BYTES
    };
    patiently("progress that is seen while it runs", || held(&service));
    let application = cluster.applications(&id)[0]["id"].as_str().unwrap().to_owned();

    cluster.kill_master(&application);
    patiently("the end of the mappers that died with it", || metric(&service.job(&id), "tasks_running") < 4);
    patiently("a second ApplicationMaster", || held(&service));

    cluster.kill("resourcemanager");
    patiently("a job that shows what it waits for", || waits(&service.job(&id), "monitor"));
    cluster.kill("nodemanager");
    cluster.start();
    patiently("a job that goes on", || held(&service));
    gate.open();
    assert_eq!(result(&service, &id), expected);
    let applications = cluster.applications(&id);
    assert_eq!(applications.len(), 1, "{applications:?}");
    cluster.assert_released(&id);
}

/// Whether a controller's row shows that it waits for the cluster, and why.
fn waits(job: &Json, controller: &str) -> bool {
    let row = &job["controllers"][controller];
    row["waiting_for"] == "hadoop" && row["error"].as_str().is_some_and(|error| error.contains("http://"))
}

/// The `hadoop` command leaves no id behind when the service dies: its application is found by the tag.
#[cfg(feature = "crash-points")]
#[test]
fn a_job_by_the_hadoop_command_is_found_by_its_tag() {
    let Some(cluster) = Cluster::take() else { return };
    let sandbox = Sandbox::new();
    let spec = four(&sandbox);
    let expected = undisturbed(&spec);
    let gate = Gate::closed(&sandbox);
    let flags = [
        ["--hadoop-conf", cluster.conf()],
        ["--hadoop-submit", "command"],
        ["--hadoop-command", cluster.address("HADOOP_COMMAND")],
        ["--hadoop-streaming-jar", cluster.address("HADOOP_STREAMING_JAR")],
        ["--mapper", gate.mapper.to_str().unwrap()],
    ]
    .concat();
    let mut crashing = sandbox.serve_with(&flags, Some("hadoop.after_command"));
    let _ = crashing.try_post("/v1/jobs", Some("one"), &on_hadoop(&spec).to_string());
    crashing.wait();
    assert!(crashing.said().contains("crash point hadoop.after_command"), "{}", crashing.said());
    let service = sandbox.serve_with(&flags, None);
    let id = service.get("/v1/jobs").json()["jobs"][0]["id"].as_str().unwrap().to_owned();
    patiently("a launched job", || service.job(&id)["controllers"]["launch"]["status"] == "done");
    gate.open();
    assert_eq!(result(&service, &id), expected);
    let applications = cluster.applications(&id);
    assert_eq!(applications.len(), 1, "{applications:?}");
    cluster.assert_released(&id);
}

#[test]
fn a_job_waits_for_a_cluster_that_is_down_and_a_cancel_ends_it_there() {
    let Some(cluster) = Cluster::take() else { return };
    let sandbox = Sandbox::new();
    let gate = Gate::closed(&sandbox);
    let flags = ["--hadoop-conf", cluster.conf(), "--mapper", gate.mapper.to_str().unwrap()];
    cluster.kill("resourcemanager");
    let service = sandbox.serve_with(&flags, None);
    let id = service.submit(&on_hadoop(&four(&sandbox)));
    patiently("a job that shows what it waits for", || waits(&service.job(&id), "launch"));
    cluster.start();
    patiently("a job that goes on by itself", || metric(&service.job(&id), "tasks_running") > 0);
    service.post(&format!("/v1/jobs/{id}:cancel"), "");
    let result = result(&service, &id);
    assert_eq!(result["status"], "cancelled");
    assert_eq!(cluster.applications(&id)[0]["state"], "KILLED");
    cluster.assert_released(&id);
}
