//! The figures that we publish, each a ratio against the bare thing, measured side by side in one run:
//!
//! ```text
//! cargo bench -p dragnet -- tiny                 # a tiny job, from post to finished
//! cargo bench -p dragnet -- submissions          # durable submissions against a bare group-commit loop
//! cargo bench -p dragnet --features postgres -- postgres URL   # the same on PostgreSQL, in schemas that it makes
//! cargo bench -p dragnet -- hops                 # steps in a second where claims and steps are batched; with URL on PostgreSQL
//! cargo bench -p dragnet -- flat [MOST]          # lists, sweeper and claims over 1,000 to 1,000,000 ended jobs
//! cargo bench -p dragnet -- fairness             # shards of a crowd of 10,000 jobs that run before another tenant's small one
//! cargo bench -p dragnet -- http                 # processor time of a submission beyond the store's; a job among 100,000
//! cargo bench -p dragnet -- recovery             # from kill -9 and restart to going on
//! cargo bench -p dragnet -- memory               # the service with 10,000 jobs, a mapper over a corpus
//! cargo bench -p dragnet -- throughput CORPUS    # a job against the bare mapper on the same shards
//! cargo bench -p dragnet --features hadoop -- hadoop DIR CORPUS   # a job on Hadoop against the plain streaming command
//! ```
//!
//! `bench/corpus.sh ROOT` makes the corpus; CORPUS is `ROOT/corpus/warc`. Without one, `memory` uses pages
//! that it makes itself. DIR is a cluster's that `services/hadoop.sh` has started.

#![allow(clippy::unwrap_used, reason = "a benchmark that can't go on stops")]

#[path = "figures/http.rs"]
mod http;
mod store_figures;

use dragnet_job::{KIND, MACHINES, TABLES, topic};
use dragnet_pattern::{
    Accept, Advance, Claimant, IdempotencyKey, Next, PRIORITY, Shares, Statement, Store, sqlite,
};
use serde_json::{Value as Json, json};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const DRAGNET: &str = env!("CARGO_BIN_EXE_dragnet");

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tiny"] => tiny(),
        ["submissions"] => submissions(),
        #[cfg(feature = "postgres")]
        ["postgres", url] => postgres_submissions(url),
        #[cfg(all(feature = "postgres", feature = "objects"))]
        ["scaling", url] => scaling(url),
        ["hops"] => {
            let folder = tempfile::tempdir().unwrap();
            hops(
                "SQLite",
                Arc::new(sqlite::open(&folder.path().join("hops.db"), MACHINES, &[TABLES]).unwrap()),
            );
        }
        #[cfg(feature = "postgres")]
        ["hops", url] => {
            let store = dragnet_pattern::postgres::open(&schema(url), MACHINES, &[TABLES]).unwrap();
            hops("PostgreSQL", Arc::new(store));
        }
        ["flat"] => store_figures::flat(1_000_000),
        ["flat", most] => store_figures::flat(most.parse().unwrap()),
        ["fairness"] => store_figures::fairness(),
        ["http"] => http::http(),
        ["recovery"] => recovery(),
        #[cfg(feature = "postgres")]
        ["takeover", url] => takeover(url),
        ["memory", corpus @ ..] => memory(corpus.first().map(Path::new)),
        ["throughput", corpus] => throughput(Path::new(corpus)),
        ["served", disk, uri, http] => served(Path::new(disk), uri, http),
        #[cfg(feature = "hadoop")]
        ["hadoop", cluster, corpus] => hadoop(Path::new(cluster), Path::new(corpus)),
        _ => println!(
            "name a figure: tiny, submissions, hops [URL], flat [MOST], fairness, postgres URL, scaling URL, recovery, takeover URL, \
             memory, throughput CORPUS, \
             served DISK URI HTTP or hadoop DIR CORPUS"
        ),
    }
}

