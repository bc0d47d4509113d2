//! HTTP as `surfaces` has it, spoken by a client that is not ours.

use crate::harness::{Sandbox, spec};
use serde_json::json;

#[test]
fn a_job_by_http_alone() {
    let sandbox = Sandbox::new();
    let spec = spec(&sandbox.corpus());
    let service = sandbox.serve();
    let accepted = service.try_post("/v1/jobs", Some("\"key-1\""), &spec.to_string()).unwrap();
    let id = accepted.json()["id"].as_str().unwrap().to_owned();
    assert_eq!((accepted.status, accepted.header("location")), (202, format!("/v1/jobs/{id}").as_str()));
    assert!(!accepted.header("retry-after").is_empty());
    let job = service.end_of(&id);
    assert_eq!((job["status"].as_str(), job["stage"].as_str()), (Some("completed"), Some("done")));
    for controller in ["launch", "monitor", "billing", "shutdown"] {
        assert!(job["controllers"][controller]["attempt"].as_i64() > Some(0), "{controller}: {job}");
    }
    let progress = &job["progress"];
    assert_eq!(progress["bytes_done"], progress["bytes_total"]);
    assert_eq!(progress["hits"], 402);
    let bill = service.get(&format!("/v1/jobs/{id}/bill")).json();
    let lines = bill["lines"].as_array().unwrap();
    let sum: i64 = lines.iter().map(|line| line["amount_micros"].as_i64().unwrap()).sum();
    assert_eq!((bill["total_micros"].as_i64(), job["cost_micros"].as_i64()), (Some(sum), Some(sum)));
    let status = service.get(&format!("/v1/jobs/{id}"));
    assert!(!status.header("etag").is_empty() && status.header("retry-after").is_empty());
}

#[test]
fn the_same_key_is_the_same_job() {
    let sandbox = Sandbox::new();
    let spec = spec(&sandbox.corpus());
    let service = sandbox.serve();
    let post = |key: &str, body: &str| service.try_post("/v1/jobs", Some(key), body).unwrap();
    let first = post("\"k\"", &spec.to_string());
    let pretty = serde_json::to_string_pretty(&spec).unwrap();
    let again = post("k", &pretty);
    assert_eq!(first.json()["id"], again.json()["id"], "quoted or bare, and compared as parsed");
    assert_eq!((first.header("idempotent-replayed"), again.header("idempotent-replayed")), ("", "true"));
    let mut other = spec.clone();
    other["patterns"][0]["regex"] = json!("other");
    assert_eq!(post("k", &other.to_string()).status, 422);
    let twins: Vec<_> = std::thread::scope(|scope| {
        let posts: Vec<_> =
            (0..8).map(|_| scope.spawn(|| post("twin", &pretty).json()["id"].clone())).collect();
        posts.into_iter().map(|post| post.join().unwrap()).collect()
    });
    assert!(twins.iter().all(|id| *id == twins[0]), "{twins:?}");
    let shown = service.job(first.json()["id"].as_str().unwrap())["spec"].to_string();
    assert_eq!(post("shown", &shown).status, 202, "what a job shows can be posted again: {shown}");
    let ended = service.end_of(first.json()["id"].as_str().unwrap());
    let replayed = post("k", &pretty).json();
    for name in ["status", "progress", "digest", "cost_micros"] {
        assert_eq!(replayed[name], ended[name], "a replay says what a look says");
    }
}

#[test]
fn what_will_never_be_there_is_not_promised() {
    let sandbox = Sandbox::new();
    let service = sandbox.serve();
    let spec = json!({ "patterns": [{ "regex": "x" }], "dataset": [sandbox.path("nothing")] });
    let id = service.submit(&spec);
    assert_eq!(service.end_of(&id)["status"], "failed");
    let hits = service.get(&format!("/v1/jobs/{id}/hits?order=dataset"));
    assert_eq!((hits.status, hits.body.as_str()), (200, ""), "a job without a run has no hits in any order");
    for path in ["/v1/jobs/%FF", "/v1/jobs/%ff/hits", "/problems/%C3", "/v1/invoices/%FF"] {
        let answer = service.get(path);
        let said = (answer.status, answer.header("content-type"));
        assert_eq!(said, (404, "application/problem+json"), "{path}");
    }
}

