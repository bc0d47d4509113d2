//! A limit on hits cuts at the same place, whatever order shards finish in, and takes nothing back.

use crate::harness::{Sandbox, spec};
use serde_json::{Value as Json, json};

fn matches(hits: &[Json]) -> Vec<&str> {
    hits.iter().map(|hit| hit["match"].as_str().unwrap()).collect()
}

#[test]
fn the_first_hits_of_the_dataset_and_no_others() {
    let files = Sandbox::new();
    let data = files.corpus();
    let whole = {
        let sandbox = Sandbox::new();
        let service = sandbox.serve();
        let id = service.submit(&spec(&data));
        service.end_of(&id);
        let body = service.get(&format!("/v1/jobs/{id}/hits?limit=10000&order=dataset")).body;
        body.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Json>>()
    };
    for max in [1, 2, 3, 50, 137, 401] {
        let mut results = Vec::new();
        for mappers in ["1", "2", "4"] {
            let sandbox = Sandbox::new();
            let service = sandbox.serve_with(&["--mappers", mappers], None);
            let mut capped = spec(&data);
            capped["limits"] = json!({ "hits": max });
            let id = service.submit(&capped);
            let mut shown: Vec<Json> = Vec::new();
            service.job_when(&id, |job| {
                let now = service.hits(&id);
                assert_eq!(now[..shown.len()], shown[..], "what was shown is never taken back");
                shown = now;
                job["status"] != "accepted" && job["status"] != "running"
            });
            let hits = service.hits(&id);
            assert_eq!(matches(&hits), matches(&whole[..max]), "limit {max}, {mappers} mappers");
            results.push(service.result(&id));
        }
        assert_eq!(results[0]["status"], "completed_with_gaps", "a cut is said");
        assert!(
            results.iter().all(|result| *result == results[0]),
            "limit {max}: the same digest, bill and coverage"
        );
    }
}

#[test]
fn a_limit_on_bytes_is_cut_in_the_plan() {
    let sandbox = Sandbox::new();
    let mut limited = spec(&sandbox.corpus());
    let service = sandbox.serve();
    limited["limits"] = json!({ "input_bytes": 100_000 });
    let id = service.submit(&limited);
    let result = service.result(&id);
    assert_eq!(result["status"], "completed_with_gaps");
    let objects = result["coverage"]["objects"].as_array().unwrap();
    let reasons: Vec<&Json> =
        objects.iter().flat_map(|o| o["skipped"].as_array().unwrap()).map(|skip| &skip["reason"]).collect();
    assert!(!reasons.is_empty() && reasons.iter().all(|reason| **reason == "bytes_cap"), "{reasons:?}");
    for object in objects {
        let skipped: u64 =
            object["skipped"].as_array().unwrap().iter().map(|skip| skip["length"].as_u64().unwrap()).sum();
        assert_eq!(object["read"].as_u64().unwrap() + skipped, object["size"].as_u64().unwrap());
    }
}
