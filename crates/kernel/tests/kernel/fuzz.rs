//! A fuzzer that needs nothing but the stable compiler: it changes files of a corpus at random and asks of
//! every result what must always hold. A run is short; `DRAGNET_FUZZ_SECONDS=3600` makes it long, and a seed
//! that failed is named and can be given by `DRAGNET_FUZZ_SEED`.
//!
//! What must hold: no panic, no endless loop, every byte accounted for, every hit where it says, and the
//! union of shards equal to one read.

use crate::archive::{gzip, members, record, response, scan_all, scan_in_shards, search, spec, zstd};
use dragnet_kernel::{Layer, Search, SearchSpec};
use std::io::Write;
use std::time::{Duration, Instant};

/// Xorshift (Marsaglia 2003): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Files of every kind: what is in the repository, and what is made here.
fn corpus() -> Vec<Vec<u8>> {
    let pages: Vec<Vec<u8>> = (0..6)
        .map(|n| match n % 3 {
            0 => response(
                "http://h/a",
                "Content-Type: text/html\r\nContent-Encoding: gzip\r\n",
                &gzip(b"a needle1", 6),
            ),
            1 => response(
                "http://h/b",
                "Transfer-Encoding: chunked\r\n",
                b"4\r\nneed\r\n3\r\nle2\r\n0\r\n\r\n",
            ),
            _ => record(
                "metadata",
                "http://h/c",
                "text/html; charset=gbk",
                b"<meta charset=gbk><p>needle3 \xc4\xe3",
            ),
        })
        .collect();
    let arc = b"filedesc://a 0.0.0.0 20240520093000 text/plain 2\n1\n\nhttp://h/ 1.2.3.4 20240520093000 text/html 7\nneedle4\n".to_vec();
    let lines = b"{\"url\":\"http://h/\",\"text\":\"needle5\"}\n{\"text\":\"n\\u0065edle6\"}\n".to_vec();
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("archive/a.warc.gz", stored).unwrap();
    zip.write_all(&members(&pages, 6)).unwrap();
    let wacz = zip.finish().unwrap().into_inner();
    let dictionary = [&[0x5d, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"dict", &zstd(&pages[1])].concat();
    let mut files = vec![
        pages.concat(),
        members(&pages, 6),
        members(&pages, 0),
        gzip(&pages.concat(), 6),
        pages.iter().flat_map(|page| zstd(page)).collect(),
        dictionary,
        gzip(&arc, 6),
        arc,
        zstd(&lines),
        lines,
        wacz,
        b"<html>needle7 caf\xc3\xa9".to_vec(),
    ];
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut kept: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    kept.sort();
    files.extend(kept.iter().map(|path| std::fs::read(path).unwrap()));
    files
}

/// Numbers and words that parsers trip over.
const ODD: [&[u8]; 12] = [
    b"\r\n\r\n",
    b"Content-Length: 3000000000\r\n",
    b"Content-Length: 18446744073709551615\r\n",
    b"\x1f\x8b\x08\0",
    b"\x28\xb5\x2f\xfd",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0\0\0\0\0",
    b"WARC/1.0\r\n",
    b"\nhttp://",
    b"ffffffff\r\n",
    b"PK\x01\x02",
    b"charset=utf-16",
];

fn change(file: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(file.len() + 1);
    match random.below(7) {
        0 => file.truncate(at),
        1 if at < file.len() => file[at] ^= 1 << random.below(8),
        2 if at < file.len() => file[at] = random.next() as u8,
        3 => {
            let odd = ODD[random.below(ODD.len())];
            file.splice(at..at, odd.iter().copied());
        }
        4 => {
            let to = (at + random.below(64)).min(file.len());
            file.drain(at..to);
        }
        5 => {
            let to = (at + random.below(256)).min(file.len());
            let piece = file[at..to].to_vec();
            let there = random.below(file.len() + 1);
            file.splice(there..there, piece);
        }
        _ => {
            let odd = ODD[random.below(ODD.len())];
            let to = (at + odd.len()).min(file.len());
            file.splice(at..to, odd.iter().copied());
        }
    }
}

/// What must hold of any file.
fn check(file: &[u8], searches: &[Search], random: &mut Random) {
    for search in searches {
        let whole = scan_all(file, search);
        let coverage = &whole.scanned.coverage;
        assert_eq!(
            coverage.read + coverage.skipped_bytes(),
            file.len() as u64,
            "every byte is accounted for"
        );
        for hit in &whole.hits {
            assert!(hit.stored.offset() + hit.stored.length() <= file.len() as u64, "{hit:?}");
        }
    }
    let search = &searches[0];
    let shard_bytes = 1 + random.below(file.len().max(1)) as u64;
    let whole = scan_all(file, search);
    if whole.scanned.first.is_some() && !file.is_empty() {
        let (hits, digest, coverage) = scan_in_shards(file, search, shard_bytes);
        assert_eq!((hits, digest), (whole.hits, whole.digest), "shards of {shard_bytes}");
        assert_eq!(coverage.records, whole.scanned.coverage.records, "shards of {shard_bytes}");
    }
}

#[test]
fn whatever_the_bytes_are() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seconds = number("DRAGNET_FUZZ_SECONDS").unwrap_or(10);
    let first = number("DRAGNET_FUZZ_SEED").unwrap_or(1);
    let corpus = corpus();
    let all = [Layer::Warc, Layer::Raw, Layer::Headers, Layer::Body, Layer::Text];
    let with = |spec: SearchSpec| Search::compile(&spec).unwrap();
    let searches = [
        search("needle[0-9]", &[Layer::Body]),
        with(SearchSpec { verify: true, ..spec(r"\b\w+\b", &all) }),
        with(SearchSpec { field: Some("text".into()), ..spec("needle", &[Layer::Body]) }),
    ];
    let begun = Instant::now();
    let mut seed = first;
    while begun.elapsed() < Duration::from_secs(seconds) {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut file = corpus[random.below(corpus.len())].clone();
        for _ in 0..1 + random.below(8) {
            change(&mut file, &mut random);
        }
        let checked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&file, &searches, &mut random)));
        if let Err(panic) = checked {
            let saved = std::env::temp_dir().join(format!("dragnet-fuzz-{seed}"));
            std::fs::write(&saved, &file).unwrap();
            eprintln!("DRAGNET_FUZZ_SEED={seed} shows it again; the file is `{}`", saved.display());
            std::panic::resume_unwind(panic);
        }
        seed += 1;
    }
    eprintln!("{} files", seed - first);
}