/// Commits of 4 kB that this disk makes durable in a second, right now.
fn fdatasync_rate(folder: &Path) -> u64 {
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

fn percentile(sorted: &[Duration], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Service {
    child: Child,
    url: String,
    agent: ureq::Agent,
}

impl Service {
    fn start(state: &Path) -> Service {
        Service::with(state, &[])
    }

    fn with(state: &Path, more: &[&str]) -> Service {
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

    fn submit(&self, spec: &Json) -> String {
        let request =
            self.agent.post(format!("{}/v1/jobs", self.url)).header("Content-Type", "application/json");
        let body = request.send(spec.to_string()).unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str::<Json>(&body).unwrap()["id"].as_str().unwrap().to_owned()
    }

    fn job(&self, id: &str) -> Json {
        let body =
            self.agent.get(format!("{}/v1/jobs/{id}", self.url)).call().unwrap().body_mut().read_to_string();
        serde_json::from_str(&body.unwrap()).unwrap()
    }

    fn end_of(&self, id: &str, pause: Duration) -> Json {
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
fn peak_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn tiny() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.txt");
    std::fs::write(&file, "a needle in a haystack\n".repeat(4500)).unwrap();
    let spec = json!({ "patterns": [{ "name": "m", "regex": "needle in" }], "dataset": [file], "limits": { "hits": 10 } });
    let service = Service::start(&folder.path().join("state"));
    let mut times: Vec<Duration> = Vec::new();
    for n in 0..220 {
        let begun = Instant::now();
        let id = service.submit(&spec);
        service.end_of(&id, Duration::from_micros(200));
        if n >= 20 {
            times.push(begun.elapsed());
        }
    }
    times.sort();
    println!(
        "tiny job (100 kB), post to finished: p50 {:.1} ms, p99 {:.1} ms; fdatasync {}/s",
        percentile(&times, 0.5),
        percentile(&times, 0.99),
        fdatasync_rate(folder.path())
    );
}

/// One second counts; clients of both loops wait for their own commit.
const CLIENTS: usize = 64;
const SECONDS: u64 = 3;

fn accept(key: u64) -> Accept {
    Accept {
        tenant: "default".into(),
        kind: KIND.into(),
        spec: json!({ "patterns": [{ "name": "m", "regex": "x".repeat(600) }], "dataset": ["/data"] }),
        topic: topic::LAUNCH.into(),
        key: Some(IdempotencyKey {
            scope: "POST /v1/jobs".into(),
            key: key.to_string(),
            fingerprint: "f".repeat(64),
        }),
        deadline: None,
        priority: PRIORITY,
        waiting_max: None,
    }
}

fn submissions() {
    let (mut ours, mut bare, mut sync) = (Vec::new(), Vec::new(), Vec::new());
    let mut worst = Vec::new();
    for _ in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        sync.push(fdatasync_rate(folder.path()) as f64);
        bare.push(bare_submissions(&folder.path().join("bare.db")));
        let file = folder.path().join("ours.db");
        let (rate, p99) = our_submissions(Arc::new(sqlite::open(&file, MACHINES, &[TABLES]).unwrap()));
        ours.push(rate);
        worst.push(p99);
    }
    let (ours, bare) = (median(ours), median(bare));
    println!(
        "durable submissions, {CLIENTS} clients: {ours:.0}/s (p99 {:.1} ms), bare group commit {bare:.0}/s, ratio {:.2}; fdatasync {:.0}/s",
        median(worst),
        ours / bare,
        median(sync)
    );
    let folder = tempfile::tempdir().unwrap();
    println!("over HTTP, {CLIENTS} clients: {:.0}/s", http_submissions(&folder.path().join("state")));
}

fn our_submissions(store: Arc<dyn Store>) -> (f64, f64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        store.add_group("launch", topic::LAUNCH, true).await.unwrap();
        let (next, until) = (Arc::new(AtomicU64::new(0)), Instant::now() + Duration::from_secs(SECONDS));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (store, next) = (store.clone(), next.clone());
                tokio::spawn(async move {
                    let mut times = Vec::new();
                    while Instant::now() < until {
                        let begun = Instant::now();
                        store.accept(accept(next.fetch_add(1, Ordering::Relaxed))).await.unwrap();
                        times.push(begun.elapsed());
                    }
                    times
                })
            })
            .collect();
        let mut times = Vec::new();
        for client in clients {
            times.extend(client.await.unwrap());
        }
        times.sort();
        (times.len() as f64 / SECONDS as f64, percentile(&times, 0.99))
    })
}

