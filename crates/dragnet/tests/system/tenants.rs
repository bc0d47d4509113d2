//! Tenants, keys, quotas and the audit log, from outside.

use crate::harness::{Answer, Sandbox, Service, agent, answer, spec, until};
use dragnet_api::routes::{ROUTES, Route};
use dragnet_tenant::keys::Scope;
use rustix::process::Signal;
use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Output;
use std::time::Duration;

/// What a command of the operator says, which must succeed.
fn operate(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let store = sandbox.store.as_deref().map_or(vec![], |store| vec!["--store", store]);
    let done = sandbox.run(&[arguments, &store].concat());
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{arguments:?}: {said}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

fn tenant(sandbox: &Sandbox, name: &str, limits: &[&str]) {
    operate(sandbox, &[&["tenant", "add", name, "--dataset", "any"], limits].concat());
}

/// A new key of a tenant.
fn key(sandbox: &Sandbox, tenant: &str, more: &[&str]) -> String {
    operate(sandbox, &[&["key", "add", tenant], more].concat())
}

/// The public part of a key.
fn public(key: &str) -> &str {
    key.rsplit_once('_').unwrap().0
}

/// A request with this `Authorization`.
fn ask(service: &Service, method: &str, path: &str, authorization: Option<&str>, body: &str) -> Answer {
    let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", service.url));
    if let Some(authorization) = authorization {
        request = request.header("Authorization", authorization);
    }
    let request = request.header("Content-Type", "application/json");
    match body {
        "" => answer(agent().run(request.body(()).unwrap())).unwrap(),
        _ => answer(agent().run(request.body(body.to_owned()).unwrap())).unwrap(),
    }
}

fn get(service: &Service, path: &str, key: &str) -> Answer {
    answer(
        agent().get(format!("{}{path}", service.url)).header("Authorization", format!("Bearer {key}")).call(),
    )
    .unwrap()
}

fn post(service: &Service, path: &str, key: &str, body: &str) -> Answer {
    let request = agent()
        .post(format!("{}{path}", service.url))
        .header("Authorization", format!("Bearer {key}"))
        .header("Content-Type", "application/json");
    answer(request.send(body)).unwrap()
}

fn submit(service: &Service, key: &str, spec: &Json) -> String {
    let answer = post(service, "/v1/jobs", key, &spec.to_string());
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.json()["id"].as_str().unwrap().to_owned()
}

fn job_when(service: &Service, key: &str, id: &str, mut is: impl FnMut(&Json) -> bool) -> Json {
    let mut job = Json::Null;
    until(&format!("job {id}"), || {
        job = get(service, &format!("/v1/jobs/{id}"), key).json();
        is(&job)
    });
    job
}

fn has_ended(job: &Json) -> bool {
    !matches!(job["status"].as_str(), Some("accepted" | "running"))
}

/// A small job that takes no time.
fn small(sandbox: &Sandbox) -> Json {
    let text = sandbox.write("data/a.txt", b"one needle-1 here");
    json!({ "patterns": [{ "name": "n", "regex": "needle-[0-9]" }], "dataset": [text] })
}

#[test]
fn without_tenants_this_machine_alone_needs_no_key() {
    let sandbox = Sandbox::new();
    let service = sandbox.serve();
    assert!(service.said().contains("needs no key"), "{}", service.said());
    let with = |name: &str, value: &str| {
        let asked = agent().get(format!("{}/v1/jobs", service.url)).header(name, value).call();
        answer(asked).unwrap()
    };
    assert_eq!(service.get("/v1/jobs").status, 200);
    let table = [
        ("Host", "localhost", 200),
        ("Host", "rebound.example:7070", 403),
        ("Origin", "http://127.0.0.1:1", 200),
        ("Origin", "https://other.example", 403),
        ("Authorization", "Bearer whatever", 200),
    ];
    for (name, value, status) in table {
        let answer = with(name, value);
        assert_eq!(answer.status, status, "{name}: {value}: {}", answer.body);
    }
    tenant(&sandbox, "acme", &[]);
    until("keys to be asked for", || service.get("/v1/jobs").status == 401);
    let key = key(&sandbox, "acme", &[]);
    assert_eq!(get(&service, "/v1/jobs", &key).status, 200);
}

#[test]
fn a_key_is_taken_or_refused_as_bearer_tokens_are() {
    let sandbox = Sandbox::new();
    tenant(&sandbox, "acme", &[]);
    let good = key(&sandbox, "acme", &["--scopes", "read"]);
    let revoked = key(&sandbox, "acme", &[]);
    operate(&sandbox, &["key", "revoke", public(&revoked)]);
    let expired = key(&sandbox, "acme", &["--expires-days", "1"]);
    sandbox.db().execute("update api_key set expires_ms = 1 where id = ?1", [public(&expired)]).unwrap();
    let mut mistyped = good.clone();
    mistyped.replace_range(20..21, if &good[20..21] == "x" { "y" } else { "x" });
    let other = Sandbox::new();
    tenant(&other, "acme", &[]);
    let unknown = key(&other, "acme", &[]);
    let service = sandbox.serve();
    let bearer = |key: &str| format!("Bearer {key}");
    let table: [(&str, Option<String>, u16, &str); 11] = [
        ("no key", None, 401, ""),
        ("a good key", Some(bearer(&good)), 200, ""),
        ("another case of the scheme", Some(format!("bearer {good}")), 200, ""),
        ("another scheme", Some("Basic YTpi".into()), 401, "invalid_token"),
        ("nothing behind the scheme", Some("Bearer".into()), 401, "invalid_token"),
        ("what is no key", Some(bearer("abc")), 401, "invalid_token"),
        ("a mistyped key", Some(bearer(&mistyped)), 401, "invalid_token"),
        ("a key that is cut off", Some(bearer(&good[..40])), 401, "invalid_token"),
        ("a key of another service", Some(bearer(&unknown)), 401, "invalid_token"),
        ("a revoked key", Some(bearer(&revoked)), 401, "invalid_token"),
        ("an expired key", Some(bearer(&expired)), 401, "invalid_token"),
    ];
    for (name, authorization, status, error) in table {
        let answer = ask(&service, "GET", "/v1/jobs", authorization.as_deref(), "");
        assert_eq!(answer.status, status, "{name}: {}", answer.body);
        let challenge = answer.header("www-authenticate");
        assert_eq!(challenge.starts_with("Bearer realm="), status == 401, "{name}: {challenge}");
        let stated = challenge.split("error=\"").nth(1).and_then(|rest| rest.split('"').next());
        assert_eq!(stated.unwrap_or_default(), error, "{name}: {challenge}");
        for key in [&good, &mistyped, &unknown, &revoked, &expired] {
            assert!(
                !answer.body.contains(&key[16..]) && !challenge.contains(&key[16..]),
                "{name} says a key"
            );
        }
    }
    let refused = ask(&service, "POST", "/v1/jobs", Some(&bearer(&good)), "{}");
    assert_eq!(
        (refused.status, refused.json()["type"].as_str()),
        (403, Some("/problems/insufficient-scope"))
    );
    assert!(refused.header("www-authenticate").contains("scope=\"submit\""), "{:?}", refused.headers);
}

/// The old and the new one are taken for a while; then the old one ends, and so does one that is revoked.
#[test]
fn keys_change_over_and_end_soon() {
    let sandbox = Sandbox::new();
    tenant(&sandbox, "acme", &[]);
    let first = key(&sandbox, "acme", &["--label", "nightly", "--scopes", "read,submit"]);
    let service = sandbox.serve();
    let status = |key: &str| get(&service, "/v1/jobs", key).status;
    let second = operate(&sandbox, &["key", "rotate", public(&first), "--overlap-hours", "1"]);
    assert_eq!((status(&first), status(&second)), (200, 200));
    let third = operate(&sandbox, &["key", "rotate", public(&second), "--overlap-hours", "0"]);
    until("the old key's end", || status(&second) == 401);
    assert_eq!((status(&first), status(&third)), (200, 200), "the first one's hour is not over");
    operate(&sandbox, &["key", "revoke", public(&third)]);
    until("the revoked key's end", || status(&third) == 401);
    let again = sandbox.run(&["key", "rotate", public(&third)]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("has ended"), "{again:?}");
    let listed: Json = serde_json::from_str(&operate(&sandbox, &["key", "list", "acme", "--json"])).unwrap();
    let row = |n: usize, name: &str| listed[n][name].as_str().unwrap_or_default().to_owned();
    assert_eq!((row(1, "replaces").as_str(), row(2, "replaces").as_str()), (public(&first), public(&second)));
    assert_eq!((row(2, "label").as_str(), &listed[2]["scopes"]), ("nightly", &json!(["submit", "read"])));
    // The first was to live for ever, and its end is the rotation's: a second successor lives for ever, too.
    let fourth = operate(&sandbox, &["key", "rotate", public(&first), "--overlap-hours", "1"]);
    let unused = key(&sandbox, "acme", &[]);
    let keys = || -> Vec<Json> {
        serde_json::from_str(&operate(&sandbox, &["key", "list", "acme", "--json"])).unwrap()
    };
    let of = |key: &str, name: &str| {
        keys().into_iter().find(|row| row["id"] == public(key)).unwrap()[name].clone()
    };
    assert_eq!(of(&fourth, "expires_ms"), Json::Null);
    until("its use is noted", || of(&first, "used_ms").is_i64());
    assert_eq!(of(&unused, "used_ms"), Json::Null);
}

/// Its keys end, its jobs are cancelled, and nobody else gets its name, in which they stand.
#[test]
fn a_tenant_that_is_removed_leaves_its_jobs_and_its_name() {
    let sandbox = Sandbox::new();
    let data = sandbox.corpus();
    tenant(&sandbox, "gone", &["--jobs-running", "0"]);
    tenant(&sandbox, "other", &[]);
    let (gone, other) = (key(&sandbox, "gone", &[]), key(&sandbox, "other", &[]));
    let service = sandbox.serve();
    let id = submit(&service, &gone, &spec(&data));
    operate(&sandbox, &["tenant", "remove", "gone"]);
    until("its key's end", || get(&service, "/v1/jobs", &gone).status == 401);
    assert_eq!(get(&service, "/v1/jobs", &other).status, 200);
    until("its job's end", || {
        let status = sandbox.run(&["status", &id, "--tenant", "gone"]);
        String::from_utf8_lossy(&status.stdout).contains("cancelled")
    });
    for refused in [
        &["tenant", "add", "gone"][..],
        &["tenant", "set", "gone", "--jobs-open", "1"],
        &["tenant", "remove", "gone"],
        &["key", "add", "gone"],
    ] {
        let refused = sandbox.run(refused);
        assert!(String::from_utf8_lossy(&refused.stderr).contains("its name is kept"), "{refused:?}");
    }
    assert!(operate(&sandbox, &["tenant", "list"]).contains("removed 2"));
}

#[test]
fn other_machines_are_served_with_keys_alone() {
    let sandbox = Sandbox::new();
    let refused = |sandbox: &Sandbox| {
        let done: Output = sandbox.run(&["serve", "--listen", "0.0.0.0:0"]);
        assert_eq!(done.status.code(), Some(2));
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    assert!(refused(&sandbox).contains("dragnet tenant add"));
    tenant(&sandbox, "acme", &[]);
    assert!(refused(&sandbox).contains("dragnet key add"));
    let key = key(&sandbox, "acme", &[]);
    let mut service = sandbox.serve_with(&["--listen", "0.0.0.0:0"], None);
    service.url = service.url.replace("0.0.0.0", "127.0.0.1");
    assert_eq!(ask(&service, "GET", "/v1/jobs", None, "").status, 401);
    assert_eq!(get(&service, "/v1/jobs", &key).status, 200);
}

#[test]
fn names_of_tenants_are_safe_in_paths() {
    let sandbox = Sandbox::new();
    let long = "a".repeat(64);
    for name in ["", "A", "a/b", "..", "a.b", "1a", "-a", "a b", "a%2fb", "ä", &long] {
        let done = sandbox.run(&["tenant", "add", "--", name]);
        assert_eq!(done.status.code(), Some(2), "`{name}` was taken");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(said.contains("can't be a tenant's name"), "`{name}`: {said}");
    }
    tenant(&sandbox, "a-1", &[]);
    let twice = sandbox.run(&["tenant", "add", "a-1"]);
    assert!(String::from_utf8_lossy(&twice.stderr).contains("there is a tenant `a-1` already"), "{twice:?}");
    let nobody = sandbox.run(&["key", "add", "b"]);
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no tenant `b`"), "{nobody:?}");
}

#[test]
fn a_tenant_sees_its_own_jobs_alone() {
    let sandbox = Sandbox::new();
    for name in ["acme", "globex"] {
        tenant(&sandbox, name, &[]);
    }
    let (acme, globex) = (key(&sandbox, "acme", &[]), key(&sandbox, "globex", &[]));
    let service = sandbox.serve();
    let spec = spec(&sandbox.corpus());
    let id = submit(&service, &acme, &spec);
    assert_eq!(job_when(&service, &acme, &id, has_ended)["tenant"], "acme");
    let list = |key: &str| get(&service, "/v1/jobs", key).json()["jobs"].as_array().unwrap().len();
    assert_eq!((list(&acme), list(&globex)), (1, 0));
    assert!(sandbox.state().join("output/acme").join(&id).join("plan.json").is_file());
    // The same key of a request is another request of another tenant.
    let with_key = |key: &str| {
        let request = agent()
            .post(format!("{}/v1/jobs", service.url))
            .header("Authorization", format!("Bearer {key}"))
            .header("Content-Type", "application/json")
            .header("Idempotency-Key", "same");
        answer(request.send(spec.to_string())).unwrap().json()["id"].clone()
    };
    assert_eq!(with_key(&acme), with_key(&acme));
    let theirs = with_key(&globex);
    assert_ne!(with_key(&acme), theirs);
    // Both of acme's jobs are older, and stand behind this one.
    let page = get(&service, &format!("/v1/jobs?cursor={}", theirs.as_str().unwrap()), &globex);
    assert_eq!(page.json()["jobs"], json!([]), "{}", page.body);
}

/// One after the other, where two processes and sixteen steps at once would like to run all of them.
fn so_many_jobs_run_at_once(sandbox: &Sandbox) {
    tenant(sandbox, "acme", &["--jobs-running", "1"]);
    let key = key(sandbox, "acme", &["--scopes", "submit,read,cancel"]);
    let first = sandbox.serve();
    let _second = sandbox.serve();
    let spec = small(sandbox);
    let long = {
        let mut long = crate::harness::spec(&sandbox.corpus());
        long["shard_bytes"] = json!(2_000);
        long
    };
    let holder = submit(&first, &key, &long);
    let ids: Vec<String> = (0..8).map(|_| submit(&first, &key, &spec)).collect();
    let waits = |job: &Json| job["controllers"]["launch"]["metrics"]["waits_for"] == "quota";
    let seen = job_when(&first, &key, &ids[7], |job| waits(job) || has_ended(job));
    assert!(has_ended(&seen) || seen["controllers"]["launch"]["metrics"]["jobs_running_max"] == 1, "{seen}");
    let mut most = 0;
    for id in ids.iter().chain([&holder]) {
        job_when(&first, &key, id, |job| {
            most = most.max(sandbox.count("select count(*) from work where stage = 'monitor'"));
            has_ended(job)
        });
    }
    assert_eq!(most, 1);
    for id in &ids {
        assert_eq!(get(&first, &format!("/v1/jobs/{id}"), &key).json()["status"], "completed");
    }
    until("all slots to be given back", || sandbox.count("select count(*) from job_slot") == 0);
}

#[test]
fn so_many_jobs_run_at_once_on_sqlite() {
    so_many_jobs_run_at_once(&Sandbox::new());
}

#[test]
fn so_many_jobs_run_at_once_on_postgres() {
    let Some(sandbox) = Sandbox::on_postgres() else { return };
    so_many_jobs_run_at_once(&sandbox);
}

/// Whatever comes at once, and to whichever process.
#[test]
fn no_more_jobs_are_open_than_may_be_on_postgres() {
    let Some(sandbox) = Sandbox::on_postgres() else { return };
    let spec = small(&sandbox).to_string();
    let services = [(); 3].map(|()| sandbox.serve_with(&["--roles", "api"], None));
    for round in 0..5 {
        let name = format!("t{round}");
        tenant(&sandbox, &name, &["--jobs-open", "10"]);
        let key = key(&sandbox, &name, &[]);
        let posts = |n: usize| {
            (0..4).filter(|_| post(&services[n % 3], "/v1/jobs", &key, &spec).status == 202).count()
        };
        let taken: usize = std::thread::scope(|scope| {
            let posts = &posts;
            let all: Vec<_> = (0..12).map(|n| scope.spawn(move || posts(n))).collect();
            all.into_iter().map(|each| each.join().unwrap()).sum()
        });
        assert_eq!(taken, 10, "round {round}");
    }
}

#[test]
fn quotas_are_answered_as_what_they_are() {
    let sandbox = Sandbox::new();
    tenant(&sandbox, "slow", &["--submissions-per-s", "2"]);
    tenant(&sandbox, "few", &["--jobs-open", "2"]);
    tenant(&sandbox, "light", &["--job-bytes", "10"]);
    tenant(&sandbox, "free", &[]);
    let [slow, few, light, free] = ["slow", "few", "light", "free"].map(|name| key(&sandbox, name, &[]));
    let service = sandbox.serve_with(&["--roles", "api"], None);
    let spec = small(&sandbox);
    let post = |key: &str| post(&service, "/v1/jobs", key, &spec.to_string());
    let fast: Vec<Answer> = (0..20).map(|_| post(&slow)).collect();
    let refused = fast.iter().find(|answer| answer.status == 429).unwrap();
    assert_eq!(refused.json()["type"], "/problems/quota-submissions");
    assert_eq!(refused.header("retry-after"), "1");
    assert!(fast[0].header("ratelimit").ends_with("r=1;t=1"), "{:?}", fast[0].headers);
    assert!(refused.header("ratelimit-policy").ends_with("q=2;w=1"), "{:?}", refused.headers);
    until("another second", || post(&slow).status == 202);
    let third: Vec<Answer> = (0..3).map(|_| post(&few)).collect();
    assert_eq!(third.iter().map(|answer| answer.status).collect::<Vec<_>>(), [202, 202, 429]);
    assert!(third[2].json()["type"].as_str().unwrap().starts_with("/problems/quota"), "{}", third[2].body);
    assert_eq!(
        (0..30).filter(|_| post(&free).status == 202).count(),
        30,
        "another tenant's quota is its own"
    );
    operate(&sandbox, &["tenant", "set", "few", "--jobs-open", "none"]);
    until("the new limit", || post(&few).status == 202);
    let id = submit(&service, &light, &spec);
    let _worker = sandbox.serve();
    let job = job_when(&service, &light, &id, has_ended);
    assert_eq!(
        (job["status"].as_str(), job["error"]["type"].as_str()),
        (Some("failed"), Some("/problems/quota-bytes"))
    );
    assert!(job["error"]["detail"].as_str().unwrap().contains("17 bytes"), "{job}");
}

fn who_did_what_stands_in_the_log(sandbox: &Sandbox) {
    tenant(sandbox, "acme", &[]);
    tenant(sandbox, "globex", &[]);
    let admin = key(sandbox, "acme", &["--scopes", "admin"]);
    let user = key(sandbox, "acme", &["--scopes", "submit,cancel"]);
    let other = key(sandbox, "globex", &["--scopes", "submit,admin"]);
    let mut service = sandbox.serve();
    let spec = small(sandbox);
    let id = submit(&service, &user, &spec);
    assert_eq!(post(&service, &format!("/v1/jobs/{id}:cancel"), &user, "").status, 202);
    assert_eq!(post(&service, &format!("/v1/jobs/{id}:cancel"), &other, "").status, 403);
    assert_eq!(post(&service, "/v1/jobs", &user, "{}").status, 400);
    let lines = |key: &str| get(&service, "/v1/audit", key).json()["lines"].as_array().unwrap().clone();
    until("what was done to be written", || lines(&admin).len() >= 6);
    let seen: Vec<[String; 4]> = lines(&admin)
        .iter()
        .rev()
        .map(|line| {
            ["actor", "action", "target", "outcome"].map(|name| line[name].as_str().unwrap().to_owned())
        })
        .collect();
    let uid = format!("uid:{}", rustix::process::getuid().as_raw());
    let job = format!("/v1/jobs/{id}");
    let cancel = format!("{job}:cancel");
    let expected: [[&str; 4]; 6] = [
        [&uid, "tenant.add", r#"{"datasets":["any"]}"#, "done"],
        [&uid, "key.add", public(&admin), "done"],
        [&uid, "key.add", public(&user), "done"],
        [public(&user), "submit", &job, "done"],
        [public(&user), "cancel", &cancel, "done"],
        [public(&user), "submit", "/v1/jobs", "400"],
    ];
    assert_eq!(seen, expected.map(|row| row.map(str::to_owned)));
    until("the refusal to be written", || {
        lines(&other).iter().any(|line| line["outcome"] == "insufficient_scope" && line["target"] == cancel)
    });
    assert!(lines(&other).iter().all(|line| line["tenant"] == "globex"));
    assert_eq!(lines(&other)[0]["address"], "127.0.0.1");
    let printed = operate(sandbox, &["audit-log", "--limit", "1000"]);
    assert!(printed.contains(&cancel) && printed.lines().count() >= 9, "{printed}");
    // What was noted when the service is told to end is written before it does.
    assert_eq!(post(&service, "/v1/jobs", &user, &spec.to_string()).status, 202);
    service.signal(Signal::TERM);
    service.wait();
    let sql = "select count(*) from audit_log where action = 'submit' and outcome = 'done'";
    assert_eq!(sandbox.count(sql), 2);
    let said = service.said() + &printed;
    for key in [&admin, &user, &other] {
        assert!(!said.contains(&key[16..]), "a key is in the log");
    }
}

#[test]
fn what_a_client_did_that_hung_up_stands_in_the_log() {
    let sandbox = Sandbox::new();
    tenant(&sandbox, "acme", &[]);
    let user = key(&sandbox, "acme", &[]);
    // Nobody works on it, so that its client waits.
    let service = sandbox.serve_with(&["--roles", "api"], None);
    let spec = small(&sandbox).to_string();
    let mut client = TcpStream::connect(service.url.strip_prefix("http://").unwrap()).unwrap();
    write!(
        client,
        "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {user}\r\nPrefer: wait=30\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{spec}",
        spec.len()
    )
    .unwrap();
    until("the job", || sandbox.count("select count(*) from work") == 1);
    drop(client);
    let sql = "select count(*) from audit_log where action = 'submit' and outcome = 'unanswered'";
    until("what was done to be written", || sandbox.count(sql) == 1);
}

#[test]
fn who_did_what_stands_in_the_log_on_sqlite() {
    let sandbox = Sandbox::new();
    who_did_what_stands_in_the_log(&sandbox);
    for sql in ["update audit_log set actor = 'nobody'", "delete from audit_log"] {
        let refused = sandbox.db().execute(sql, []).unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{sql}: {refused}");
    }
}

#[test]
fn who_did_what_stands_in_the_log_on_postgres() {
    let Some(sandbox) = Sandbox::on_postgres() else { return };
    who_did_what_stands_in_the_log(&sandbox);
    let lines = sandbox.count("select count(*) from audit_log");
    for sql in ["update audit_log set actor = 'nobody'", "delete from audit_log", "truncate audit_log"] {
        // What psql says of a change is no count, whether it was done or refused: the table tells.
        let _ = std::panic::catch_unwind(|| sandbox.count(sql));
        let left = sandbox.count("select count(*) from audit_log where actor <> 'nobody'");
        assert_eq!(left, lines, "{sql} was done");
    }
}

/// A secret is on the screen once, in the client's environment, and nowhere else.
#[test]
fn secrets_are_kept_nowhere() {
    let sandbox = Sandbox::new();
    tenant(&sandbox, "acme", &[]);
    let key = key(&sandbox, "acme", &[]);
    let secret = &key[16..];
    let service = sandbox.serve();
    let id = submit(&service, &key, &small(&sandbox));
    job_when(&service, &key, &id, has_ended);
    let client = |key: &str| {
        let mut command = sandbox.dragnet(&["status", &id, "--server", &service.url]);
        command.env("DRAGNET_API_KEY", key).output().unwrap()
    };
    let done = client(&key);
    assert!(done.status.success(), "{done:?}");
    let wrong = client(&key.replace("dnk_", "dnk-"));
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && said.contains("DRAGNET_API_KEY") && !said.contains(secret), "{said}");
    let pasted = sandbox.run(&["key", "revoke", &key]);
    assert!(!String::from_utf8_lossy(&pasted.stderr).contains(secret), "{pasted:?}");
    assert!(!service.said().contains(secret));
    let mut folders = vec![sandbox.state()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let bytes = std::fs::read(entry.path()).unwrap();
            files += 1;
            assert!(memchr::memmem::find(&bytes, secret.as_bytes()).is_none(), "{:?}", entry.path());
        }
    }
    assert!(files > 3);
}

/// A command that runs the service in its own process is asked by nobody else.
#[test]
fn a_command_speaks_to_its_own_service_alone() {
    let sandbox = Sandbox::new();
    let spec = sandbox.corpus();
    for name in ["acme", "globex"] {
        tenant(&sandbox, name, &[]);
    }
    let acme = key(&sandbox, "acme", &[]);
    let service = sandbox.serve();
    let id = submit(&service, &acme, &crate::harness::spec(&spec));
    job_when(&service, &acme, &id, has_ended);
    let list = |tenant: &str| operate(&sandbox, &["list", "--tenant", tenant]);
    assert!(list("acme").contains(&id) && !list("globex").contains(&id));
    let nobody = sandbox.run(&["list", "--tenant", "nobody"]);
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no tenant `nobody`"), "{nobody:?}");
}

/// The route for a job; names that are none of a job's are nobody's.
fn path_for(route: &Route, id: &str) -> String {
    let names = route.names().filter(|name| *name != "id");
    names.fold(route.path.replace("{id}", id), |path, name| path.replace(&format!("{{{name}}}"), "something"))
}

/// The router, the OpenAPI document and this test are made from one table, so a new route is in it.
#[test]
fn every_route_asks_for_a_key_its_scope_and_its_tenant() {
    let sandbox = Sandbox::new();
    for name in ["acme", "globex", "initech"] {
        tenant(&sandbox, name, &[]);
    }
    let scopes = |which: &dyn Fn(Scope) -> bool| {
        let names = Scope::ALL.into_iter().filter(|scope| which(*scope)).map(Scope::name);
        names.collect::<Vec<_>>().join(",")
    };
    let own = key(&sandbox, "acme", &["--scopes", &scopes(&|_| true)]);
    let other = key(&sandbox, "globex", &["--scopes", &scopes(&|_| true)]);
    // One that never names the job, so that not even its own audit log has it.
    let stranger = key(&sandbox, "initech", &["--scopes", &scopes(&|_| true)]);
    let without = Scope::ALL.map(|scope| key(&sandbox, "acme", &["--scopes", &scopes(&|s| s != scope)]));
    let revoked = key(&sandbox, "acme", &["--scopes", &scopes(&|_| true)]);
    operate(&sandbox, &["key", "revoke", public(&revoked)]);
    let expired = key(&sandbox, "acme", &["--scopes", &scopes(&|_| true), "--expires-days", "1"]);
    sandbox.db().execute("update api_key set expires_ms = 1 where id = ?1", [public(&expired)]).unwrap();
    let service = sandbox.serve();
    let spec = small(&sandbox);
    let id = submit(&service, &own, &spec);
    assert_eq!(job_when(&service, &own, &id, has_ended)["status"], "completed");
    let ask = |route: &Route, key: Option<&str>| {
        let body = match route.about.as_ref().and_then(|about| about.takes) {
            Some("JobSpec") => spec.to_string(),
            Some("Confirmation") => json!({ "id": format!("{id}/something") }).to_string(),
            Some(_) => "{}".into(),
            None => String::new(),
        };
        let bearer = key.map(|key| format!("Bearer {key}"));
        ask(&service, route.method.as_str(), &path_for(route, &id), bearer.as_deref(), &body)
    };
    let mut asked = 0;
    for route in ROUTES {
        let name = format!("{} {}", route.method, route.path);
        let Some(scope) = route.scope else {
            let answer = ask(route, None);
            assert!(answer.status < 400 || answer.status == 404, "{name}: {}", answer.status);
            assert!(!answer.body.contains(&id) && !answer.body.contains("acme"), "{name} tells of somebody");
            continue;
        };
        asked += 1;
        let place = Scope::ALL.iter().position(|known| known.name() == scope.name()).unwrap();
        for (which, key, status) in [
            ("no key", None, 401),
            ("an expired key", Some(&expired), 401),
            ("a revoked key", Some(&revoked), 401),
            ("a key without the scope", Some(&without[place]), 403),
        ] {
            let answer = ask(route, key.map(String::as_str));
            assert_eq!(answer.status, status, "{name} with {which}: {}", answer.body);
            assert!(answer.header("www-authenticate").starts_with("Bearer "), "{name} with {which}");
            assert!(!answer.body.contains(&id), "{name} with {which}: {}", answer.body);
        }
        let names_it = route.path.contains("{id}");
        let foreign = ask(route, Some(if names_it { &other } else { &stranger }));
        if names_it {
            assert_eq!(foreign.status, 404, "{name} of another tenant: {}", foreign.body);
        }
        let tells = foreign.status < 400 && (foreign.body.contains(&id) || foreign.body.contains("acme"));
        assert!(!tells, "{name} tells another tenant: {}", foreign.body);
        let nobodys = path_for(route, "00000000-0000-7000-8000-000000000000");
        if names_it {
            // Nothing tells another tenant's job from one that never was.
            let bearer = format!("Bearer {other}");
            let never = self::ask(&service, route.method.as_str(), &nobodys, Some(&bearer), "");
            let blank =
                |text: &str| text.replace(&id, "").replace("00000000-0000-7000-8000-000000000000", "");
            assert_eq!((never.status, blank(&never.body)), (foreign.status, blank(&foreign.body)), "{name}");
        }
        let answer = ask(route, Some(&own));
        assert!(!matches!(answer.status, 401 | 403), "{name} with the right key: {}", answer.body);
        if names_it {
            assert!(answer.status < 400, "{name} with the right key: {} {}", answer.status, answer.body);
        }
        if route.method == "GET" {
            let head = self::ask(&service, "HEAD", &path_for(route, &id), None, "");
            assert_eq!(head.status, 401, "HEAD {}", route.path);
        }
    }
    assert!(asked >= 10, "{asked} routes were asked");
}

/// An answer that goes on for long ends with its key.
#[test]
fn a_stream_of_events_ends_with_its_key() {
    let sandbox = Sandbox::new();
    tenant(&sandbox, "acme", &[]);
    let (submits, follows) = (key(&sandbox, "acme", &[]), key(&sandbox, "acme", &["--scopes", "read"]));
    // Nobody works, so the job never ends by itself.
    let service = sandbox.serve_with(&["--roles", "api"], None);
    let id = submit(&service, &submits, &small(&sandbox));
    let mut stream = TcpStream::connect(service.url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let asked = format!(
        "GET /v1/jobs/{id}/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {follows}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(asked.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "HTTP/1.1 200 OK");
    assert!(lines.by_ref().any(|line| line.unwrap().starts_with("event: accept")), "it follows");
    operate(&sandbox, &["key", "revoke", public(&follows)]);
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(!rest.iter().any(|line| line.starts_with("event: end")), "{rest:?}");
    assert_eq!(get(&service, &format!("/v1/jobs/{id}/events"), &follows).status, 401);
}
