//! HTTP by its standards: our own table of promises, a stranger's fuzzer, and what only time and other processes show.

use crate::harness::{Sandbox, Service, agent, answer, spec, until};
use crate::servers;
use rustix::process::Signal;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};
use ureq::http::Request;

/// What `dragnet conformance` says of a service: exit code and rows.
fn conformance(sandbox: &Sandbox, url: &str, key: Option<&str>) -> (Option<i32>, Vec<Json>) {
    let mut command = sandbox.dragnet(&["conformance", url, "--json"]);
    if let Some(key) = key {
        command.env("DRAGNET_API_KEY", key);
    }
    let output = command.output().unwrap();
    let rows = serde_json::from_slice(&output.stdout);
    (
        output.status.code(),
        rows.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr))),
    )
}

/// Names of the rows with a verdict.
fn named<'a>(rows: &'a [Json], verdict: &str) -> Vec<&'a Json> {
    rows.iter().filter(|row| row["verdict"] == verdict).collect()
}

/// Makes a tenant and a key of it that may do everything.
fn key_of(sandbox: &Sandbox, tenant: &str, limits: &[&str]) -> String {
    let made = sandbox.run(&[&["tenant", "add", tenant, "--dataset", "any"], limits].concat());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = sandbox.run(&["key", "add", tenant, "--scopes", "submit,read,cancel,bill,admin"]);
    String::from_utf8(key.stdout).unwrap().trim().to_owned()
}

#[test]
fn every_promise_holds() {
    let sandbox = Sandbox::new();
    let service = sandbox.serve();
    let (code, rows) = conformance(&sandbox, &service.url, None);
    assert_eq!((code, named(&rows, "fails")), (Some(0), vec![]), "without tenants");
    assert_eq!(named(&rows, "skipped").len(), 2, "a quota and a key need a tenant");
    let sandbox = Sandbox::new();
    let key = key_of(&sandbox, "acme", &["--submissions-per-s", "1000"]);
    let service = sandbox.serve();
    let (code, rows) = conformance(&sandbox, &service.url, Some(&key));
    assert_eq!(
        (code, named(&rows, "fails"), named(&rows, "skipped")),
        (Some(0), vec![], vec![]),
        "with a tenant"
    );
}

/// Behind a server that speaks TLS, which is believed by its certificate alone.
#[test]
fn every_promise_holds_behind_tls() {
    let mut sandbox = Sandbox::new();
    let key = key_of(&sandbox, "acme", &["--submissions-per-s", "1000"]);
    let service = sandbox.serve();
    let address = service.url.strip_prefix("http://").unwrap();
    let Some((server, pem)) = servers::tls(address, &sandbox.path("")) else { return };
    let url = format!("https://{}", server.address);
    let stranger =
        sandbox.dragnet(&["list", "--server", &url]).env("DRAGNET_API_KEY", &key).output().unwrap();
    let said = String::from_utf8_lossy(&stranger.stderr).into_owned();
    assert!(!stranger.status.success() && said.to_lowercase().contains("certificate"), "{said}");
    sandbox.env.push(("SSL_CERT_FILE", pem));
    let (_, rows) = conformance(&sandbox, &url, Some(&key));
    // This test's own server between them does not read on when the service has answered before a body's end.
    let by_it = |row: &&Json| row["name"] != "a body that is too long is 413";
    assert_eq!(rows.iter().filter(by_it).find(|row| row["verdict"] != "holds"), None);
    let listed = sandbox.dragnet(&["list", "--server", &url]).env("DRAGNET_API_KEY", &key).output().unwrap();
    assert!(
        listed.status.success() && !listed.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&listed.stderr)
    );
}

#[test]
fn a_server_that_promises_nothing_is_found_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            std::thread::spawn(move || {
                let mut connection = connection.unwrap();
                let _ = connection.read(&mut [0; 4096]);
                let _ = connection
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
            });
        }
    });
    let (code, rows) = conformance(&Sandbox::new(), &url, None);
    assert_eq!((code, named(&rows, "holds")), (Some(1), vec![]));
}

