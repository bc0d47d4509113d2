//! The scan against its peers and against decompression alone, side by side, medians of 5 taken in turn:
//!
//! ```text
//! bench/corpus.sh ROOT && bench/peers.sh ROOT
//! cargo bench -p dragnet --bench scan -- ROOT [WORK]      # all rows, or those whose name holds WORK
//! ```
//!
//! Each row is a ratio: how many times faster `dragnet scan` is than the peer, whole processes, page cache
//! warm. "pure" is decompression alone by the same libraries, in this process, with as many threads. A peer
//! that takes more than half a minute is measured once, and one that takes more than a minute is stopped: its
//! ratio is what it is at least. All rows take 20 minutes on 2 cores; nothing else should run beside them.

#![allow(clippy::unwrap_used, reason = "a benchmark that can't go on stops")]

use dragnet_libdeflate::{Decoder, Error, Format};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const DRAGNET: &str = env!("CARGO_BIN_EXE_dragnet");
const ROUNDS: usize = 5;
/// A peer that takes longer, in seconds, is measured once.
const SLOW_S: f64 = 30.0;
/// A peer that takes longer, in seconds, is stopped.
const STOP_S: u64 = 60;
/// What a scan may take for each thread, in MiB.
const MEMORY_MIB: f64 = 64.0;
const NO_LITERAL: &str = r"\b[A-Z]\w+ [A-Z]\w+ [A-Z]\w+\b";

/// What a scan is measured against.
enum Peer {
    /// A command line for `sh`, in the corpus' folder.
    Shell(String),
    /// Decompression alone.
    Pure(Pure),
    /// The scan itself in another way.
    Scan(Vec<String>),
}

#[derive(Clone, Copy)]
enum Pure {
    /// Gzip members, each in one call.
    Members,
    /// Gzip as one stream.
    Stream,
    Zstd,
    /// Gzip members, and what is coded in their HTTP bodies.
    Bodies,
}

