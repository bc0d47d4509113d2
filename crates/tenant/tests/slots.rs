//! Slots under a crowd: never more than may run, and nobody who waits is forgotten.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use dragnet_pattern::{Accept, Machine, PRIORITY, Statement, Store, sqlite};
use dragnet_tenant::slots::{Slot, give_back, take, tell_next};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinSet;

const LAUNCH: &str = "launch";
const MACHINES: &[Machine] = &[Machine { kind: "k", stages: &["launch"], required: &[LAUNCH], ended: None }];

async fn opened() -> (tempfile::TempDir, Arc<dyn Store>) {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite::open(&folder.path().join("store.db"), MACHINES, &[dragnet_tenant::TABLES]).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    store.add_group(LAUNCH, LAUNCH, true).await.unwrap();
    (folder, store)
}

async fn accept(store: &dyn Store, priority: i64) -> String {
    let accept = Accept {
        tenant: "acme".into(),
        kind: "k".into(),
        spec: serde_json::json!({}),
        topic: LAUNCH.into(),
        key: None,
        deadline: None,
        priority,
        waiting_max: None,
    };
    store.accept(accept).await.unwrap().work.id
}

async fn count(store: &dyn Store, sql: &'static str) -> i64 {
    store.query(Statement::new(sql, vec![])).await.unwrap()[0][0].int()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_never_has_more_than_may_run() {
    let (_folder, store) = opened().await;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut jobs = JoinSet::new();
    for n in 0..60 {
        let (store, running, most) = (store.clone(), running.clone(), most.clone());
        jobs.spawn(async move {
            let id = format!("job-{n:02}");
            while take(&*store, "acme", &id, 3).await.unwrap() != Slot::Taken {
                tokio::task::yield_now().await;
            }
            assert_eq!(take(&*store, "acme", &id, 3).await.unwrap(), Slot::Taken, "it is harmless to repeat");
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            running.fetch_sub(1, Ordering::SeqCst);
            give_back(&*store, "acme", &id, LAUNCH).await.unwrap();
        });
    }
    while let Some(done) = jobs.join_next().await {
        done.unwrap();
    }
    let most = most.load(Ordering::SeqCst);
    assert!((1..=3).contains(&most), "{most} ran at once");
    assert_eq!(count(&*store, "select count(*) from job_slot").await, 0);
}

#[tokio::test]
async fn who_waits_is_told_by_priority_and_age() {
    let (_folder, store) = opened().await;
    let mut ids = Vec::new();
    for priority in [PRIORITY, PRIORITY, 9, PRIORITY] {
        ids.push(accept(&*store, priority).await);
    }
    assert_eq!(take(&*store, "acme", &ids[0], 1).await.unwrap(), Slot::Taken);
    assert_eq!(take(&*store, "acme", &ids[1], 2).await.unwrap(), Slot::Taken, "a higher limit holds at once");
    give_back(&*store, "acme", &ids[1], LAUNCH).await.unwrap();
    for id in &ids[1..] {
        assert_eq!(take(&*store, "acme", id, 1).await.unwrap(), Slot::Wait { running: 1 });
    }
    assert_eq!(take(&*store, "globex", "other", 1).await.unwrap(), Slot::Taken, "another tenant has its own");
    // All of them look away for a day; whoever is told looks now.
    let look_away = "update controller set due_ms = due_ms + 86400000";
    store.write(vec![Statement::new(look_away, vec![])]).await.unwrap();
    let told = "select work_id from controller where due_ms < (select max(due_ms) from controller) - 3600000";
    for (ends, next) in [(0, 2), (2, 1), (1, 3)] {
        give_back(&*store, "acme", &ids[ends], LAUNCH).await.unwrap();
        let rows = store.query(Statement::new(told, vec![])).await.unwrap();
        assert!(rows.iter().any(|row| row[0].text() == ids[next]), "after {ends} comes {next}: {rows:?}");
        assert_eq!(take(&*store, "acme", &ids[next], 1).await.unwrap(), Slot::Taken);
    }
    // Who asks for nothing is in nobody's way.
    give_back(&*store, "acme", "never asked", LAUNCH).await.unwrap();
    tell_next(&*store, "nobody", LAUNCH, 10).await.unwrap();
}
