//! Any split of any file gives what one sequential read gives: records, offsets, hits, coverage.

use crate::archive::{gzip, members, record, response, scan_all, scan_in_shards, search, zstd};
use dragnet_kernel::Layer;
use proptest::collection::vec;
use proptest::prelude::*;

const NEEDLE: &str = "needle[0-9]+";

fn page(n: usize, length: usize) -> Vec<u8> {
    let filler: String = (0..length).map(|i| char::from(b'a' + ((i * 7 + n * 13) % 26) as u8)).collect();
    let body = format!("<p>{filler} needle{n} {filler}</p>");
    response(&format!("http://h/{n}"), "Content-Type: text/html; charset=utf-8\r\n", body.as_bytes())
}

/// A crawl that holds a crawl: the inner archive's members stand verbatim in the outer stream.
fn nested(inner_pages: usize) -> Vec<u8> {
    let inner: Vec<Vec<u8>> = (0..inner_pages).map(|n| page(1000 + n, 60)).collect();
    record("resource", "http://h/archive.warc.gz", "application/gzip", &members(&inner, 6))
}

#[derive(Debug, Clone)]
enum Piece {
    Page { length: usize },
    Nested { pages: usize },
    TwoInOne,
    Empty,
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = prop_oneof![
        4 => (0..3000usize).prop_map(|length| Piece::Page { length }),
        2 => (1..30usize).prop_map(|pages| Piece::Nested { pages }),
        1 => Just(Piece::TwoInOne),
        1 => Just(Piece::Empty),
    ];
    vec(piece, 1..12)
}

/// Level 0 stores the outer stream, so that what is inside looks like members of it.
fn file(pieces: &[Piece], stored: Stored) -> Vec<u8> {
    let mut file = Vec::new();
    for (n, piece) in pieces.iter().enumerate() {
        let records = match piece {
            Piece::Page { length } => page(n, *length),
            Piece::Nested { pages } => nested(*pages),
            Piece::TwoInOne => [page(n, 10), page(n + 100, 20)].concat(),
            Piece::Empty => Vec::new(),
        };
        file.extend(match stored {
            Stored::Plain => records,
            Stored::Gzip => gzip(&records, (n % 2) as u32 * 6),
            Stored::Zstd => zstd(&records),
        });
    }
    file
}

/// How a file is stored.
#[derive(Debug, Clone, Copy)]
enum Stored {
    Plain,
    Gzip,
    Zstd,
}

impl Stored {
    fn magic(self) -> &'static [u8] {
        match self {
            Stored::Plain => b"WARC/",
            Stored::Gzip => &[0x1f, 0x8b],
            Stored::Zstd => &[0x28, 0xb5, 0x2f, 0xfd],
        }
    }
}

fn stored() -> impl Strategy<Value = Stored> {
    prop::sample::select(vec![Stored::Plain, Stored::Gzip, Stored::Zstd])
}

#[derive(Debug, Clone)]
enum Damage {
    None,
    Truncate(prop::sample::Index),
    Flip(prop::sample::Index, u8),
    Zeros(prop::sample::Index, usize),
    Padding(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        2 => Just(Damage::None),
        1 => any::<prop::sample::Index>().prop_map(Damage::Truncate),
        3 => (any::<prop::sample::Index>(), 1..=255u8).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        1 => (any::<prop::sample::Index>(), 1..600usize).prop_map(|(at, n)| Damage::Zeros(at, n)),
        1 => (1..600usize).prop_map(Damage::Padding),
    ]
}

