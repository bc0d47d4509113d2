//! Doors that stay shut: what a tenant's dataset may not name, and what a service may not connect to.

use crate::harness::*;
use crate::servers::{Behind, Faulty};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;

/// A sandbox with a tenant that may read a folder and a prefix, and its key.
fn tenant(sandbox: &Sandbox, datasets: &[&str]) -> String {
    let datasets: Vec<&str> = datasets.iter().flat_map(|one| ["--dataset", one]).collect();
    let made = sandbox.run(&[&["tenant", "add", "acme"], &datasets[..]].concat());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = sandbox.run(&["key", "add", "acme"]);
    let said = String::from_utf8(key.stdout).unwrap();
    said.split_whitespace().find(|word| word.starts_with("dnk_")).unwrap().to_owned()
}

#[test]
fn a_tenant_names_nothing_but_what_it_was_given() {
    let sandbox = Sandbox::new();
    sandbox.corpus();
    let data = sandbox.path("data").canonicalize().unwrap();
    let outside = sandbox.write("outside/secret.txt", b"a needle-1\n");
    let state = sandbox.state();
    std::fs::create_dir_all(&state).unwrap();
    let key = tenant(&sandbox, &[&format!("file://{}/", data.display()), "s3://acme-crawl/in/"]);
    let service = sandbox.serve();
    let post = |entry: &str| {
        let spec = json!({ "patterns": [{ "name": "n", "regex": "needle-[0-9]+" }], "dataset": [entry] });
        service.post_as(&key, "/v1/jobs", &spec.to_string())
    };
    let data = data.display();
    let refused = [
        outside.display().to_string(),
        format!("{data}/../outside/secret.txt"),
        format!("file://{data}/%2e%2e/outside/secret.txt"),
        format!("{data}-of-others/a"),
        "/etc/passwd".into(),
        "/dev/zero".into(),
        "/*".into(),
        state.join("dragnet.db").display().to_string(),
        state.join("output").display().to_string(),
        "s3://acme-crawl-of-others/in/a".into(),
        "s3://acme-crawl/in/../out/a".into(),
        "s3://acme-crawl/*".into(),
        "https://acme-crawl/in/a".into(),
        "hdfs://nn:8020/in/".into(),
    ];
    for entry in refused {
        let answer = post(&entry);
        assert_eq!(answer.status, 403, "{entry}: {}", answer.body);
        assert_eq!(answer.json()["type"], "/problems/dataset-not-allowed");
    }
    let answer = post(&data.to_string());
    assert_eq!(answer.status, 202, "{}", answer.body);
}

#[test]
fn what_was_the_output_once_is_no_dataset() {
    let sandbox = Sandbox::new();
    let data = sandbox.corpus();
    let (old, new) = (sandbox.path("old"), sandbox.path("new"));
    let key =
        tenant(&sandbox, &[&format!("file://{}/", sandbox.folder.path().canonicalize().unwrap().display())]);
    for (output, others) in [(&old, &new), (&new, &old)] {
        let service = sandbox.serve_with(&["--output", output.to_str().unwrap()], None);
        let post = |entry: &std::path::Path| service.post_as(&key, "/v1/jobs", &spec(entry).to_string());
        assert_eq!(post(&data).status, 202);
        for own in [output, others].into_iter().filter(|own| own.exists()) {
            let answer = post(own);
            assert_eq!(
                (answer.status, &answer.json()["type"]),
                (403, &json!("/problems/dataset-not-allowed")),
                "{own:?}"
            );
        }
    }
    assert!(old.exists() && new.exists());
}

/// What was accepted is answered again, whatever the tenant may read now; nothing new is.
#[test]
fn a_repetition_is_answered_after_its_dataset_was_taken_away() {
    let sandbox = Sandbox::new();
    let data = sandbox.corpus();
    let key = tenant(&sandbox, &["any"]);
    let service = sandbox.serve();
    let post = |idempotency: &str| {
        let request = agent()
            .post(format!("{}/v1/jobs", service.url))
            .header("Content-Type", "application/json")
            .header("Authorization", format!("Bearer {key}"))
            .header("Idempotency-Key", idempotency);
        answer(request.send(spec(&data).to_string())).unwrap()
    };
    let first = post("\"one\"");
    assert_eq!(first.status, 202, "{}", first.body);
    let set = sandbox.run(&["tenant", "set", "acme", "--dataset", "s3://elsewhere/"]);
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    let mut others = 0;
    until("a dataset that may not be read", || {
        others += 1;
        post(&format!("\"other {others}\"")).status == 403
    });
    let again = post("\"one\"");
    assert_eq!((again.status, &again.json()["id"]), (202, &first.json()["id"]), "{}", again.body);
}

