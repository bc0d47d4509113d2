//! Archives for tests, and how they are read.

use dragnet_kernel::coverage::Coverage;
use dragnet_kernel::{
    Digest, Hit, Kind, Layer, Pattern, Range, ReadAt, Scanned, Seam, Search, SearchSpec, scan,
};
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

/// A member per record.
pub(crate) fn members(records: &[Vec<u8>], level: u32) -> Vec<u8> {
    records.iter().flat_map(|record| gzip(record, level)).collect()
}

pub(crate) fn search(regex: &str, layers: &[Layer]) -> Search {
    let patterns = vec![Pattern { name: "m".into(), regex: regex.into(), case_insensitive: false }];
    Search::compile(&SearchSpec { patterns, layers: layers.to_vec(), hits_per_record: None }).unwrap()
}

/// What a scan gave.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) hits: Vec<Hit>,
    pub(crate) scanned: Scanned,
}

impl Found {
    pub(crate) fn matches(&self) -> Vec<&str> {
        self.hits.iter().map(|hit| hit.matched.as_str()).collect()
    }
}

pub(crate) fn scan_range(
    object: &[u8],
    search: &Search,
    range: (u64, u64),
    begin: Option<Seam>,
    hits_max: Option<u64>,
) -> Found {
    let kind = Kind::of(&Bytes(object)).unwrap();
    let range = Range {
        uri: "file:///o",
        place: 0,
        size: object.len() as u64,
        start: range.0,
        end: range.1,
        begin,
        hits_max,
    };
    let mut hits = Vec::new();
    let scanned = scan(&Bytes(object), kind, &range, search, &mut |hit| {
        hits.push(hit.clone());
        Ok(())
    });
    Found { hits, scanned: scanned.unwrap() }
}

pub(crate) fn scan_all(object: &[u8], search: &Search) -> Found {
    scan_range(object, search, (0, object.len() as u64), None, None)
}

/// The union of shards, each from its own guess, and again from the seam where the guess was wrong.
pub(crate) fn scan_in_shards(
    object: &[u8],
    search: &Search,
    shard_bytes: u64,
) -> (Vec<Hit>, Digest, Coverage) {
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
            digest.add(&found.scanned.digest);
            coverage.add(&found.scanned.coverage);
        }
        start = end;
    }
    assert_eq!(expected.offset, size, "the last seam is the object's end");
    (hits, digest, coverage)
}

/// A slice as an object.
struct Bytes<'a>(&'a [u8]);

impl ReadAt for Bytes<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read_at(offset, buf)
    }
}