/// Steps of Launch and nothing around them: claims in batches, and each with fence, stage, a ledger's row, the next
/// message and an event; then with both messages that Launch sends.
fn hops(name: &str, store: Arc<dyn Store>) {
    for (run, next) in [&[topic::MONITOR][..], &[topic::MONITOR, topic::BILLING]].into_iter().enumerate() {
        println!(
            "hops on {name}, messages of each {}: {:.0}/s",
            next.len(),
            hops_to(&store, run as u64, next)
        );
    }
}

/// How many a second.
fn hops_to(store: &Arc<dyn Store>, run: u64, next: &'static [&'static str]) -> f64 {
    const WORKS: u64 = 20_000;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let groups = [("launch", topic::LAUNCH), ("monitor", topic::MONITOR), ("billing", topic::BILLING)];
        for (group, topic) in groups {
            store.add_group(group, topic, true).await.unwrap();
        }
        let mut asked = tokio::task::JoinSet::new();
        for n in run * WORKS..(run + 1) * WORKS {
            let store = store.clone();
            asked.spawn(async move { drop(store.accept(accept(n)).await.unwrap()) });
        }
        asked.join_all().await;
        let begun = Instant::now();
        let mut claimers = tokio::task::JoinSet::new();
        for n in 0..4 {
            let store = store.clone();
            let lease = Duration::from_secs(60);
            let by = Claimant { owner: format!("o{n}"), lease, only: None, shares: Shares::default(), takes_suspects: false };
            claimers.spawn(async move {
                loop {
                    let claims = store.claim("launch", &by, 128).await.unwrap();
                    if claims.is_empty() {
                        return;
                    }
                    let mut steps = tokio::task::JoinSet::new();
                    for claim in claims {
                        let store = store.clone();
                        steps.spawn(async move {
                            let sql = "insert into ledger (tenant, work_id, meter, seq, quantity, unit, per, price_micros, amount_micros, \
                                       currency, rates_version, at_ms) values ('default', ?1, 'hop', 1, 1, 'hop', 1, 1, 1, 'USD', 'v', 1)";
                            let to = Advance::to(Next::Done);
                            let mut advance = next.iter().fold(to, |advance, topic| advance.publish(topic));
                            advance.stage = Some("monitor");
                            advance.side.push(Statement::new(sql, vec![claim.work.id.as_str().into()]));
                            let advance = advance.event("launch.launched", json!({ "objects": 1 }));
                            store.advance(&claim.fence, advance).await.unwrap();
                        });
                    }
                    steps.join_all().await;
                }
            });
        }
        claimers.join_all().await;
        WORKS as f64 / begun.elapsed().as_secs_f64()
    })
}

/// A request, and who waits for its commit.
type Asked = (Accept, tokio::sync::oneshot::Sender<()>);

/// The same rows by the plainest loop there is: one connection, what has gathered in one transaction.
fn bare_submissions(file: &Path) -> f64 {
    drop(sqlite::open(file, MACHINES, &[TABLES]).unwrap());
    let path = file.to_owned();
    asked_of(move |requests| bare_writer(&path, &requests))
}

/// How many requests of all clients a writer answers in a second.
fn asked_of(write: impl FnOnce(mpsc::Receiver<Asked>) + Send + 'static) -> f64 {
    let (queue, requests) = mpsc::channel::<Asked>();
    let writer = std::thread::spawn(move || write(requests));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let n = runtime.block_on(async {
        let (next, until) = (Arc::new(AtomicU64::new(0)), Instant::now() + Duration::from_secs(SECONDS));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (queue, next) = (queue.clone(), next.clone());
                tokio::spawn(async move {
                    let mut n = 0u64;
                    while Instant::now() < until {
                        let (done, answer) = tokio::sync::oneshot::channel();
                        queue.send((accept(next.fetch_add(1, Ordering::Relaxed)), done)).unwrap();
                        answer.await.unwrap();
                        n += 1;
                    }
                    n
                })
            })
            .collect();
        let mut n = 0;
        for client in clients {
            n += client.await.unwrap();
        }
        n
    });
    drop(queue);
    writer.join().unwrap();
    n as f64 / SECONDS as f64
}

