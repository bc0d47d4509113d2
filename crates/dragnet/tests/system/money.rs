//! Plans, caps, budgets, the ledger and its audit, from outside.

use crate::harness::{Answer, Sandbox, Service, agent, answer, spec, until};
use dragnet_pattern::{Sql, Statement, Store, Tables};
use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

/// Prices at which these small datasets cost something: 7 millionths for 1,000 bytes.
fn rates(sandbox: &Sandbox, version: &str, price: u64) -> String {
    let text = format!(
        "version = '{version}'\ncurrency = 'EUR'\n[[meter]]\nname = 'input_bytes'\nunit = 'kB'\nper = 1000\nprice_micros = {price}\n\
         [[meter]]\nname = 'hits'\nunit = 'hit'\nper = 1\nprice_micros = 0\n"
    );
    sandbox.write(&format!("rates-{version}.toml"), text.as_bytes()).display().to_string()
}

fn cost(bytes: u64) -> u64 {
    (bytes * 7).div_ceil(1000)
}

/// A command of the operator on the sandbox's store.
fn operate(sandbox: &Sandbox, arguments: &[&str]) -> Output {
    let store = sandbox.store.as_deref().map_or(vec![], |store| vec!["--store", store]);
    sandbox.run(&[arguments, &store].concat())
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn must(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let output = operate(sandbox, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn get(service: &Service, path: &str, key: &str, accept: &str) -> Answer {
    let request = agent().get(format!("{}{path}", service.url)).header("Accept", accept);
    answer(request.header("Authorization", format!("Bearer {key}")).call()).unwrap()
}

fn post(service: &Service, path: &str, key: &str, body: &Json) -> Answer {
    let request = agent().post(format!("{}{path}", service.url)).header("Content-Type", "application/json");
    answer(request.header("Authorization", format!("Bearer {key}")).send(body.to_string())).unwrap()
}

fn end_of(service: &Service, key: &str, id: &str) -> Json {
    let mut job = Json::Null;
    until(&format!("job {id}"), || {
        job = get(service, &format!("/v1/jobs/{id}"), key, "*/*").json();
        !matches!(job["status"].as_str(), Some("accepted" | "running"))
    });
    job
}

fn this_month() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    dragnet_job::budget::month_of(now as i64)
}

fn size_of(folder: &Path) -> u64 {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn a_plan_that_takes_too_long_says_that_it_is_not_complete() {
    let sandbox = Sandbox::new();
    let service = sandbox.serve();
    // It takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = sandbox.write("data/a.txt", &[b'x'; 1000]);
    let url = format!("http://{}/a.warc.gz", silent.local_addr().unwrap());
    let spec = json!({ "patterns": [{ "regex": "x" }], "dataset": [file, url] });
    let answer = service.post("/v1/jobs?validate_only=true", &spec.to_string());
    let plan = answer.json();
    assert_eq!((answer.status, &plan["complete"]), (200, &json!(false)), "{plan}");
    let seen = ["objects", "objects_looked_at", "bytes"].map(|name| plan[name].as_u64());
    assert_eq!(seen, [Some(1), Some(1), Some(1000)], "what was listed before was looked at: {plan}");
    let shown = sandbox.run(&["plan", "--server", &service.url, "x", file.to_str().unwrap(), &url]);
    assert!(said(&shown).contains("there are more objects than these"), "{}", said(&shown));
}

#[test]
fn a_plan_says_what_the_job_then_reads_and_costs() {
    let sandbox = Sandbox::new();
    let data = sandbox.corpus();
    let service = sandbox.serve_with(&["--rates", &rates(&sandbox, "a", 7)], None);
    let rows: [(&str, Json); 4] = [
        ("all of it", json!({})),
        ("a limit on bytes", json!({ "input_bytes": 100_000 })),
        ("a limit on money", json!({ "cost_micros": 300 })),
        ("a limit on hits", json!({ "hits": 3 })),
    ];
    for (name, limits) in rows {
        let mut spec = spec(&data);
        spec["limits"] = limits;
        let jobs = sandbox.count("select count(*) from work");
        let answer = service.post("/v1/jobs?validate_only=true", &spec.to_string());
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
        let plan = answer.json();
        assert_eq!(plan["complete"], true, "{name}: {plan}");
        assert_eq!(
            (plan["objects"].as_u64(), plan["size"].as_u64()),
            (Some(2), Some(size_of(&data))),
            "{name}"
        );
        assert_eq!(sandbox.count("select count(*) from work"), jobs, "{name}: a plan is no job");
        let id = service.submit(&spec);
        let job = service.end_of(&id);
        let total = &job["progress"];
        assert_eq!(
            (&plan["bytes"], &plan["shards"]),
            (&total["bytes_total"], &total["shards_total"]),
            "{name}"
        );
        let price = plan["price"]["total_micros"].as_u64().unwrap();
        assert_eq!(price, cost(plan["bytes"].as_u64().unwrap()), "{name}");
        if job["cut_by"] == json!([]) {
            assert_eq!(job["cost_micros"].as_u64(), Some(price), "{name}: the bill is the plan's price");
        }
    }
    let about = service.post("/v1/jobs?validate_only=true", &spec(&data).to_string()).json();
    let records = about["records"].as_u64().unwrap();
    assert!((100..2000).contains(&records), "about 400 and a few: {records}");
    let missing = json!({ "patterns": [{ "regex": "x" }], "dataset": ["/nowhere/at/all"] });
    let answer = service.post("/v1/jobs?validate_only=true", &missing.to_string());
    assert_eq!(
        (answer.status, &answer.json()["type"]),
        (422, &json!("/problems/dataset")),
        "{}",
        answer.body
    );
    std::fs::create_dir(sandbox.path("one")).unwrap();
    std::os::unix::fs::symlink("/nowhere", sandbox.path("one/gone.warc")).unwrap();
    sandbox.write("one/page.txt", b"needle-1");
    let unread = service.post("/v1/jobs?validate_only=true", &spec(&sandbox.path("one")).to_string()).json();
    assert_eq!(unread["unreadable"], 1, "{unread}");
    assert_eq!(unread["unreadable_objects"][0]["reason"], "unreadable", "{unread}");
    let shown = sandbox.run(&["plan", "--server", &service.url, "x", &data.display().to_string()]);
    assert_eq!(shown.status.code(), Some(0), "{}", said(&shown));
    assert!(said(&shown).contains("objects     2\n") && said(&shown).contains("price "), "{}", said(&shown));
}

#[test]
fn a_limit_cuts_at_the_same_place_and_is_said() {
    let files = Sandbox::new();
    let data = files.corpus();
    let rows: [(&str, Json, Json); 6] = [
        ("bytes", json!({ "input_bytes": 90_000 }), json!(["bytes_cap"])),
        ("money", json!({ "cost_micros": 400 }), json!(["cost_cap"])),
        ("bytes before money", json!({ "input_bytes": 5_000, "cost_micros": 900 }), json!(["bytes_cap"])),
        ("hits", json!({ "hits": 17 }), json!(["hits_cap"])),
        ("bytes and hits", json!({ "input_bytes": 90_000, "hits": 5 }), json!(["hits_cap", "bytes_cap"])),
        ("none", json!({}), json!([])),
    ];
    for (name, limits, cut_by) in rows {
        let mut spec = spec(&data);
        spec["limits"] = limits;
        let results = ["1", "4"].map(|mappers| {
            let sandbox = Sandbox::new();
            let arguments = ["--mappers", mappers, "--rates", &rates(&sandbox, "a", 7)];
            let service = sandbox.serve_with(&arguments, None);
            let id = service.submit(&spec);
            let mut result = service.result(&id);
            result["cut_by"] = service.job(&id)["cut_by"].clone();
            result["cost"] = service.job(&id)["cost_micros"].clone();
            result
        });
        assert_eq!(results[0], results[1], "{name}: the same digest, bill and coverage");
        assert_eq!(results[0]["cut_by"], cut_by, "{name}");
        let most = spec["limits"]["cost_micros"].as_u64().unwrap_or(u64::MAX);
        assert!(results[0]["cost"].as_u64().unwrap() <= most, "{name}: {}", results[0]["cost"]);
        let status = if cut_by == json!([]) { "completed" } else { "completed_with_gaps" };
        assert_eq!(results[0]["status"], status, "{name}");
    }
    let many = files.write("one/page.txt", &b"needle-1 needle-2 needle-3\n".repeat(20));
    let mut spec = spec(many.parent().unwrap());
    spec["limits"] = json!({ "hits_per_record": 4 });
    let sandbox = Sandbox::new();
    let service = sandbox.serve();
    let id = service.submit(&spec);
    let job = service.end_of(&id);
    assert_eq!(
        (&job["cut_by"], &job["status"]),
        (&json!(["hits_cap"]), &json!("completed_with_gaps")),
        "{job}"
    );
    assert_eq!(job["progress"]["hits"], 4);
}

/// Where what is found has a price and no limit, nothing is started on a budget.
#[test]
fn a_job_that_could_pass_its_budget_is_not_launched() {
    let sandbox = Sandbox::new();
    let data = sandbox.corpus();
    must(&sandbox, &["tenant", "add", "acme", "--budget-micros", "1000000", "--dataset", "any"]);
    let key = must(&sandbox, &["key", "add", "acme"]);
    let priced = |meter: &str| {
        let text = format!(
            "version = '{meter}'\ncurrency = 'EUR'\n[[meter]]\nname = '{meter}'\nunit = 'one'\nper = 1\nprice_micros = 2\n"
        );
        sandbox.write(&format!("{meter}.toml"), text.as_bytes()).display().to_string()
    };
    let rows = [
        ("hits", json!({}), Some("give `limits.hits`")),
        ("hits", json!({ "hits": 3 }), None),
        ("records", json!({ "hits": 3 }), Some("`records` has a price")),
    ];
    for (meter, limits, refused) in rows {
        let service = sandbox.serve_with(&["--rates", &priced(meter)], None);
        let mut spec = spec(&data);
        spec["limits"] = limits;
        let plan = post(&service, "/v1/jobs?validate_only=true", &key, &spec);
        assert_eq!(plan.status, if refused.is_some() { 422 } else { 200 }, "{meter}: {}", plan.body);
        let answer = post(&service, "/v1/jobs", &key, &spec);
        let job = end_of(&service, &key, answer.json()["id"].as_str().unwrap());
        let Some(said) = refused else {
            assert_eq!((&job["cost_micros"], &job["cut_by"]), (&json!(6), &json!(["hits_cap"])), "{job}");
            continue;
        };
        assert_eq!(job["error"]["type"], "/problems/limits", "{job}");
        assert!(job["error"]["detail"].as_str().unwrap().contains(said), "{job}");
    }
}

#[test]
fn a_deadline_is_said() {
    let sandbox = Sandbox::new();
    let mut spec = spec(&sandbox.corpus());
    spec["limits"] = json!({ "deadline_s": 1 });
    let accepts = sandbox.serve_with(&["--roles", "api"], None);
    let id = accepts.submit(&spec);
    until("the deadline", || {
        sandbox.count("select count(*) from work where deadline_ms < unixepoch('subsec') * 1000") == 1
    });
    accepts.kill();
    let service = sandbox.serve();
    let job = service.end_of(&id);
    assert_eq!(job["cut_by"], json!(["deadline"]), "{job}");
}

#[test]
fn a_budget_is_never_passed() {
    never_passed(&Sandbox::new());
}

#[test]
fn a_budget_on_postgres_is_never_passed() {
    let Some(sandbox) = Sandbox::on_postgres() else { return };
    never_passed(&sandbox);
}

/// Two services launch jobs at once, and the budget has room for two of them and a half.
fn never_passed(sandbox: &Sandbox) {
    let files = Sandbox::new();
    let data = files.corpus();
    let one = cost(size_of(&data));
    let budget = (one * 5 / 2).to_string();
    must(sandbox, &["tenant", "add", "acme", "--budget-micros", &budget, "--dataset", "any"]);
    let key = must(sandbox, &["key", "add", "acme"]);
    let rates = rates(sandbox, "a", 7);
    let services = [(); 2].map(|()| sandbox.serve_with(&["--rates", &rates], None));
    let service = &services[0];
    let ids: Vec<String> = (0..8)
        .map(|n| {
            let answer = post(&services[n % 2], "/v1/jobs", &key, &spec(&data));
            assert_eq!(answer.status, 202, "what is only reserved refuses nobody: {}", answer.body);
            answer.json()["id"].as_str().unwrap().to_owned()
        })
        .collect();
    let jobs: Vec<Json> = ids.iter().map(|id| end_of(service, &key, id)).collect();
    let done: Vec<&Json> = jobs.iter().filter(|job| job["status"] == "completed").collect();
    assert_eq!(done.len(), 2, "{jobs:?}");
    for job in jobs.iter().filter(|job| job["status"] != "completed") {
        assert_eq!(
            (&job["status"], &job["error"]["type"]),
            (&json!("failed"), &json!("/problems/budget")),
            "{job}"
        );
        let left = job["error"]["left_micros"].as_u64().unwrap();
        assert!(left < one && job["error"]["detail"].as_str().unwrap().contains(&left.to_string()), "{job}");
        assert_eq!(job["cost_micros"], 0, "and costs nothing");
    }
    let sum =
        |column: &str| sandbox.count(&format!("select {column} from budget where tenant = 'acme'")) as u64;
    assert_eq!((sum("reserved_micros"), sum("spent_micros")), (0, 2 * one));

    // What is left can be had by a job that limits itself, and then nothing is certain but that it is spent.
    let mut small = spec(&data);
    small["limits"] = json!({ "cost_micros": budget.parse::<u64>().unwrap() - 2 * one });
    let plan = post(service, "/v1/jobs?validate_only=true", &key, &small).json();
    assert_eq!(plan["budget_left_micros"], small["limits"]["cost_micros"], "{plan}");
    let answer = post(service, "/v1/jobs", &key, &small);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(end_of(service, &key, &id)["cut_by"], json!(["cost_cap"]));
    until("the last of it", || sum("reserved_micros") == 0);
    let (spent, budget) = (sum("spent_micros"), budget.parse::<u64>().unwrap());
    assert_eq!(spent, budget, "what the limit let through of the last record is not billed");
    let refused = post(service, "/v1/jobs", &key, &spec(&data));
    assert_eq!((refused.status, &refused.json()["type"]), (402, &json!("/problems/budget-spent")));
    let audit = operate(sandbox, &["audit"]);
    assert!(audit.status.success(), "{}", said(&audit));

    // A correction gives the budget back.
    let id = done[0]["id"].as_str().unwrap();
    must(sandbox, &["ledger", "reverse", id, "--reason", "it was ours"]);
    assert_eq!(sum("spent_micros"), spent - one);
    assert_eq!(get(service, &format!("/v1/jobs/{id}"), &key, "*/*").json()["cost_micros"], 0);
    let again = operate(sandbox, &["ledger", "reverse", id, "--reason", "twice"]);
    assert!(!again.status.success() && said(&again).contains("not reversed"), "{}", said(&again));
    let audit = operate(sandbox, &["audit"]);
    assert!(audit.status.success(), "{}", said(&audit));
    small["limits"] = json!({ "cost_micros": budget - (spent - one) });
    let answer = post(service, "/v1/jobs", &key, &small);
    assert_eq!(answer.status, 202, "there is room again: {}", answer.body);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(end_of(service, &key, &id)["error"], Json::Null);

    // The invoice has all of it, and another tenant's has none.
    let month = this_month();
    let path = format!("/v1/invoices/{month}");
    let invoice = get(service, &path, &key, "application/json").json();
    assert_eq!(invoice["totals_micros"]["EUR"].as_u64(), Some(sum("spent_micros")), "{invoice}");
    let reversed: Vec<&Json> =
        invoice["lines"].as_array().unwrap().iter().filter(|line| !line["reverses"].is_null()).collect();
    assert_eq!(reversed.len(), 2, "{invoice}");
    assert_eq!(reversed[0]["reason"], "it was ours");
    let printed: Json = serde_json::from_str(&must(sandbox, &["invoice", "acme", &month])).unwrap();
    assert_eq!(printed, invoice);
    let csv = get(service, &path, &key, "text/csv").body;
    assert_eq!(csv.lines().count(), invoice["lines"].as_array().unwrap().len() + 1, "{csv}");
    assert_eq!(must(sandbox, &["invoice", "acme", &month, "--format", "csv"]), csv.trim());
    let page = get(service, &path, &key, "text/html");
    assert!(page.header("content-security-policy").contains("default-src 'none'"), "{:?}", page.headers);
    assert!(page.body.contains("<h1>Invoice acme-") && !page.body.contains("<script"), "{}", page.body);
    must(sandbox, &["tenant", "add", "other", "--dataset", "any"]);
    let other = must(sandbox, &["key", "add", "other"]);
    assert_eq!(get(service, &path, &other, "application/json").json()["lines"], json!([]));
    let reader = must(sandbox, &["key", "add", "acme", "--scopes", "read"]);
    assert_eq!(
        get(service, &path, &reader, "application/json").status,
        403,
        "an invoice needs the scope `bill`"
    );
    assert_eq!(get(service, "/v1/invoices/2026-13", &key, "*/*").status, 400);
}

#[test]
fn a_job_that_is_cancelled_gives_back_what_it_held() {
    let sandbox = Sandbox::new();
    let data = sandbox.corpus();
    let arguments = ["--rates", &rates(&sandbox, "a", 7)];
    let launches = sandbox.serve_with(&[&arguments[..], &["--roles", "api,launch"]].concat(), None);
    let id = launches.submit(&spec(&data));
    launches.job_when(&id, |job| job["stage"] == "monitor");
    let held = "select reserved_micros from budget";
    assert_eq!(sandbox.count(held) as u64, cost(size_of(&data)));
    launches.post(&format!("/v1/jobs/{id}:cancel"), "");
    launches.kill();
    let service = sandbox.serve_with(&arguments, None);
    let job = service.end_of(&id);
    assert_eq!((&job["status"], sandbox.count(held)), (&json!("cancelled"), 0), "{job}");
    assert_eq!(sandbox.count("select spent_micros from budget"), job["cost_micros"].as_i64().unwrap());
}

#[test]
fn a_job_keeps_the_rates_that_it_was_launched_with() {
    let sandbox = Sandbox::new();
    let data = sandbox.corpus();
    let (before, after) = (rates(&sandbox, "before", 7), rates(&sandbox, "after", 900));
    let launches = sandbox.serve_with(&["--rates", &before, "--roles", "api,launch"], None);
    let id = launches.submit(&spec(&data));
    launches.job_when(&id, |job| job["stage"] == "monitor");
    launches.kill();
    let service = sandbox.serve_with(&["--rates", &after], None);
    service.end_of(&id);
    let bill = service.get(&format!("/v1/jobs/{id}/bill")).json();
    assert_eq!(
        (&bill["rates_version"], bill["total_micros"].as_u64()),
        (&json!("before"), Some(cost(size_of(&data))))
    );
    let next = service.submit(&spec(&data));
    service.end_of(&next);
    assert_eq!(service.get(&format!("/v1/jobs/{next}/bill")).json()["rates_version"], "after");
    assert!(operate(&sandbox, &["audit"]).status.success());
}

/// Bodies and their media types.
type Received = Arc<Mutex<Vec<(String, Json)>>>;

/// A receiver of events that refuses the first request, and keeps what it then gets.
fn receiver() -> (String, Received) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let got = Arc::new(Mutex::new(Vec::new()));
    let kept = got.clone();
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut length, mut media) = (0, String::new());
            for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
                let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = value.parse().unwrap(),
                    "content-type" => media = value.to_owned(),
                    _ => {}
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let status = if n == 0 { "503 Service Unavailable" } else { "204 No Content" };
            if n > 0 {
                kept.lock().unwrap().push((media, serde_json::from_slice(&body).unwrap()));
            }
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        }
    });
    (url, got)
}

