//! The asynchronous computation pattern on its textbook example: `POST /dosomework` books something through
//! DependencyI, a second process, while both of them fail in every way that we know.
//!
//! Run without arguments it plays all parts: it starts the dependency and the service, posts every request
//! twice as an impatient client does, kills the service with `kill -9` again and again, makes the dependency
//! slow, silent, forgetful and rude, and counts at the end, on the dependency's side, that each request was
//! booked exactly once.

mod dependency;
mod service;

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Requests per kind of failure.
const REQUESTS: usize = 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["dependency"] => dependency::serve(),
        ["service", store, dependency] => service::serve(Path::new(store), dependency),
        [] => show(),
        _ => eprintln!("usage: dosomework"),
    }
}

/// A process of ours that listens.
struct Process {
    child: Child,
    url: String,
}

impl Process {
    fn start(arguments: &[&str]) -> Process {
        let program = std::env::current_exe().expect("this program has a path");
        let mut child =
            Command::new(program).args(arguments).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
        Process { child, url: line.trim().to_owned() }
    }

    fn kill(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::KILL).expect("it can be killed");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(5)));
    config.build().into()
}

fn get(url: &str) -> Option<serde_json::Value> {
    let mut response = agent().get(url).call().ok()?;
    serde_json::from_str(&response.body_mut().read_to_string().ok()?).ok()
}

/// A client with a bad connection: it repeats its request, with its key, until it has heard an id twice.
fn post(service: &str, key: &str) -> String {
    let mut heard: Vec<String> = Vec::new();
    while heard.len() < 2 {
        let answer = agent().post(format!("{service}/dosomework")).header("Idempotency-Key", key).send("{}");
        match answer {
            Ok(mut response) if response.status() == 202 => {
                heard.push(response.body_mut().read_to_string().unwrap_or_default())
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    assert_eq!(heard[0], heard[1], "the same key is the same work");
    heard.remove(0)
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn show() {
    let folder = tempfile::tempdir().expect("there is room for a store");
    let store = folder.path().join("dosomework.db").display().to_string();
    let dependency = Process::start(&["dependency"]);
    let mut service = Process::start(&["service", &store, &dependency.url]);
    println!("DependencyI at {}, the service at {}", dependency.url, service.url);
    let mut ids = Vec::new();
    for mode in ["up", "slow", "down", "forget", "drop"] {
        let set =
            agent().put(format!("{}/mode/{mode}", dependency.url)).send("").expect("it can be switched");
        assert_eq!(set.status(), 200);
        for n in 0..REQUESTS {
            ids.push(post(&service.url, &format!("{mode}-{n}")));
        }
        // Let some of it be under way, then pull the plug.
        until("something was tried", || {
            get(&format!("{}/bookings", dependency.url))
                .is_some_and(|b| b["calls"].as_u64() > Some(ids.len() as u64 / 2))
        });
        service.kill();
        service = Process::start(&["service", &store, &dependency.url]);
        if mode == "down" {
            until("all of it waits", || {
                get(&format!("{}/waiting", service.url))
                    .is_some_and(|w| w["waiting"] == REQUESTS && w["running"] == 0)
            });
            println!(
                "down: {REQUESTS} works wait for it, visible; no claim, no thread and no transaction is held"
            );
        }
        agent().put(format!("{}/mode/up", dependency.url)).send("").expect("it can be switched");
        until("they are done", || {
            ids.iter().all(|id| {
                get(&format!("{}/dosomework/{id}", service.url)).is_some_and(|w| w["status"] == "completed")
            })
        });
        println!("{mode:6}: {REQUESTS} requests, each posted twice, the service killed: all done");
    }
    let bookings = get(&format!("{}/bookings", dependency.url)).expect("it answers");
    let counts = bookings["bookings"].as_object().expect("a count for each");
    assert!(ids.iter().all(|id| counts.get(id).is_some_and(|count| count == 1)), "{bookings}");
    assert_eq!(counts.len(), ids.len(), "nothing was booked that nobody asked for");
    println!(
        "{} requests, {} bookings, each booked once (DependencyI heard {} calls)",
        ids.len(),
        counts.len(),
        bookings["calls"]
    );
}