#[test]
fn schemathesis_finds_nothing() {
    let Some(python) = std::env::var("DRAGNET_TEST_PYTHON").ok().filter(|python| !python.is_empty()) else {
        eprintln!("skipped: DRAGNET_TEST_PYTHON names no Python (`./check` makes one)");
        return;
    };
    let schemathesis = std::path::Path::new(&python).with_file_name("schemathesis");
    if !schemathesis.exists() {
        eprintln!("skipped: `{}` is not there (`./check` installs it)", schemathesis.display());
        return;
    }
    let sandbox = Sandbox::new();
    let key = key_of(&sandbox, "acme", &[]);
    let service = sandbox.serve();
    // A schema can't say which expressions compile and which files are there; and a header that nobody knows is passed
    // over (RFC 9110, 5.1), which is held for a finding where several are known and the job is there.
    let config = "[[operations]]\ninclude-operation-id = \"submitJob\"\nchecks.positive_data_acceptance.enabled = false\n\
                  [[operations]]\ninclude-operation-id = \"getJob\"\ngeneration.allow-extra-parameters = false\n\
                  [[operations]]\ninclude-operation-id = \"getEvents\"\ngeneration.allow-extra-parameters = false\n";
    let config = sandbox.write("schemathesis.toml", config.as_bytes());
    let mut command = Command::new(schemathesis);
    command
        .current_dir(sandbox.folder.path())
        .arg("--config-file")
        .arg(config)
        .args(["run", &format!("{}/openapi.json", service.url), "--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", "5", "--max-time", "75", "--continue-on-failure", "--seed", "1"])
        .args(["--workers", "1", "--generation-database", "none", "--suppress-health-check", "all"])
        .args(["--no-shrink", "-H", &format!("Authorization: Bearer {key}")]);
    // Older Pythons, 3.11.7 among them, count the depth of a syntax tree wrongly where threads parse at once (CPython
    // gh-106905), and schemathesis, which parses its own source, ends with that: no finding, and it is asked again.
    const OF_PYTHON: &str = "SystemError: AST constructor recursion depth mismatch";
    let mut said = String::new();
    let found_nothing = (0..3).any(|_| {
        let output = command.output().unwrap();
        said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || said.contains(OF_PYTHON), "{said}");
        output.status.success()
    });
    assert!(found_nothing, "{said}");
    assert!(!service.said().contains("panicked"), "{}", service.said());
}

/// Fields that any answer may have: of the connection, of caches and of browsers.
const OF_ALL: [&str; 12] = [
    "cache-control",
    "connection",
    "content-disposition",
    "content-length",
    "content-security-policy",
    "content-type",
    "cross-origin-resource-policy",
    "date",
    "referrer-policy",
    "transfer-encoding",
    "vary",
    "x-content-type-options",
];

