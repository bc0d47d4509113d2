//! Clients that are slow, many or noisy: none of them holds up another.

use crate::harness::{Sandbox, Service, until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

fn connect(service: &Service) -> TcpStream {
    let stream = TcpStream::connect(service.url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// What comes until the service closes the connection.
fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Ok(_) => {}
        // It was closed while we still sent.
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        Err(e) => panic!("the connection was not closed: {e}"),
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Each of them would keep its connection for ever; another client is served beside it.
#[test]
fn who_is_slow_is_cut_off() {
    let sandbox = Sandbox::new();
    let service = sandbox.serve_with(&["--client-s", "1"], None);
    let post = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let table = [
        ("says nothing", String::new(), ""),
        ("stops within the first line", "GET /v1/jo".into(), ""),
        ("never ends its head", "GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n".into(), ""),
        ("never ends its body", format!("{post}Content-Length: 100\r\n\r\n{{"), "408"),
        ("never ends its chunks", format!("{post}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n"), "408"),
        ("asks once and stays", "GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), "200"),
    ];
    for (name, said, status) in table {
        let mut stream = connect(&service);
        stream.write_all(said.as_bytes()).unwrap();
        assert_eq!(service.get("/v1/jobs").status, 200, "{name}");
        let answer = rest(stream);
        assert_eq!(answer.split(' ').nth(1).unwrap_or_default(), status, "{name}: {answer}");
    }
}

/// A byte now and then is slow as well: the time is for the whole head.
#[test]
fn who_drips_is_cut_off() {
    let sandbox = Sandbox::new();
    let service = sandbox.serve_with(&["--client-s", "1"], None);
    let mut stream = connect(&service);
    stream.write_all(b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").unwrap();
    until("the end of a connection that drips", || stream.write_all(b"a").is_err());
}

#[test]
fn heads_and_bodies_have_limits() {
    let sandbox = Sandbox::new();
    let service = sandbox.serve();
    let head = |headers: &str| {
        format!("GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")
    };
    let body = |headers: &str, body: &str| {
        format!("POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n{body}")
    };
    let chunk = "10000\r\n".to_owned() + &"x".repeat(0x10000) + "\r\n";
    let table = [
        ("a usual head", head("X-A: b\r\n"), "200"),
        ("a host that is not said", head("").replace("Host: localhost\r\n", ""), "400"),
        ("a host that is said twice", head("Host: localhost\r\n"), "400"),
        (
            "the host of an older request",
            head("").replace("Host: localhost\r\n", "").replace("1.1", "1.0"),
            "200",
        ),
        ("a long header", head(&format!("X-A: {}\r\n", "a".repeat(80 << 10))), "431"),
        ("many headers", head(&"X-A: b\r\n".repeat(500)), "431"),
        (
            "a long path",
            head("").replace("/v1/jobs", &format!("/v1/jobs?cursor={}", "a".repeat(80 << 10))),
            "431",
        ),
        ("an encoded body", body("Content-Encoding: gzip\r\nContent-Length: 1\r\n", "x"), "415"),
        (
            "a deep body",
            body("Content-Type: application/json\r\nContent-Length: 100000\r\n", &"[".repeat(100_000)),
            "400",
        ),
        (
            "a body that does not say how long it is",
            body("Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n", &chunk.repeat(80)),
            "413",
        ),
    ];
    for (name, said, status) in table {
        let mut stream = connect(&service);
        // It may be refused before all of it was sent.
        let _ = stream.write_all(said.as_bytes());
        let answer = rest(stream);
        assert_eq!(answer.split(' ').nth(1).unwrap_or_default(), status, "{name}: {answer}");
    }
}

/// Who asks again and again and reads nothing keeps its connection only for a while.
#[test]
fn who_reads_nothing_is_cut_off() {
    let sandbox = Sandbox::new();
    let service = sandbox.serve_with(&["--connections", "1", "--client-s", "1"], None);
    let mut deaf = connect(&service);
    let asked = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
    deaf.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    // More answers than the buffers between the two hold.
    let _ = deaf.write_all(asked.repeat(2_000).as_bytes());
    assert_eq!(service.get("/v1/jobs").status, 200, "the only connection is free again");
    // It was cut off within its answers, not after them.
    let mut count = 0;
    let mut part = [0; 1 << 16];
    while let Ok(n @ 1..) = deaf.read(&mut part) {
        count += String::from_utf8_lossy(&part[..n]).matches("HTTP/1.1 200").count();
    }
    assert!((1..2_000).contains(&count), "{count} answers");
}

/// The service ends although somebody has a connection and says nothing on it, or half a head.
#[test]
fn nobody_keeps_the_service_from_its_end() {
    let sandbox = Sandbox::new();
    let mut service = sandbox.serve_with(&["--client-s", "600"], None);
    let silent = connect(&service);
    let mut half = connect(&service);
    half.write_all(b"GET /v1/jobs HTTP/1.1\r\nHo").unwrap();
    assert_eq!(service.get("/v1/jobs").status, 200);
    service.signal(rustix::process::Signal::TERM);
    assert!(service.wait().success());
    assert_eq!((rest(silent), rest(half)), (String::new(), String::new()));
}

/// Who comes when there are as many as may be waits for one to end, and is served then.
#[test]
fn connections_have_a_limit() {
    let sandbox = Sandbox::new();
    let service = sandbox.serve_with(&["--connections", "3", "--client-s", "5"], None);
    let mut held: Vec<TcpStream> = (0..3).map(|_| connect(&service)).collect();
    for stream in &mut held {
        stream.write_all(b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    let mut fourth = connect(&service);
    fourth.write_all(b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    fourth.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut byte = [0];
    assert!(fourth.read(&mut byte).is_err(), "a fourth connection was served beside three");
    held.pop();
    fourth.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert!(rest(fourth).starts_with("HTTP/1.1 200"));
}

/// Ten thousand that hold a connection and say nothing, or as many as the machine lets this test open.
#[test]
fn ten_thousand_connections_hold_up_nobody() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(11_000).min(11_000);
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).unwrap();
    let most = usize::try_from(wanted).unwrap().saturating_sub(1000).min(10_000);
    assert!(most > 1000, "the limit on open files, {wanted}, leaves no room for a test of many connections");
    let sandbox = Sandbox::new();
    let service = sandbox.serve_with(&["--client-s", "600"], None);
    let begun: Vec<TcpStream> = (0..most)
        .map(|_| {
            let mut stream = connect(&service);
            stream.write_all(b"GET /v1/jobs HTTP/1.1\r\nHost:").unwrap();
            stream
        })
        .collect();
    let id = service.submit(&crate::harness::spec(&sandbox.corpus()));
    assert_eq!(service.end_of(&id)["status"], "completed");
    // All of them are still there, and are answered when they go on.
    for mut stream in begun.into_iter().step_by(97) {
        stream.write_all(b" localhost\r\nConnection: close\r\n\r\n").unwrap();
        assert!(rest(stream).starts_with("HTTP/1.1 200"));
    }
}
