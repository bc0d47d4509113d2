//! The service as a process of its own, and what benchmarks say in numbers.

use serde_json::Value as Json;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const DRAGNET: &str = env!("CARGO_BIN_EXE_dragnet");

pub(crate) struct Service {
    pub(crate) child: Child,
    pub(crate) url: String,
    agent: ureq::Agent,
}

impl Service {
    pub(crate) fn start(state: &Path) -> Service {
        Service::with(state, &[])
    }

    pub(crate) fn with(state: &Path, more: &[&str]) -> Service {
        let mut command = Command::new(DRAGNET);
        command.args(["serve", "--listen", "127.0.0.1:0", "--state"]).arg(state).args(more);
        command.env("DRAGNET_LOG", "warn");
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = lines.find_map(|line| {
            let line = line.unwrap();
            let works = line.starts_with("working as ").then(String::new);
            line.strip_prefix("listening on ").map(str::to_owned).or(works)
        });
        let url = said.unwrap();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        Service { child, url, agent: ureq::Agent::config_builder().build().into() }
    }

    pub(crate) fn submit(&self, spec: &Json) -> String {
        let request =
            self.agent.post(format!("{}/v1/jobs", self.url)).header("Content-Type", "application/json");
        let body = request.send(spec.to_string()).unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str::<Json>(&body).unwrap()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn job(&self, id: &str) -> Json {
        let body =
            self.agent.get(format!("{}/v1/jobs/{id}", self.url)).call().unwrap().body_mut().read_to_string();
        serde_json::from_str(&body.unwrap()).unwrap()
    }

    pub(crate) fn end_of(&self, id: &str, pause: Duration) -> Json {
        loop {
            let job = self.job(id);
            if job["ended"].is_string() {
                return job;
            }
            std::thread::sleep(pause);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The most memory that a process has had resident, in MiB.
pub(crate) fn peak_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// A schema of its own.
pub(crate) fn schema(url: &str) -> String {
    let schema = format!("bench{}", uuid::Uuid::new_v4().simple());
    let made = Command::new("psql").args([url, "-qc", &format!("create schema {schema}")]).status();
    assert!(made.unwrap().success());
    let mark = if url.contains('?') { '&' } else { '?' };
    format!("{url}{mark}options=-csearch_path%3D{schema}")
}

/// Commits of 4 kB that this disk makes durable in a second, right now.
pub(crate) fn fdatasync_rate(folder: &Path) -> u64 {
    let mut file = std::fs::File::create(folder.join("fdatasync")).unwrap();
    let begun = Instant::now();
    let mut n = 0;
    while begun.elapsed() < Duration::from_secs(1) {
        file.write_all(&[0; 4096]).unwrap();
        file.sync_data().unwrap();
        n += 1;
    }
    n
}

pub(crate) fn percentile(sorted: &[Duration], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