fn bare_writer(file: &Path, requests: &mpsc::Receiver<Asked>) {
    let mut db = rusqlite::Connection::open(file).unwrap();
    db.execute_batch("pragma journal_mode = wal; pragma synchronous = full").unwrap();
    while let Ok(first) = requests.recv() {
        let batch: Vec<_> = std::iter::once(first).chain(requests.try_iter()).collect();
        let transaction = db.transaction().unwrap();
        let mut answers = Vec::with_capacity(batch.len());
        for (accept, done) in batch {
            let id = uuid::Uuid::now_v7().to_string();
            let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
                transaction.prepare_cached(sql).unwrap().execute(values).unwrap();
            };
            run(
                "insert into work (id, tenant, kind, spec, stage, status, created_ms, events) values (?1, ?2, ?3, ?4, 'launch', 'accepted', 1, 1)",
                &[&id, &accept.tenant, &accept.kind, &accept.spec.to_string()],
            );
            let key = accept.key.unwrap();
            run(
                "insert into idempotency_key (tenant, scope, key, fingerprint, work_id, created_ms) values (?1, ?2, ?3, ?4, ?5, 1)",
                &[&accept.tenant, &key.scope, &key.key, &key.fingerprint, &id],
            );
            run("insert into message (topic, work_id, created_ms) values ('launch', ?1, 1)", &[&id]);
            let message = transaction.last_insert_rowid();
            run(
                "insert into delivery (group_name, message_id, work_id, due_ms) values ('launch', ?1, ?2, 1)",
                &[&message, &id],
            );
            run(
                "insert into controller (work_id, name, step, due_ms) values (?1, 'launch', 'waiting', 1)",
                &[&id],
            );
            run(
                "insert into event (work_id, seq, at_ms, kind, data) values (?1, 1, 1, 'accepted', '{}')",
                &[&id],
            );
            answers.push(done);
        }
        transaction.commit().unwrap();
        for done in answers {
            let _ = done.send(());
        }
    }
}

/// A scan of objects on a server against the slower of a scan of the same files on disk and a bare client that fetches
/// the same bytes in ranges as large, as many at a time, and drops them. `bench/served.sh` starts servers.
fn served(disk: &Path, uri: &str, http: &str) {
    const RANGE_BYTES: u64 = 8 << 20;
    const AT_ONCE: usize = 6;
    let entries = std::fs::read_dir(disk).unwrap().map(Result::unwrap);
    let mut files: Vec<(String, u64)> =
        entries.map(|e| (e.file_name().into_string().unwrap(), e.metadata().unwrap().len())).collect();
    files.sort();
    let timed = |work: &dyn Fn()| {
        let begun = Instant::now();
        work();
        begun.elapsed().as_secs_f64()
    };
    let scan = |root: &str| {
        let names: Vec<String> = files.iter().map(|(name, _)| format!("{root}/{name}")).collect();
        let scanned = Command::new(DRAGNET).args(["scan", "-c", "Pipeline"]).args(names).output().unwrap();
        assert!(scanned.status.code() <= Some(1), "{scanned:?}");
        scanned
            .stdout
            .split(|b| *b == b'\n')
            .map(|line| line.rsplit(|b| *b == b':').next().unwrap().to_vec())
            .collect::<Vec<_>>()
    };
    let fetch = || {
        let ranges: Vec<(&str, u64, u64)> = files
            .iter()
            .flat_map(|(name, size)| {
                (0..*size)
                    .step_by(RANGE_BYTES as usize)
                    .map(move |at| (&**name, at, (at + RANGE_BYTES).min(*size) - 1))
            })
            .collect();
        let next = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
                    while let Some((name, from, to)) = ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let asked =
                            agent.get(format!("{http}/{name}")).header("Range", format!("bytes={from}-{to}"));
                        let mut body = asked.call().unwrap().into_body().into_reader();
                        assert_eq!(std::io::copy(&mut body, &mut std::io::sink()).unwrap(), to - from + 1);
                    }
                });
            }
        });
    };
    let root = disk.display().to_string();
    assert_eq!(scan(&root), scan(uri), "the same counts");
    let (mut on_disk, mut bare, mut from_server) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        on_disk.push(timed(&|| drop(scan(&root))));
        bare.push(timed(&fetch));
        from_server.push(timed(&|| drop(scan(uri))));
    }
    let (on_disk, bare, from_server) = (median(on_disk), median(bare), median(from_server));
    let bytes: u64 = files.iter().map(|(_, size)| size).sum();
    println!(
        "scan of {} MiB from {uri}: {from_server:.2} s; from disk {on_disk:.2} s, bare client {bare:.2} s; ratio to the slower {:.2}",
        bytes >> 20,
        on_disk.max(bare) / from_server
    );
}

