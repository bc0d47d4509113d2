//! Workers: what they do with steps that fail, panic, wait or are interrupted.

use crate::store::{request, sqlite};
use async_trait::async_trait;
use dragnet_pattern::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// A controller that fails in a given way some times, and then settles.
struct Stub {
    name: &'static str,
    fails: u32,
    how: fn() -> Result<Advance, Failure>,
    steps: AtomicU32,
}

#[async_trait]
impl Controller for Stub {
    fn name(&self) -> &'static str {
        self.name
    }

    fn topic(&self) -> &'static str {
        "begin"
    }

    async fn step(&self, _: &dyn Store, _: &Claim) -> Result<Advance, Failure> {
        if self.steps.fetch_add(1, Ordering::SeqCst) < self.fails {
            return (self.how)();
        }
        let mut settled = Advance::to(Next::Done);
        settled.settled = true;
        Ok(settled)
    }
}

fn stub(name: &'static str, fails: u32, how: fn() -> Result<Advance, Failure>) -> Arc<Stub> {
    Arc::new(Stub { name, fails, how, steps: AtomicU32::new(0) })
}

fn policy() -> Policy {
    let quick = Duration::from_millis(5);
    Policy { poll: quick, backoff: (quick, quick), failures_max: 3, ..Policy::default() }
}

/// Runs one work until its status is terminal or parked.
async fn status_after(left: Arc<Stub>) -> (Status, i64) {
    let opened = sqlite().unwrap();
    let (stop, stopped) = watch::channel(false);
    let worker =
        Worker::new(opened.store.clone(), policy(), &opened.folder.path().join("owners"), None).unwrap();
    let controllers: Vec<Arc<dyn Controller>> = vec![left, stub("right", 0, || unreachable!())];
    let running = tokio::spawn(run(Arc::new(worker), controllers, stopped));
    for name in ["left", "right"] {
        opened.store.add_group(name, "begin", true).await.unwrap();
    }
    let id = opened.store.accept(request(None)).await.unwrap().work.id;
    let seen = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let (work, rows) = opened.store.work("t", &id).await.unwrap().unwrap();
            if work.status.is_terminal() || work.status == Status::Parked {
                let left = rows.iter().find(|row| row.controller == "left").unwrap();
                return (work.status, left.failures);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let seen = seen.await.unwrap();
    stop.send(true).unwrap();
    running.await.unwrap().unwrap();
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_end_as_they_should() {
    let down = || {
        let (dependency, reason) = ("d".to_owned(), "refused".to_owned());
        Err(Failure::Down { dependency, reason, after: Duration::from_millis(1) })
    };
    let refused = || {
        let side = vec![Statement::new("insert into nothing values (1)", vec![])];
        Ok(Advance { side, ..Advance::to(Next::Done) })
    };
    let table: [(&str, Arc<Stub>, Status); 8] = [
        ("at once", stub("left", 0, || unreachable!()), Status::Completed),
        ("after two failures", stub("left", 2, || Err(Failure::Failed("no".into()))), Status::Completed),
        ("always fails", stub("left", u32::MAX, || Err(Failure::Failed("no".into()))), Status::Parked),
        ("panics twice", stub("left", 2, || panic!("on purpose")), Status::Completed),
        ("always panics", stub("left", u32::MAX, || panic!("on purpose")), Status::Parked),
        ("a dependency is down ten times", stub("left", 10, down), Status::Completed),
        ("what it writes is refused", stub("left", u32::MAX, refused), Status::Parked),
        ("asks to be parked", stub("left", 1, || Err(Failure::Park("look".into()))), Status::Parked),
    ];
    for (name, left, expected) in table {
        assert_eq!(status_after(left).await.0, expected, "{name}");
    }
}
