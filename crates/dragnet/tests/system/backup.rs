//! A backup that is made while a job runs, and all that there is after the state folder has gone.

use crate::harness::{Sandbox, spec, undisturbed};

#[test]
fn a_backup_of_a_service_at_work_is_all_that_is_needed() {
    let sandbox = Sandbox::new();
    let spec = spec(&sandbox.corpus());
    let expected = undisturbed(&spec);
    let (state, folder) = (sandbox.state(), sandbox.path("backup"));
    let (state_name, folder_name) = (state.to_str().unwrap(), folder.to_str().unwrap());
    let service = sandbox.serve_with(&["--mappers", "1"], None);
    let ended = service.submit(&spec);
    assert_eq!(service.result(&ended), expected);
    let hits = service.hits(&ended);
    let under_way = service.submit(&spec);
    service.job_when(&under_way, |job| job["progress"]["shards_done"].as_u64() > Some(0));
    assert!(sandbox.run(&["webhook", "add", "https://ci.example/"]).status.success());
    let key = std::fs::read(state.join("webhook.key")).unwrap();
    let said = sandbox.run(&["backup", folder_name]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let refused = sandbox.run(&["backup", folder_name]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is not empty"));
    let refused = sandbox.run(&["restore", folder_name]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("dragnet.db` is there already"));
    service.kill();
    std::fs::remove_dir_all(&state).unwrap();

    let elsewhere = sandbox.path("elsewhere");
    let refused = sandbox.run(&["restore", folder_name, "--state", elsewhere.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("restore it to that path"));
    let log = sandbox.write("state/dragnet.db-wal", b"of the store that was there before");
    let refused = sandbox.run(&["restore", folder_name, "--state", state_name]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("dragnet.db-wal` is there already"));
    std::fs::remove_file(log).unwrap();
    let said = sandbox.run(&["restore", folder_name, "--state", state_name]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(std::fs::read(state.join("webhook.key")).unwrap(), key);
    let service = sandbox.serve();
    for job in [&ended, &under_way] {
        assert_eq!(service.result(job), expected);
    }
    assert_eq!(service.hits(&ended), hits);
}

#[test]
fn a_backup_that_was_not_finished_is_none() {
    let sandbox = Sandbox::new();
    let none = sandbox.path("none");
    let rows: [(&[&str], &str); 2] = [
        (&["backup", none.to_str().unwrap()], "is no state folder"),
        (&["restore", none.to_str().unwrap()], "is no finished backup"),
    ];
    for (arguments, expected) in rows {
        let said = sandbox.run(arguments);
        assert_eq!(said.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&said.stderr).contains(expected), "{arguments:?}");
    }
}
