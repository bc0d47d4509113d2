//! What others make of our archives, hits and digests: warcio, Python's `re`, and the digest recomputed from
//! its written definition.

use crate::harness::Sandbox;
use std::process::Command;

const COUNT: &str = r"
import re, sys
from warcio.archiveiterator import ArchiveIterator
records = hits = 0
for name in sys.argv[2:]:
    with open(name, 'rb') as file:
        for record in ArchiveIterator(file):
            records += 1
            hits += sum(1 for m in re.finditer(sys.argv[1].encode(), record.content_stream().read()) if m.group())
print(records, hits)
";

pub(crate) fn python() -> Option<String> {
    let python = std::env::var("DRAGNET_TEST_PYTHON").ok().filter(|python| !python.is_empty());
    if python.is_none() {
        eprintln!(
            "skipped: DRAGNET_TEST_PYTHON names no Python with warcio and fastwarc (`./check` makes one)"
        );
    }
    python
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn warcio_counts_what_we_count() {
    let Some(python) = python() else { return };
    let sandbox = Sandbox::new();
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/../");
    let archive = sandbox.path("sources.warc.gz").display().to_string();
    sandbox.run(&["pack", "-o", &archive, sources]);
    for regex in ["fn [a-z_]+", "[Ww]ork", "zzz+y", "(?m)^use .*;$"] {
        let counted = said(Command::new(&python).args(["-c", COUNT, regex, &archive]));
        let search = sandbox.run(&["search", "--json", regex, &archive, "--shard-bytes", "30000"]);
        let hits = search.stdout.iter().filter(|b| **b == b'\n').count();
        let summary = String::from_utf8_lossy(&search.stderr).into_owned();
        let records = summary
            .lines()
            .find_map(|line| line.strip_prefix("hits      "))
            .unwrap()
            .split(' ')
            .nth(2)
            .unwrap();
        assert_eq!(counted, format!("{records} {hits}"), "{regex}");
    }
}

/// fastwarc has another parser, and another author.
const FASTWARC: &str = r"
import re, sys
from fastwarc.warc import ArchiveIterator, WarcRecordType
records = hits = 0
for record in ArchiveIterator(open(sys.argv[2], 'rb'), parse_http=True):
    records += 1
    hits += sum(1 for m in re.finditer(sys.argv[1].encode(), record.reader.read()) if m.group())
print(records, hits)
";

#[test]
fn fastwarc_counts_what_scan_counts() {
    let Some(python) = python() else { return };
    let sandbox = Sandbox::new();
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/../");
    let archive = sandbox.path("sources.warc.gz").display().to_string();
    sandbox.run(&["pack", "-o", &archive, sources]);
    for regex in ["fn [a-z_]+", "[Ww]ork", "zzz+y"] {
        let counted = said(Command::new(&python).args(["-c", FASTWARC, regex, &archive]));
        let hits = sandbox.run(&["scan", "--json", regex, &archive, "--shard-bytes", "20000"]).stdout;
        let records = sandbox.run(&["scan", "--records", &archive]).stdout;
        let lines = |bytes: &[u8]| bytes.iter().filter(|b| **b == b'\n').count();
        assert_eq!(counted, format!("{} {}", lines(&records), lines(&hits)), "{regex}");
    }
}

#[test]
fn the_digest_is_what_its_definition_says() {
    let Some(python) = python() else { return };
    let sandbox = Sandbox::new();
    let service = sandbox.serve();
    let id = service.submit(&crate::harness::spec(&sandbox.corpus()));
    let job = service.end_of(&id);
    let hits =
        sandbox.write("hits.jsonl", service.get(&format!("/v1/jobs/{id}/hits?limit=10000")).body.as_bytes());
    let coverage =
        sandbox.write("coverage.json", service.get(&format!("/v1/jobs/{id}/coverage")).body.as_bytes());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/digest.py");
    assert_eq!(
        said(Command::new(&python).arg(script).arg(coverage).arg(hits)),
        job["digest"].as_str().unwrap()
    );
}
