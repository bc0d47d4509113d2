//! A job over a corpus against bare mappers on the same shards.

use crate::service::{DRAGNET, Service, median};
use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) fn throughput(corpus: &Path) {
    const TIMES: usize = 10;
    let cores = std::thread::available_parallelism().unwrap().get();
    // Beside the corpus, so that links can be made.
    let folder = tempfile::tempdir_in(corpus.parent().unwrap()).unwrap();
    let files = copies(folder.path(), corpus, TIMES);
    let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    let state = folder.path().join("state");
    let (mut jobs, mut bares) = (Vec::new(), Vec::new());
    for round in 0..3 {
        let service = Service::start(&state);
        let begun = Instant::now();
        let id = service.submit(&spec(&files));
        let job = service.end_of(&id, Duration::from_millis(250));
        let took = begun.elapsed().as_secs_f64();
        assert_eq!(job["status"], "completed", "{job}");
        drop(service);
        let (output, shards) =
            bare_folder(folder.path(), &state.join("output/default").join(&id).join("plan.json"));
        let bare = bare_mappers(&output, shards, cores);
        println!("round {}: job {took:.2} s, bare mappers {bare:.2} s, ratio {:.3}", round + 1, bare / took);
        jobs.push(took);
        bares.push(bare);
    }
    let (job, bare) = (median(jobs), median(bares));
    println!(
        "{:.1} GB in {} objects, {cores} mappers: job {job:.2} s, bare mappers {bare:.2} s, ratio {:.3}; {:.0} MB/s stored",
        bytes as f64 / 1e9,
        files.len(),
        bare / job,
        bytes as f64 / 1e6 / job
    );
}

/// As many mappers as cores, each taking the next shard when it is done with one.
fn bare_mappers(output: &str, shards: usize, cores: usize) -> f64 {
    let next = AtomicU64::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let mut mapper = BareMapper::start();
                loop {
                    let shard = next.fetch_add(1, Ordering::Relaxed) as usize;
                    if shard >= shards {
                        return;
                    }
                    mapper.run(output, shard);
                }
            });
        }
    });
    begun.elapsed().as_secs_f64()
}

/// A mapper that nobody but this benchmark drives.
pub(crate) struct BareMapper {
    pub(crate) child: Child,
    stdin: ChildStdin,
    stdout: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl BareMapper {
    pub(crate) fn start() -> BareMapper {
        let mut command = Command::new(DRAGNET);
        command
            .args(["map", "--lifeline"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        BareMapper { child, stdin, stdout: BufReader::new(stdout).lines() }
    }

    pub(crate) fn run(&mut self, output: &str, shard: usize) {
        writeln!(self.stdin, "{}", json!({ "output": output, "shard": shard })).unwrap();
        let answer = self.stdout.next().unwrap().unwrap();
        assert!(answer.contains("committed"), "{answer}");
    }
}

impl Drop for BareMapper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PATTERN: &str = "XKCD-needle-[0-9a-f]+";

pub(crate) fn spec(files: &[PathBuf]) -> Json {
    json!({ "patterns": [{ "name": "m", "regex": PATTERN }], "dataset": files })
}

/// The corpus some times over, by links, as one object is read once however often it is named.
pub(crate) fn copies(folder: &Path, corpus: &Path, times: usize) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for n in 0..times {
        for entry in std::fs::read_dir(corpus).unwrap() {
            let from = entry.unwrap().path();
            let to = from.with_file_name(format!(".{n}-{}", from.file_name().unwrap().to_string_lossy()));
            let to = folder.join(to.file_name().unwrap());
            if std::fs::hard_link(&from, &to).is_err() {
                std::fs::copy(&from, &to).unwrap();
            }
            files.push(to);
        }
    }
    files.sort();
    files
}

/// A plan over the corpus, as Launch writes it, in a folder where nobody else works.
pub(crate) fn plan(folder: &Path, corpus: &Path, times: usize) -> (String, usize) {
    let state = folder.join("planner");
    let files = copies(folder, corpus, times);
    let service = Service::start(&state);
    let id = service.submit(&spec(&files));
    let written = state.join("output/default").join(&id).join("plan.json");
    while !written.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(service);
    bare_folder(folder, &written)
}

pub(crate) fn bare_folder(folder: &Path, plan: &Path) -> (String, usize) {
    let bare = folder.join(format!("bare-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&bare).unwrap();
    std::fs::copy(plan, bare.join("plan.json")).unwrap();
    let plan: Json = serde_json::from_slice(&std::fs::read(plan).unwrap()).unwrap();
    (format!("file://{}", bare.display()), plan["shards"].as_array().unwrap().len())
}
