//! Random kills of the service and of mappers, with every post sent twice: nothing lost, nothing billed
//! twice.

use crate::harness::{Sandbox, Service, gzip, page};
use rustix::process::{Signal, kill_process};
use serde_json::{Value as Json, json};
use std::time::Duration;

const JOBS: usize = 504;
const KILLS: usize = 208;

/// A small generator with a seed, so that a run can be told by its number (Steele, Lea and Flood, 2014).
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// Posts until it is answered, as a client does whose connection may break at any time.
fn post(service: &Service, key: &str, body: &str) -> Option<String> {
    let answer = service.try_post("/v1/jobs", Some(key), body).ok().filter(|answer| answer.status == 202)?;
    Some(answer.json()["id"].as_str().unwrap().to_owned())
}

#[test]
fn random_kills_lose_nothing_and_bill_nothing_twice() {
    let sandbox = Sandbox::new();
    for n in 0..3 {
        let pages: Vec<u8> = (n * 20..n * 20 + 20).flat_map(|n| gzip(&page(n), 6)).collect();
        sandbox.write(&format!("data/{n}.warc.gz"), &pages);
    }
    let spec = json!({ "patterns": [{ "name": "n", "regex": "needle-[0-9]+" }], "dataset": [sandbox.path("data")], "shard_bytes": 6000 });
    let body = spec.to_string();
    let expected = crate::harness::undisturbed(&spec);
    let mut random = SplitMix(20_261_122);
    let mut service = sandbox.serve();
    let mut accepted: Vec<(String, String)> = Vec::new();
    let (mut kills, mut posted) = (0, 0);
    while kills < KILLS {
        while posted < JOBS * (kills + 1) / KILLS {
            let key = format!("job-{posted}");
            // Whether or not the first answer came, the client sends it again.
            let first = post(&service, &key, &body);
            let second = post(&service, &key, &body);
            if let (Some(first), Some(second)) = (&first, &second) {
                assert_eq!(first, second, "{key}");
            }
            match second.or(first) {
                Some(id) => accepted.push((key, id)),
                None => panic!("{key} was not accepted: {}", service.said()),
            }
            posted += 1;
        }
        std::thread::sleep(Duration::from_millis(random.below(120)));
        kills += 1;
        let mappers = service.mappers();
        if kills % 3 == 0 && !mappers.is_empty() {
            let _ = kill_process(mappers[random.below(mappers.len() as u64) as usize], Signal::KILL);
            continue;
        }
        service.kill();
        service = sandbox.serve();
    }
    for (key, id) in &accepted {
        assert_eq!(post(&service, key, &body).as_deref(), Some(id.as_str()), "{key} is still that job");
        let mut result = service.result(id);
        let same: Json = expected.clone();
        assert_eq!(result.take(), same, "{key}");
    }
    assert_eq!(sandbox.count("select count(*) from work"), JOBS as i64);
    assert_eq!(sandbox.count("select count(*) from work where status = 'completed'"), JOBS as i64);
    assert_eq!(sandbox.count("select count(*) from ledger"), 3 * JOBS as i64);
    assert_eq!(sandbox.count("select count(*) from event where kind = 'monitor.sealed'"), JOBS as i64);
    println!("{KILLS} kills over {JOBS} jobs");
}