#[test]
fn what_is_wrong_is_a_problem_that_says_so() {
    let sandbox = Sandbox::new();
    let service = sandbox.serve();
    let job = |patterns: serde_json::Value, dataset: &str| {
        json!({ "patterns": patterns, "dataset": [dataset] }).to_string()
    };
    let good = json!([{ "name": "a", "regex": "x" }]);
    let table = [
        ("no JSON", "{".to_owned(), 400, ""),
        ("a broken pattern", job(json!([{ "name": "a", "regex": "x(" }]), "/tmp"), 400, "/patterns/0"),
        (
            "too large when compiled",
            job(json!([{ "name": "a", "regex": r"\w{1000}{100}" }]), "/tmp"),
            400,
            "/patterns/0",
        ),
        (
            "a name twice",
            job(json!([{ "name": "a", "regex": "x" }, { "name": "a", "regex": "y" }]), "/tmp"),
            400,
            "/patterns/1",
        ),
        ("a bad name", job(json!([{ "name": "1", "regex": "x" }]), "/tmp"), 400, "/patterns/0"),
        ("a relative path", job(good.clone(), "tmp"), 400, "/dataset/0"),
        ("a scheme that nobody knows", job(good.clone(), "ftp://b/k"), 400, "/dataset/0"),
        (
            "an unknown member of a list",
            json!({ "patterns": good, "dataset": [{ "manifest": "/a", "bas": "/b" }] }).to_string(),
            400,
            "",
        ),
        (
            "a member twice",
            r#"{ "patterns": [{ "regex": "x", "regex": "y" }], "dataset": ["/tmp"] }"#.to_owned(),
            400,
            "",
        ),
        (
            "an unknown member",
            json!({ "patterns": good, "dataset": ["/tmp"], "colour": 1 }).to_string(),
            400,
            "",
        ),
        (
            "no such engine",
            json!({ "patterns": good, "dataset": ["/tmp"], "engine": "spark" }).to_string(),
            400,
            "/engine",
        ),
        ("too long", format!("{{\"x\":\"{}\"}}", "y".repeat(5 << 20)), 413, ""),
    ];
    for (name, body, status, pointer) in table {
        let answer = service.post("/v1/jobs", &body);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (status, "application/problem+json"),
            "{name}: {}",
            answer.body
        );
        let problem = answer.json();
        assert_eq!(problem["pointer"].as_str().unwrap_or(""), pointer, "{name}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{name}: {problem}");
    }
    for path in ["/nothing", "/v1/nothing", "/v1/jobs/none", "/v1/jobs/none/hits", "/v1/jobs/none/bill"] {
        let answer = service.get(path);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (404, "application/problem+json"),
            "{path}"
        );
    }
    for path in ["/v1/jobs?limit=0", "/v1/jobs?limit=x", "/v1/jobs?status=nice"] {
        assert_eq!(
            (service.get(path).status, service.get(path).header("content-type")),
            (400, "application/problem+json"),
            "{path}"
        );
    }
    let deleted = service.post("/v1/jobs/some/hits", "");
    assert_eq!((deleted.status, deleted.header("content-type")), (405, "application/problem+json"));
    assert!(deleted.header("allow").contains("GET"), "{:?}", deleted.headers);
}

#[test]
fn hits_are_paged_counted_and_redacted() {
    let sandbox = Sandbox::new();
    let service = sandbox.serve();
    let id = service.submit(&spec(&sandbox.corpus()));
    service.end_of(&id);
    let all = service.hits(&id);
    let mut paged = Vec::new();
    let mut next = format!("/v1/jobs/{id}/hits?limit=37");
    loop {
        let page = service.get(&next);
        paged.extend(page.body.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()));
        let Some(link) = page.header("link").strip_prefix('<').and_then(|l| l.split_once('>')) else { break };
        next = link.0.to_owned();
    }
    assert_eq!(paged, all);
    let counts = service.get(&format!("/v1/jobs/{id}/hits?count_by=host&top=2")).json();
    let mut by_host = std::collections::BTreeMap::<String, u64>::new();
    for hit in &all {
        *by_host.entry(hit["url"].as_str().unwrap().split('/').nth(2).unwrap().to_owned()).or_default() += 1;
    }
    let most = by_host.values().max().unwrap();
    assert_eq!(
        (counts["counts"][0]["count"].as_u64(), counts["counts"].as_array().unwrap().len()),
        (Some(*most), 2)
    );
    let redacted = service.get(&format!("/v1/jobs/{id}/hits?redact=true&limit=1")).body;
    assert!(redacted.contains("need…sha256:") && !redacted.contains("needle-"), "{redacted}");
}

#[test]
fn lists_go_on_behind_a_cursor() {
    let sandbox = Sandbox::new();
    let spec = spec(&sandbox.corpus());
    let service = sandbox.serve();
    let mut ids: Vec<String> = (0..5).map(|_| service.submit(&spec)).collect();
    ids.reverse();
    let (mut listed, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = service.get(&format!("/v1/jobs?limit=2{cursor}")).json();
        listed.extend(
            page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(listed, ids, "newest first");
}