/// A schema of its own.
#[cfg(feature = "postgres")]
fn schema(url: &str) -> String {
    let schema = format!("bench{}", uuid::Uuid::new_v4().simple());
    let made = Command::new("psql").args([url, "-qc", &format!("create schema {schema}")]).status();
    assert!(made.unwrap().success());
    let mark = if url.contains('?') { '&' } else { '?' };
    format!("{url}{mark}options=-csearch_path%3D{schema}")
}

/// Jobs that pass Launch in a second, with 1, 2 and 4 processes of it, when the server that they ask takes half a second
/// for each answer: a stage that waits scales by its processes alone.
#[cfg(all(feature = "postgres", feature = "objects"))]
fn scaling(url: &str) {
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

#[cfg(feature = "postgres")]
fn postgres_submissions(url: &str) {
    let (mut ours, mut bare, mut worst) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        let schema = || schema(url);
        let open = |url: &str| dragnet_pattern::postgres::open(url, MACHINES, &[TABLES]).unwrap();
        let there = schema();
        drop(open(&there));
        bare.push(asked_of(move |requests| bare_postgres_writer(&there, &requests)));
        let (rate, p99) = our_submissions(Arc::new(open(&schema())));
        ours.push(rate);
        worst.push(p99);
    }
    let (ours, bare) = (median(ours), median(bare));
    println!(
        "durable submissions on PostgreSQL, {CLIENTS} clients: {ours:.0}/s (p99 {:.1} ms), bare batched writer {bare:.0}/s, ratio {:.2}",
        median(worst),
        ours / bare
    );
}