#[test]
fn the_document_names_every_field_of_an_answer() {
    let sandbox = Sandbox::new();
    let key = key_of(&sandbox, "acme", &["--submissions-per-s", "1000"]);
    let service = sandbox.serve();
    let document = service.get("/openapi.json").json();
    let spec = spec(&sandbox.corpus()).to_string();
    let other = spec.replace("needle", "noodle");
    let ask = |method: &str, path: &str, fields: &[(&str, &str)], body: &str| {
        let request = Request::builder().method(method).uri(format!("{}{path}", service.url));
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        answer(agent().run(request.body(body.to_owned()).unwrap())).unwrap()
    };
    let (json, text) = (("content-type", "application/json"), ("content-type", "text/plain"));
    let bearer = format!("Bearer {key}");
    let own = ("authorization", bearer.as_str());
    let named = ("idempotency-key", "\"one\"");
    let waits = ("prefer", "respond-async, wait=20");
    let posts: [(&[(&str, &str)], &str); 7] = [
        (&[own, json, named], &spec),
        (&[own, json, named], &spec),
        (&[own, json, named, waits], &spec),
        (&[own, json, named], &other),
        (&[own, json], "{"),
        (&[own, text], &spec),
        (&[json], &spec),
    ];
    let posted = posts.map(|(fields, body)| ("post", "/v1/jobs", ask("POST", "/v1/jobs", fields, body)));
    let job = posted[0].2.header("location").to_owned();
    let mut answers = Vec::from(posted);
    answers.push(("get", "/v1/jobs/{id}", ask("PUT", &job, &[own], "")));
    answers.push(("post", "/v1/jobs/{id}:cancel", ask("POST", &format!("{job}:cancel"), &[own], "")));
    for (path, at) in [
        ("/v1/jobs/{id}", job.clone()),
        ("/v1/jobs/{id}/hits", format!("{job}/hits?limit=1")),
        ("/v1/jobs/{id}/coverage", format!("{job}/coverage")),
        ("/v1/jobs/{id}/bill", format!("{job}/bill")),
        ("/v1/jobs/{id}/events", format!("{job}/events")),
        ("/v1/jobs", "/v1/jobs?limit=1".to_owned()),
        ("/v1/usage", "/v1/usage".to_owned()),
        ("/v1/audit", "/v1/audit?limit=1".to_owned()),
        ("/v1/invoices/{month}", "/v1/invoices/2026-11".to_owned()),
        ("/openapi.json", "/openapi.json".to_owned()),
    ] {
        let found = ask("GET", &at, &[own], "");
        let again = ask("GET", &at, &[own, ("if-none-match", found.header("etag"))], "");
        answers.extend([("get", path, found), ("get", path, again)]);
        answers.push(("get", path, ask("GET", &at, &[own, ("accept", "font/woff")], "")));
        answers.push(("get", path, ask("GET", &at, &[], "")));
    }
    let mut statuses = BTreeSet::new();
    for (method, path, answer) in &answers {
        let responses = &document["paths"][path][method]["responses"];
        let response = responses[answer.status.to_string()]["$ref"].as_str();
        let response = response.unwrap_or_else(|| panic!("{method} {path} has no {}", answer.status));
        let response = document.pointer(response.strip_prefix('#').unwrap()).unwrap();
        let known: Vec<String> = response["headers"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name.to_lowercase())
            .collect();
        for name in answer.headers.keys().map(|name| name.as_str()) {
            let is_known = OF_ALL.contains(&name) || known.iter().any(|known| known == name);
            assert!(is_known, "{method} {path} {}: `{name}` is not in the document", answer.status);
        }
        statuses.insert(answer.status);
    }
    let expected = BTreeSet::from([200, 202, 304, 400, 401, 405, 406, 415, 422]);
    assert!(statuses.is_superset(&expected), "{statuses:?}");
}

/// A stream of events, read as it comes.
fn stream(service: &Service, path: &str) -> impl Iterator<Item = String> + use<> {
    let address = service.url.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(connection, "GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n")
        .unwrap();
    BufReader::new(connection).lines().map_while(Result::ok)
}

#[test]
fn events_of_another_process_are_followed_to_the_end() {
    let sandbox = Sandbox::new();
    let api = sandbox.serve_with(&["--roles", "api"], None);
    let id = api.submit(&spec(&sandbox.corpus()));
    let mut lines = stream(&api, &format!("/v1/jobs/{id}/events"));
    assert!(lines.any(|line| line == "event: accepted"), "what has happened comes at once");
    let _works = sandbox.serve_with(&["--roles", "launch,monitor,billing,shutdown,local"], None);
    let kinds: Vec<String> =
        lines.filter_map(|line| Some(line.strip_prefix("event: ")?.to_owned())).collect();
    assert_eq!(kinds.last().map(String::as_str), Some("end"), "{kinds:?}");
    assert!(kinds.iter().any(|kind| kind == "monitor.sealed"), "{kinds:?}");
}

#[test]
fn a_stream_does_not_hold_up_a_stop() {
    let sandbox = Sandbox::new();
    let mut service = sandbox.serve_with(&["--roles", "api"], None);
    let id = service.submit(&spec(&sandbox.corpus()));
    let mut lines = stream(&service, &format!("/v1/jobs/{id}/events"));
    assert!(lines.any(|line| line == "event: accepted"));
    let begun = Instant::now();
    service.signal(Signal::TERM);
    assert!(service.wait().success());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(lines.find(|line| line.starts_with("event:")), None, "the stream ends");
}

