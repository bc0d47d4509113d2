//! What an operator sees and does: metrics, health, logs, a graceful stop, room on the disk, retention.

use crate::harness::{Sandbox, Service, gzip, page, spec, undisturbed, until};
use rustix::process::Signal;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

/// What the operator's address answers.
fn admin(service: &Service, path: &str) -> (u16, String) {
    let said = service.said();
    let base = said.lines().find_map(|line| line.strip_prefix("metrics at ")?.strip_suffix("/metrics"));
    let url = format!("{}{path}", base.expect("the service says where its metrics are"));
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut response = agent.get(url).call().unwrap();
    (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
}

/// The value of a sample whose name and labels stand like that.
fn sample(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

const ADMIN: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];

/// Who is told of jobs is listed, and removed by a command where nobody needs it.
#[test]
fn groups_are_listed_and_removed() {
    let sandbox = Sandbox::new();
    let service = sandbox.serve();
    let names = || -> Vec<String> {
        let listed = sandbox.run(&["group", "list", "--json"]);
        let groups: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
        groups.as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap().to_owned()).collect()
    };
    until("its controller has begun", || names().contains(&"webhooks".to_owned()));
    drop(service);
    for (name, why) in [("launch", "a part of every service"), ("nobody", "there is no group `nobody`")] {
        let refused = sandbox.run(&["group", "remove", name]);
        assert!(String::from_utf8_lossy(&refused.stderr).contains(why), "{refused:?}");
    }
    assert!(sandbox.run(&["group", "remove", "webhooks"]).status.success());
    assert!(!names().contains(&"webhooks".to_owned()));
}

