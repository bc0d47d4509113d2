//! Webhooks, as their receivers see them: with the library that the specification's makers wrote.

use crate::harness::*;
use crate::servers::needed;
use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Debug, Clone)]
struct Came {
    headers: Json,
    body: String,
}

/// An endpoint that answers what it is told to, and 200 after that.
struct Receiver {
    url: String,
    came: Arc<Mutex<Vec<Came>>>,
}

impl Receiver {
    fn new(answers: &[&'static str]) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let came: Arc<Mutex<Vec<Came>>> = Arc::default();
        let (kept, mut answers) = (came.clone(), Vec::from(answers).into_iter());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut headers, mut line) = (serde_json::Map::new(), String::new());
                while reader.read_line(&mut line).unwrap_or(0) > 2 {
                    if let Some((name, value)) = line.split_once(": ") {
                        headers.insert(name.to_ascii_lowercase(), value.trim().into());
                    }
                    line.clear();
                }
                let length =
                    headers.get("content-length").and_then(|n| n.as_str()?.parse().ok()).unwrap_or(0);
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let body = String::from_utf8(body).unwrap();
                kept.lock().unwrap().push(Came { headers: Json::Object(headers), body });
                let answer = answers.next().unwrap_or("200 OK");
                let _ = write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        Receiver { url, came }
    }

    fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap().clone()
    }

    fn after(&self, requests: usize) -> Vec<Came> {
        until(&format!("{requests} requests"), || self.came().len() >= requests);
        self.came()
    }
}

