//! A backup that is made while the service works, and what comes of it when all else is lost.

use crate::harness::{Sandbox, spec, undisturbed};

#[test]
fn what_was_backed_up_under_way_comes_back_whole() {
    let sandbox = Sandbox::new();
    let spec = spec(&sandbox.corpus());
    let expected = undisturbed(&spec);
    let backup = sandbox.path("backup");
    let (ended, under_way, shown) = {
        let service = sandbox.serve_with(&["--mappers", "1"], None);
        let ended = service.submit(&spec);
        assert_eq!(service.result(&ended), expected);
        let under_way = service.submit(&spec);
        service.job_when(&under_way, |job| job["progress"]["shards_done"].as_u64() >= Some(1));
        let made = sandbox.run(&["backup", backup.to_str().unwrap()]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let shown = service.hits(&ended);
        service.kill();
        (ended, under_way, shown)
    };
    let again = sandbox.run(&["backup", backup.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert_eq!(again.status.code(), Some(2), "a backup was overwritten");
    assert!(said.contains("is not empty"), "{said}");
    let refused = sandbox.run(&["restore", backup.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2), "a store was overwritten");

    std::fs::remove_dir_all(sandbox.state()).unwrap();
    let restored = sandbox.run(&["restore", backup.to_str().unwrap()]);
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    // Whoever held claims is gone, and with it the lock that would free them at once.
    let service = sandbox.serve_with(&["--lease-s", "1"], None);
    assert_eq!(service.result(&ended), expected);
    assert_eq!(service.hits(&ended), shown);
    assert_eq!(service.result(&under_way), expected);
}

#[test]
fn a_backup_is_its_owner_s_alone() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    drop(sandbox.serve());
    let backup = sandbox.path("backup");
    assert!(sandbox.run(&["backup", backup.to_str().unwrap()]).status.success());
    for (name, want) in [("", 0o700), ("dragnet.db", 0o600), ("backup.json", 0o600), ("output", 0o700)] {
        let mode = backup.join(name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, want, "{name}");
    }
}