/// What is named is the tenant's, what it leads to is not: a manifest's lines, and links that are there or put there later.
#[test]
fn what_a_dataset_leads_to_is_checked_again() {
    let sandbox = Sandbox::new();
    let data = sandbox.path("data");
    sandbox.write("data/good.txt", b"a needle-1\n");
    let secret = sandbox.write("outside/secret.txt", b"a needle-2\n");
    sandbox.write("data/list", format!("good.txt\n{}\n", secret.display()).as_bytes());
    let data = data.canonicalize().unwrap();
    let key = tenant(&sandbox, &[&format!("file://{}/", data.display())]);
    let service = sandbox.serve();
    let submit = |dataset: serde_json::Value| {
        let spec = json!({ "patterns": [{ "name": "n", "regex": "needle-[0-9]+" }], "dataset": [dataset] });
        let answer = service.post_as(&key, "/v1/jobs", &spec.to_string());
        assert_eq!(answer.status, 202, "{}", answer.body);
        let path = format!("/v1/jobs/{}", answer.json()["id"].as_str().unwrap());
        let mut job = serde_json::Value::Null;
        until("the job's end", || {
            job = service.get_as(&key, &path).json();
            job["ended"].is_string()
        });
        (job, service.get_as(&key, &format!("{path}/hits")).body)
    };
    let (job, _) = submit(json!({ "manifest": data.join("list") }));
    assert_eq!(
        (&job["status"], &job["error"]["type"]),
        (&json!("failed"), &json!("/problems/dataset")),
        "{job}"
    );
    std::fs::remove_file(data.join("list")).unwrap();
    symlink(&secret, data.join("link.txt")).unwrap();
    symlink(secret.parent().unwrap(), data.join("linked")).unwrap();
    let (job, hits) = submit(json!(data));
    assert_eq!(job["status"], "completed_with_gaps", "{job}");
    assert!(hits.contains("needle-1") && !hits.contains("needle-2"), "{hits}");
}

/// A link that takes the place of a planned file, with its size and time: only the mapper's own look can tell.
#[test]
fn a_link_that_comes_after_the_plan_is_not_followed() {
    let sandbox = Sandbox::new();
    sandbox.write("data/good.txt", b"a needle-1\n");
    let planned = sandbox.write("data/planned.txt", b"a needle-2\n");
    let secret = sandbox.write("outside/secret.txt", b"a needle-3\n");
    let time = planned.metadata().unwrap().modified().unwrap();
    std::fs::File::options().write(true).open(&secret).unwrap().set_modified(time).unwrap();
    let data = sandbox.path("data").canonicalize().unwrap();
    let key = tenant(&sandbox, &[&format!("file://{}/", data.display())]);
    let mut crashing = sandbox.serve_with(&[], Some("launch.after_plan"));
    let spec = json!({ "patterns": [{ "name": "n", "regex": "needle-[0-9]+" }], "dataset": [data] });
    let request =
        agent().post(format!("{}/v1/jobs", crashing.url)).header("Content-Type", "application/json");
    // The service may die before it answers.
    let _ = request.header("Authorization", format!("Bearer {key}")).send(spec.to_string());
    crashing.wait();
    std::fs::remove_file(&planned).unwrap();
    symlink(&secret, &planned).unwrap();
    let service = sandbox.serve();
    let mut job = serde_json::Value::Null;
    until("the job's end", || {
        job = service.get_as(&key, "/v1/jobs").json()["jobs"][0].clone();
        job["ended"].is_string()
    });
    assert_eq!(job["status"], "completed_with_gaps", "{job}");
    let hits = service.get_as(&key, &format!("/v1/jobs/{}/hits", job["id"].as_str().unwrap())).body;
    assert!(hits.contains("needle-1") && !hits.contains("needle-3"), "{hits}");
}

