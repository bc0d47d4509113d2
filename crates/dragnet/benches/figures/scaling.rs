//! A stage that waits for a dependency, with ever more processes of it.

use crate::service::{Service, schema};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::process::Command;
use std::time::{Duration, Instant};

/// Jobs that pass Launch in a second, with 1, 2 and 4 processes of it, when the server that they ask takes half a second
/// for each answer: a stage that waits scales by its processes alone.
pub(crate) fn scaling(url: &str) {
    const JOBS: usize = 400;
    const ANSWER: Duration = Duration::from_millis(500);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let slow = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut head = String::new();
                while reader.read_line(&mut head).unwrap_or(0) > 2 {}
                std::thread::sleep(ANSWER);
                let length = "Content-Length: 1\r\nETag: \"a\"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nConnection: close\r\n\r\n";
                let answer = match head.starts_with("HEAD") {
                    true => format!("HTTP/1.1 200 OK\r\n{length}"),
                    false => format!("HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-0/1\r\n{length}x"),
                };
                let _ = stream.write_all(answer.as_bytes());
            });
        }
    });
    let mut first = 0.0;
    for processes in [1, 2, 4] {
        let folder = tempfile::tempdir().unwrap();
        let store = schema(url);
        let output = folder.path().join("output").display().to_string();
        let role = |role: &str, n: usize| {
            let state = folder.path().join(format!("{role}-{n}"));
            Service::with(&state, &["--store", &store, "--output", &output, "--roles", role])
        };
        let api = role("api", 0);
        let spec =
            json!({ "patterns": [{ "name": "m", "regex": "x" }], "dataset": [format!("http://{slow}/a")] });
        (0..JOBS).for_each(|_| drop(api.submit(&spec)));
        let begun = Instant::now();
        let _launches: Vec<Service> = (0..processes).map(|n| role("launch", n)).collect();
        let launched = || {
            let sql = "select count(*) from event where kind = 'launch.launched'";
            let out = Command::new("psql").args([&*store, "-Atqc", sql]).output().unwrap();
            String::from_utf8_lossy(&out.stdout).trim().parse::<usize>().unwrap()
        };
        while launched() < JOBS {
            std::thread::sleep(Duration::from_millis(50));
        }
        let rate = JOBS as f64 / begun.elapsed().as_secs_f64();
        first = if processes == 1 { rate } else { first };
        println!("{processes} processes of launch: {rate:.0} jobs/s, {:.2} of one", rate / first);
    }
}
