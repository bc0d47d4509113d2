//! `dragnet scan` and `dragnet replay` as a person runs them.

use crate::harness::{Sandbox, gzip, page, record};
use serde_json::Value as Json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lines(output: &Output) -> Vec<String> {
    text(&output.stdout).lines().map(str::to_owned).collect()
}

fn hits(output: &Output) -> Vec<Json> {
    lines(output).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A folder with an archive of 40 pages, text, and something binary.
fn data(sandbox: &Sandbox) -> PathBuf {
    let archive: Vec<u8> = (0..40).flat_map(|n| gzip(&page(n), 6)).collect();
    sandbox.write("data/a.warc.gz", &archive);
    sandbox.write("data/b.txt", b"one\ntwo needle-1 here\nthree\nfour Needle-2\n");
    sandbox.write("data/c.bin", b"needle-9\0");
    sandbox.path("data")
}

fn named(path: &Path, name: &str) -> String {
    path.join(name).display().to_string()
}

#[test]
fn it_prints_as_grep_does() {
    let sandbox = Sandbox::new();
    let data = data(&sandbox);
    let folder = data.display().to_string();
    let b = named(&data, "b.txt");
    let table: Vec<(&str, Vec<&str>, Vec<String>)> = vec![
        ("text", vec!["needle-[0-9]"], vec![format!("{b}:0::needle-1")]),
        ("case", vec!["-i", "needle-[0-9]"], vec![format!("{b}:0::needle-1"), format!("{b}:0::Needle-2")]),
        ("matches alone", vec!["-o", "n[a-z]+-1"], vec!["needle-1".into()]),
        ("counts", vec!["-c", "-i", "needle"], vec![format!("{b}:2")]),
        ("objects", vec!["-l", "needle"], vec![b.clone()]),
        ("fixed", vec!["-F", "e-1 h"], vec![format!("{b}:0::e-1 h")]),
        ("a limit", vec!["-m", "1", "-i", "needle"], vec![format!("{b}:0::needle")]),
        (
            "context",
            vec!["-B", "1", "-A", "1", "needle-1"],
            vec![
                format!("{b}-0--one"),
                format!("{b}:0::two needle-1 here"),
                format!("{b}-0--three"),
                "--".into(),
            ],
        ),
        ("colour", vec!["--color", "always", "-o", "needle-1"], vec!["\x1b[1;31mneedle-1\x1b[0m".into()]),
    ];
    for (name, arguments, expected) in table {
        let output = sandbox.run(&[&["scan"], &arguments[..], &[&folder, "--exclude", "*.gz"]].concat());
        assert_eq!(lines(&output), expected, "{name}: {}", text(&output.stderr));
    }
}

#[test]
fn exit_codes_are_greps_with_one_more() {
    let sandbox = Sandbox::new();
    let data = data(&sandbox);
    let folder = data.display().to_string();
    let mut broken: Vec<u8> = (0..3).flat_map(|n| gzip(&page(n), 6)).collect();
    broken.truncate(broken.len() - 20);
    let broken = sandbox.write("broken.warc.gz", &broken).display().to_string();
    let table: [(&str, Vec<&str>, i32, &str); 6] = [
        ("hits", vec!["needle", &folder], 0, ""),
        ("no hit", vec!["zzz", &folder], 1, ""),
        ("gaps", vec!["zzz", &broken], 3, "NOT complete: 1 × truncated"),
        ("a broken pattern", vec!["x(", &folder], 2, "unclosed group"),
        ("a missing path", vec!["x", "/none"], 2, "`/none` does not exist"),
        ("a broken filter", vec!["x", &folder, "--status", "abc"], 2, "filter: status `abc`"),
    ];
    for (name, arguments, expected, said) in table {
        let output = sandbox.run(&[&["scan"], &arguments[..]].concat());
        assert_eq!(output.status.code(), Some(expected), "{name}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(said), "{name}: {}", text(&output.stderr));
    }
}

#[test]
fn shards_of_any_size_and_any_number_of_threads_print_the_same() {
    let sandbox = Sandbox::new();
    let folder = data(&sandbox).display().to_string();
    let coverage = sandbox.path("coverage.json").display().to_string();
    let whole = sandbox.run(&["scan", "--json", "(?i)needle", &folder, "-j", "1", "--coverage", &coverage]);
    let report = std::fs::read_to_string(&coverage).unwrap();
    for (shard_bytes, threads) in [("1", "2"), ("100", "4"), ("1000", "1"), ("9999999", "2")] {
        let arguments = [
            "scan",
            "--json",
            "(?i)needle",
            &folder,
            "--shard-bytes",
            shard_bytes,
            "-j",
            threads,
            "--coverage",
            &coverage,
        ];
        let split = sandbox.run(&arguments);
        assert_eq!(split.stdout, whole.stdout, "{shard_bytes} bytes, {threads} threads");
        assert_eq!(
            std::fs::read_to_string(&coverage).unwrap(),
            report,
            "{shard_bytes} bytes, {threads} threads"
        );
    }
    // Where a limit cuts is the same as well, and so is what it leaves out.
    let limited = |limit: &str, more: &[&str]| {
        let arguments = ["scan", "--json", "(?i)needle", &folder, "-m", limit, "--coverage", &coverage];
        let some = sandbox.run(&[&arguments, more].concat());
        assert_eq!(lines(&some), lines(&whole)[..limit.parse().unwrap()], "limit {limit}, {more:?}");
        (some.status.code(), std::fs::read_to_string(&coverage).unwrap())
    };
    for limit in ["1", "7", "30", "39", "40"] {
        let once = limited(limit, &["-j", "1"]);
        assert_eq!(once.0, Some(3), "a limit that cut is a gap");
        for shard_bytes in ["1", "500", "3000"] {
            assert_eq!(limited(limit, &["--shard-bytes", shard_bytes]), once, "{limit}, {shard_bytes}");
        }
    }
}

#[test]
fn standard_input_is_an_object_like_any() {
    let sandbox = Sandbox::new();
    let archive: Vec<u8> = (0..3).flat_map(|n| gzip(&page(n), 6)).collect();
    let mut command = sandbox.dragnet(&["scan", "-c", "needle", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&archive).unwrap();
    assert!(text(&child.wait_with_output().unwrap().stdout).starts_with("-:"));
}

#[test]
fn a_fifo_that_is_named_is_read_and_can_be_cut_twice() {
    let sandbox = Sandbox::new();
    let fifo = sandbox.path("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let first = sandbox.write("a.txt", b"needle needle needle").display().to_string();
    let (fifo, to) = (fifo.display().to_string(), fifo);
    let writer = std::thread::spawn(move || std::fs::write(to, b"needle and needle and needle").unwrap());
    // The limit cuts the second object, which by then was searched with another one.
    let output = sandbox.run(&["scan", "-o", "-m", "5", "needle", &first, &fifo]);
    writer.join().unwrap();
    assert_eq!((lines(&output).len(), output.status.code()), (5, Some(3)), "{}", text(&output.stderr));
}

#[test]
fn a_manifest_that_states_more_than_there_is_makes_a_gap() {
    let sandbox = Sandbox::new();
    let archive: Vec<u8> = (0..3).flat_map(|n| gzip(&page(n), 6)).collect();
    sandbox.write("a.warc.gz", &archive[..gzip(&page(0), 6).len()]);
    sandbox.write("b.txt", b"abc");
    let whole = archive.len();
    let right = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let wrong = "sha1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let table = [
        ("a cut at a member's border is not seen", "a.warc.gz".into(), 1, ""),
        ("but the size is", format!("a.warc.gz\t{whole}"), 3, "the manifest states"),
        ("a digest that is right", format!("b.txt\t3\t{right}"), 1, ""),
        ("a digest that is wrong", format!("b.txt\t{wrong}"), 3, "the manifest states sha1:"),
        ("what is neither", "b.txt\tabc".into(), 2, "neither a size in bytes nor a digest"),
    ];
    for (name, line, expected, said) in table {
        let manifest = sandbox.write("list", line.as_bytes()).display().to_string();
        for command in ["scan", "search"] {
            let coverage = sandbox.path("coverage.json").display().to_string();
            let output = sandbox.run(&[command, "zzz", "--files-from", &manifest, "--coverage", &coverage]);
            let report = std::fs::read_to_string(&coverage).unwrap_or_default();
            let all = text(&output.stderr) + &report;
            assert_eq!(output.status.code(), Some(expected), "{command}, {name}: {all}");
            assert!(all.contains(said), "{command}, {name}: {all}");
            let _ = std::fs::remove_file(&coverage);
        }
    }
}

/// A member of 64 MiB of spaces in 64 KB, again and again: what follows `head` decodes to more than is ever
/// held of one record.
fn bomb(head: &[u8], members: usize) -> Vec<u8> {
    let spaces = gzip(&vec![b' '; 64 << 20], 9);
    [gzip(head, 6), spaces.repeat(members)].concat()
}

#[test]
fn a_zip_bomb_is_cut_at_a_limit_in_constant_memory() {
    let sandbox = Sandbox::new();
    let claimed = format!("WARC/1.0\r\nWARC-Type: resource\r\nContent-Length: {}\r\n\r\nneedle", 10u64 << 30);
    let alone = sandbox.write("page.warc.gz", &gzip(&page(1), 6)).display().to_string();
    let hits_of_page = lines(&sandbox.run(&["scan", "--json", "needle", &alone])).len();
    let body = [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n".to_vec(), bomb(b"needle", 16)].concat();
    let table = [
        // What follows the cut record is read; the page's body has a needle.
        (
            "a record",
            "a.warc.gz",
            [bomb(claimed.as_bytes(), 160), gzip(&page(1), 6)].concat(),
            (Some(3), 1 + hits_of_page),
        ),
        (
            "a body",
            "b.warc.gz",
            gzip(&record("http://h/", "application/http; msgtype=response", &body), 6),
            (Some(3), 1),
        ),
        ("a document", "c.txt.gz", bomb(b"needle", 160), (Some(3), 1)),
    ];
    for (name, file, bytes, expected) in table {
        let file = sandbox.write(file, &bytes).display().to_string();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "ulimit -v 1000000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_dragnet")]);
        let output = command.args(["scan", "--json", "-j", "1", "needle", &file]).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), lines(&output).len()), expected, "{name}: {said}");
    }
}

