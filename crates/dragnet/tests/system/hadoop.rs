//! Jobs on a real Hadoop, any of whose servers may die: the digest and the bill of the local engine.
//!
//! `services/hadoop.sh` starts the cluster; without one these tests are skipped. It runs one job at a time,
//! as its servers are killed under way.

use crate::cluster::{Cluster, patiently};
use crate::harness::{Sandbox, Service, spec, undisturbed};
use crate::servers::{Behind, Faulty};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A mapper that waits while a file is there: what runs on the cluster stands still as long as a test wants. It notes
/// when it begins and ends, and with which arguments.
struct Gate {
    file: PathBuf,
    mapper: PathBuf,
    log: PathBuf,
}

/// What it counts before it waits.
const GATE_BYTES: u64 = 1000;

impl Gate {
    fn closed(sandbox: &Sandbox) -> Gate {
        Gate::closed_for(sandbox, "*")
    }

    /// It holds the attempts whose names match a shell's pattern.
    fn closed_for(sandbox: &Sandbox, attempts: &str) -> Gate {
        let file = sandbox.write("gate", b"");
        let log = sandbox.write("mappers.log", b"");
        let script = format!(
            "#!/bin/sh\necho \"begin $* pid $$\" >>'{log}'\necho reporter:counter:dragnet,bytes_read,{GATE_BYTES} >&2\n\
             case $mapreduce_task_attempt_id in {attempts}) while [ -e '{}' ]; do sleep 0.1; done; esac\n'{}' \"$@\"\nstatus=$?\necho \"end $*\" >>'{log}'\nexit $status\n",
            file.display(),
            env!("CARGO_BIN_EXE_dragnet"),
            log = log.display(),
        );
        let mapper = sandbox.write("gated-mapper", script.as_bytes());
        std::fs::set_permissions(&mapper, std::fs::Permissions::from_mode(0o755)).unwrap();
        Gate { file, mapper, log }
    }

    fn open(&self) {
        std::fs::remove_file(&self.file).unwrap();
    }