/// A name, an address in any way of writing it, and a redirect: none of them leads a service that serves strangers to a
/// private address.
#[test]
fn private_addresses_are_not_connected_to() {
    let sandbox = Sandbox::new();
    sandbox.write("data/a.txt", b"a needle-1\n");
    let server = Faulty::new(Behind::Files(sandbox.path("data")));
    let port = server.address.rsplit_once(':').unwrap().1;
    let run = |flags: &[&str], host: &str| {
        let service = sandbox.serve_with(flags, None);
        let url = format!("http://{host}:{port}/a.txt");
        let spec = json!({ "patterns": [{ "name": "n", "regex": "needle" }], "dataset": [url] });
        service.end_of(&service.submit(&spec))["status"].clone()
    };
    let public = ["--addresses", "public", "--allow-port", port];
    for host in ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"] {
        assert_ne!(run(&public, host), "completed", "{host}");
    }
    assert_eq!(*server.requests.lock().unwrap(), 0);
    assert_ne!(run(&public[..2], "127.0.0.1"), "completed", "a port that is not the web's");
    assert_eq!(run(&[&public[..2], &["--allow-host", "127.0.0.1"]].concat(), "127.0.0.1"), "completed");
    assert_eq!(run(&[], "127.0.0.1"), "completed");
}

/// A service that served its own user alone when it started has strangers once there is a tenant.
#[test]
fn a_tenant_that_is_added_later_reaches_no_private_address() {
    let sandbox = Sandbox::new();
    sandbox.write("data/a.txt", b"a needle-1\n");
    let server = Faulty::new(Behind::Files(sandbox.path("data")));
    let (host, port) = server.address.rsplit_once(':').unwrap();
    let spec = |host: &str| {
        let url = format!("http://{host}:{port}/a.txt");
        json!({ "patterns": [{ "name": "n", "regex": "needle" }], "dataset": [url] }).to_string()
    };
    let rows: [(&[&str], &str, &str); 4] = [
        (&[], host, "failed"),
        (&[], "localhost", "failed"),
        // What the operator lists for the service is the tenant's where it is named to it.
        (&["--allow-host", "127.0.0.1"], host, "refused"),
        (&["--addresses", "any"], host, "completed"),
    ];
    for (flags, host, expected) in rows {
        let sandbox = Sandbox::new();
        let service = sandbox.serve_with(&[&["--allow-port", port], flags].concat(), None);
        let key = tenant(&sandbox, &[]);
        until("the key", || service.get_as(&key, "/v1/jobs").status == 200);
        let before = *server.requests.lock().unwrap();
        let answer = service.post_as(&key, "/v1/jobs", &spec(host));
        let came_to = match answer.status {
            403 => "refused".to_owned(),
            _ => {
                let path = format!("/v1/jobs/{}", answer.json()["id"].as_str().unwrap());
                until("the job's end", || service.get_as(&key, &path).json()["ended"].is_string());
                service.get_as(&key, &path).json()["status"].as_str().unwrap().to_owned()
            }
        };
        assert_eq!(came_to, expected, "{flags:?} {host}");
        let asked = *server.requests.lock().unwrap() - before;
        assert_eq!(asked > 0, expected == "completed", "{flags:?} {host}: {asked} requests");
    }
}

/// Sends whoever asks to another server.
fn redirecting(to: &str) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, to) = (listener.local_addr().unwrap(), to.to_owned());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().and_then(Result::ok).unwrap_or_default();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let path = first.split(' ').nth(1).unwrap_or_default();
            let head = format!("HTTP/1.1 302 Found\r\nLocation: http://{to}{path}\r\nContent-Length: 0\r\n");
            let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes());
        }
    });
    address
}

/// A redirect leads where the tenant's list allows and nowhere else, whatever the process may connect to.
#[test]
fn a_redirect_leads_nowhere_that_the_dataset_could_not_name() {
    let sandbox = Sandbox::new();
    sandbox.write("data/a.txt", b"a needle-1\n");
    let server = Faulty::new(Behind::Files(sandbox.path("data")));
    let near = redirecting(&server.address);
    let (near_is, far_is) = (format!("http://{near}/"), format!("http://{}/", server.address));
    let rows: [(&[&str], bool); 3] =
        [(&[&near_is], false), (&[&near_is, &format!("{far_is}b")], false), (&[&near_is, &far_is], true)];
    for (list, leads) in rows {
        let sandbox = Sandbox::new();
        let key = tenant(&sandbox, list);
        let service = sandbox.serve_with(&["--addresses", "any"], None);
        let before = *server.requests.lock().unwrap();
        let spec = json!({ "patterns": [{ "name": "n", "regex": "needle" }], "dataset": [format!("{near_is}a.txt")] });
        let answer = service.post_as(&key, "/v1/jobs", &spec.to_string());
        let path = format!("/v1/jobs/{}", answer.json()["id"].as_str().unwrap());
        until("the job's end", || service.get_as(&key, &path).json()["ended"].is_string());
        let job = service.get_as(&key, &path).json();
        let asked = *server.requests.lock().unwrap() - before;
        assert_eq!((job["status"] == "completed", asked > 0), (leads, leads), "{list:?}: {job}");
    }
}