/// A statement a table for all that has gathered, in one transaction.
#[cfg(feature = "postgres")]
fn bare_postgres_writer(url: &str, requests: &mpsc::Receiver<Asked>) {
    const TABLES: [&str; 6] = [
        "insert into work (id, tenant, kind, spec, stage, status, created_ms, events) \
         select id, 'default', 'grep', spec, 'launch', 'accepted', 1, 1 from unnest($1::text[], $2::text[], $3::text[]) as t (id, spec, key)",
        "insert into idempotency_key (tenant, scope, key, fingerprint, work_id, created_ms) \
         select 'default', 'POST /v1/jobs', key, repeat('f', 64), id, 1 from unnest($1::text[], $2::text[], $3::text[]) as t (id, spec, key)",
        "with t as (select * from unnest($1::text[], $2::text[], $3::text[]) as t (id, spec, key)), \
         m as (insert into message (topic, work_id, created_ms) select 'launch', id, 1 from t returning id, work_id) \
         insert into delivery (group_name, message_id, work_id, due_ms) select 'launch', id, work_id, 1 from m",
        "insert into controller (work_id, name, step, due_ms) \
         select id, 'launch', 'waiting', 1 from unnest($1::text[], $2::text[], $3::text[]) as t (id, spec, key)",
        "insert into event (work_id, seq, at_ms, kind, data) \
         select id, 1, 1, 'accepted', '{}' from unnest($1::text[], $2::text[], $3::text[]) as t (id, spec, key)",
        "commit",
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let mut statements = Vec::new();
        for sql in TABLES {
            statements.push(client.prepare(sql).await.unwrap());
        }
        while let Ok(first) = requests.recv() {
            let batch: Vec<_> = std::iter::once(first).chain(requests.try_iter()).collect();
            let ids: Vec<String> = batch.iter().map(|_| uuid::Uuid::now_v7().to_string()).collect();
            let specs: Vec<String> = batch.iter().map(|(accept, _)| accept.spec.to_string()).collect();
            let keys: Vec<&str> =
                batch.iter().map(|(accept, _)| &*accept.key.as_ref().unwrap().key).collect();
            client.batch_execute("begin").await.unwrap();
            let (commit, inserts) = statements.split_last().unwrap();
            for insert in inserts {
                client.execute(insert, &[&ids, &specs, &keys]).await.unwrap();
            }
            client.execute(commit, &[]).await.unwrap();
            for (_, done) in batch {
                let _ = done.send(());
            }
        }
    });
}

/// Through `serve`, whose controllers are at work on what came before: the dataset does not exist, so each
/// job ends soon.
fn http_submissions(state: &Path) -> f64 {
    let service = Service::start(state);
    let stop = AtomicBool::new(false);
    let accepted = AtomicU64::new(0);
    let body =
        json!({ "patterns": [{ "name": "m", "regex": "x" }], "dataset": ["/nothing/here"] }).to_string();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
                while !stop.load(Ordering::Relaxed) {
                    let request = agent
                        .post(format!("{}/v1/jobs", service.url))
                        .header("Content-Type", "application/json");
                    let mut answer = request.send(&body).unwrap();
                    assert_eq!(answer.status(), 202);
                    answer.body_mut().read_to_string().unwrap();
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(Duration::from_secs(SECONDS));
        stop.store(true, Ordering::Relaxed);
    });
    accepted.load(Ordering::Relaxed) as f64 / SECONDS as f64
}

/// A folder of text that keeps mappers busy for a while, and a job over it.
fn long_job(folder: &Path) -> Json {
    for n in 0..400 {
        std::fs::write(folder.join(format!("{n}.txt")), "a needle in a haystack\n".repeat(40_000)).unwrap();
    }
    json!({
        "patterns": [{ "name": "m", "regex": r"\w+ [a-z]{9}ack" }],
        "dataset": [format!("{}/*.txt", folder.display())],
        "shard_bytes": 1_000_000,
    })
}

/// The claims of the local run so far, while one is under way; a job that has ended is followed by another.
fn run_under_way(service: &Service, id: &mut String, spec: &Json) -> i64 {
    loop {
        let job = service.job(id);
        let local = &job["controllers"]["local"];
        if local["status"] == "running" {
            return local["attempt"].as_i64().unwrap();
        }
        if job["ended"].is_string() {
            *id = service.submit(spec);
        }
    }
}