#[test]
fn usage_arrives_at_least_once_under_the_same_ids() {
    let sandbox = Sandbox::new();
    let data = sandbox.corpus();
    let service = sandbox.serve();
    let ids: Vec<String> = (0..2).map(|_| service.submit(&spec(&data))).collect();
    ids.iter().for_each(|id| drop(service.end_of(id)));
    let file = sandbox.path("usage.jsonl").display().to_string();
    let cursor = must(&sandbox, &["usage", "export", "--out", &file]);
    let events = || -> Vec<Json> {
        std::fs::read_to_string(&file)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let first = events();
    assert_eq!(first.len(), 6, "three meters of two jobs");
    for id in &ids {
        for meter in ["input_bytes", "records", "hits"] {
            let id = format!("{id}/{meter}/1");
            assert_eq!(first.iter().filter(|event| event["id"] == *id).count(), 1, "{id}");
        }
    }
    assert_eq!(must(&sandbox, &["usage", "export", "--out", &file, "--since", &cursor]), cursor);
    assert_eq!(events().len(), 6, "nothing is new");
    assert_eq!(must(&sandbox, &["usage", "export", "--out", &file, "--since", "0"]), cursor);
    assert_eq!(events()[6..], first, "the same again, to the letter");
    let torn = std::fs::read_to_string(&file).unwrap() + "{\"specversion\":";
    std::fs::write(&file, torn).unwrap();
    must(&sandbox, &["usage", "export", "--out", &file, "--since", "0"]);
    assert_eq!(events()[12..], first, "a line that was not written to its end is gone");

    let (url, got) = receiver();
    let kept = sandbox.path("cursor").display().to_string();
    assert_eq!(must(&sandbox, &["usage", "export", "--to", &url, "--cursor-file", &kept]), cursor);
    {
        let got = got.lock().unwrap();
        let (media, batch) = &got[0];
        assert_eq!((got.len(), media.as_str()), (1, "application/cloudevents-batch+json"));
        assert_eq!(*batch, json!(first));
        for event in batch.as_array().unwrap() {
            for attribute in ["specversion", "id", "source", "type", "time", "subject"] {
                assert!(event[attribute].is_string(), "{attribute}: {event}");
            }
        }
    }
    service.end_of(&service.submit(&spec(&data)));
    must(&sandbox, &["usage", "export", "--to", &url, "--cursor-file", &kept]);
    assert_eq!(got.lock().unwrap()[1].1.as_array().unwrap().len(), 3, "only what is new");
    let page = service.get(&format!("/v1/usage?cursor={cursor}")).json();
    assert_eq!(page["events"], got.lock().unwrap()[1].1);
    let (line, mark) = cursor.split_once('-').unwrap();
    // As after a restore: the number is another line's, or nobody's yet.
    let others =
        [format!("{line}-{:08x}", !u32::from_str_radix(mark, 16).unwrap()), format!("9{line}-{mark}")];
    for other in others {
        let refused = operate(&sandbox, &["usage", "export", "--to", &url, "--since", &other]);
        assert!(
            !refused.status.success() && said(&refused).contains("of another ledger"),
            "{}",
            said(&refused)
        );
        assert_eq!(service.get(&format!("/v1/usage?cursor={other}")).status, 409);
    }
    std::fs::write(sandbox.path("cursor"), "soon").unwrap();
    let refused = operate(&sandbox, &["usage", "export", "--to", &url, "--cursor-file", &kept]);
    assert!(!refused.status.success() && said(&refused).contains("holds no cursor"), "{}", said(&refused));
}

/// Rows of the ledger are never changed, so who changes them has to drop the triggers first.
const UNLOCK: &str = "drop trigger ledger_no_update; drop trigger ledger_no_delete; \
                      drop trigger posting_no_update; drop trigger posting_no_delete;";

#[test]
fn an_audit_finds_what_was_tampered_with() {
    let sandbox = Sandbox::new();
    let data = sandbox.corpus();
    // A part of its own: more hits than stand in a record.
    let many: Vec<u8> = (0..2000).flat_map(|n| format!("needle-{n} and more text\n").into_bytes()).collect();
    sandbox.write("data/many.txt", &many);
    let service = sandbox.serve_with(&["--rates", &rates(&sandbox, "a", 7)], None);
    let id = service.submit(&spec(&data));
    service.end_of(&id);
    must(&sandbox, &["ledger", "reverse", &id, "--reason", "a test"]);
    let id = service.submit(&spec(&data));
    service.end_of(&id);
    service.kill();
    let audit = operate(&sandbox, &["audit", "--json"]);
    assert!(audit.status.success(), "{}", said(&audit));
    let found: Json = serde_json::from_slice(&audit.stdout).unwrap();
    assert_eq!((&found["lines"], &found["jobs"]), (&json!(6), &json!(2)), "{found}");

    let change = |sql: &str| sandbox.db().execute_batch(sql).unwrap_err().to_string();
    for sql in
        ["update ledger set amount_micros = 0", "delete from ledger", "update posting set account = 'x'"]
    {
        assert!(change(sql).contains("append-only"), "{sql}");
    }
    let rows = [
        ("a line's amount", "update ledger set amount_micros = 1 where id = 5", "line 5 comes to"),
        ("a line's quantity", "update ledger set quantity = quantity + 1 where id = 5", "its seal has"),
        ("a line is lost", "delete from ledger where id = 6", "its head says 6"),
        ("the last job's lines are lost", "delete from ledger where id > 4", "has no line in the ledger"),
        (
            "a posting",
            "update posting set amount_micros = 5 where ledger_id = 5 and account like 'tenant/%'",
            "postings of line 5",
        ),
        (
            "a posting's account",
            "update posting set account = 'revenue/other' where ledger_id = 5 and account like 'revenue/%'",
            "postings of line 5",
        ),
        (
            "a posting without a line",
            "insert into posting values (99, 'tenant/default', 5)",
            "has no line 99",
        ),
        (
            "what a reversal takes back",
            "update ledger set reverses = 5 where id = 3",
            "line 3 does not take back line 5",
        ),
        ("rates", "update rates set rates = replace(rates, ':7', ':8')", "by its rates a line"),
        ("a reservation", "update reservation set settled_micros = 1", "what it reserved was settled with 1"),
        ("a budget", "update budget set spent_micros = spent_micros + 1", "and its jobs"),
        ("a budget is lost", "delete from budget", "it has gone"),
        (
            "another tenant's bill",
            "update ledger set tenant = 'b' where id = 5; \
             update posting set account = 'tenant/b' where ledger_id = 5 and account like 'tenant/%'",
            "line 5 is billed to `b`",
        ),
        ("a currency", "update ledger set currency = 'XXX' where id = 5", "line 5 is in XXX"),
        (
            "the seal's hash",
            "update controller set metrics = replace(metrics, 'manifest_sha256\":\"', 'manifest_sha256\":\"0') where name = 'monitor'",
            "its seal is not the one",
        ),
    ];
    let finds = |name: &str, said_of: &str| {
        let audit = operate(&sandbox, &["audit"]);
        assert_eq!(audit.status.code(), Some(1), "{name}: {}", said(&audit));
        assert!(said(&audit).contains(said_of), "{name}: {}", said(&audit));
    };
    let database = sandbox.state().join("dragnet.db");
    sandbox.db().execute_batch("pragma wal_checkpoint(truncate)").unwrap();
    let sound = std::fs::read(&database).unwrap();
    let restore = || {
        for beside in ["dragnet.db-wal", "dragnet.db-shm"] {
            let _ = std::fs::remove_file(sandbox.state().join(beside));
        }
        std::fs::write(&database, &sound).unwrap();
    };
    for (name, sql, said_of) in rows {
        sandbox.db().execute_batch(&format!("{UNLOCK} {sql};")).unwrap();
        finds(name, said_of);
        restore();
    }

    let output = sandbox.output(&id);
    let manifest: Json =
        serde_json::from_slice(&std::fs::read(output.join("manifest.json")).unwrap()).unwrap();
    let (part, record) = (manifest["parts"][0].as_str().unwrap(), manifest["records"][0].as_str().unwrap());
    let text = |from: &'static str, to: &'static str| {
        move |bytes: &[u8]| String::from_utf8_lossy(bytes).replacen(from, to, 1).into_bytes()
    };
    type Change = Box<dyn Fn(&[u8]) -> Vec<u8>>;
    let files: [(&str, &str, Change, &str); 4] = [
        ("a hit", part, Box::new(text("needle-17", "needle-18")), "are not those that it committed"),
        (
            "a hit is lost",
            part,
            Box::new(|bytes| bytes[bytes.iter().position(|b| *b == b'\n').unwrap() + 1..].to_vec()),
            "are not those that it committed",
        ),
        ("a record's bytes", record, Box::new(text("\"read\":", "\"read\":1")), "and its commit records"),
        ("the seal", "manifest.json", Box::new(text("\"hits\":", "\"hits\":1")), "its seal is not the one"),
    ];
    for (name, file, change, said_of) in files {
        let path = output.join(file);
        let sound = std::fs::read(&path).unwrap();
        std::fs::write(&path, change(&sound)).unwrap();
        finds(name, said_of);
        std::fs::write(&path, sound).unwrap();
    }
    let path = output.join(record);
    let sound = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    finds("a commit record is lost", "has gone");
    std::fs::write(&path, sound).unwrap();
    assert!(operate(&sandbox, &["audit"]).status.success(), "all is as it was");
}

/// The grep system's tables as the first version had them.
const FIRST: &[Tables] = &[Tables { name: "grep", versions: FIRST_VERSIONS }];
const FIRST_VERSIONS: &[Sql] = dragnet_job::TABLES.versions.split_at(1).0;

#[test]
fn a_ledger_of_the_first_version_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dragnet.db");
    goes_on(&|tables| Arc::new(dragnet_pattern::sqlite::open(&file, dragnet_job::MACHINES, tables).unwrap()));
}