#[test]
fn a_twin_under_way_waits_and_is_replayed_or_told_to_come_back() {
    let sandbox = Sandbox::new();
    let body = spec(&sandbox.corpus()).to_string();
    let service = sandbox.serve_with(&["--roles", "api"], None);
    let db = sandbox.db();
    let post = || service.try_post("/v1/jobs", Some("\"twin\""), &body).unwrap();
    // While somebody else holds the write lock, the first can't be answered.
    db.execute_batch("begin immediate").unwrap();
    let (first, second) = std::thread::scope(|scope| {
        let (first, second) = (scope.spawn(post), scope.spawn(post));
        (first.join().unwrap(), second.join().unwrap())
    });
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [409, 503], "{} {}", first.body, second.body);
    for answer in [&first, &second] {
        assert!(!answer.header("retry-after").is_empty(), "{}", answer.body);
    }
    let twins = std::thread::scope(|scope| {
        let twins: Vec<_> = (0..4).map(|_| scope.spawn(post)).collect();
        db.execute_batch("rollback").unwrap();
        twins.into_iter().map(|twin| twin.join().unwrap()).collect::<Vec<_>>()
    });
    let ids: Vec<Json> = twins.iter().map(|answer| answer.json()["id"].clone()).collect();
    assert!(ids.iter().all(|id| id.is_string() && *id == ids[0]), "{ids:?}");
    assert_eq!(twins.iter().filter(|answer| answer.header("idempotent-replayed") == "true").count(), 3);
    assert_eq!(sandbox.count("select count(*) from work"), 1);
}

#[test]
fn lists_are_filtered_to_the_millisecond() {
    let sandbox = Sandbox::new();
    let body = spec(&sandbox.corpus());
    let service = sandbox.serve_with(&["--roles", "api"], None);
    let jobs: Vec<Json> = (0..3)
        .map(|_| {
            let id = service.submit(&body);
            let job = service.job(&id);
            // The next one is later, to the millisecond.
            let created = sandbox.count(&format!("select created_ms from work where id = '{id}'"));
            until("another millisecond", || {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
                now.as_millis() as i64 > created
            });
            job
        })
        .collect();
    let middle = jobs[1]["created"].as_str().unwrap();
    let ids = |query: &str| -> Vec<Json> {
        let list = service.get(&format!("/v1/jobs?{query}")).json();
        list["jobs"].as_array().unwrap().iter().map(|job| job["id"].clone()).collect()
    };
    let id = |n: usize| jobs[n]["id"].clone();
    let table = [
        (format!("created_after={middle}"), vec![id(2), id(1)]),
        (format!("created_before={middle}"), vec![id(0)]),
        (format!("created_after={middle}&created_before={middle}"), vec![]),
        ("status=accepted".into(), vec![id(2), id(1), id(0)]),
        ("status=completed".into(), vec![]),
    ];
    for (query, expected) in table {
        assert_eq!(ids(&query), expected, "{query}");
    }
    let link = service.get(&format!("/v1/jobs?limit=1&created_after={middle}"));
    let next = link.header("link").strip_prefix('<').and_then(|link| link.split_once('>')).unwrap().0;
    assert_eq!(service.get(next).json()["jobs"][0]["id"], id(1), "the filter goes on behind the cursor");
}

#[test]
fn a_deep_body_and_a_hard_pattern_hold_up_nobody() {
    let sandbox = Sandbox::new();
    let service = sandbox.serve_with(&["--roles", "api"], None);
    let deep = format!("{}1{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let answer = service.post("/v1/jobs", &deep);
    assert_eq!((answer.status, answer.json()["type"].as_str()), (400, Some("/problems/invalid")));
    // Each takes a processor for long to compile; there are more of them than threads that answer.
    let patterns: Vec<Json> = (0..40)
        .map(|n| json!({ "name": format!("p{n}"), "regex": format!(r"[\p{{L}}--a]{{{}}}", 60 + n) }))
        .collect();
    let body = json!({ "patterns": patterns, "dataset": ["/tmp"] }).to_string();
    std::thread::scope(|scope| {
        let hard: Vec<_> = (0..8).map(|_| scope.spawn(|| service.post("/v1/jobs", &body))).collect();
        let mut answered = 0;
        until("the hard ones are answered", || {
            assert_eq!(service.get("/v1/jobs?limit=1").status, 200);
            answered += 1;
            hard.iter().all(|post| post.is_finished())
        });
        assert!(answered > 1);
    });
}
