//! What HTTP costs: processor time of a submission beyond the store's, and how soon a job is shown among many.

use crate::service::{Service, percentile};
use crate::submissions::{CLIENTS, accept};
use dragnet_job::{MACHINES, TABLES, topic};
use dragnet_pattern::{Store, sqlite};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Submissions whose processor time is measured, and how often.
const SUBMISSIONS: u64 = 20_000;
const RUNS: u64 = 5;
/// Jobs that stand in the store.
const JOBS: u64 = 100_000;
/// Requests for one of them, a second, and for how long.
const REQUESTS_S: u64 = 1000;
const SECONDS: u64 = 20;

pub(crate) fn http() {
    let folder = tempfile::tempdir().unwrap();
    submit_cost(folder.path());
    status(folder.path());
}

/// Opens a store in which nobody works yet.
fn store(state: &Path) -> Arc<dyn Store> {
    std::fs::create_dir_all(state).unwrap();
    let modules = [TABLES, dragnet_tenant::TABLES];
    Arc::new(sqlite::open(&state.join("dragnet.db"), MACHINES, &modules).unwrap())
}

/// Accepts so many requests, as many at once as there are clients. Returns the ids.
fn accepted(store: &Arc<dyn Store>, most: u64) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        store.add_group("launch", topic::LAUNCH, true).await.unwrap();
        let next = Arc::new(AtomicU64::new(0));
        let client = |store: Arc<dyn Store>, next: Arc<AtomicU64>| async move {
            let mut ids = Vec::new();
            loop {
                let key = next.fetch_add(1, Ordering::Relaxed);
                if key >= most {
                    return ids;
                }
                ids.push(store.accept(accept(key)).await.unwrap().work.id);
            }
        };
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| tokio::spawn(client(store.clone(), next.clone()))).collect();
        let mut ids = Vec::new();
        for client in clients {
            ids.extend(client.await.unwrap());
        }
        ids
    })
}

/// Processor time that a process has had, of its store's writer and of all other threads.
fn processor_times(pid: u32) -> (Duration, Duration) {
    // User and system time, in ticks of 10 ms.
    let ticks = |file: String| -> u64 {
        let stat = std::fs::read_to_string(file).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    };
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let is_writer = |task: &Path| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("store-writer"))
    };
    let writers = tasks.map(|task| task.path()).filter(|task| is_writer(task));
    let writer: u64 = writers.map(|task| ticks(format!("{}/stat", task.display()))).sum();
    let all = ticks(format!("/proc/{pid}/stat"));
    (Duration::from_millis(10 * writer), Duration::from_millis(10 * (all - writer)))
}

/// The store's writer has a thread of its own, so that what is not its time is the path's.
fn submit_cost(folder: &Path) {
    let service = Service::with(&folder.join("submit"), &["--roles", "api"]);
    let mut costs: Vec<(f64, f64)> = (0..RUNS).map(|run| submit_all(&service, run)).collect();
    costs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let ((least, _), (median, writer), (most, _)) =
        (costs[0], costs[costs.len() / 2], costs[costs.len() - 1]);
    println!(
        "processor time of a submission: {median:.0} µs beyond the store's (median of {RUNS}, {least:.0}–{most:.0}), whose \
         writer takes {writer:.0} µs"
    );
}

/// What a submission takes of the service's processor time, in microseconds: beyond the store's writer, and of it.
fn submit_all(service: &Service, run: u64) -> (f64, f64) {
    let body = json!({ "patterns": [{ "regex": "(?i)needle-[0-9]+" }], "dataset": ["/data"] }).to_string();
    let pid = service.child.id();
    let (next, before) = (AtomicU64::new(0), processor_times(pid));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
                loop {
                    let key = next.fetch_add(1, Ordering::Relaxed);
                    if key >= SUBMISSIONS {
                        return;
                    }
                    let request = agent
                        .post(format!("{}/v1/jobs", service.url))
                        .header("Content-Type", "application/json")
                        .header("Idempotency-Key", format!("\"{run}-{key}\""));
                    let mut answer = request.send(&body).unwrap();
                    assert_eq!(answer.status(), 202);
                    answer.body_mut().read_to_string().unwrap();
                }
            });
        }
    });
    let (writer, others) = processor_times(pid);
    let each = |time: Duration| time.as_secs_f64() * 1e6 / SUBMISSIONS as f64;
    (each(others - before.1), each(writer - before.0))
}

/// Asked at fixed times, whatever the answers take: a slow one makes those behind it late, and that counts.
fn status(folder: &Path) {
    let state = folder.join("status");
    let ids = accepted(&store(&state), JOBS);
    let service = Service::with(&state, &["--roles", "api"]);
    let (next, begun) = (AtomicU64::new(0), Instant::now());
    let asked = REQUESTS_S * SECONDS;
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let client = || {
            let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
            let mut times = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= asked {
                    return times;
                }
                let due = begun + Duration::from_micros(n * 1_000_000 / REQUESTS_S);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                // A step that meets every job in no order.
                let id = &ids[(n.wrapping_mul(7919) % JOBS) as usize];
                let mut answer = agent.get(format!("{}/v1/jobs/{id}", service.url)).call().unwrap();
                answer.body_mut().read_to_string().unwrap();
                times.push(due.elapsed());
            }
        };
        let clients: Vec<_> = (0..16).map(|_| scope.spawn(client)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    times.sort();
    println!(
        "GET of a job, {JOBS} in the store, {REQUESTS_S} a second for {SECONDS} s: median {:.1} ms, p99 {:.1} ms, most {:.1} ms",
        percentile(&times, 0.5),
        percentile(&times, 0.99),
        percentile(&times, 1.0)
    );
}
