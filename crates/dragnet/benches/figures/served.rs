//! A scan from a server against one from disk.

use crate::service::{DRAGNET, median};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// A scan of objects on a server against the slower of a scan of the same files on disk and a bare client that fetches
/// the same bytes in ranges as large, as many at a time, and drops them. `bench/served.sh` starts servers.
pub(crate) fn served(disk: &Path, uri: &str, http: &str) {
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
