//! Figures of the store: what it costs when there is much in it, and whose turn it is.

use crate::service::{DRAGNET, Service};
use crate::submissions::accept;
use dragnet_job::{KIND, MACHINES, TABLES, topic};
use dragnet_pattern::{
    Accept, Advance, Claimant, Event, Filter, Next, PRIORITY, Page, Shares, Status, Store, sqlite,
};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Works that wait beside those that have ended.
const WAITING: u64 = 2_000;
/// Times that each call is measured.
const TIMES: usize = 21;

/// A table of what calls cost with ever more ended works in the store.
pub(crate) fn flat(most: u64) {
    println!(
        "ended jobs | list | list failed | list of a day | claim and step | claim of 128 | sweep | expired | purge of 100"
    );
    let mut ended = 1_000;
    while ended <= most {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("flat.db");
        drop(sqlite::open(&file, MACHINES, &[TABLES]).unwrap());
        fill(&file, ended);
        let store: Arc<dyn Store> = Arc::new(sqlite::open(&file, MACHINES, &[TABLES]).unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        println!("{ended} | {}", runtime.block_on(row(&store, ended)));
        ended *= 10;
    }
}

/// Works that ended, one a second until now, with rows, events and keys: by SQL, as that many requests would take an hour.
fn fill(file: &Path, ended: u64) {
    let db = rusqlite::Connection::open(file).unwrap();
    let spec = json!({ "patterns": [{ "name": "m", "regex": "x".repeat(600) }], "dataset": ["/data"] });
    db.execute_batch(&format!(
        "pragma foreign_keys = off; pragma synchronous = off;
         create temp table n as with recursive n (n) as (select 0 union all select n + 1 from n where n + 1 < {ended})
           select n, (unixepoch() - {ended} + n) * 1000 as at, printf('%08x-%04x-7000-8000-%012x',
             ((unixepoch() - {ended} + n) * 1000) >> 16, ((unixepoch() - {ended} + n) * 1000) & 65535, n) as id from n;
         insert into work (id, tenant, kind, spec, stage, status, outcome, created_ms, started_ms, ended_ms, events)
           select id, case when n % 10 = 0 then 'other' else 'default' end, '{KIND}', '{spec}', 'shutdown',
             case when n % 100 = 1 then 'failed' else 'completed' end,
             case when n % 100 = 1 then 'failed' else 'completed' end, at, at, at + 500, 4 from n;
         insert into controller (work_id, name, step, attempt, due_ms, settled)
           select id, name, 'done', 1, at, 1 from n, (select column1 as name from
             (values ('launch'), ('monitoring'), ('billing'), ('shutdown')));
         insert into event (work_id, seq, at_ms, kind, data) select id, seq, at, 'e', '{{}}' from n,
           (select column1 as seq from (values (1), (2), (3), (4)));
         insert into idempotency_key (tenant, scope, key, fingerprint, work_id, created_ms)
           select 'default', 'old', n, '', id, at from n where n % 2 = 0;"
    ))
    .unwrap();
}

/// The median time of a call.
async fn median<F: Future>(mut call: impl FnMut() -> F) -> String {
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let begun = Instant::now();
        call().await;
        times.push(begun.elapsed());
    }
    times.sort();
    format!("{:.2} ms", times[TIMES / 2].as_secs_f64() * 1e3)
}

