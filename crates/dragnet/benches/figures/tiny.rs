//! A tiny job, from post to finished.

use crate::service::{Service, fdatasync_rate, percentile};
use serde_json::json;
use std::time::{Duration, Instant};

pub(crate) fn tiny() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.txt");
    std::fs::write(&file, "a needle in a haystack\n".repeat(4500)).unwrap();
    let spec = json!({ "patterns": [{ "name": "m", "regex": "needle in" }], "dataset": [file], "limits": { "hits": 10 } });
    let service = Service::start(&folder.path().join("state"));
    let mut times: Vec<Duration> = Vec::new();
    for n in 0..220 {
        let begun = Instant::now();
        let id = service.submit(&spec);
        service.end_of(&id, Duration::from_micros(200));
        if n >= 20 {
            times.push(begun.elapsed());
        }
    }
    times.sort();
    println!(
        "tiny job (100 kB), post to finished: p50 {:.1} ms, p99 {:.1} ms; fdatasync {}/s",
        percentile(&times, 0.5),
        percentile(&times, 0.99),
        fdatasync_rate(folder.path())
    );
}