#[cfg(feature = "postgres")]
#[test]
fn a_ledger_of_the_first_version_goes_on_in_postgres() {
    let Some(sandbox) = Sandbox::on_postgres() else { return };
    let url = sandbox.store.unwrap();
    goes_on(&|tables| {
        Arc::new(dragnet_pattern::postgres::open(&url, dragnet_job::MACHINES, tables).unwrap())
    });
}

fn goes_on(open: &dyn Fn(&[Tables]) -> Arc<dyn Store>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let line = |job: &str| {
        let sql = "insert into ledger (tenant, work_id, meter, seq, quantity, unit, price_micros, amount_micros, currency, \
                   rates_version, at_ms) values ('t', ?1, 'hits', 1, 3, 'million', 5, 15, 'EUR', '1', 0)";
        Statement::new(sql, vec![job.into()])
    };
    let store = open(FIRST);
    runtime.block_on(store.write(vec![line("a"), line("b")])).unwrap();
    drop(store);
    let store = open(&[dragnet_job::TABLES]);
    let bill = runtime.block_on(dragnet_job::bill::of(&*store, "t", "b")).unwrap();
    assert_eq!((bill.total_micros, bill.lines.len()), (15, 1));
    let reversed = dragnet_job::ledger::reverse(&*store, "a", "a test", 1, &|_| Vec::new());
    let reversed = runtime.block_on(reversed).unwrap();
    assert_eq!((reversed[0].id, reversed[0].reverses), (3, Some(1)), "its numbers go on");
    let audit = runtime.block_on(dragnet_job::audit::audit(&*store)).unwrap();
    assert_eq!((audit.lines, audit.forgotten, audit.disagreements.len()), (3, 2, 0), "{audit:?}");
    let refused = runtime.block_on(store.write(vec![Statement::new("delete from ledger", Vec::new())]));
    assert!(refused.unwrap_err().to_string().contains("append-only"));
}