fn damaged(mut file: Vec<u8>, damage: &Damage) -> Vec<u8> {
    match damage {
        Damage::None => {}
        _ if file.is_empty() => {}
        Damage::Truncate(at) => file.truncate(at.index(file.len())),
        Damage::Flip(at, bits) => {
            let at = at.index(file.len());
            file[at] ^= bits;
        }
        Damage::Zeros(at, n) => {
            let at = at.index(file.len());
            file.splice(at..at, std::iter::repeat_n(0, *n));
        }
        Damage::Padding(n) => file.extend(std::iter::repeat_n(0, *n)),
    }
    file
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn shards_find_what_one_read_finds(pieces in pieces(), stored in stored(), damage in damage(), shard_bytes in 1..4000u64) {
        let file = damaged(file(&pieces, stored), &damage);
        let search = search(NEEDLE, &[Layer::Body]);
        let whole = scan_all(&file, &search);
        let size = file.len() as u64;
        prop_assert_eq!(whole.scanned.coverage.read + whole.scanned.coverage.skipped_bytes(), size);
        if whole.scanned.first.is_some() && file.starts_with(stored.magic()) {
            let (hits, digest, coverage) = scan_in_shards(&file, &search, shard_bytes);
            prop_assert_eq!(&hits, &whole.hits);
            prop_assert_eq!(digest, whole.digest);
            prop_assert_eq!(coverage.read, whole.scanned.coverage.read);
            prop_assert_eq!(&coverage.records, &whole.scanned.coverage.records);
            prop_assert_eq!(coverage.skipped_bytes(), whole.scanned.coverage.skipped_bytes());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Lines that run over members, long ones, empty ones, and a file that ends without a line's end.
    #[test]
    fn lines_are_split_like_records(
        lines in vec((0..400usize, 0..3usize), 1..60),
        pieces in vec(1..900usize, 1..12),
        stored in stored(),
        ends: bool,
        damage in damage(),
        shard_bytes in 1..3000u64,
    ) {
        let mut text = String::new();
        for (n, (length, empty)) in lines.iter().enumerate() {
            text += &format!("{{\"t\":\"{} needle{n}\"}}\n{}", "x".repeat(*length), "\n".repeat(*empty / 2));
        }
        let text = if ends { text.as_str() } else { text.trim_end() };
        let (mut rest, mut file) = (text.as_bytes(), Vec::new());
        for piece in pieces.iter().cycle() {
            let n = (*piece).min(rest.len());
            file.extend(match stored {
                Stored::Plain => rest[..n].to_vec(),
                Stored::Gzip => gzip(&rest[..n], 6),
                Stored::Zstd => zstd(&rest[..n]),
            });
            rest = &rest[n..];
            if rest.is_empty() {
                break;
            }
        }
        let file = damaged(file, &damage);
        let search = search(NEEDLE, &[Layer::Body]);
        let whole = scan_all(&file, &search);
        let size = file.len() as u64;
        prop_assert_eq!(whole.scanned.coverage.read + whole.scanned.coverage.skipped_bytes(), size);
        if matches!(damage, Damage::None) {
            prop_assert_eq!(whole.hits.len(), lines.len());
        }
        if whole.scanned.coverage.records.contains_key("line") {
            let (hits, digest, coverage) = scan_in_shards(&file, &search, shard_bytes);
            prop_assert_eq!(&hits, &whole.hits);
            prop_assert_eq!(digest, whole.digest);
            prop_assert_eq!(coverage.read, whole.scanned.coverage.read);
            prop_assert_eq!(&coverage.records, &whole.scanned.coverage.records);
        }
    }
}

#[test]
fn a_stored_archive_deceives_the_look_and_not_the_chain() {
    let file = [gzip(&page(0, 100), 0), gzip(&nested(400), 0), gzip(&page(1, 100), 0)].concat();
    let search = search(NEEDLE, &[Layer::Body]);
    let whole = scan_all(&file, &search);
    assert_eq!(whole.matches(), ["needle0", "needle1"]);
    // A shard in the middle sees the inner members, and nothing in itself tells it that they are not its own.
    let middle = crate::archive::scan_range(&file, &search, (10_000, 20_000), None, None);
    assert!(!middle.hits.is_empty(), "the look is deceived");
    let (hits, ..) = scan_in_shards(&file, &search, 10_000);
    assert_eq!(hits, whole.hits);
}

#[test]
fn a_limit_cuts_at_the_same_place_however_it_is_read() {
    let records: Vec<Vec<u8>> = (0..20).map(|n| page(n, 50)).collect();
    let file = members(&records, 6);
    let search = search(NEEDLE, &[Layer::Body]);
    for max in [1, 7, 19, 20, 21] {
        let found = crate::archive::scan_range(&file, &search, (0, file.len() as u64), None, Some(max));
        assert_eq!(found.hits.len() as u64, max.min(20), "limit {max}");
        assert_eq!(found.scanned.capped, max < 20, "limit {max}");
    }
}