async fn row(store: &Arc<dyn Store>, ended: u64) -> String {
    store.add_group("launch", topic::LAUNCH, true).await.unwrap();
    let mut asked = tokio::task::JoinSet::new();
    for n in 0..WAITING + 1_000 {
        let store = store.clone();
        asked.spawn(async move { drop(store.accept(accept(n)).await.unwrap()) });
    }
    asked.join_all().await;
    let page = Page { limit: 50, after: None };
    let (store, mut cells) = (&**store, Vec::new());
    let failed = Filter { status: Some(Status::Failed), ..Filter::default() };
    let newest = store.works("default", Filter::default(), page).await.unwrap()[0].created_ms;
    let middle = newest - ended as i64 * 500;
    let day =
        Filter { created_after_ms: Some(middle - 86_400_000), created_before_ms: Some(middle), ..failed };
    for filter in [Filter::default(), failed, day] {
        cells.push(median(|| async move { drop(store.works("default", filter, page).await.unwrap()) }).await);
    }
    let by = Claimant {
        owner: "o".into(),
        lease: Duration::from_secs(600),
        only: None,
        shares: Shares::default(),
        takes_suspects: false,
    };
    let by = &by;
    let hop = || async move {
        let claim = store.claim("launch", by, 1).await.unwrap().remove(0);
        let event = Event { seq: 0, at_ms: 0, kind: "launch.launched".into(), data: json!({}) };
        let advance = Advance { stage: Some("monitor"), events: vec![event], ..Advance::to(Next::Done) };
        store.advance(&claim.fence, advance).await.unwrap();
    };
    cells.push(median(hop).await);
    cells.push(median(|| async move { drop(store.claim("launch", by, 128).await.unwrap()) }).await);
    cells.push(median(|| async move { store.sweep().await.unwrap() }).await);
    cells.push(median(|| async move { drop(store.expired(i64::MAX, 100).await.unwrap()) }).await);
    let purge = || async move {
        let over: Vec<String> =
            store.expired(i64::MAX, 100).await.unwrap().into_iter().map(|over| over.work).collect();
        store.purge(over, i64::MAX).await.unwrap();
    };
    cells.push(median(purge).await);
    cells.join(" | ")
}

/// A crowd of 10,000 jobs of one tenant, and another's small jobs: how many of the crowd's shards end between a small
/// job's acceptance and its end, beside how long that takes and how long one shard does.
pub(crate) fn fairness() {
    const CROWD: usize = 10_000;
    const SMALL: usize = 10;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("lines.txt"), "a line of hay\n".repeat(200_000) + "a needle\n").unwrap();
    let state = folder.path().join("state");
    let _service = Service::start(&state);
    for tenant in ["crowd", "small"] {
        let mut add = std::process::Command::new(DRAGNET);
        add.args(["tenant", "add", tenant, "--dataset", "any", "--state"]).arg(&state);
        assert!(add.output().unwrap().status.success());
    }
    let store = sqlite::open(&state.join("dragnet.db"), MACHINES, &[TABLES, dragnet_tenant::TABLES]).unwrap();
    let job = |tenant: &str| Accept {
        tenant: tenant.into(),
        kind: KIND.into(),
        spec: json!({
            "patterns": [{ "name": "m", "regex": "n[a-z]+e$" }], "dataset": [data],
            "output": format!("file://{}", state.join("output").display()),
        }),
        topic: topic::LAUNCH.into(),
        key: None,
        deadline: None,
        priority: PRIORITY,
        waiting_max: None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store: Arc<dyn Store> = Arc::new(store);
        let small = async || {
            let begun = Instant::now();
            let id = store.accept(job("small")).await.unwrap().work.id;
            while !store.work("small", &id).await.unwrap().unwrap().0.status.is_terminal() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            begun.elapsed().as_secs_f64() * 1e3
        };
        let mut alone = Vec::new();
        for _ in 0..SMALL {
            alone.push(small().await);
        }
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..CROWD {
            let (store, job) = (store.clone(), job("crowd"));
            asked.spawn(async move { drop(store.accept(job).await.unwrap()) });
        }
        asked.join_all().await;
        let done = || {
            let page = Page { limit: CROWD, after: None };
            let filter = Filter { status: Some(Status::Completed), ..Filter::default() };
            let store = store.clone();
            async move { store.works("crowd", filter, page).await.unwrap().len() }
        };
        // The crowd's first jobs end: all controllers are at work on it.
        while done().await < 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let begun = (Instant::now(), done().await);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let each = begun.0.elapsed().as_secs_f64() / (done().await - begun.1).max(1) as f64;
        let (mut jobs, mut times) = (Vec::new(), Vec::new());
        for _ in 0..SMALL {
            let before = done().await;
            times.push(small().await);
            jobs.push(done().await - before);
        }
        jobs.sort_unstable();
        times.sort_by(f64::total_cmp);
        alone.sort_by(f64::total_cmp);
        println!(
            "fairness: {} of {CROWD} jobs wait, one ends every {:.0} ms; another tenant's small job ends after {:.0} ms \
             (at most {:.0}; with nobody else there {:.0}, at most {:.0}), while {} of them end (at most {})",
            CROWD - done().await,
            each * 1e3,
            times[SMALL / 2],
            times[SMALL - 1],
            alone[SMALL / 2],
            alone[SMALL - 1],
            jobs[SMALL / 2],
            jobs[SMALL - 1],
        );
    });
}
