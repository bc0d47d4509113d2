//! A sandbox with real archives, the service as a process of its own, and a client.

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The longest that a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Sandbox {
    pub(crate) folder: tempfile::TempDir,
    /// Where the Status DB is, if not in the state folder.
    pub(crate) store: Option<String>,
    /// What the environment says besides, such as where S3 is.
    pub(crate) env: Vec<(&'static str, String)>,
}

impl Sandbox {
    pub(crate) fn new() -> Sandbox {
        Sandbox { folder: tempfile::tempdir().unwrap(), store: None, env: Vec::new() }
    }

    /// A sandbox whose Status DB is a schema of its own in the database that `./check` starts.
    pub(crate) fn on_postgres() -> Option<Sandbox> {
        let Some(url) = std::env::var("DRAGNET_TEST_POSTGRES").ok().filter(|url| !url.is_empty()) else {
            eprintln!("skipped: DRAGNET_TEST_POSTGRES names no database (`./check` starts one)");
            return None;
        };
        let schema = format!("s{}", uuid::Uuid::new_v4().simple());
        psql(&url, &format!("create schema {schema}"));
        let mark = if url.contains('?') { '&' } else { '?' };
        let store = Some(format!("{url}{mark}application_name={schema}&options=-csearch_path%3D{schema}"));
        Some(Sandbox { store, ..Sandbox::new() })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The output folder of a job.
    pub(crate) fn output(&self, id: &str) -> PathBuf {
        self.state().join("output/default").join(id)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The program with this sandbox's state.
    pub(crate) fn dragnet(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dragnet"));
        command
            .args(arguments)
            .env("DRAGNET_STATE", self.state())
            .envs(self.env.iter().map(|(name, value)| (*name, value)))
            .env_remove("DRAGNET_SERVER")
            .env_remove("DRAGNET_API_KEY")
            .env_remove("DRAGNET_CRASH");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.dragnet(arguments).output().unwrap()
    }

    pub(crate) fn serve(&self) -> Service {
        self.serve_with(&[], None)
    }

    pub(crate) fn serve_with(&self, arguments: &[&str], crash: Option<&str>) -> Service {
        let mut command = self.dragnet(&["serve"]);
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if let Some(store) = &self.store {
            command.args(["--store", store]);
        }
        command.args(arguments).stderr(Stdio::piped()).stdout(Stdio::null());
        if let Some(point) = crash {
            command.env("DRAGNET_CRASH", point);
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = Arc::new(Mutex::new(String::new()));
        let (mut url, mut started) = (None, false);
        // A crash point may come before the service listens.
        for line in lines.by_ref() {
            let line = line.unwrap();
            said.lock().unwrap().push_str(&(line.clone() + "\n"));
            url = line.strip_prefix("listening on ").map(str::to_owned);
            started = url.is_some() || line.starts_with("working as ");
            if started {
                break;
            }
        }
        assert!(started || crash.is_some(), "it did not start: {}", said.lock().unwrap());
        let log = said.clone();
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                log.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Service { child, url: url.unwrap_or_default(), said, reader: Some(reader) }
    }

    /// The Status DB, read beside whoever writes it.
    pub(crate) fn db(&self) -> rusqlite::Connection {
        let db = rusqlite::Connection::open(self.state().join("dragnet.db")).unwrap();
        db.busy_timeout(PATIENCE).unwrap();
        db
    }

    pub(crate) fn count(&self, sql: &str) -> i64 {
        if let Some(store) = &self.store {
            return psql(store, sql).trim().parse().unwrap();
        }
        self.db().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Two archives: many small pages, and a crawl inside a crawl, stored, so that shards in its middle are
    /// deceived and a second round is needed.
    pub(crate) fn corpus(&self) -> PathBuf {
        let pages: Vec<Vec<u8>> = (0..400).map(page).collect();
        let gzipped: Vec<u8> = pages.iter().flat_map(|page| gzip(page, 6)).collect();
        self.write("data/pages.warc.gz", &gzipped);
        let inner: Vec<u8> = (1000..1300).flat_map(|n| gzip(&page(n), 6)).collect();
        let nested = [
            gzip(&page(500), 0),
            gzip(&record("http://h/inner.warc.gz", "application/gzip", &inner), 0),
            gzip(&page(501), 0),
        ];
        self.write("data/nested.warc.gz", &nested.concat());
        self.path("data")
    }
}

/// What PostgreSQL's own client says.
fn psql(url: &str, sql: &str) -> String {
    let output = Command::new("psql").args([url, "-qAtc", sql]).output().unwrap();
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn record(url: &str, content_type: &str, block: &[u8]) -> Vec<u8> {
    let head = format!(
        "WARC/1.0\r\nWARC-Type: resource\r\nWARC-Target-URI: {url}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        block.len()
    );
    [head.as_bytes(), block, b"\r\n\r\n"].concat()
}

pub(crate) fn page(n: usize) -> Vec<u8> {
    let filler: String =
        (0..600).map(|i| char::from(b'a' + ((i * 31 + n * 17 + i * i * n) % 26) as u8)).collect();
    record(
        &format!("http://h{}/{n}", n % 7),
        "text/html",
        format!("<p>{filler} needle-{n} {filler}</p>").as_bytes(),
    )
}

pub(crate) fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A job over a folder, in shards so small that there are many.
pub(crate) fn spec(data: &Path) -> Json {
    json!({ "patterns": [{ "name": "n", "regex": "needle-[0-9]+" }], "dataset": [data], "shard_bytes": 20_000 })
}

pub(crate) struct Service {
    child: Child,
    pub(crate) url: String,
    said: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into()
}

pub(crate) fn answer(
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<Answer, String> {
    let mut response = response.map_err(|e| e.to_string())?;
    let body =
        response.body_mut().with_config().limit(u64::MAX).read_to_string().map_err(|e| e.to_string())?;
    Ok(Answer { status: response.status().as_u16(), headers: response.headers().clone(), body })
}

impl Service {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// `kill -9`, and gone.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        self.wait();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the process's end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        answer(agent().get(format!("{}{path}", self.url)).call()).unwrap()
    }

    pub(crate) fn try_post(&self, path: &str, key: Option<&str>, body: &str) -> Result<Answer, String> {
        let mut request =
            agent().post(format!("{}{path}", self.url)).header("Content-Type", "application/json");
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        if body.len() > 1 << 20 {
            // As curl does: who is refused by the length alone must not be cut off while it still sends.
            request = request.header("Expect", "100-continue");
        }
        answer(request.send(body))
    }

    /// `GET` with an API key.
    pub(crate) fn get_as(&self, key: &str, path: &str) -> Answer {
        let request = agent().get(format!("{}{path}", self.url));
        answer(request.header("Authorization", format!("Bearer {key}")).call()).unwrap()
    }

    /// `POST` of JSON with an API key.
    pub(crate) fn post_as(&self, key: &str, path: &str, body: &str) -> Answer {
        let request = agent().post(format!("{}{path}", self.url)).header("Content-Type", "application/json");
        answer(request.header("Authorization", format!("Bearer {key}")).send(body)).unwrap()
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.try_post(path, None, body).unwrap()
    }

    /// Posts a job and returns its id.
    pub(crate) fn submit(&self, spec: &Json) -> String {
        let answer = self.post("/v1/jobs", &spec.to_string());
        assert_eq!(answer.status, 202, "{}", answer.body);
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn job(&self, id: &str) -> Json {
        self.get(&format!("/v1/jobs/{id}")).json()
    }

    /// The job once `is` holds of it.
    pub(crate) fn job_when(&self, id: &str, mut is: impl FnMut(&Json) -> bool) -> Json {
        let mut job = Json::Null;
        until(&format!("job {id}"), || {
            job = self.job(id);
            is(&job)
        });
        job
    }

    /// The job at its end.
    pub(crate) fn end_of(&self, id: &str) -> Json {
        self.job_when(id, |job| !matches!(job["status"].as_str(), Some("accepted" | "running")))
    }

    /// All hits, as they settled.
    pub(crate) fn hits(&self, id: &str) -> Vec<Json> {
        let body = self.get(&format!("/v1/jobs/{id}/hits?limit=10000")).body;
        body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What must be the same whatever was killed on the way.
    pub(crate) fn result(&self, id: &str) -> Json {
        let job = self.end_of(id);
        let bill = self.get(&format!("/v1/jobs/{id}/bill")).json();
        let coverage = self.get(&format!("/v1/jobs/{id}/coverage")).json();
        json!({ "status": job["status"], "digest": job["digest"], "lines": bill["lines"], "coverage": coverage })
    }

    /// The mappers that this service has started.
    pub(crate) fn mappers(&self) -> Vec<Pid> {
        let pid = self.pid().as_raw_nonzero();
        let mut children = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            // A child that has not become a mapper yet still holds up the thread that started it.
            let is_mapper = |pid: &&str| {
                std::fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.windows(5).any(|w| w == b"\0map\0"))
            };
            let pids = text.split_whitespace().filter(is_mapper);
            children.extend(pids.filter_map(|pid| Pid::from_raw(pid.parse().ok()?)));
        }
        children
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks until it holds.
pub(crate) fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The result of an undisturbed run of a job, in a sandbox of its own over the same files.
pub(crate) fn undisturbed(spec: &Json) -> Json {
    let sandbox = Sandbox::new();
    let service = sandbox.serve();
    let id = service.submit(spec);
    service.result(&id)
}