/// Waits until somebody has claimed the run again.
fn until_claimed(service: &Service, id: &str, before: i64) {
    while service.job(id)["controllers"]["local"]["attempt"].as_i64() == Some(before) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn print_times(what: &str, mut times: Vec<Duration>) {
    times.sort();
    println!(
        "{what}: p50 {:.0} ms, p99 {:.0} ms over {} kills",
        percentile(&times, 0.5),
        percentile(&times, 0.99),
        times.len()
    );
}

/// Kills a service at work again and again; from the restart's "listening on" to the first new claim of the
/// run that was under way.
fn recovery() {
    let folder = tempfile::tempdir().unwrap();
    let spec = long_job(folder.path());
    let state = folder.path().join("state");
    let mut service = Service::start(&state);
    let mut id = service.submit(&spec);
    let mut times = Vec::new();
    while times.len() < 50 {
        run_under_way(&service, &mut id, &spec);
        std::thread::sleep(Duration::from_millis(20 + times.len() as u64 * 7 % 150));
        let job = service.job(&id);
        if job["controllers"]["local"]["status"] != "running" {
            continue;
        }
        let before = job["controllers"]["local"]["attempt"].as_i64().unwrap();
        drop(service);
        service = Service::start(&state);
        let begun = Instant::now();
        until_claimed(&service, &id, before);
        times.push(begun.elapsed());
    }
    print_times("from kill -9 and restart to going on", times);
}

/// Two processes that share a PostgreSQL and no lock, as on two machines; whichever has the run is killed, and what
/// counts is when the other has claimed it. Then it is started again.
#[cfg(feature = "postgres")]
fn takeover(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let spec = long_job(folder.path());
    let (store, output) = (schema(url), folder.path().join("output"));
    let start = |n: usize| {
        let flags = ["--store", &store, "--output", output.to_str().unwrap(), "--mappers", "1"];
        Service::with(&folder.path().join(format!("state-{n}")), &flags)
    };
    let mut services: VecDeque<Service> = (0..2).map(start).collect();
    let mut id = services[0].submit(&spec);
    let mut times = Vec::new();
    for n in 2..32 {
        let before = run_under_way(&services[0], &mut id, &spec);
        // Who has the run has the mappers.
        while !has_children(&services[0]) && !has_children(&services[1]) {}
        if !has_children(&services[0]) {
            services.swap(0, 1);
        }
        let begun = Instant::now();
        services.pop_front();
        until_claimed(&services[0], &id, before);
        times.push(begun.elapsed());
        services.push_back(start(n));
    }
    print_times("from kill -9 of one of two machines to the other's going on", times);
}

#[cfg(feature = "postgres")]
fn has_children(service: &Service) -> bool {
    let threads =
        std::fs::read_dir(format!("/proc/{}/task", service.child.id())).into_iter().flatten().flatten();
    let mut children =
        threads.map(|thread| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    children.any(|pids| !pids.is_empty())
}

fn memory(corpus: Option<&Path>) {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    std::fs::create_dir_all(&state).unwrap();
    let store: Arc<dyn Store> =
        Arc::new(sqlite::open(&state.join("dragnet.db"), MACHINES, &[TABLES]).unwrap());
    let file = folder.path().join("a.txt");
    std::fs::write(&file, "a needle\n").unwrap();
    let output = format!("file://{}", state.join("output").display());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        store.add_group("launch", topic::LAUNCH, true).await.unwrap();
        for n in 0..10_000 {
            let spec = json!({ "patterns": [{ "name": "m", "regex": "needle" }], "dataset": [file], "output": output });
            store.accept(Accept { spec, ..accept(n) }).await.unwrap();
        }
    });
    let service = Service::start(&state);
    std::thread::sleep(Duration::from_secs(20));
    println!(
        "service with 10,000 jobs in the store, at work on them: {:.0} MiB at most",
        peak_mib(service.child.id())
    );
    drop(service);
    if let Some(corpus) = corpus {
        let (output, shards) = plan(folder.path(), corpus, 1);
        let mut mapper = BareMapper::start();
        for shard in 0..shards.min(8) {
            mapper.run(&output, shard);
        }
        println!(
            "a mapper over {} shards of the corpus: {:.0} MiB at most",
            shards.min(8),
            peak_mib(mapper.child.id())
        );
    }
}

