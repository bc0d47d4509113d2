//! Every role a process of its own on one PostgreSQL, and any of them killed, restarted, cut off or told by notices alone.

use crate::harness::{Sandbox, Service, spec, undisturbed, until};
use rustix::process::Signal;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

const ROLES: [&str; 6] = ["api", "launch", "monitor", "billing", "shutdown", "local"];

/// A process for each role.
fn one_each(sandbox: &Sandbox, more: &[&str]) -> BTreeMap<&'static str, Service> {
    ROLES.into_iter().map(|role| (role, alone(sandbox, role, more))).collect()
}

fn alone(sandbox: &Sandbox, role: &str, more: &[&str]) -> Service {
    sandbox.serve_with(&[&["--roles", role], more].concat(), None)
}

#[test]
fn a_job_survives_the_death_of_any_role() {
    let Some(sandbox) = Sandbox::on_postgres() else { return };
    let files = Sandbox::new();
    let spec = spec(&files.corpus());
    let expected = undisturbed(&spec);
    let mut processes = one_each(&sandbox, &[]);
    for role in ROLES {
        let ids: Vec<String> = (0..3).map(|_| processes["api"].submit(&spec)).collect();
        processes["api"].job_when(&ids[0], |job| job["status"] != "accepted");
        processes.remove(role).unwrap().kill();
        processes.insert(role, alone(&sandbox, role, &[]));
        for id in &ids {
            assert_eq!(processes["api"].result(id), expected, "{role} was killed");
        }
    }
    assert_eq!(sandbox.count("select count(*) from ledger"), 18 * 3);
    assert_eq!(sandbox.count("select count(*) from event where kind = 'monitor.sealed'"), 18);
}

/// Without polling and sweeping nothing but notices moves a work from one process to the next.
#[test]
fn notices_alone_take_jobs_through_all_roles() {
    let Some(sandbox) = Sandbox::on_postgres() else { return };
    let text = sandbox.write("data/a.txt", b"one needle-1 here");
    let small = json!({ "patterns": [{ "name": "n", "regex": "needle-[0-9]" }], "dataset": [text] });
    let processes = one_each(&sandbox, &["--poll-s", "3600", "--sweep-s", "3600"]);
    let ids: Vec<String> = (0..100).map(|_| processes["api"].submit(&small)).collect();
    for id in &ids {
        assert_eq!(processes["api"].end_of(id)["status"], "completed");
    }
}

#[test]
fn connections_that_are_cut_cost_no_job() {
    let Some(sandbox) = Sandbox::on_postgres() else { return };
    let files = Sandbox::new();
    let spec = spec(&files.corpus());
    let expected = undisturbed(&spec);
    let service = sandbox.serve();
    for n in 0..5 {
        let mut id = String::new();
        until("an accepted job", || {
            let answer = service.try_post("/v1/jobs", Some(&n.to_string()), &spec.to_string()).unwrap();
            id = answer.json()["id"].as_str().unwrap_or_default().to_owned();
            answer.status == 202
        });
        // As a restart of the server does it, for the connections of this sandbox alone.
        sandbox.count(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity \
             where application_name = current_schema() and pid <> pg_backend_pid()",
        );
        // Who is cut off in the middle of a transaction is told so, and nothing of it was done.
        let again = format!("key-{n}");
        until("an accepted job", || {
            service.try_post("/v1/jobs", Some(&again), &spec.to_string()).unwrap().status == 202
        });
        assert_eq!(service.result(&id), expected);
    }
    assert_eq!(sandbox.count("select count(*) from work"), 10);
}

#[test]
fn a_rolling_restart_loses_no_request_and_no_job() {
    let Some(sandbox) = Sandbox::on_postgres() else { return };
    let data = sandbox.corpus().display().to_string();
    let listens: Vec<String> = (0..2).map(|_| format!("127.0.0.1:{}", free_port())).collect();
    let listen = |n: usize| sandbox.serve_with(&["--listen", &listens[n]], None);
    let mut services = vec![listen(0), listen(1)];
    let servers = listens.iter().map(|listen| format!("http://{listen}")).collect::<Vec<_>>().join(",");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut jobs = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let found =
                            sandbox.run(&["search", "--server", &servers, "--json", "needle-[0-9]+", &data]);
                        let said = String::from_utf8_lossy(&found.stderr);
                        assert_eq!(found.status.code(), Some(0), "{said}");
                        jobs += 1;
                    }
                    jobs
                })
            })
            .collect();
        for n in [0, 1, 0, 1] {
            let before = sandbox.count("select count(*) from work where status = 'completed'");
            let mut old = services.remove(0);
            old.signal(Signal::TERM);
            old.wait();
            services.push(listen(n));
            until("another job", || {
                sandbox.count("select count(*) from work where status = 'completed'") > before + 1
            });
        }
        stop.store(true, Ordering::Relaxed);
        let jobs: i64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert_eq!(sandbox.count("select count(*) from work"), jobs, "no request was lost or taken twice");
        assert_eq!(sandbox.count("select count(*) from work where status <> 'completed'"), 0);
    });
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