#[test]
fn an_end_is_said_by_its_code_where_nobody_reads_what_is_said() {
    let sandbox = Sandbox::new();
    let page = sandbox.write("page.warc.gz", &gzip(&page(1), 6)).display().to_string();
    let table = [
        (&["scan", "(", &page][..], 2),
        (&["scan", "--limit-hits", "1", ".", &page], 3),
        (&["search", "needle", &page], 0),
    ];
    for (arguments, expected) in table {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = sandbox.dragnet(arguments).stderr(writer).output().unwrap().status;
        assert_eq!(status.code(), Some(expected), "{arguments:?}");
    }
}

#[test]
fn as_many_lines_around_a_match_as_there_are() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("a.txt", b"one\ntwo needle\nthree\n").display().to_string();
    let output = sandbox.run(&["scan", "-C", &usize::MAX.to_string(), "needle", &file]);
    assert_eq!((output.status.code(), lines(&output).len()), (Some(0), 4));
}

#[test]
fn records_are_listed_without_a_pattern() {
    let sandbox = Sandbox::new();
    let folder = data(&sandbox).display().to_string();
    let output = sandbox.run(&["scan", "--records", &folder]);
    let entries = hits(&output);
    assert_eq!((entries.len(), output.status.code()), (41, Some(0)));
    for name in ["object", "offset", "length", "record_type", "record_id", "url", "date", "payload_length"] {
        assert!(entries[0].get(name).is_some(), "{name}");
    }
}

