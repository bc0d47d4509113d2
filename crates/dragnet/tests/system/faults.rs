//! Inputs and mappers that fail: a named gap or a clear error, and the rest of the answer.

use crate::harness::{Sandbox, gzip, page, record, spec, undisturbed, until};
use rustix::process::{Signal, kill_process, test_kill_process};
use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

fn gaps(coverage: &Json) -> Vec<(String, String)> {
    let objects = coverage["objects"].as_array().unwrap().iter();
    let gap = |object: &Json, skip: &Json| {
        let name = object["object"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        (name, skip["reason"].as_str().unwrap().to_owned())
    };
    objects
        .flat_map(|object| object["skipped"].as_array().unwrap().iter().map(move |skip| gap(object, skip)))
        .collect()
}

#[cfg(feature = "crash-points")]
#[test]
fn an_input_that_vanishes_or_changes_after_the_plan_is_a_named_gap() {
    let sandbox = Sandbox::new();
    let small = |n: usize| format!("needle-{n} in a file").into_bytes();
    let data = sandbox.corpus();
    for n in 0..4 {
        sandbox.write(&format!("data/{n}.txt"), &small(n));
    }
    let mut crashing = sandbox.serve_with(&[], Some("launch.after_plan"));
    let _ = crashing.try_post("/v1/jobs", Some("k"), &spec(&data).to_string());
    crashing.wait();
    std::fs::remove_file(data.join("0.txt")).unwrap();
    std::fs::write(data.join("1.txt"), b"shorter").unwrap();
    let pages = std::fs::read(data.join("pages.warc.gz")).unwrap();
    std::fs::write(data.join("pages.warc.gz"), &pages[..pages.len() / 2]).unwrap();
    let service = sandbox.serve();
    let id = service.get("/v1/jobs").json()["jobs"][0]["id"].as_str().unwrap().to_owned();
    let result = service.result(&id);
    assert_eq!(result["status"], "completed_with_gaps");
    let mut gaps = gaps(&result["coverage"]);
    gaps.sort();
    gaps.dedup();
    let expected = [("0.txt", "unreadable"), ("1.txt", "changed"), ("pages.warc.gz", "changed")];
    assert_eq!(gaps, expected.map(|(name, reason)| (name.to_owned(), reason.to_owned())));
    // The others of the same bundle are searched all the same.
    let hits = service.hits(&id);
    let texts: Vec<&str> =
        hits.iter().filter_map(|hit| hit["object"].as_str()).filter(|o| o.ends_with(".txt")).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
}

#[test]
fn a_broken_member_is_a_gap_and_the_rest_is_read() {
    let sandbox = Sandbox::new();
    let mut broken = gzip(&page(2), 6);
    let middle = broken.len() / 2;
    broken[middle] ^= 0xff;
    let length = broken.len();
    sandbox.write("data/broken.warc.gz", &[gzip(&page(1), 6), broken, gzip(&page(3), 6)].concat());
    let service = sandbox.serve();
    let id = service.submit(&spec(&sandbox.path("data")));
    let result = service.result(&id);
    assert_eq!(result["status"], "completed_with_gaps");
    let skipped = &result["coverage"]["objects"][0]["skipped"];
    assert_eq!(
        (skipped[0]["reason"].as_str(), skipped[0]["length"].as_u64()),
        (Some("damaged"), Some(length as u64))
    );
    assert_eq!(service.hits(&id).len(), 2);
}

#[test]
fn a_shard_that_kills_every_mapper_is_a_gap_and_not_the_services_end() {
    let sandbox = Sandbox::new();
    // One record that decodes to more memory than a mapper is given.
    let bomb = gzip(&record("http://h/bomb", "text/plain", &vec![b'x'; 200 << 20]), 6);
    sandbox.write("data/bomb.warc.gz", &bomb);
    sandbox.write("data/pages.warc.gz", &(0..50).flat_map(|n| gzip(&page(n), 6)).collect::<Vec<u8>>());
    let service = sandbox.serve_with(&["--mapper-memory-mib", "160"], None);
    let mut spec = spec(&sandbox.path("data"));
    spec["shard_bytes"] = json!(10_000_000);
    spec["shard_bytes"] = json!(100_000);
    let id = service.submit(&spec);
    let result = service.result(&id);
    assert_eq!(result["status"], "completed_with_gaps");
    assert!(
        gaps(&result["coverage"]).iter().all(|gap| *gap == ("bomb.warc.gz".into(), "shard_failed".into())),
        "{result}"
    );
    assert_eq!(service.hits(&id).len(), 50, "the others are searched");
}

#[test]
fn a_mapper_that_stands_still_is_killed_and_its_shard_run_again() {
    let sandbox = Sandbox::new();
    let spec = spec(&sandbox.corpus());
    let expected = undisturbed(&spec);
    let service = sandbox.serve_with(&["--mapper-silence-s", "1", "--mappers", "2"], None);
    let id = service.submit(&spec);
    until("a mapper", || !service.mappers().is_empty());
    for mapper in service.mappers() {
        let _ = kill_process(mapper, Signal::STOP);
    }
    assert_eq!(service.result(&id), expected);
}

#[test]
fn mappers_die_with_their_service() {
    let sandbox = Sandbox::new();
    let service = sandbox.serve();
    let id = service.submit(&spec(&sandbox.corpus()));
    service.end_of(&id);
    let mappers = service.mappers();
    assert!(!mappers.is_empty(), "mappers are kept for the next job");
    service.kill();
    until("the mappers' end", || mappers.iter().all(|mapper| test_kill_process(*mapper).is_err()));
}

#[test]
fn a_mapper_that_wakes_after_the_cleanup_changes_nothing() {
    let sandbox = Sandbox::new();
    let pages: Vec<u8> = (0..3000).flat_map(|n| gzip(&page(n), 1)).collect();
    sandbox.write("data/pages.warc.gz", &pages);
    let service = sandbox.serve_with(&["--mappers", "1", "--task-life-s", "2"], None);
    // Many hits, so that the mapper writes a part; one shard.
    let spec =
        json!({ "patterns": [{ "name": "n", "regex": "[a-z]{3}" }], "dataset": [sandbox.path("data")] });
    let id = service.submit(&spec);
    let output = sandbox.output(&id);
    until("the plan", || output.join("tasks/001.jsonl").exists());
    // A task of the same run that nobody watches, as on a node that was cut off.
    let mut orphan = sandbox
        .dragnet(&["map"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let task = std::fs::read(output.join("tasks/001.jsonl")).unwrap();
    orphan.stdin.take().unwrap().write_all(&task).unwrap();
    let mut stderr = BufReader::new(orphan.stderr.take().unwrap()).lines();
    assert!(stderr.next().unwrap().unwrap().starts_with("reporter:status:"));
    let pid = rustix::process::Pid::from_child(&orphan);
    until("a part of the orphan", || {
        std::fs::read_dir(output.join("parts")).is_ok_and(|parts| parts.count() > 0)
    });
    kill_process(pid, Signal::STOP).unwrap();
    service.post(&format!("/v1/jobs/{id}:cancel"), "");
    let before = service.result(&id);
    let hits = service.hits(&id);
    kill_process(pid, Signal::CONT).unwrap();
    let mut said = String::new();
    orphan.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    orphan.wait().unwrap();
    assert_eq!(said.trim(), "\"closed\"");
    service.job_when(&id, |job| job["controllers"]["shutdown"]["status"] == "done");
    assert_eq!(service.result(&id), before);
    assert_eq!(service.hits(&id), hits);
    let manifest: Json =
        serde_json::from_slice(&std::fs::read(output.join("manifest.json")).unwrap()).unwrap();
    let named = manifest["parts"].as_array().unwrap().len();
    let left = std::fs::read_dir(output.join("parts")).map_or(0, Iterator::count);
    assert_eq!(left, named, "what it wrote is gone");
}

#[test]
fn a_cancelled_job_ends_with_what_it_has() {
    let sandbox = Sandbox::new();
    let service = sandbox.serve();
    let id = service.submit(&spec(&sandbox.corpus()));
    assert_eq!(service.post(&format!("/v1/jobs/{id}:cancel"), "").status, 202);
    let job = service.end_of(&id);
    assert!(job["status"] == "cancelled" || job["status"] == "completed", "{job}");
    assert_eq!(service.post(&format!("/v1/jobs/{id}:cancel"), "").status, 202, "again without harm");
    assert_eq!(service.job(&id)["status"], job["status"]);
}

#[test]
fn a_deadline_ends_a_job_with_what_it_has() {
    let sandbox = Sandbox::new();
    let pages: Vec<u8> = (0..2000).flat_map(|n| gzip(&page(n), 1)).collect();
    for n in 0..8 {
        sandbox.write(&format!("data/{n}.warc.gz"), &pages);
    }
    let service = sandbox.serve_with(&["--mappers", "1"], None);
    // Backtracking engines would never end; this one is only slow.
    let spec = json!({
        "patterns": [{ "name": "slow", "regex": r"(?:[a-z]+\s?){40,60}needle" }],
        "dataset": [sandbox.path("data")],
        "shard_bytes": 100_000,
        "limits": { "deadline_s": 1 },
    });
    let id = service.submit(&spec);
    let result = service.result(&id);
    let gaps = gaps(&result["coverage"]);
    let cut = gaps.iter().all(|(_, reason)| reason == "deadline");
    assert!(
        result["status"] == "completed" && gaps.is_empty() || cut && result["status"] != "completed",
        "{result}"
    );
}

#[test]
fn a_deadline_ends_a_job_that_waits_to_begin() {
    let sandbox = Sandbox::new();
    let service = sandbox.serve();
    // Nobody listens there, so Launch waits for the server.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut spec =
        json!({ "patterns": [{ "regex": "x" }], "dataset": [format!("http://{nobody}/a.warc.gz")] });
    spec["limits"] = json!({ "deadline_s": 1 });
    let job = service.end_of(&service.submit(&spec));
    assert_eq!(
        (&job["status"], &job["error"]["type"]),
        (&json!("failed"), &json!("/problems/deadline")),
        "{job}"
    );
    assert_eq!((&job["cost_micros"], &job["cut_by"]), (&json!(0), &json!(["deadline"])), "{job}");
}

#[test]
fn a_full_disk_is_said_and_the_job_goes_on_when_there_is_room() {
    let sandbox = Sandbox::new();
    let small = sandbox.path("small");
    std::fs::create_dir_all(&small).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"])
        .arg(&small)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: a small file system can't be mounted here (needs root)");
        return;
    }
    let _unmount = Unmount(small.clone());
    let spec = json!({ "patterns": [{ "name": "n", "regex": "[a-z]" }], "dataset": [sandbox.corpus()], "limits": { "hits": 30_000 } });
    let expected = undisturbed(&spec);
    let ballast = small.join("ballast");
    let service = sandbox
        .serve_with(&["--output", small.join("output").to_str().unwrap(), "--disk-low-mib", "0"], None);
    let room = 3 << 20;
    std::fs::write(&ballast, vec![1; room - (400 << 10)]).unwrap();
    let id = service.submit(&spec);
    until("a failure that is seen", || {
        let job = service.job(&id);
        let rows = job["controllers"].as_object().unwrap().values();
        let said = rows.filter_map(|row| row["error"].as_str()).any(|error| error.contains("No space left"));
        said || job["controllers"]["monitor"]["metrics"]["attempts_failed"].as_u64() > Some(0)
    });
    std::fs::remove_file(&ballast).unwrap();
    std::process::Command::new("mount").args(["-o", "remount,size=64m"]).arg(&small).status().unwrap();
    assert_eq!(service.result(&id), expected, "it goes on by itself");
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn what_is_no_document_holds_nobody_up() {
    let sandbox = Sandbox::new();
    sandbox.write("data/a.txt", b"needle-1");
    sandbox.write("data/b.txt", b"needle-2");
    let fifo = std::process::Command::new("mkfifo").arg(sandbox.path("data/a.fifo")).status();
    assert!(fifo.unwrap().success());
    std::os::unix::fs::symlink("/nowhere", sandbox.path("data/b.link")).unwrap();
    let service = sandbox.serve();
    let id = service.submit(&spec(&sandbox.path("data")));
    let result = service.result(&id);
    assert_eq!(service.hits(&id).len(), 2);
    let expected = [("a.fifo", "not_a_document"), ("b.link", "unreadable")];
    assert_eq!(
        gaps(&result["coverage"]),
        expected.map(|(name, reason)| (name.to_owned(), reason.to_owned()))
    );
}

#[test]
fn a_cancel_while_launch_runs_is_monitorings_to_see() {
    let sandbox = Sandbox::new();
    for n in 0..4000 {
        sandbox.write(&format!("data/{n}.txt"), format!("needle-{n}").as_bytes());
    }
    let service = sandbox.serve();
    let id = service.submit(&spec(&sandbox.path("data")));
    service.job_when(&id, |job| {
        job["controllers"]["launch"]["status"] != "waiting" && job["status"] != "accepted"
    });
    service.post(&format!("/v1/jobs/{id}:cancel"), "");
    let result = service.result(&id);
    assert!(result["status"] == "cancelled" || result["status"] == "completed", "{result}");
    let totals = &result["coverage"]["totals"];
    assert_eq!(totals["hits"], service.hits(&id).len(), "what is shown is what is sealed");
    assert_eq!(totals["read"].as_u64().unwrap() + totals["skipped_bytes"].as_u64().unwrap(), totals["size"]);
    assert_eq!(result["lines"][0]["quantity"], totals["read"], "and what is billed");
}

#[cfg(feature = "crash-points")]
#[test]
fn a_limit_that_falls_in_a_bundle_with_a_vanished_file_still_ends() {
    let sandbox = Sandbox::new();
    for n in 0..6 {
        sandbox.write(&format!("data/{n}.txt"), format!("needle-{n} needle-{n}").as_bytes());
    }
    let mut crashing = sandbox.serve_with(&[], Some("launch.after_plan"));
    let mut capped = spec(&sandbox.path("data"));
    capped["limits"] = json!({ "hits": 5 });
    let _ = crashing.try_post("/v1/jobs", Some("k"), &capped.to_string());
    crashing.wait();
    std::fs::remove_file(sandbox.path("data/1.txt")).unwrap();
    let service = sandbox.serve();
    let id = service.get("/v1/jobs").json()["jobs"][0]["id"].as_str().unwrap().to_owned();
    let result = service.result(&id);
    assert_eq!(result["status"], "completed_with_gaps");
    assert_eq!(service.hits(&id).len(), 5);
    assert!(gaps(&result["coverage"]).contains(&("1.txt".into(), "unreadable".into())), "{result}");
}

/// What a limit on hits wants to be read again may have gone by then.
#[test]
fn a_limit_that_falls_in_an_archive_that_changed_since_is_filled_by_what_is_behind_it() {
    let sandbox = Sandbox::new();
    let pages: Vec<u8> = (0..40).flat_map(|n| gzip(&page(n), 6)).collect();
    // Two hits of three, so that the next archive is read again for the third.
    sandbox.write("data/a.warc.gz", &(0..2).flat_map(|n| gzip(&page(n), 6)).collect::<Vec<u8>>());
    for name in ["b", "c"] {
        sandbox.write(&format!("data/{name}.warc.gz"), &pages);
    }
    let mut capped = spec(&sandbox.path("data"));
    capped["limits"] = json!({ "hits": 3 });
    let mut crashing = sandbox.serve_with(&[], Some("monitor.before_round"));
    let _ = crashing.try_post("/v1/jobs", Some("k"), &capped.to_string());
    crashing.wait();
    sandbox.write("data/b.warc.gz", &[&*pages, &gzip(&page(41), 6)].concat());
    let service = sandbox.serve();
    let id = service.get("/v1/jobs").json()["jobs"][0]["id"].as_str().unwrap().to_owned();
    let result = service.result(&id);
    assert_eq!(result["status"], "completed_with_gaps", "{result}");
    assert!(gaps(&result["coverage"]).contains(&("b.warc.gz".into(), "changed".into())), "{result}");
    let hits = service.hits(&id);
    let of = hits.iter().map(|hit| hit["object"].as_str().unwrap().rsplit('/').next().unwrap());
    assert_eq!(of.collect::<Vec<_>>(), ["a.warc.gz", "a.warc.gz", "c.warc.gz"]);
    for command in [&["hits", &id][..], &["hits", &id, "--count-by", "object"], &["coverage", &id]] {
        assert_eq!(sandbox.run(command).status.code(), Some(3), "{command:?}");
    }
    // What is no id names no other path.
    let other = sandbox.run(&["redrive", &format!("{id}:cancel?x=")]);
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert_eq!((other.status.code(), said.contains("there is no job")), (Some(2), true), "{said}");
}

/// A disk that is not mounted shows an empty folder, which is no run that read nothing.
#[test]
fn a_seal_that_is_not_to_be_seen_is_waited_for_and_not_billed_as_none() {
    let sandbox = Sandbox::new();
    let spec = spec(&sandbox.corpus());
    let expected = undisturbed(&spec);
    let id = {
        let service = sandbox.serve_with(&["--roles", "api,launch,monitor,local"], None);
        let id = service.submit(&spec);
        until("the seal", || sandbox.count("select count(*) from event where kind = 'monitor.sealed'") == 1);
        id
    };
    let (seal, away) = (sandbox.output(&id).join("manifest.json"), sandbox.path("away.json"));
    std::fs::rename(&seal, &away).unwrap();
    let service = sandbox.serve();
    until("the job to wait for its output", || {
        sandbox.count("select count(*) from controller where waiting_for = 'output'") > 0
    });
    assert_eq!(sandbox.count("select count(*) from ledger"), 0);
    std::fs::rename(&away, &seal).unwrap();
    assert_eq!(service.result(&id), expected);
}
