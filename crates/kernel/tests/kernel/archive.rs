//! Archives for tests, and how they are read.

use dragnet_kernel::coverage::Coverage;
use dragnet_kernel::{Digest, Hit, Kind, Layer, Pattern, Range, Scanned, Seam, Search, SearchSpec, scan};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

pub(crate) fn record(kind: &str, url: &str, content_type: &str, block: &[u8]) -> Vec<u8> {
    let length = block.len();
    let mut record = format!(
        "WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    record.extend_from_slice(block);
    record.extend_from_slice(b"\r\n\r\n");
    record
}

pub(crate) fn response(url: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut block = format!("HTTP/1.1 200 OK\r\n{headers}\r\n").into_bytes();
    block.extend_from_slice(body);
    record("response", url, "application/http; msgtype=response", &block)
}

pub(crate) fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; zstd_safe::compress_bound(bytes.len())];
    let n = zstd_safe::compress(&mut frame[..], bytes, 3).unwrap();
    frame.truncate(n);
    frame
}

/// A member per record.
pub(crate) fn members(records: &[Vec<u8>], level: u32) -> Vec<u8> {
    records.iter().flat_map(|record| gzip(record, level)).collect()
}

pub(crate) fn spec(regex: &str, layers: &[Layer]) -> SearchSpec {
    let pattern = Pattern { name: "m".into(), regex: regex.into(), case_insensitive: false };
    SearchSpec { layers: layers.to_vec(), ..SearchSpec::new(vec![pattern]) }
}

pub(crate) fn search(regex: &str, layers: &[Layer]) -> Search {
    Search::compile(&spec(regex, layers)).unwrap()
}

/// What a scan gave.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) hits: Vec<Hit<'static>>,
    pub(crate) digest: Digest,
    pub(crate) scanned: Scanned,
}

impl Found {
    pub(crate) fn matches(&self) -> Vec<&str> {
        self.hits.iter().map(|hit| &*hit.matched).collect()
    }
}

/// A hit that borrows nothing: what a reader of its JSON has.
fn owned(hit: &Hit<'_>) -> Hit<'static> {
    serde_json::from_str(&serde_json::to_string(hit).unwrap()).unwrap()
}

/// Matches without the word that all tests look for, skips, and the number of doubts.
pub(crate) fn drawn(found: &Found) -> String {
    let skipped = &found.scanned.coverage.skipped;
    let skips =
        skipped.iter().map(|s| format!(" {:?}@{}+{}", s.reason, s.offset, s.length)).collect::<String>();
    let doubts = found.scanned.coverage.undecoded.len();
    let doubts = if doubts == 0 { String::new() } else { format!(" doubts:{doubts}") };
    found.matches().join(" ").replace("needle", "") + &skips + &doubts
}

/// What an object of a certain name is, and what is found in it.
pub(crate) fn scan_as(name: &str, object: &[u8], search: &Search) -> (Kind, Found) {
    let kind = Kind::of(&object, name).unwrap();
    (kind, scan_kind(object, kind, search, (0, object.len() as u64), None, None))
}

pub(crate) fn scan_range(
    object: &[u8],
    search: &Search,
    range: (u64, u64),
    begin: Option<Seam>,
    hits_max: Option<u64>,
) -> Found {
    scan_kind(object, Kind::of(&object, "o").unwrap(), search, range, begin, hits_max)
}

fn scan_kind(
    object: &[u8],
    kind: Kind,
    search: &Search,
    range: (u64, u64),
    begin: Option<Seam>,
    hits_max: Option<u64>,
) -> Found {
    let range =
        Range { uri: "file:///o", size: object.len() as u64, start: range.0, end: range.1, begin, hits_max };
    let (mut hits, mut digest) = (Vec::new(), Digest::default());
    let scanned = scan(&object, kind, &range, search, &mut |hit: &Hit<'_>| {
        digest.add_hit(hit.canonical(0));
        hits.push(owned(hit));
        Ok(())
    });
    Found { hits, digest, scanned: scanned.unwrap() }
}

pub(crate) fn scan_all(object: &[u8], search: &Search) -> Found {
    scan_range(object, search, (0, object.len() as u64), None, None)
}

/// The union of shards, each from its own guess, and again from the seam where the guess was wrong.
pub(crate) fn scan_in_shards(
    object: &[u8],
    search: &Search,
    shard_bytes: u64,
) -> (Vec<Hit<'static>>, Digest, Coverage) {
    let size = object.len() as u64;
    let (mut hits, mut digest, mut coverage) = (Vec::new(), Digest::default(), Coverage::default());
    let mut expected = Seam::at(0);
    let mut start = 0;
    while start < size {
        let end = (start + shard_bytes).min(size);
        if expected.offset < end {
            let guessed = scan_range(object, search, (start, end), None, None);
            let found = match guessed.scanned.first == Some(expected) {
                true => guessed,
                false => scan_range(object, search, (start, end), Some(expected), None),
            };
            assert_eq!(found.scanned.first, Some(expected));
            expected = found.scanned.next;
            hits.extend(found.hits);
            digest.add(&found.digest);
            coverage.add(&found.scanned.coverage);
        }
        start = end;
    }
    assert_eq!(expected.offset, size, "the last seam is the object's end");
    (hits, digest, coverage)
}