    /// Kills the mapper that began last.
    fn kill_one(&self) {
        let log = std::fs::read_to_string(&self.log).unwrap();
        let last =
            log.lines().rev().find_map(|line| line.strip_prefix("begin ")?.rsplit(' ').next()).unwrap();
        kill_process(Pid::from_raw(last.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    }

    /// Lines of the log that begin so.
    fn noted(&self, what: &str) -> usize {
        std::fs::read_to_string(&self.log).unwrap().lines().filter(|line| line.starts_with(what)).count()
    }

    /// The most mappers that ran at once.
    fn at_once(&self) -> i32 {
        let (mut now, mut most) = (0, 0);
        for line in std::fs::read_to_string(&self.log).unwrap().lines() {
            now += if line.starts_with("begin") { 1 } else { -1 };
            most = most.max(now);
        }
        most
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
    let flags = ["--hadoop-conf", conf, "--hadoop-streaming-jar", streaming];
    let checked = sandbox.run(&[&["serve", "--check"], &flags[..]].concat());
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    assert!(String::from_utf8_lossy(&checked.stdout).contains("ok      hadoop"));
    let service = sandbox.serve_with(&flags, None);
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

    let begun = gate.noted("begin");
    gate.kill_one();
    patiently("another attempt of a map task whose mapper was killed", || gate.noted("begin") > begun);
    patiently("all four again", || held(&service));

    // By the mappers' own notes: a job that is looked at every few seconds may show four tasks before and after.
    let begun = gate.noted("begin");
    cluster.kill_master(&application);
    patiently("the mappers of a second ApplicationMaster", || gate.noted("begin") >= begun + 4);
    patiently("a second ApplicationMaster that is seen", || held(&service));

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
    let mut crashing = sandbox.serve_with(&flags, Some("hadoop.before_command"));
    let _ = crashing.try_post("/v1/jobs", Some("one"), &on_hadoop(&spec).to_string());
    for (point, next) in
        [("hadoop.before_command", "hadoop.after_command"), ("hadoop.after_command", "hadoop.released")]
    {
        crashing.wait();
        assert!(crashing.said().contains(&format!("crash point {point}")), "{}", crashing.said());
        crashing = sandbox.serve_with(&flags, Some(next));
    }
    let service = crashing;
    let id = service.get("/v1/jobs").json()["jobs"][0]["id"].as_str().unwrap().to_owned();
    patiently("a launched job", || service.job(&id)["controllers"]["launch"]["status"] == "done");
    gate.open();
    let mut releasing = service;
    releasing.wait();
    assert!(releasing.said().contains("crash point hadoop.released"), "{}", releasing.said());
    let service = sandbox.serve_with(&flags, None);
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

/// What one web server is asked for is limited over all map tasks of all jobs: two run at once, with half of the
/// connections each, and the second job waits in YARN's queue for the first.
#[test]
fn map_tasks_share_what_a_server_may_be_asked_for() {
    let Some(cluster) = Cluster::take() else { return };
    let sandbox = Sandbox::new();
    let files = four(&sandbox);
    let expected = undisturbed(&files);
    let server = Faulty::new(Behind::Files(sandbox.path("data")));
    let mut served = files.clone();
    served["dataset"] = json!([format!("http://{}/pages.warc.gz", server.address)]);
    let gate = Gate::closed(&sandbox);
    let limits = ["--hadoop-maps", "2", "--host-connections", "6", "--hadoop-turns", "turns"];
    let flags =
        [&["--hadoop-conf", cluster.conf(), "--mapper", gate.mapper.to_str().unwrap()], &limits[..]].concat();
    let service = sandbox.serve_with(&flags, None);
    let id = service.submit(&on_hadoop(&served));
    patiently("mappers that are held", || {
        metric(&service.job(&id), "bytes_read") >= 2 * GATE_BYTES && gate.noted("begin") >= 2
    });
    let second = service.submit(&on_hadoop(&served));
    patiently("a second job that waits", || {
        cluster.applications(&second).first().is_some_and(|app| app["state"] == "ACCEPTED")
    });
    gate.open();
    for id in [id, second] {
        assert_eq!(result(&service, &id)["digest"], expected["digest"]);
    }
    assert_eq!((gate.noted("begin"), gate.at_once()), (8, 2));
    assert_eq!(gate.noted("begin map --patience-s 21600 --host-connections 3"), 8);
}

/// A node is lost with all that it remembers, and comes back: its mappers run on beside those that do their work again.
#[test]
fn mappers_of_a_lost_node_change_nothing() {
    let Some(cluster) = Cluster::take() else { return };
    let sandbox = Sandbox::new();
    let spec = four(&sandbox);
    let expected = undisturbed(&spec);
    let gate = Gate::closed(&sandbox);
    let flags = ["--hadoop-conf", cluster.conf(), "--mapper", gate.mapper.to_str().unwrap()];
    let service = sandbox.serve_with(&flags, None);
    let id = service.submit(&on_hadoop(&spec));
    patiently("mappers that are held", || gate.noted("begin") == 4);
    cluster.lose_node();
    cluster.start();
    patiently("mappers beside those of the lost node", || gate.noted("begin") == 8);
    gate.open();
    assert_eq!(result(&service, &id), expected);
    patiently("the end of the lost node's mappers", || gate.noted("end") >= 4);
    assert_eq!(service.result(&id), expected);
    assert_eq!(cluster.applications(&id).len(), 1);
    cluster.assert_released(&id);
}

/// Three of four map tasks end and the fourth stands still in the middle of its lines: Hadoop starts a twin of it, and
/// then both go on.
#[test]
fn a_twin_that_hadoop_starts_changes_nothing() {
    let Some(cluster) = Cluster::take() else { return };
    let sandbox = Sandbox::new();
    let mut spec = four(&sandbox);
    spec["shard_bytes"] = json!(spec["shard_bytes"].as_u64().unwrap().div_ceil(150));
    let expected = undisturbed(&spec);
    let gate = Gate::closed_for(&sandbox, "*_m_000000_0");
    // Hadoop takes lines that it has handed over for progress: so there are more of them than its buffer and the
    // pipe's hold.
    let output = sandbox.path(&["deep".repeat(50).as_str(); 8].join("/"));
    std::fs::create_dir_all(&output).unwrap();
    let flags = [
        ["--hadoop-conf", cluster.conf()],
        ["--mapper", gate.mapper.to_str().unwrap()],
        ["--output", output.to_str().unwrap()],
        ["--hadoop-set", "mapreduce.job.speculative.retry-after-no-speculate=500"],
    ];
    let service = sandbox.serve_with(&flags.concat(), None);
    let id = service.submit(&on_hadoop(&spec));
    patiently("a twin", || gate.noted("begin") == 5);
    gate.open();
    assert_eq!(result(&service, &id), expected);
    cluster.assert_released(&id);
}
