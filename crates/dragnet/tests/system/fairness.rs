//! One tenant's crowd of jobs and another's small one, on one mapper: what stands between is counted, not timed. And a
//! shard that takes too much processor time.

use crate::harness::*;
use dragnet_job::{KIND, MACHINES, TABLES, topic};
use dragnet_pattern::{Accept, Store, sqlite};
use serde_json::{Value as Json, json};
use std::path::PathBuf;
use std::time::SystemTime;

/// Posts a job as a tenant, beside the service.
fn submit(store: &dyn Store, sandbox: &Sandbox, tenant: &str, priority: i64, spec: &Json) -> String {
    let mut spec = spec.clone();
    spec["output"] = json!(format!("file://{}", sandbox.state().join("output").display()));
    let accept = Accept {
        tenant: tenant.into(),
        kind: KIND.into(),
        spec,
        topic: topic::LAUNCH.into(),
        key: None,
        deadline: None,
        priority,
        waiting_max: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(store.accept(accept)).unwrap().work.id
}

/// Files of a tenant's jobs that lie so deep below a folder of that name.
fn files(sandbox: &Sandbox, tenant: &str, (folder, depth): (&str, usize)) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![sandbox.state().join("output").join(tenant)]);
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found.retain(|path| path.iter().rev().nth(depth).is_some_and(|name| name == folder));
    found
}

const TASKS: (&str, usize) = ("tasks", 1);
const RECORDS: (&str, usize) = ("records", 2);

/// When each of the files was written, the first one first.
fn written(files: &[PathBuf]) -> Vec<SystemTime> {
    let mut times: Vec<SystemTime> =
        files.iter().map(|path| path.metadata().unwrap().modified().unwrap()).collect();
    times.sort();
    times
}

#[test]
fn a_crowd_of_jobs_delays_another_tenants_small_one_by_a_shard() {
    let sandbox = Sandbox::new();
    let pages = (0..2000).flat_map(|n| gzip(&page(n), 6)).collect::<Vec<u8>>();
    sandbox.write("data/pages.warc.gz", &pages);
    sandbox.write("little/page.warc.gz", &gzip(&page(1), 6));
    for tenant in ["crowd", "small"] {
        assert!(sandbox.run(&["tenant", "add", tenant, "--dataset", "any"]).status.success());
    }
    let _service = sandbox.serve_with(&["--mappers", "1"], None);
    let store =
        sqlite::open(&sandbox.state().join("dragnet.db"), MACHINES, &[TABLES, dragnet_tenant::TABLES])
            .unwrap();
    for _ in 0..30 {
        submit(&store, &sandbox, "crowd", 9, &spec(&sandbox.path("data")));
    }
    until("the crowd's shards", || files(&sandbox, "crowd", RECORDS).len() > 3);
    submit(&store, &sandbox, "small", 0, &spec(&sandbox.path("little")));
    until("the small job's shard", || !files(&sandbox, "small", RECORDS).is_empty());
    let crowd = written(&files(&sandbox, "crowd", RECORDS));
    let shards: usize = files(&sandbox, "crowd", TASKS)
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap().lines().count())
        .sum();
    assert!(shards > crowd.len() + 100, "{} of the crowd's {shards} shards ran meanwhile", crowd.len());
    let begun = written(&files(&sandbox, "small", TASKS))[0];
    let ended = written(&files(&sandbox, "small", RECORDS))[0];
    let between = crowd.iter().filter(|at| **at > begun && **at < ended).count();
    assert!(between < 10, "{between} shards of the crowd ran before the small job's");
}

#[test]
fn a_shard_that_takes_too_much_processor_time_is_a_gap() {
    let sandbox = Sandbox::new();
    // For each match the rest of the line is read first, and again for the next.
    let line = gzip(&record("http://h/line", "text/plain", &vec![b'A'; 4 << 20]), 6);
    sandbox.write("data/line.warc.gz", &line);
    sandbox.write("data/pages.warc.gz", &(0..50).flat_map(|n| gzip(&page(n), 6)).collect::<Vec<u8>>());
    let service = sandbox.serve_with(&["--shard-cpu-s", "1"], None);
    let mut spec = spec(&sandbox.path("data"));
    spec["patterns"] = json!([{ "name": "q", "regex": ".*[^A-Z\n]A|needle-[0-9]+|AA" }]);
    spec["shard_bytes"] = json!(2_000);
    let id = service.submit(&spec);
    let result = service.result(&id);
    assert_eq!(result["status"], "completed_with_gaps", "{}", service.said());
    let objects = result["coverage"]["objects"].as_array().unwrap();
    for object in objects {
        let is_line = object["object"].as_str().unwrap().ends_with("line.warc.gz");
        assert_eq!(object["complete"], !is_line, "{object}");
        if is_line {
            assert_eq!(object["skipped"][0]["reason"], "shard_failed");
        }
    }
    assert!(service.said().contains("more processor time than one may"), "{}", service.said());
}
