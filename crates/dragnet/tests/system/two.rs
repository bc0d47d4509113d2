//! Two services on one store, one of them stopped or the store's lock held.

use crate::harness::{Sandbox, spec, undisturbed, until};
use rustix::process::Signal;
use std::time::Duration;

#[test]
fn a_paused_owner_that_wakes_up_changes_nothing() {
    wakes_up_in_vain(&Sandbox::new());
}

#[test]
fn a_paused_owner_that_wakes_up_changes_nothing_on_postgres() {
    let Some(sandbox) = Sandbox::on_postgres() else { return };
    wakes_up_in_vain(&sandbox);
}

fn wakes_up_in_vain(sandbox: &Sandbox) {
    let files = Sandbox::new();
    let spec = spec(&files.corpus());
    let expected = undisturbed(&spec);
    let lease = ["--lease-s", "1"];
    let first = sandbox.serve_with(&lease, None);
    let ids: Vec<String> = (0..10).map(|_| first.submit(&spec)).collect();
    until("a claim", || sandbox.count("select count(*) from controller where step = 'running'") > 0);
    first.signal(Signal::STOP);
    let second = sandbox.serve_with(&lease, None);
    if sandbox.store.is_none() {
        // If it stands still with the file's write lock, nobody else can write until it is killed or wakes.
        let free = sandbox.db();
        free.busy_timeout(Duration::from_millis(500)).unwrap();
        if free.execute_batch("begin immediate; commit").is_err() {
            first.signal(Signal::CONT);
        }
    }
    for id in &ids {
        assert_eq!(second.result(id), expected);
    }
    first.signal(Signal::CONT);
    let id = first.submit(&spec);
    assert_eq!(first.result(&id), expected, "it works again");
    for id in &ids {
        assert_eq!(second.result(id), expected, "and has changed nothing");
    }
    assert_eq!(sandbox.count("select count(*) from ledger"), 11 * 3);
    for (kind, n) in [("monitor.sealed", 11), ("billing.metered", 11)] {
        let sql = format!("select count(*) from event where kind = '{kind}'");
        assert_eq!(sandbox.count(&sql), n, "each stage ended once");
    }
}

#[test]
fn jobs_are_shared_between_two_services() {
    let files = Sandbox::new();
    let spec = spec(&files.corpus());
    let expected = undisturbed(&spec);
    let sandbox = Sandbox::new();
    let services = [sandbox.serve(), sandbox.serve()];
    let ids: Vec<String> = (0..20).map(|n| services[n % 2].submit(&spec)).collect();
    for id in &ids {
        assert_eq!(services[0].result(id), expected);
    }
    assert_eq!(sandbox.count("select count(*) from event where kind = 'monitor.sealed'"), 20);
}

#[test]
fn while_the_write_lock_is_held_the_answer_is_503_and_nothing_is_done() {
    let sandbox = Sandbox::new();
    let spec = spec(&sandbox.corpus());
    let service = sandbox.serve();
    let holder = sandbox.db();
    holder.execute_batch("begin immediate").unwrap();
    let refused = service.post("/v1/jobs", &spec.to_string());
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"), "{}", refused.body);
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert_eq!(service.get("/v1/jobs").status, 200, "reading goes on");
    let second = sandbox.serve();
    assert_eq!(second.get("/v1/jobs").status, 200, "and another starts: {}", second.said());
    holder.execute_batch("rollback").unwrap();
    assert_eq!(sandbox.count("select count(*) from work"), 0, "a refused job is no job");
    let id = service.submit(&spec);
    assert_eq!(service.end_of(&id)["status"], "completed");
}