#[test]
fn metrics_have_the_golden_signals_in_a_format_that_prometheus_reads() {
    let sandbox = Sandbox::new();
    let service = sandbox.serve_with(&ADMIN, None);
    let id = service.submit(&spec(&sandbox.corpus()));
    assert_eq!(service.end_of(&id)["status"], "completed");
    let (status, text) = admin(&service, "/metrics");
    assert_eq!(status, 200);
    for controller in ["launch", "monitor", "billing", "shutdown", "local"] {
        let label = format!("{{controller=\"{controller}\"");
        let steps = format!("dragnet_controller_steps_total{label},outcome=\"advanced\"}}");
        assert!(sample(&text, &steps) >= Some(1.0), "{steps}\n{text}");
        let took = format!("dragnet_controller_step_seconds_count{label}}}");
        assert!(sample(&text, &took) >= Some(1.0), "{took}\n{text}");
        assert!(text.contains(&format!("dragnet_controller_steps_under_way{label}}} ")), "{text}");
        let queue = format!("{{group=\"{controller}\"}}");
        assert!(sample(&text, &format!("dragnet_queue_messages{queue}")).is_some(), "{text}");
        assert!(sample(&text, &format!("dragnet_queue_oldest_seconds{queue}")).is_some(), "{text}");
    }
    for (name, want) in [
        ("dragnet_dependency_up{dependency=\"store\"}", 1.0),
        ("dragnet_dependency_up{dependency=\"output\"}", 1.0),
        ("dragnet_dependency_up{dependency=\"disk\"}", 1.0),
        ("dragnet_dependency_up{dependency=\"local\"}", 1.0),
        ("dragnet_mappers_running", 0.0),
        ("dragnet_leases_lost_total", 0.0),
        ("dragnet_draining", 0.0),
        ("dragnet_http_requests_total{method=\"POST\",route=\"/v1/jobs\",status=\"202\"}", 1.0),
        (&format!("dragnet_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0),
    ] {
        assert_eq!(sample(&text, name), Some(want), "{name}\n{text}");
    }
    assert!(!text.contains(&id) && !text.contains("needle"), "a job or a match is in the metrics");
    assert_eq!(service.get("/metrics").status, 404, "metrics are for the operator alone");
    let Some(python) = std::env::var("DRAGNET_TEST_PYTHON").ok().filter(|python| !python.is_empty()) else {
        eprintln!("skipped: DRAGNET_TEST_PYTHON names no Python (`./check` makes one)");
        return;
    };
    const PARSE: &str = "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as f; \
        print(len(list(f(sys.stdin.read()))))";
    let mut parser = Command::new(python)
        .args(["-c", PARSE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = parser.wait_with_output().unwrap();
    let families: usize = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    assert!(output.status.success() && families >= 12, "{families}");
}

#[test]
fn a_service_says_when_it_is_not_ready_and_why_to_the_operator_alone() {
    let sandbox = Sandbox::new();
    let service = sandbox.serve_with(&ADMIN, None);
    assert_eq!(service.get("/livez").body, "ok\n");
    let refused = service.post("/livez", "{}");
    let said = (refused.status, refused.header("allow"), refused.json()["type"].clone());
    assert_eq!(said, (405, "GET,HEAD", json!("/problems/method-not-allowed")));
    let ready = service.get("/readyz");
    assert_eq!((ready.status, ready.json()["checks"]["store"].as_str()), (200, Some("ok")));
    // Somebody holds the write lock: the store can be read and not written.
    let db = sandbox.db();
    db.execute_batch("begin immediate").unwrap();
    until("not ready", || service.get("/readyz").status == 503);
    let public = service.get("/readyz").json();
    assert_eq!(
        public,
        json!({ "ready": false, "checks": {
        "disk": "ok", "draining": "ok", "output": "ok", "store": "failed" } })
    );
    let (status, text) = admin(&service, "/readyz");
    let reason: Json = serde_json::from_str(&text).unwrap();
    assert_eq!(status, 503);
    assert!(reason["checks"]["store"].as_str().unwrap().len() > "failed".len(), "{text}");
    assert_eq!(service.get("/livez").status, 200, "it lives");
    assert_eq!(
        sample(&admin(&service, "/metrics").1, "dragnet_dependency_up{dependency=\"store\"}"),
        Some(0.0)
    );
    db.execute_batch("rollback").unwrap();
    until("ready again", || service.get("/readyz").status == 200);
}

#[test]
fn a_log_in_json_names_job_tenant_and_attempt() {
    let sandbox = Sandbox::new();
    // Its output can't be written: the job's steps have something to log.
    let mut service = sandbox.serve_with(&["--log-format", "json", "--disk-low-mib", "0"], None);
    let output = sandbox.state().join("output");
    std::fs::remove_dir_all(&output).unwrap();
    std::fs::write(&output, "in the way").unwrap();
    let id = service.submit(&spec(&sandbox.corpus()));
    until("a line about the job", || service.said().contains(&id));
    service.signal(Signal::TERM);
    assert!(service.wait().success());
    let said = service.said();
    let lines: Vec<Json> = said
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of_job: Vec<&Json> = lines.iter().filter(|line| line.to_string().contains(&id)).collect();
    assert!(!of_job.is_empty());
    for line in of_job {
        let span = &line["span"];
        assert_eq!((span["work"].as_str(), span["tenant"].as_str()), (Some(&*id), Some("default")), "{line}");
        assert!(span["attempt"].as_i64() >= Some(1), "{line}");
        assert!(line["message"].is_string() && line["level"].is_string(), "{line}");
    }
}

/// A job of so many shards that it is still under way when the test acts.
fn long_job(sandbox: &Sandbox) -> Json {
    let pages: Vec<u8> = (0..6000).flat_map(|n| gzip(&page(n), 1)).collect();
    let data = sandbox.write("data/many.warc.gz", &pages);
    json!({ "patterns": [{ "name": "n", "regex": "needle-[0-9]+" }], "dataset": [data], "shard_bytes": 10_000 })
}

#[test]
fn a_graceful_stop_gives_back_what_is_in_hand_at_once() {
    let sandbox = Sandbox::new();
    let spec = long_job(&sandbox);
    let expected = undisturbed(&spec);
    // A lease so long that nobody would wait for its end.
    let arguments = ["--lease-s", "3600", "--mappers", "1"];
    let mut first = sandbox.serve_with(&[&arguments[..], &ADMIN].concat(), None);
    let id = first.submit(&spec);
    first.job_when(&id, |job| job["progress"]["shards_done"].as_u64() >= Some(1));
    let mappers = first.mappers();
    assert!(!mappers.is_empty());
    let begun = std::time::Instant::now();
    first.signal(Signal::TERM);
    assert!(first.wait().success());
    // Loosely: it has five seconds and the machine may be busy.
    assert!(begun.elapsed().as_secs() < 15, "{:?}", begun.elapsed());
    assert_eq!(
        sandbox.count("select count(*) from work where ended_ms is null"),
        1,
        "too fast to be stopped"
    );
    let held = sandbox.count("select count(*) from controller where step = 'running'");
    assert_eq!(held, 0, "a claim was not given back: {}", first.said());
    for mapper in mappers {
        until("a mapper's end", || rustix::process::test_kill_process(mapper).is_err());
    }
    let second = sandbox.serve_with(&arguments, None);
    assert_eq!(second.result(&id), expected);
}

#[test]
fn while_it_drains_a_service_answers_that_it_is_not_ready() {
    let sandbox = Sandbox::new();
    let mut service = sandbox.serve_with(&ADMIN, None);
    let spec = long_job(&sandbox);
    service.submit(&spec);
    until("mappers", || !service.mappers().is_empty());
    // What is in hand can't be given back: the stop takes its time.
    let db = sandbox.db();
    db.execute_batch("begin immediate").unwrap();
    service.signal(Signal::TERM);
    until("not ready", || {
        let answer = service.get("/readyz");
        answer.status == 503 && answer.json()["checks"]["draining"] == "failed"
    });
    db.execute_batch("rollback").unwrap();
    assert!(service.wait().success());
}

#[test]
fn without_room_new_jobs_are_refused_and_those_that_run_wait() {
    let sandbox = Sandbox::new();
    let spec = spec(&sandbox.corpus());
    let expected = undisturbed(&spec);
    let id = {
        // Accepted by a service that works on nothing.
        let service = sandbox.serve_with(&["--roles", "api"], None);
        service.submit(&spec)
    };
    {
        let full = u64::MAX >> 24;
        let service = sandbox.serve_with(&["--disk-low-mib", &full.to_string()], None);
        let refused = service.post("/v1/jobs", &spec.to_string());
        assert_eq!((refused.status, refused.header("retry-after")), (503, "30"), "{}", refused.body);
        assert_eq!(refused.json()["type"], "/problems/unavailable");
        assert_eq!(service.get("/readyz").json()["checks"]["disk"], "failed");
        until("the job waits for room", || {
            sandbox.count("select count(*) from controller where waiting_for = 'disk'") == 1
        });
        assert_eq!(service.job(&id)["ended"], Json::Null, "it waits, and has not failed");
    }
    let service = sandbox.serve();
    assert_eq!(service.result(&id), expected);
}

#[test]
fn jobs_go_when_they_have_been_kept_long_enough_and_the_ledger_stays() {
    let sandbox = Sandbox::new();
    let spec = spec(&sandbox.corpus());
    // The second sweep of a job's output comes soon.
    let kept = ["--task-life-s", "0"];
    let id = {
        let service = sandbox
            .serve_with(&[&kept[..], &["--keep-events-days", "0", "--retention-s", "0.05"]].concat(), None);
        let id = service.submit(&spec);
        assert_eq!(service.end_of(&id)["status"], "completed");
        until("events to go", || sandbox.count("select count(*) from event") == 0);
        let hits = service.hits(&id).len();
        assert!(hits > 0 && service.job(&id)["progress"]["hits"] == hits, "hits stay");
        until("the second sweep", || {
            sandbox.count("select count(*) from controller where step not in ('done', 'idle')") == 0
        });
        id
    };
    let digest = {
        let service = sandbox
            .serve_with(&[&kept[..], &["--keep-hits-days", "0", "--retention-s", "0.05"]].concat(), None);
        until("hits to go", || sandbox.count("select count(*) from hits_expired where removed = 1") == 1);
        for query in ["", "?order=dataset", "?count_by=match"] {
            let gone = service.get(&format!("/v1/jobs/{id}/hits{query}"));
            assert_eq!(
                (gone.status, &gone.json()["type"]),
                (410, &json!("/problems/hits-expired")),
                "{query}"
            );
        }
        assert_eq!(service.get(&format!("/v1/jobs/{id}/coverage")).status, 200);
        service.job(&id)["digest"].clone()
    };
    assert!(digest.as_str().is_some_and(|digest| digest.starts_with("v1:")), "{digest}");
    let found =
        Command::new("find").arg(sandbox.output(&id)).args(["-type", "f", "-printf", "%P\n"]).output();
    let found = String::from_utf8(found.unwrap().stdout).unwrap();
    let left: BTreeSet<_> = found.lines().collect();
    assert_eq!(left, ["closed", "coverage.json", "manifest.json", "plan.json"].into(), "no file has hits");
    let audit = sandbox.run(&["audit"]);
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    let paid = sandbox.count("select count(*) from ledger");
    assert!(paid > 0 && sandbox.output(&id).exists());
    let service =
        sandbox.serve_with(&[&kept[..], &["--keep-jobs-days", "0", "--retention-s", "0.05"]].concat(), None);
    until("the job to go", || service.get(&format!("/v1/jobs/{id}")).status == 404);
    assert!(!sandbox.output(&id).exists(), "its output is there");
    for table in ["work", "controller", "event", "settled", "idempotency_key", "delivery"] {
        assert_eq!(sandbox.count(&format!("select count(*) from {table}")), 0, "{table}");
    }
    assert_eq!(sandbox.count("select count(*) from ledger"), paid);
}

#[test]
fn keys_are_forgotten_some_time_after_their_end() {
    let sandbox = Sandbox::new();
    let must = |arguments: &[&str]| {
        let output = sandbox.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let keys = || -> Vec<Json> { serde_json::from_str(&must(&["key", "list", "--json"])).unwrap() };
    must(&["tenant", "add", "acme"]);
    must(&["key", "add", "acme"]);
    must(&["key", "rotate", keys()[0]["id"].as_str().unwrap(), "--overlap-hours", "0"]);
    must(&["key", "add", "acme"]);
    must(&["key", "revoke", keys()[2]["id"].as_str().unwrap()]);
    let successor = keys()[1]["id"].clone();
    let _service = sandbox.serve_with(&["--keep-keys-days", "0", "--retention-s", "0.05"], None);
    until("ended keys to go", || keys().len() == 1);
    assert_eq!((&keys()[0]["id"], &keys()[0]["replaces"]), (&successor, &Json::Null));
}
