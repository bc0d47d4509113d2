//! From `kill -9` to going on: of one process, and of one machine among two.

use crate::service::{Service, percentile, schema};
use serde_json::{Value as Json, json};
use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

/// Kills a service at work again and again; from the restart's "listening on" to the first new claim of the
/// run that was under way.
pub(crate) fn recovery() {
    let folder = tempfile::tempdir().unwrap();
    let spec = long_job(folder.path());
    let state = folder.path().join("state");
    let mut service = Service::start(&state);
    let mut id = service.submit(&spec);
    let mut times = Vec::new();
    while times.len() < 50 {
        run_under_way(&service, &mut id, &spec);
        std::thread::sleep(Duration::from_millis(20 + times.len() as u64 * 7 % 150));
        let job = service.job(&id);
        if job["controllers"]["local"]["status"] != "running" {
            continue;
        }
        let before = job["controllers"]["local"]["attempt"].as_i64().unwrap();
        drop(service);
        service = Service::start(&state);
        let begun = Instant::now();
        until_claimed(&service, &id, before);
        times.push(begun.elapsed());
    }
    print_times("from kill -9 and restart to going on", times);
}

/// Two processes that share a PostgreSQL and no lock, as on two machines; whichever has the run is killed, and what
/// counts is when the other has claimed it. Then it is started again.
pub(crate) fn takeover(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let spec = long_job(folder.path());
    let (store, output) = (schema(url), folder.path().join("output"));
    let start = |n: usize| {
        let flags = ["--store", &store, "--output", output.to_str().unwrap(), "--mappers", "1"];
        Service::with(&folder.path().join(format!("state-{n}")), &flags)
    };
    let mut services: VecDeque<Service> = (0..2).map(start).collect();
    let mut id = services[0].submit(&spec);
    let mut times = Vec::new();
    for n in 2..32 {
        let before = run_under_way(&services[0], &mut id, &spec);
        // Who has the run has the mappers.
        while !has_children(&services[0]) && !has_children(&services[1]) {}
        if !has_children(&services[0]) {
            services.swap(0, 1);
        }
        let begun = Instant::now();
        services.pop_front();
        until_claimed(&services[0], &id, before);
        times.push(begun.elapsed());
        services.push_back(start(n));
    }
    print_times("from kill -9 of one of two machines to the other's going on", times);
}

/// A folder of text that keeps mappers busy for a while, and a job over it.
fn long_job(folder: &Path) -> Json {
    for n in 0..400 {
        std::fs::write(folder.join(format!("{n}.txt")), "a needle in a haystack\n".repeat(40_000)).unwrap();
    }
    json!({
        "patterns": [{ "name": "m", "regex": r"\w+ [a-z]{9}ack" }],
        "dataset": [format!("{}/*.txt", folder.display())],
        "shard_bytes": 1_000_000,
    })
}

/// The claims of the local run so far, while one is under way; a job that has ended is followed by another.
fn run_under_way(service: &Service, id: &mut String, spec: &Json) -> i64 {
    loop {
        let job = service.job(id);
        let local = &job["controllers"]["local"];
        if local["status"] == "running" {
            return local["attempt"].as_i64().unwrap();
        }
        if job["ended"].is_string() {
            *id = service.submit(spec);
        }
    }
}

/// Waits until somebody has claimed the run again.
fn until_claimed(service: &Service, id: &str, before: i64) {
    while service.job(id)["controllers"]["local"]["attempt"].as_i64() == Some(before) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn has_children(service: &Service) -> bool {
    let threads =
        std::fs::read_dir(format!("/proc/{}/task", service.child.id())).into_iter().flatten().flatten();
    let mut children =
        threads.map(|thread| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    children.any(|pids| !pids.is_empty())
}

fn print_times(what: &str, mut times: Vec<Duration>) {
    times.sort();
    println!(
        "{what}: p50 {:.0} ms, p99 {:.0} ms over {} kills",
        percentile(&times, 0.5),
        percentile(&times, 0.99),
        times.len()
    );
}