#[test]
fn hits_are_written_in_any_format() {
    let sandbox = Sandbox::new();
    let folder = data(&sandbox).display().to_string();
    let expected = lines(&sandbox.run(&["scan", "--json", "needle", &folder])).len();
    for name in ["h.jsonl", "h.jsonl.gz", "h.jsonl.zst", "h.csv", "h.parquet"] {
        let file = sandbox.path(name).display().to_string();
        let output = sandbox.run(&["scan", "needle", &folder, "-O", &file]);
        assert_eq!(
            (output.status.code(), output.stdout.len()),
            (Some(0), 0),
            "{name}: {}",
            text(&output.stderr)
        );
        // What we wrote we read: by lines, and as documents of lines.
        let found = match name {
            "h.parquet" => lines(&sandbox.run(&["scan", "--json", "--field", "match", "^.", &file])).len(),
            "h.csv" => std::fs::read_to_string(&file).unwrap().lines().count() - 1,
            _ => lines(&sandbox.run(&["scan", "--json", "--field", "match", "^.", &file])).len(),
        };
        assert_eq!(found, expected, "{name}");
    }
    let wrong = sandbox.run(&["scan", "x", &folder, "-O", "hits.xls"]);
    assert!(text(&wrong.stderr).contains("must end with .jsonl"));
    let left = std::fs::read_dir(sandbox.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with(".h.")), "no draft is left");
}