/// `any` is whatever is data: nothing of the service, of its machine, or what a link leads to.
#[test]
fn who_may_read_all_reads_nothing_of_the_service() {
    let sandbox = Sandbox::new();
    sandbox.write("data/good.txt", b"a needle-1\n");
    let elsewhere = sandbox.path("elsewhere");
    std::fs::create_dir_all(&elsewhere).unwrap();
    let store = format!("sqlite:{}", elsewhere.join("x.db").display());
    let made = sandbox.run(&["tenant", "add", "acme", "--dataset", "any", "--store", &store]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = String::from_utf8(sandbox.run(&["key", "add", "acme", "--store", &store]).stdout).unwrap();
    let key = key.split_whitespace().find(|word| word.starts_with("dnk_")).unwrap();
    let service = sandbox.serve_with(&["--store", &store], None);
    let state = sandbox.state();
    let post = |query: &str, entry: &serde_json::Value| {
        let spec = json!({ "patterns": [{ "name": "n", "regex": "needle-[0-9]+" }], "dataset": [entry] });
        service.post_as(key, &format!("/v1/jobs{query}"), &spec.to_string())
    };
    for entry in [
        json!("/proc/self/environ"),
        json!({ "manifest": "/proc/self/environ" }),
        json!("/proc/self/fd/"),
        json!("/dev/shm/"),
        json!(state),
        json!(format!("/{}", state.display())),
        json!(elsewhere.join("x.db")),
        json!(elsewhere.join("x.db-wal")),
    ] {
        let answer = post("", &entry);
        assert_eq!(answer.status, 403, "{entry}: {}", answer.body);
    }
    symlink(elsewhere.join("x.db"), sandbox.path("data/link.db")).unwrap();
    let plan = post("?validate_only=true", &json!(sandbox.path("data"))).json();
    assert_eq!((&plan["objects"], &plan["unreadable"]), (&json!(2), &json!(1)), "{plan}");
    assert!(plan["unreadable_objects"][0]["object"].as_str().unwrap().ends_with("link.db"), "{plan}");
    let refused = sandbox.run(&["tenant", "add", "default", "--store", &store]);
    assert!(refused.status.success());
    let key = String::from_utf8(sandbox.run(&["key", "add", "default", "--store", &store]).stdout).unwrap();
    let key = key.split_whitespace().find(|word| word.starts_with("dnk_")).unwrap();
    let spec = json!({ "patterns": [{ "name": "n", "regex": "x" }], "dataset": [sandbox.path("data")] });
    let answer = service.post_as(key, "/v1/jobs", &spec.to_string());
    assert_eq!(answer.status, 403, "with a key it is a tenant as any other: {}", answer.body);
}

/// Says of an object what a client wants to hear, and then sends without an end.
fn without_end() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let (mut head, mut line) = (Vec::new(), String::new());
                let mut lines = BufReader::new(stream.try_clone().unwrap());
                while lines.read_line(&mut line).is_ok_and(|n| n > 2) {
                    head.push(std::mem::take(&mut line).to_ascii_lowercase());
                }
                let range = head.iter().find_map(|line| line.strip_prefix("range: bytes=")).unwrap_or("0-0");
                let status = match head[0].contains("/refused") && head[0].starts_with("get") {
                    true => "404 Not Found".to_owned(),
                    false if head[0].starts_with("head") => "200 OK\r\nContent-Length: 1000000".to_owned(),
                    false => format!("206 Partial Content\r\nContent-Range: bytes {}/1000000", range.trim()),
                };
                let rest = "ETag: \"e\"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nConnection: close\r\n\r\n";
                let is_head = head[0].starts_with("head");
                let _ = write!(stream, "HTTP/1.1 {status}\r\n{rest}");
                while !is_head && stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
            });
        }
    });
    address
}

#[test]
fn a_server_that_sends_without_an_end_fills_no_memory() {
    let sandbox = Sandbox::new();
    let (service, server) = (sandbox.serve(), without_end());
    for name in ["endless", "refused"] {
        let url = format!("http://{server}/{name}.txt");
        let spec = json!({ "patterns": [{ "regex": "x" }], "dataset": [url] });
        let plan = service.post("/v1/jobs?validate_only=true", &spec.to_string());
        assert_eq!(plan.status, 200, "{name}: {}", plan.body);
        let plan = plan.json();
        assert!(plan["complete"] == false || plan["unreadable"] == 1, "{name}: {plan}");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid().as_raw_nonzero())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let mib = peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10;
    assert!(mib < 400, "{mib} MiB");
}
