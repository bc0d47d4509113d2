//! `kill -9` at every named crash point: the job ends as if nothing had happened.

use crate::harness::{Sandbox, Service, spec, undisturbed, until};
use rustix::process::{Signal, kill_process};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

/// Every point that a job of this corpus passes. Those that a controller passes more than once are also
/// taken the second time (`:2`).
const POINTS: &[&str] = &[
    "api.before_accept",
    "api.after_accept",
    "api.before_wish",
    "api.after_wish",
    "launch.claimed",
    "launch.before_plan",
    "launch.after_plan",
    "launch.before_reserve",
    "launch.after_reserve",
    "launch.before_engine",
    "launch.after_engine",
    "launch.before_commit",
    "launch.after_commit",
    "local.claimed",
    "local.round_ended",
    "local.before_commit",
    "local.after_commit",
    "local.claimed:2",
    "local.after_commit:2",
    "monitor.claimed",
    "monitor.claimed:2",
    "monitor.before_settle",
    "monitor.after_settle",
    "monitor.before_round",
    "monitor.after_round",
    "monitor.before_commit",
    "monitor.after_commit",
    "monitor.before_seal",
    "monitor.after_seal",
    "billing.claimed",
    "billing.claimed:2",
    "billing.before_ledger",
    "billing.before_commit",
    "billing.before_commit:2",
    "billing.after_commit",
    "billing.after_commit:2",
    "shutdown.claimed",
    "shutdown.before_release",
    "shutdown.after_release",
    "shutdown.swept",
    "shutdown.before_commit",
    "shutdown.after_commit",
];

#[test]
fn a_job_survives_a_kill_at_every_point() {
    survives(&|| Some(Sandbox::new()));
}

#[test]
fn a_job_on_postgres_survives_a_kill_at_every_point() {
    survives(&Sandbox::on_postgres);
}

/// One that is stopped while its run is under way.
#[test]
fn a_job_survives_a_kill_while_it_is_stopped() {
    let sandbox = Sandbox::new();
    let spec = spec(&sandbox.corpus());
    let mut crashing = sandbox.serve_with(&["--mappers", "1"], Some("monitor.stopped"));
    crashing.end_of(&crashing.submit(&spec));
    // A mapper is kept for the next job: this one does nothing for it.
    let mapper = crashing.mappers()[0];
    kill_process(mapper, Signal::STOP).unwrap();
    let id = crashing.submit(&spec);
    crashing.job_when(&id, |job| job["controllers"]["local"]["status"] == "running");
    let _ = crashing.try_post(&format!("/v1/jobs/{id}:cancel"), None, "");
    assert_eq!(crashing.wait().signal(), Some(9), "{}", crashing.said());
    assert!(crashing.said().contains("crash point monitor.stopped"), "{}", crashing.said());
    kill_process(mapper, Signal::KILL).unwrap();
    let service = sandbox.serve();
    assert_eq!(service.end_of(&id)["status"], "cancelled");
    let totals = service.get(&format!("/v1/jobs/{id}/coverage")).json()["totals"].clone();
    let sum = totals["read"].as_u64().unwrap() + totals["skipped_bytes"].as_u64().unwrap();
    assert_eq!(Some(sum), totals["size"].as_u64(), "{totals}");
    let audit = sandbox.run(&["audit"]);
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
}

/// A point that no test fires protects nothing.
#[test]
fn every_point_in_the_source_is_fired_by_a_test() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let tests: String = sources(&crates.join("dragnet/tests/system"));
    let source = sources(&crates);
    let names = source.split("crash::point(").skip(1).filter_map(|rest| {
        let (arguments, _) = rest.split_once(')')?;
        arguments.rsplit_once(", \"")?.1.strip_suffix('"')
    });
    let names: Vec<&str> = names.collect();
    assert!(names.len() > 25, "{names:?}");
    for name in names {
        assert!(tests.contains(&format!(".{name}\"")), "no test fires `{name}`");
    }
}

/// All Rust in a folder.
fn sources(folder: &Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all += &sources(&path);
        } else if path.extension().is_some_and(|end| end == "rs") {
            all += &std::fs::read_to_string(path).unwrap();
        }
    }
    all
}

fn survives(sandbox: &dyn Fn() -> Option<Sandbox>) {
    let files = Sandbox::new();
    let spec = spec(&files.corpus());
    let expected = undisturbed(&spec);
    assert_eq!(expected["status"], "completed");
    assert!(expected["coverage"]["totals"]["hits"].as_u64() > Some(400), "{expected}");
    for point in POINTS {
        let body = spec.to_string();
        let Some((sandbox, mut crashing)) = crashing(sandbox, point, &body) else { return };
        let status = crashing.wait();
        assert_eq!(status.signal(), Some(9), "{point} killed the service: {}", crashing.said());
        assert!(
            crashing.said().contains(&format!("crash point {point}").replace(":2", "")),
            "{point} has fired"
        );

        let committed = records(&sandbox.state());
        let service = sandbox.serve();
        // The client knows nothing of all this: it repeats its request, with its key.
        let again = service.try_post("/v1/jobs", Some("one"), &body).unwrap();
        assert_eq!(again.status, 202, "{point}: {}", again.body);
        assert_eq!(again.header("idempotent-replayed") == "true", *point != "api.before_accept", "{point}");
        let id = again.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(service.result(&id), expected, "{point}");
        assert_eq!(sandbox.count("select count(*) from work"), 1, "{point}: one job");
        assert_eq!(sandbox.count("select count(*) from ledger"), 3, "{point}: one row a meter");
        assert_eq!(sandbox.count("select count(*) - count(distinct shard) from settled"), 0, "{point}");
        let held = "select cast(sum(reserved_micros) as bigint) from budget";
        assert_eq!(sandbox.count(held), 0, "{point}: nothing is held of the budget");
        let spent =
            "select cast(sum(spent_micros) - (select sum(amount_micros) from ledger) as bigint) from budget";
        assert_eq!(sandbox.count(spent), 0, "{point}: what is billed is spent");
        let after = records(&sandbox.state());
        for (name, inode) in committed {
            assert_eq!(
                after.get(&name).copied().unwrap_or(inode),
                inode,
                "{point}: `{name}` was committed once"
            );
        }
    }
}

/// A service that a point kills at its first job. Where all else is quick Billing finds both of its messages at once, and
/// there is no second time at which it could be killed: then another service is tried.
fn crashing(sandbox: &dyn Fn() -> Option<Sandbox>, point: &str, body: &str) -> Option<(Sandbox, Service)> {
    loop {
        let sandbox = sandbox()?;
        let mut crashing = sandbox.serve_with(&[], Some(point));
        let first = crashing.try_post("/v1/jobs", Some("one"), body);
        if point.ends_with("_wish") {
            let id = first.unwrap().json()["id"].as_str().unwrap().to_owned();
            let _ = crashing.try_post(&format!("/v1/jobs/{id}:redrive"), None, "");
        }
        if point.starts_with("billing.") && point.ends_with(":2") {
            let once =
                "select count(*) from controller where name = 'billing' and step = 'done' and attempt = 1";
            until("the crash", || crashing.has_ended() || sandbox.count(once) == 1);
            if !crashing.has_ended() {
                continue;
            }
        }
        return Some((sandbox, crashing));
    }
}

/// Commit records and their inodes: one that is written again has another.
fn records(state: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut open = vec![state.join("output")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().contains("/records/")
                && !entry.file_name().to_string_lossy().starts_with('.')
            {
                found.insert(path.display().to_string(), entry.metadata().unwrap().ino());
            }
        }
    }
    found
}