struct Row {
    work: String,
    scan: Vec<String>,
    /// Label, the ratio that is wanted, and what to run.
    peers: Vec<(&'static str, f64, Peer)>,
    files: Vec<PathBuf>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let Some(root) = arguments.first().map(PathBuf::from) else {
        println!("name the ROOT of `bench/corpus.sh` and `bench/peers.sh`");
        return;
    };
    let corpus = Corpus::at(&root);
    let wanted = arguments.get(1).map_or("", String::as_str);
    println!("| work | scan | against | ratio | wanted |\n| --- | --- | --- | --- | --- |");
    for row in corpus.rows().into_iter().filter(|row| row.work.contains(wanted)) {
        measure(&row, &corpus.folder);
    }
    for (kind, scan) in corpus.kinds().into_iter().filter(|(kind, _)| kind.contains(wanted)) {
        let peak = peak_mib(&scan, &corpus.folder);
        let verdict = if peak <= 2.0 * MEMORY_MIB { "" } else { " **missed**" };
        println!("| {kind} | {peak:.0} MiB | 2 threads, at most | | {}{verdict} |", 2.0 * MEMORY_MIB);
    }
}

fn measure(row: &Row, folder: &Path) {
    let mut own = Vec::new();
    let mut others: Vec<Vec<f64>> = row.peers.iter().map(|_| Vec::new()).collect();
    for round in 0..=ROUNDS {
        let scan = time(|| run_scan(&row.scan, folder));
        // The first round warms the cache.
        own.extend((round > 0).then_some(scan));
        for ((_, _, peer), times) in row.peers.iter().zip(&mut others) {
            if times.first().is_some_and(|first| *first > SLOW_S) {
                continue;
            }
            let took = time(|| run(peer, row, folder));
            if round > 0 || took > SLOW_S {
                times.push(took);
            }
        }
    }
    let own = median(own);
    for ((label, wanted, _), times) in row.peers.iter().zip(others) {
        let ratio = median(times) / own;
        let verdict = if ratio >= *wanted { "" } else { " **missed**" };
        println!("| {} | {own:.2} s | {label} | {ratio:.2} | {wanted}{verdict} |", row.work);
    }
    std::io::stdout().flush().unwrap();
}

fn time(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn run_scan(arguments: &[String], folder: &Path) {
    let mut command = Command::new(DRAGNET);
    let status =
        command.arg("scan").args(arguments).current_dir(folder).stdout(Stdio::null()).status().unwrap();
    assert!(matches!(status.code(), Some(0 | 1)), "scan {arguments:?}: {status}");
}

/// The most memory that a scan has resident, by the kernel's own mark of high water.
fn peak_mib(arguments: &[String], folder: &Path) -> f64 {
    let mut command = Command::new(DRAGNET);
    let mut scan =
        command.arg("scan").args(arguments).current_dir(folder).stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", scan.id());
    let mut peak = 0.0;
    while scan.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let mark = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = mark.and_then(|mark| mark.trim().strip_suffix(" kB")?.parse().ok());
        peak = kib.unwrap_or(peak);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    peak / 1024.0
}

fn run(peer: &Peer, row: &Row, folder: &Path) {
    match peer {
        Peer::Shell(line) => {
            let mut command = Command::new("sh");
            let line = format!("timeout {STOP_S} sh -c {}", quoted(line));
            let status =
                command.args(["-c", &line]).current_dir(folder).stdout(Stdio::null()).status().unwrap();
            // 123 is xargs' word for a grep that found nothing, 124 timeout's.
            assert!(matches!(status.code(), Some(0 | 1 | 123 | 124)), "{line}: {status}");
        }
        Peer::Scan(arguments) => run_scan(arguments, folder),
        Peer::Pure(pure) => decompress(*pure, &row.files),
    }
}

struct Corpus {
    folder: PathBuf,
    rg: String,
    patterns: PathBuf,
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

impl Corpus {
    fn at(root: &Path) -> Corpus {
        let folder = root.canonicalize().unwrap().join("corpus");
        let rg = root.canonicalize().unwrap().join("peers/bin/rg").display().to_string();
        let patterns = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/patterns.txt");
        let corpus = Corpus { folder, rg, patterns: patterns.canonicalize().unwrap() };
        corpus.complete();
        corpus
    }

    /// Makes what `bench/corpus.sh` does not: other codecs, bodies that are coded, pattern files.
    fn complete(&self) {
        let shell = |line: &str| {
            let done = Command::new("sh").args(["-c", line]).current_dir(&self.folder).status().unwrap();
            assert!(done.success(), "{line}");
        };
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/more.py").canonicalize().unwrap();
        if !self.folder.join("coded").exists() {
            shell(&format!("../venv/bin/pip install -q brotli && ../venv/bin/python {} .", script.display()));
        }
        if !self.folder.join("patterns").exists() {
            shell("mkdir -p patterns");
        }
        let all = std::fs::read_to_string(&self.patterns).unwrap();
        let lines = all.lines().filter(|line| !line.starts_with('#'));
        for (name, half) in [("all", ""), ("literals", "literal"), ("secrets", "secret")] {
            let chosen: Vec<&str> = lines.clone().filter(|line| line.starts_with(half)).collect();
            std::fs::write(self.folder.join(format!("patterns/{name}.named")), chosen.join("\n")).unwrap();
            let bare: Vec<&str> = chosen.iter().map(|line| line.split_once('=').unwrap().1).collect();
            std::fs::write(self.folder.join(format!("patterns/{name}.bare")), bare.join("\n")).unwrap();
        }
    }

    fn files(&self, folder: &str, end: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> = entries.filter(|path| path.to_string_lossy().ends_with(end)).collect();
        files.sort();
        files
    }

    fn rg(&self, flags: &str, pattern: &str, data: &str) -> Peer {
        Peer::Shell(format!("{} -j2 -c {flags} {} {data}", self.rg, quoted(pattern)))
    }

    /// A scan of each kind, for its memory.
    fn kinds(&self) -> Vec<(String, Vec<String>)> {
        let kinds = [
            ("warc.gz", vec!["warc"]),
            ("warc.zst", vec!["zst"]),
            ("jsonl.gz, one field", vec!["--field", "html", "--include", "*.gz", "jsonl"]),
            ("tree", vec!["tree"]),
            ("coded bodies", vec!["coded"]),
            ("3 million hits in warc.gz", vec!["--json", "-m", "3000000", "warc"]),
        ];
        let pattern = |kind: &str| if kind.contains("hits") { r"\w+" } else { "Zyzzyva42" };
        let kinds = kinds.into_iter().map(|(kind, arguments)| {
            let scan = strings(&[&arguments[..arguments.len() - 1], &["-j", "2", pattern(kind)]].concat());
            (format!("memory, {kind}"), [scan, strings(&arguments[arguments.len() - 1..])].concat())
        });
        kinds.collect()
    }

    fn rows(&self) -> Vec<Row> {
        let warc = || self.files("warc", ".warc.gz");
        let mut rows = Vec::new();
        for (name, flags, pattern, pure) in [
            ("rare literal", "", "Zyzzyva42", 0.95),
            ("common literal", "", "https://", 0.95),
            ("literal-led", "", r"UA-\d{4,10}-\d{1,4}", 0.95),
            ("case-insensitive word", "-i", r"\bjavascript\b", 0.85),
            (
                "10 alternatives",
                "",
                "nginx|apache|lighttpd|caddy|tomcat|jetty|gunicorn|unicorn|puma|passenger",
                0.85,
            ),
        ] {
            let mut scan = strings(&["-c", pattern, "warc"]);
            scan.extend((!flags.is_empty()).then(|| flags.to_owned()));
            let rg_wanted = if pure > 0.9 { 5.5 } else { 5.0 };
            let mut peers = vec![
                ("pure", pure, Peer::Pure(Pure::Members)),
                ("rg -z", rg_wanted, self.rg(&format!("-z {flags}"), pattern, "warc")),
            ];
            if pure > 0.9 {
                let line = format!(
                    "ls warc/*.gz | xargs -P2 -I@ sh -c \"libdeflate-gunzip -c @ | {} -a -c {flags} {}\"",
                    self.rg,
                    quoted(pattern).replace('\\', r"\\\\")
                );
                peers.push(("libdeflate-gunzip \\| rg", 1.7, Peer::Shell(line)));
            }
            rows.push(Row { work: format!("warc.gz, {name}"), scan, peers, files: warc() });
        }
        rows.push(Row {
            work: "warc.gz, no literal, Unicode".into(),
            scan: strings(&["-c", NO_LITERAL, "warc"]),
            peers: vec![
                ("rg -z", 9.0, self.rg("-z", NO_LITERAL, "warc")),
                ("ugrep -z", 2.0, Peer::Shell(format!("ugrep -r -z -J2 -c -P {} warc", quoted(NO_LITERAL)))),
            ],
            files: warc(),
        });
        rows.push(Row {
            work: "warc.gz, no literal, ASCII".into(),
            scan: strings(&["-c", &format!("(?-u){NO_LITERAL}"), "warc"]),
            peers: vec![("rg -z --no-unicode", 1.5, self.rg("-z --no-unicode", NO_LITERAL, "warc"))],
            files: warc(),
        });
        for (name, file) in
            [("500 patterns", "all"), ("250 literals", "literals"), ("250 secrets", "secrets")]
        {
            rows.push(Row {
                work: format!("warc.gz, {name}"),
                scan: strings(&["-c", "-f", &format!("patterns/{file}.named"), "warc"]),
                peers: vec![(
                    "rg -z -f",
                    2.0,
                    Peer::Shell(format!("{} -j2 -z -c -f patterns/{file}.bare warc", self.rg)),
                )],
                files: warc(),
            });
        }
        rows.push(Row {
            work: "one warc.gz, 2 threads".into(),
            scan: strings(&["-c", "Zyzzyva42", "one/big.warc.gz"]),
            peers: vec![("two files at once", 0.95, Peer::Scan(strings(&["-c", "Zyzzyva42", "one/half"])))],
            files: warc(),
        });
        for (end, pure) in [("jsonl.gz", Pure::Stream), ("jsonl.zst", Pure::Zstd)] {
            for (name, field) in [("raw line", ""), ("one field", "html")] {
                let mut scan = strings(&["-c", "Zyzzyva42", "--include", &format!("*.{end}"), "jsonl"]);
                if !field.is_empty() {
                    scan.extend(strings(&["--field", field]));
                }
                let rg = self.rg("-z", "Zyzzyva42", &format!("jsonl/*.{end}"));
                let peers = vec![("pure", 0.9, Peer::Pure(pure)), ("rg -z", 1.3, rg)];
                rows.push(Row {
                    work: format!("{end}, {name}"),
                    scan,
                    peers,
                    files: self.files("jsonl", end),
                });
            }
        }
        rows.push(Row {
            work: "warc.zst".into(),
            scan: strings(&["-c", "Zyzzyva42", "zst"]),
            peers: vec![
                ("pure", 0.9, Peer::Pure(Pure::Zstd)),
                ("rg -z", 1.3, self.rg("-z", "Zyzzyva42", "zst/*.zst")),
            ],
            files: self.files("zst", ".zst"),
        });
        rows.push(Row {
            work: "tree, literal".into(),
            scan: strings(&["-c", "Zyzzyva42", "tree"]),
            peers: vec![("rg", 1.2, self.rg("-uuu", "Zyzzyva42", "tree"))],
            files: Vec::new(),
        });
        rows.push(Row {
            work: "tree, no literal, Unicode".into(),
            scan: strings(&["-c", NO_LITERAL, "tree"]),
            peers: vec![("rg", 3.0, self.rg("-uuu", NO_LITERAL, "tree"))],
            files: Vec::new(),
        });
        rows.push(Row {
            work: "coded bodies".into(),
            scan: strings(&["-c", "Zyzzyva42", "coded"]),
            peers: vec![("both decompressions", 0.8, Peer::Pure(Pure::Bodies))],
            files: self.files("coded", ".gz"),
        });
        rows
    }
}

/// Decodes files and throws the bytes away, with as many threads as there are cores.
fn decompress(pure: Pure, files: &[PathBuf]) {
    let threads = std::thread::available_parallelism().unwrap().get();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match pure {
                        Pure::Members => members(file, &mut |_| {}),
                        Pure::Bodies => {
                            let mut decoder = Decoder::new();
                            members(file, &mut |member| body(&mut decoder, member));
                        }
                        Pure::Stream => {
                            stream(flate2::read::MultiGzDecoder::new(std::fs::File::open(file).unwrap()))
                        }
                        Pure::Zstd => zstd(file),
                    }
                }
            });
        }
    });
}