/// A mapper that nobody but this benchmark drives.
struct BareMapper {
    child: Child,
    stdin: ChildStdin,
    stdout: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl BareMapper {
    fn start() -> BareMapper {
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

    fn run(&mut self, output: &str, shard: usize) {
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

fn spec(files: &[PathBuf]) -> Json {
    json!({ "patterns": [{ "name": "m", "regex": PATTERN }], "dataset": files })
}

/// The corpus some times over, by links, as one object is read once however often it is named.
fn copies(folder: &Path, corpus: &Path, times: usize) -> Vec<PathBuf> {
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
fn plan(folder: &Path, corpus: &Path, times: usize) -> (String, usize) {
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

fn bare_folder(folder: &Path, plan: &Path) -> (String, usize) {
    let bare = folder.join(format!("bare-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&bare).unwrap();
    std::fs::copy(plan, bare.join("plan.json")).unwrap();
    let plan: Json = serde_json::from_slice(&std::fs::read(plan).unwrap()).unwrap();
    (format!("file://{}", bare.display()), plan["shards"].as_array().unwrap().len())
}

fn throughput(corpus: &Path) {
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

/// A job by the engine, from post to end, against the plain `hadoop-streaming` command with the same mapper,
/// the same lines and as many of them in a map task.
#[cfg(feature = "hadoop")]
fn hadoop(cluster: &Path, corpus: &Path) {
    let text = std::fs::read_to_string(cluster.join("ports.env")).unwrap();
    let addresses: std::collections::BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once('=')).collect();
    let folder = tempfile::tempdir().unwrap();
    let mut spec = spec(&copies(folder.path(), corpus, 1));
    spec["engine"] = json!("hadoop");
    let state = folder.path().join("state");
    let (mut engines, mut plains) = (Vec::new(), Vec::new());
    for round in 1..=3 {
        let service = Service::with(&state, &["--hadoop-conf", addresses["HADOOP_CONF_DIR"]]);
        let begun = Instant::now();
        let id = service.submit(&spec);
        let output = state.join("output/default").join(&id);
        let reserved = output.join("tasks/001.hadoop.json");
        while !reserved.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let reserved: Json = serde_json::from_slice(&std::fs::read(reserved).unwrap()).unwrap();
        let lines = std::fs::read_to_string(output.join("tasks/001.jsonl")).unwrap();
        let (bare, _) = bare_folder(folder.path(), &output.join("plan.json"));
        let job = service.end_of(&id, Duration::from_millis(50));
        let engine = begun.elapsed().as_secs_f64();
        assert_eq!(job["status"], "completed", "{job}");
        drop(service);
        let lines = lines.replace(&format!("file://{}", output.display()), &bare);
        let plain = plain_streaming(&addresses, folder.path(), &lines, &reserved["lines_per_map"]);
        println!("round {round}: engine {engine:.2} s, plain command {plain:.2} s");
        engines.push(engine);
        plains.push(plain);
    }
    let (engine, plain) = (median(engines), median(plains));
    println!("engine {engine:.2} s, plain command {plain:.2} s: overhead {:.2} s", engine - plain);
}

/// Seconds of the command, with its input in HDFS already.
#[cfg(feature = "hadoop")]
fn plain_streaming(
    addresses: &std::collections::BTreeMap<&str, &str>,
    folder: &Path,
    lines: &str,
    lines_per_map: &Json,
) -> f64 {
    let name = format!("/tmp/plain-{}", uuid::Uuid::new_v4());
    let local = folder.join("lines");
    std::fs::write(&local, lines).unwrap();
    let run = |arguments: &[&str]| {
        let ended = Command::new(addresses["HADOOP_COMMAND"]).args(arguments).output().unwrap();
        assert!(ended.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
    };
    run(&["fs", "-put", local.to_str().unwrap(), &name]);
    let begun = Instant::now();
    run(&[
        "jar",
        addresses["HADOOP_STREAMING_JAR"],
        "-D",
        "mapreduce.job.reduces=0",
        "-D",
        "stream.map.input.ignoreKey=true",
        "-D",
        &format!("mapreduce.input.lineinputformat.linespermap={lines_per_map}"),
        "-files",
        &format!("{DRAGNET}#mapper"),
        "-input",
        &name,
        "-inputformat",
        "org.apache.hadoop.mapred.lib.NLineInputFormat",
        "-output",
        &format!("{name}.out"),
        "-mapper",
        "./mapper map",
    ]);
    begun.elapsed().as_secs_f64()
}