/// Runs a command that must do, and returns what it prints.
fn must(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let output = sandbox.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Whether the specification's library takes a request under a secret.
fn is_taken(python: &str, secret: &str, came: &Came) -> bool {
    let script = "import sys, json; from standardwebhooks.webhooks import Webhook; d = json.load(sys.stdin); \
                  Webhook(d['secret']).verify(d['body'], d['headers'])";
    let mut child = Command::new(python)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let input = json!({ "secret": secret, "body": came.body, "headers": came.headers });
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    child.wait().unwrap().success()
}

fn job(sandbox: &Sandbox, service: &Service) -> String {
    let data = sandbox.write("data/a.txt", b"a needle-1 that nobody else may see\n");
    service.submit(&spec(&data))
}

#[test]
fn each_end_is_told_until_it_is_heard() {
    let Some(python) = needed("DRAGNET_TEST_PYTHON") else { return };
    let sandbox = Sandbox::new();
    let service = sandbox.serve();
    // The one that is down, or sends elsewhere, holds up nobody.
    let (good, failing) =
        (Receiver::new(&[]), Receiver::new(&["500 No", "302 Elsewhere\r\nLocation: /other"]));
    let secret = must(&sandbox, &["webhook", "add", &good.url]);
    must(&sandbox, &["webhook", "add", &failing.url]);
    let id = job(&sandbox, &service);

    let came = good.after(1).remove(0);
    assert!(is_taken(&python, &secret, &came), "{came:?}");
    assert!(!is_taken(&python, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &came));
    let event: Json = serde_json::from_str(&came.body).unwrap();
    assert_eq!((&event["specversion"], &event["type"]), (&json!("1.0"), &json!("dragnet.job.ended")));
    assert_eq!((&event["id"], &event["data"]["status"]), (&came.headers["webhook-id"], &json!("completed")));
    assert_eq!(event["subject"], id);
    assert!(!came.body.contains("needle"), "a match may be a secret");
    // 5 s after the first attempt there is a second one.
    let twice = failing.after(2);
    assert_eq!(twice[0].headers["webhook-id"], twice[1].headers["webhook-id"]);
    assert_eq!(good.came().len(), 1, "it was told once");

    must(&sandbox, &["webhook", "replay", &id]);
    let again = good.after(2).remove(1);
    assert_eq!(again.headers["webhook-id"], came.headers["webhook-id"]);
    assert_eq!(service.job(&id)["status"], "completed");
    for line in [service.said(), must(&sandbox, &["webhook", "list"])] {
        assert!(!line.contains(&secret[6..]), "{line}");
    }
}

/// Who has the store has no secret. A service with another key tells nobody, says what it waits for, and goes on by itself
/// when it is given the right one.
#[test]
fn secrets_are_made_of_a_key_that_is_not_in_the_store() {
    let Some(python) = needed("DRAGNET_TEST_PYTHON") else { return };
    let sandbox = Sandbox::new();
    let receiver = Receiver::new(&[]);
    let secret = must(&sandbox, &["webhook", "add", &receiver.url]);
    let other = sandbox.path("other.key");
    let service = sandbox.serve_with(&["--webhook-key", other.to_str().unwrap()], None);
    let id = job(&sandbox, &service);
    let waits = |job: &Json| job["controllers"]["webhooks"]["waiting_for"] == "webhook-key";
    service.job_when(&id, waits);
    // An endpoint of the service's own key is told all the same.
    let signed = Receiver::new(&[]);
    must(&sandbox, &["webhook", "add", &signed.url, "--webhook-key", other.to_str().unwrap()]);
    let id = job(&sandbox, &service);
    signed.after(1);
    let waiting = service.job_when(&id, waits);
    let why = waiting["controllers"]["webhooks"]["error"].as_str().unwrap();
    assert!(why.contains("all processes need one key"), "{why}");
    assert_eq!(receiver.came().len(), 0);
    let missing = sandbox.path("missing.key");
    let refused = sandbox.run(&["webhook", "add", &signed.url, "--webhook-key", missing.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("made of another key"), "{refused:?}");
    assert!(!missing.exists());
    std::fs::copy(sandbox.state().join("webhook.key"), &other).unwrap();
    assert!(is_taken(&python, &secret, &receiver.after(1)[0]));
    drop(service);
    let state = std::fs::read_dir(sandbox.state()).unwrap().flatten().map(|entry| entry.path());
    let store = state.filter(|file| file.to_string_lossy().contains("dragnet.db"));
    let store: Vec<u8> = store.flat_map(|file| std::fs::read(file).unwrap()).collect();
    let is_in_store = |text: &str| store.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(is_in_store(&receiver.url) && !is_in_store("whsec_") && !is_in_store(&secret[6..]));
}

#[test]
fn an_endpoint_ends_its_secrets_and_itself() {
    let Some(python) = needed("DRAGNET_TEST_PYTHON") else { return };
    let sandbox = Sandbox::new();
    let service = sandbox.serve();
    let receiver = Receiver::new(&["200 OK", "410 Gone"]);
    let old = must(&sandbox, &["webhook", "add", &receiver.url]);
    let list: Json = serde_json::from_str(&must(&sandbox, &["webhook", "list", "--json"])).unwrap();
    let id = list[0]["id"].as_str().unwrap();
    let new = must(&sandbox, &["webhook", "rotate", id]);
    job(&sandbox, &service);
    let came = receiver.after(1).remove(0);
    for secret in [&old, &new] {
        assert!(is_taken(&python, secret, &came));
    }
    let ended = must(&sandbox, &["webhook", "rotate", id, "--overlap-hours", "0"]);
    job(&sandbox, &service);
    let came = receiver.after(2).remove(1);
    assert_eq!([&old, &new, &ended].map(|secret| is_taken(&python, secret, &came)), [false, false, true]);
    until("a disabled endpoint", || {
        must(&sandbox, &["webhook", "list"]).contains("disabled: it answered 410 Gone")
    });
    let third = job(&sandbox, &service);
    service.job_when(&third, |job| job["controllers"]["webhooks"]["status"] == "done");
    assert_eq!(receiver.came().len(), 2);
    must(&sandbox, &["webhook", "enable", id]);
    must(&sandbox, &["webhook", "replay", &third]);
    receiver.after(3);
    must(&sandbox, &["webhook", "remove", id]);
    let logged = must(&sandbox, &["audit-log"]);
    for act in ["webhook.add", "webhook.rotate", "webhook.replay", "webhook.remove"] {
        assert!(logged.contains(act), "{act}: {logged}");
    }
    assert_eq!(must(&sandbox, &["webhook", "list"]), "");
}

/// What waits for another attempt ends with its endpoint, and says so.
#[test]
fn what_waits_for_an_endpoint_that_is_gone_is_left_and_said() {
    let sandbox = Sandbox::new();
    let service = sandbox.serve();
    let receiver = Receiver::new(&["503 Busy\r\nRetry-After: 600", "410 Gone"]);
    must(&sandbox, &["webhook", "add", &receiver.url]);
    let waits = job(&sandbox, &service);
    receiver.after(1);
    job(&sandbox, &service);
    receiver.after(2);
    until("a disabled endpoint", || must(&sandbox, &["webhook", "list"]).contains("410 Gone"));
    // Its next attempt is due at once.
    must(&sandbox, &["webhook", "replay", &waits]);
    service.job_when(&waits, |job| job["controllers"]["webhooks"]["status"] == "done");
    let events = service.get(&format!("/v1/jobs/{waits}/events")).body;
    assert!(
        events.contains("webhooks.left") && events.contains("it is disabled: it answered 410"),
        "{events}"
    );
    assert_eq!(receiver.came().len(), 2);
}

#[test]
fn a_webhook_goes_to_no_private_address() {
    let sandbox = Sandbox::new();
    let receiver = Receiver::new(&[]);
    must(&sandbox, &["webhook", "add", &receiver.url]);
    must(&sandbox, &["webhook", "add", &receiver.url.replace("127.0.0.1", "localhost")]);
    let port = receiver.url.rsplit([':', '/']).nth(1).unwrap();
    let rows: [(&[&str], &str); 2] =
        [(&["--allow-port", port], "no public address"), (&[], "is not among those that may be asked")];
    for (flags, said) in rows {
        let service = sandbox.serve_with(&[&["--addresses", "public"], flags].concat(), None);
        let id = job(&sandbox, &service);
        let events = || service.get(&format!("/v1/jobs/{id}/events")).body;
        until("refused attempts", || events().matches(said).count() >= 2);
    }
    assert_eq!(receiver.came().len(), 0);
    for url in ["ftp://host/", "https://user@host/", "host", "https://"] {
        let refused = sandbox.run(&["webhook", "add", url]);
        assert!(String::from_utf8_lossy(&refused.stderr).contains("is no URL of an endpoint"), "{url}");
    }
}

/// Nothing of ours but the program itself knows of it: it is plugged in.
#[test]
fn no_other_crate_knows_of_webhooks() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for entry in std::fs::read_dir(root).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let manifest = std::fs::read_to_string(entry.path().join("Cargo.toml")).unwrap();
        assert!(matches!(&*name, "dragnet" | "webhooks") || !manifest.contains("webhooks"), "{name}");
    }
}

/// `docs/plug-in-a-controller.md` shows the lines that stand in this crate.
#[test]
fn the_guide_shows_how_webhooks_are_plugged_in() {
    let own = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = std::fs::read_to_string(own.join("../../docs/plug-in-a-controller.md")).unwrap();
    let read = |file: &str| std::fs::read_to_string(own.join(file)).unwrap();
    let code: String = ["Cargo.toml", "src/service.rs", "src/commands/serve.rs"].map(read).concat();
    let shown: Vec<&str> = guide.lines().filter_map(|line| line.strip_prefix('+')).collect();
    assert_eq!(shown.len(), 5);
    for line in shown {
        assert!(code.lines().any(|own| own == line), "{line}");
    }
}