fn members(file: &Path, member: &mut dyn FnMut(&[u8])) {
    let stored = std::fs::read(file).unwrap();
    let (mut decoder, mut out, mut at) = (Decoder::new(), vec![0; 64 << 10], 0);
    while at < stored.len() {
        match decoder.decode(Format::Gzip, &stored[at..], &mut out) {
            Ok(decoded) => {
                at += decoded.consumed;
                member(&out[..decoded.written]);
            }
            Err(Error::OutputTooSmall) => out.resize(out.len() * 4, 0),
            Err(Error::BadData) => panic!("{} is damaged", file.display()),
        }
    }
}

/// Decodes the body of a page, by what its head says.
fn body(decoder: &mut Decoder, member: &[u8]) {
    let head = &member[..member.len().min(4096)];
    let find = |text: &[u8]| memchr::memmem::find(head, text);
    let Some(at) = find(b"HTTP/1.1 200") else { return };
    let Some(end) = memchr::memmem::find(&member[at..], b"\r\n\r\n") else { return };
    let coded = &member[at + end + 4..];
    if find(b"\r\nContent-Encoding: gzip").is_some() {
        let mut out = vec![0; coded.len() * 6];
        while decoder.decode(Format::Gzip, coded, &mut out) == Err(Error::OutputTooSmall) {
            out.resize(out.len() * 4, 0);
        }
    } else if find(b"\r\nContent-Encoding: br").is_some() {
        stream(brotli_decompressor::Decompressor::new(coded, 64 << 10));
    }
}

fn stream(mut decoder: impl Read) {
    let mut out = vec![0; 128 << 10];
    while decoder.read(&mut out).unwrap_or(0) > 0 {}
}

fn zstd(file: &Path) {
    let stored = std::fs::read(file).unwrap();
    let mut context = zstd_safe::DCtx::create();
    let (mut input, mut out) = (zstd_safe::InBuffer::around(&stored), vec![0; 128 << 10]);
    while input.pos() < stored.len() {
        let mut space = zstd_safe::OutBuffer::around(&mut out[..]);
        context.decompress_stream(&mut space, &mut input).unwrap();
    }
}