#[test]
fn a_hit_is_replayed_and_its_record_copied() {
    let sandbox = Sandbox::new();
    let folder = data(&sandbox);
    let one = gzip(&[page(70), page(71)].concat(), 6);
    sandbox.write("data/d.warc.gz", &one);
    sandbox.write("data/e.warc", &[record("http://h/e", "text/plain", b"needle e"), page(72)].concat());
    let block = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nneedle f";
    let plain = "needle g\n\nand no HTTP";
    let arc = format!(
        "http://h/f 1.2.3.4 20240520093000 text/plain {}\n{block}\nhttp://h/g 1.2.3.4 20240520093000 text/plain {}\n{plain}\n",
        block.len(),
        plain.len()
    );
    sandbox.write(
        "data/f.arc.gz",
        &gzip(format!("filedesc://f 0.0.0.0 20240520093000 text/plain 9\nneedle 0\n\n{arc}").as_bytes(), 6),
    );
    let found =
        sandbox.run(&["scan", "--json", "needle", &folder.display().to_string(), "--exclude", "*.txt"]);
    let file = sandbox.write("hits.jsonl", &found.stdout).display().to_string();
    let shown = sandbox.run(&["replay", &file]);
    assert_eq!(
        text(&shown.stdout).matches(">>>needle<<<").count(),
        hits(&found).len(),
        "{}",
        text(&shown.stderr)
    );
    let copy = sandbox.path("copy.warc.gz").display().to_string();
    let copied = sandbox.run(&["replay", "--warc", &copy, &file]);
    assert!(copied.status.success(), "{}", text(&copied.stderr));
    let mut matches: Vec<String> = hits(&sandbox.run(&["scan", "--json", "needle", &copy]))
        .iter()
        .map(|hit| format!("{} {}", hit["url"], hit["start"]))
        .collect();
    let mut expected: Vec<String> =
        hits(&found).iter().map(|hit| format!("{} {}", hit["url"], hit["start"])).collect();
    // What speaks of the ARC file itself speaks of a file in WARC too, and has no URL there.
    expected.iter_mut().for_each(|hit| *hit = hit.replace("\"filedesc://f\"", "null"));
    matches.sort();
    expected.sort();
    assert_eq!(matches, expected);
    match std::env::var("DRAGNET_TEST_PYTHON") {
        Ok(python) => {
            let check = ["-m", "warcio.cli", "check", "-v", &copy];
            let checked = std::process::Command::new(python).args(check).output().unwrap();
            assert!(checked.status.success(), "{}", text(&[checked.stdout, checked.stderr].concat()));
        }
        Err(_) => eprintln!("skipped: DRAGNET_TEST_PYTHON names no Python with warcio"),
    }
    std::fs::write(folder.join("a.warc.gz"), b"something else").unwrap();
    let gone = sandbox.run(&["replay", &file]);
    assert!(text(&gone.stderr).contains("it is not the file that was searched"), "{}", text(&gone.stderr));
}
