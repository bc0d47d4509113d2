//! Durable submissions against the barest writer of the same rows.

use crate::service::{Service, fdatasync_rate, median, percentile, schema};
use dragnet_job::{KIND, MACHINES, TABLES, topic};
use dragnet_pattern::{Accept, IdempotencyKey, PRIORITY, Store, sqlite};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// One second counts; clients of both loops wait for their own commit.
pub(crate) const CLIENTS: usize = 64;

pub(crate) const SECONDS: u64 = 3;

pub(crate) fn accept(key: u64) -> Accept {
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

pub(crate) fn submissions() {
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

pub(crate) fn postgres_submissions(url: &str) {
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

/// A request, and who waits for its commit.
type Asked = (Accept, tokio::sync::oneshot::Sender<()>);

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

/// The same rows by the plainest loop there is: one connection, what has gathered in one transaction.
fn bare_submissions(file: &Path) -> f64 {
    drop(sqlite::open(file, MACHINES, &[TABLES]).unwrap());
    let path = file.to_owned();
    asked_of(move |requests| bare_writer(&path, &requests))
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

/// A statement a table for all that has gathered, in one transaction.
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
