//! Every kind of input, found by its content and read to its end: what is found in it and what is named.

use crate::archive::{
    drawn, gzip, members, record, response, scan_all, scan_as, scan_in_shards, search, spec, zstd,
};
use dragnet_kernel::coverage::Reason;
use dragnet_kernel::{Codec, Format, Layer, Search, SearchSpec};
use std::io::{Cursor, Write};

fn page(n: usize) -> Vec<u8> {
    response(&format!("http://h/{n}"), "", format!("needle{n} {}", "x".repeat(200)).as_bytes())
}

fn pages(n: usize) -> Vec<Vec<u8>> {
    (0..n).map(page).collect()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A `.warc.zst` with its dictionary in front, as it is or compressed, and a frame for each record.
fn zstd_with_dictionary(records: &[Vec<u8>], compressed: bool) -> Vec<u8> {
    let dictionary = page(0);
    let stored = if compressed { zstd(&dictionary) } else { dictionary.clone() };
    let mut file = [&[0x5d, 0x2a, 0x4d, 0x18][..], &(stored.len() as u32).to_le_bytes(), &stored].concat();
    for record in records {
        let mut context = zstd_safe::CCtx::create();
        let mut frame = vec![0; zstd_safe::compress_bound(record.len())];
        let n = context.compress_using_dict(&mut frame[..], record, &dictionary, 3).unwrap();
        file.extend_from_slice(&frame[..n]);
    }
    file
}

fn arc(version: usize, n: usize) -> Vec<u8> {
    let more = if version == 1 { "" } else { "200 - - 209 IAH.arc " };
    let head = format!("filedesc://a.arc 0.0.0.0 20240520093000 text/plain {more}9\n1 0 Crawl\n\n");
    let mut file = head.into_bytes();
    for n in 0..n {
        let block = format!("HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\nneedle{n}");
        file.extend(
            format!("http://h/{n} 1.2.3.4 20240520093000 text/html {more}{}\n{block}\n", block.len()).bytes(),
        );
    }
    file
}

fn wacz(entries: &[(&str, &[u8], bool)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes, stored) in entries {
        // Without a compressor at hand, what is not stored is only said to be so.
        assert!(stored);
        let options =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn every_kind_is_found_by_its_content_and_read() {
    let text = b"a needle0 and\na needle1\n".to_vec();
    let lines = b"{\"url\":\"http://h/0\",\"text\":\"needle0\"}\n{\"text\":\"needle1\"}\n".to_vec();
    let one = pages(3).concat();
    let noise = [b"noise before".to_vec(), members(&pages(2), 6)].concat();
    let inside = wacz(&[
        ("archive/a.warc.gz", &members(&pages(2), 6), true),
        ("pages/pages.jsonl", b"{\"needle9\":1}\n", true),
        ("archive/b.warc", &gzip(&page(2), 6), true),
        ("datapackage.json", b"{}", true),
    ]);
    use Codec::{Bzip2, Gzip, Plain, Xz, Zstd};
    use Format::{Arc, Document, JsonLines, Wacz, Warc};
    type Row<'a> = (&'a str, &'a str, Vec<u8>, (Format, Codec), &'a str);
    let table: Vec<Row<'_>> = vec![
        ("WARC, plain", "a", one.clone(), (Warc, Plain), "0 1 2"),
        ("WARC, a member each", "a", members(&pages(3), 6), (Warc, Gzip), "0 1 2"),
        ("WARC, one member", "a", gzip(&one, 6), (Warc, Gzip), "0 1 2"),
        ("WARC that is gzip", "a.warc", members(&pages(2), 6), (Warc, Gzip), "0 1"),
        (
            "WARC, zstd, a frame each",
            "a",
            pages(3).iter().flat_map(|p| zstd(p)).collect(),
            (Warc, Zstd),
            "0 1 2",
        ),
        ("WARC, zstd, one frame", "a", zstd(&one), (Warc, Zstd), "0 1 2"),
        ("WARC, zstd, a dictionary", "a", zstd_with_dictionary(&pages(3), false), (Warc, Zstd), "0 1 2"),
        (
            "WARC, zstd, a compressed dictionary",
            "a",
            zstd_with_dictionary(&pages(3), true),
            (Warc, Zstd),
            "0 1 2",
        ),
        ("WARC, bzip2", "a", bzip2(&one), (Warc, Bzip2), "0 1 2"),
        ("WARC, xz", "a", xz(&one), (Warc, Xz), "0 1 2"),
        (
            "WARC 0.18",
            "a",
            String::from_utf8(one.clone()).unwrap().replace("WARC/1.0", "WARC/0.18").into(),
            (Warc, Plain),
            "0 1 2",
        ),
        ("ARC version 1", "a", arc(1, 3), (Arc, Plain), "0 1 2"),
        ("ARC version 2", "a", arc(2, 3), (Arc, Plain), "0 1 2"),
        ("ARC, gzip", "a", gzip(&arc(1, 3), 6), (Arc, Gzip), "0 1 2"),
        ("WACZ", "a.wacz", inside, (Wacz, Plain), "0 1 2"),
        ("JSON lines", "a", lines.clone(), (JsonLines, Plain), "0 1"),
        ("JSON lines, gzip", "a", gzip(&lines, 6), (JsonLines, Gzip), "0 1"),
        ("JSON lines, zstd", "a", zstd(&lines), (JsonLines, Zstd), "0 1"),
        (
            "JSON lines by name",
            "a.jsonl",
            b"[\"needle0\"]\n\n[\"needle1\"]".to_vec(),
            (JsonLines, Plain),
            "0 1",
        ),
        ("a JSON document", "a.json", b"{\n \"needle0\": 1\n}\n".to_vec(), (Document, Plain), "0"),
        ("text", "a", text.clone(), (Document, Plain), "0 1"),
        ("text, gzip", "a", gzip(&text, 6), (Document, Gzip), "0 1"),
        ("text, zstd", "a", zstd(&text), (Document, Zstd), "0 1"),
        ("text, bzip2", "a", bzip2(&text), (Document, Bzip2), "0 1"),
        ("text, xz", "a", xz(&text), (Document, Xz), "0 1"),
        (
            "two gzip members of a text",
            "a",
            [gzip(&text, 6), gzip(&text, 6)].concat(),
            (Document, Gzip),
            "0 1 0 1",
        ),
        ("noise before the first member", "a.warc.gz", noise, (Warc, Gzip), "0 1 Damaged@0+12"),
        ("binary", "a", b"a needle0\0".to_vec(), (Document, Plain), " Binary@0+10"),
        ("empty", "a", Vec::new(), (Document, Plain), ""),
        ("an archive without a record", "a", gzip(b"WARC/", 6), (Warc, Gzip), " Damaged@0+25"),
    ];
    let search = search("needle[0-9]", &[Layer::Body]);
    for (name, file_name, file, (format, codec), expected) in table {
        let (kind, found) = scan_as(file_name, &file, &search);
        assert_eq!((kind.format, kind.codec), (format, codec), "{name}");
        let drawn =
            drawn(&found).replace(" NotADocument", "|").split('|').next().unwrap_or_default().to_owned();
        assert_eq!(drawn, expected, "{name}");
        let coverage = &found.scanned.coverage;
        assert_eq!(coverage.read + coverage.skipped_bytes(), file.len() as u64, "{name}: every byte");
    }
}

#[test]
fn what_stands_beside_the_archives_of_a_wacz_is_no_document() {
    let file = wacz(&[("archive/a.warc.gz", &members(&pages(2), 6), true), ("pages/p.jsonl", b"{}\n", true)]);
    let (_, found) = scan_as("a.wacz", &file, &search("needle", &[Layer::Body]));
    let reasons: Vec<Reason> = found.scanned.coverage.skipped.iter().map(|skip| skip.reason).collect();
    assert_eq!(reasons, [Reason::NotADocument, Reason::NotADocument]);
    assert!(found.scanned.coverage.complete());
    let member = &file[found.hits[1].stored.offset() as usize..][..found.hits[1].stored.length() as usize];
    assert_eq!(scan_all(member, &search("needle[0-9]", &[Layer::Body])).matches(), ["needle1"]);
}

#[test]
fn a_field_is_searched_as_it_reads_and_not_as_it_is_written() {
    let table: &[(&str, &str, &str, &[&str])] = &[
        (r#"{"text":"a needle"}"#, "text", "needle", &["needle"]),
        (r#"{"text":"a n\u0065edle"}"#, "text", "needle", &["needle"]),
        (r#"{"text":"caf\u00e9 needle"}"#, "text", "café needle", &["café needle"]),
        (r#"{"text":"one\ntwo"}"#, "text", r"one\stwo", &["one\ntwo"]),
        (r#"{"text":"a \"quoted\" word"}"#, "text", r#""quoted""#, &["\"quoted\""]),
        (r#"{"needle":"x","text":"y"}"#, "text", "needle", &[]),
        (r#"{"page":{"text":"needle"},"text":"y"}"#, "page.text", "needle", &["needle"]),
        (r#"{"n":42}"#, "n", "42", &["42"]),
        (r#"{"text":null,"other":"needle"}"#, "text", "needle", &[]),
        (r#"{"text":"needle""#, "text", "needle", &["needle"]),
    ];
    for (line, field, pattern, expected) in table {
        let spec = SearchSpec { field: Some((*field).into()), ..spec(pattern, &[Layer::Body]) };
        let file = format!("{line}\n{{\"text\":\"hay\"}}\n");
        let (_, found) = scan_as("a.jsonl", file.as_bytes(), &Search::compile(&spec).unwrap());
        assert_eq!(found.matches(), *expected, "{line}");
        let sound = line.ends_with('}');
        assert_eq!(found.scanned.coverage.complete(), sound, "{line}: what is no JSON is named");
    }
}

#[test]
fn json_lines_tell_their_url_and_their_place() {
    let lines = ["{\"url\":\"http://h/0\",\"t\":\"hay\"}\n", "{\"url\":\"http://h/1\",\"t\":\"needle\"}\n"];
    let (_, plain) = scan_as("a.jsonl", lines.concat().as_bytes(), &search("needle", &[Layer::Body]));
    let hit = &plain.hits[0];
    assert_eq!((hit.url.as_deref(), &*hit.record_type), (Some("http://h/1"), "line"));
    assert_eq!(
        (hit.stored.offset(), hit.stored.length(), hit.stored.skip()),
        (lines[0].len() as u64, lines[1].len() as u64, 0)
    );
    let stored = gzip(lines.concat().as_bytes(), 6);
    let (_, coded) = scan_as("a.jsonl.gz", &stored, &search("needle", &[Layer::Body]));
    let hit = &coded.hits[0];
    assert_eq!(
        (hit.stored.offset(), hit.stored.length(), hit.stored.skip()),
        (0, stored.len() as u64, lines[0].len() as u64)
    );
}

#[test]
fn a_line_that_is_no_json_is_named_wherever_the_shards_are_cut() {
    let line = |n: usize| match n % 7 {
        3 => format!("{{\"text\":\"needle{n}\",broken\n"),
        5 => format!("{{\"text\":\"nothing {n}\",broken\n"),
        _ => format!("{{\"text\":\"{}{n}\"}}\n", if n.is_multiple_of(3) { "needle" } else { "hay" }),
    };
    let file: Vec<u8> = (0..200).map(line).collect::<String>().into_bytes();
    let spec = SearchSpec { field: Some("text".into()), ..spec("needle[0-9]+", &[Layer::Body]) };
    let search = Search::compile(&spec).unwrap();
    let whole = scan_all(&file, &search);
    assert!(!whole.scanned.coverage.complete());
    for shard_bytes in [1, 30, 100, 1000] {
        let (hits, _, coverage) = scan_in_shards(&file, &search, shard_bytes);
        assert_eq!((hits, coverage), (whole.hits.clone(), whole.scanned.coverage.clone()), "{shard_bytes}");
    }
}

#[test]
fn an_arc_record_that_is_no_http_is_all_body() {
    let block = "needle0\n\nneedle1";
    let head = format!("http://h/ 1.2.3.4 20240520093000 text/plain {}\n", block.len());
    let file = [arc(1, 0), format!("{head}{block}\n").into_bytes()].concat();
    let (kind, found) = scan_as("a.arc", &file, &search("needle[0-9]", &[Layer::Body]));
    assert_eq!((kind.format, found.matches()), (Format::Arc, vec!["needle0", "needle1"]));
}

#[test]
fn a_wacz_is_split_like_any_archive() {
    let big = pages(40);
    let file = wacz(&[
        ("archive/a.warc.gz", &members(&big, 6), true),
        ("indexes/index.cdx", &[b'x'; 700], true),
        ("archive/b.warc", &pages(9).concat(), true),
    ]);
    let search = search("needle[0-9]+", &[Layer::Body]);
    let whole = scan_all(&file, &search);
    assert_eq!(whole.hits.len(), 49);
    for shard_bytes in [1, 100, 1000, 3000] {
        let (hits, digest, coverage) = scan_in_shards(&file, &search, shard_bytes);
        assert_eq!((hits.len(), digest), (49, whole.digest), "{shard_bytes}");
        assert_eq!(coverage.skipped_bytes(), whole.scanned.coverage.skipped_bytes(), "{shard_bytes}");
    }
}

#[test]
fn a_filter_leaves_records_out_and_says_so() {
    let files = [
        response("http://a.example/1", "Content-Type: text/html\r\n", b"needle1"),
        record(
            "request",
            "http://a.example/2",
            "application/http; msgtype=request",
            b"GET / HTTP/1.1\r\n\r\nneedle2",
        ),
        response("http://b.example/3", "Content-Type: image/png\r\n", b"needle3"),
    ];
    let file = members(&files, 6);
    let lengths: Vec<usize> = files.iter().map(|record| gzip(record, 6).len()).collect();
    let table = [
        (r#"{"types":["response"]}"#, "1 3", lengths[1]),
        (r#"{"host":["b.example"]}"#, "3", lengths[0] + lengths[1]),
        (r#"{"mime":["text/html"]}"#, "1", lengths[1] + lengths[2]),
        (r#"{"status":[404]}"#, "", lengths.iter().sum()),
    ];
    for (filter, expected, filtered) in table {
        let spec = SearchSpec {
            filter: serde_json::from_str(filter).unwrap(),
            ..spec("needle[0-9]", &[Layer::Body])
        };
        let found = scan_all(&file, &Search::compile(&spec).unwrap());
        assert_eq!(found.matches().join(" ").replace("needle", ""), expected, "{filter}");
        let coverage = &found.scanned.coverage;
        assert!(coverage.complete(), "{filter}");
        assert_eq!(
            (coverage.skipped[0].reason, coverage.skipped_bytes()),
            (Reason::Filtered, filtered as u64),
            "{filter}"
        );
    }
}

#[test]
fn digests_that_differ_are_named_where_that_is_asked_for() {
    let with = |digest: &str| {
        let head = format!(
            "WARC/1.0\r\nWARC-Type: resource\r\nWARC-Block-Digest: {digest}\r\nContent-Length: 3\r\n\r\nabc\r\n\r\n"
        );
        gzip(head.as_bytes(), 6)
    };
    let file = [with("sha1:VGMT4NSHA2AWVOR6EVYXQUGCNSONBWE5"), with("sha1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
        .concat();
    for (verify, named) in [(false, 0), (true, 1)] {
        let spec = SearchSpec { verify, ..spec("abc", &[Layer::Body]) };
        let found = scan_all(&file, &Search::compile(&spec).unwrap());
        assert_eq!(
            (found.hits.len(), found.scanned.coverage.undecoded.len()),
            (2, named),
            "verify: {verify}"
        );
    }
}

/// The table that pyarrow wrote: two row groups of two rows.
#[cfg(feature = "parquet")]
const TABLE: &[u8] = include_bytes!("../corpus/pages.parquet");

#[cfg(feature = "parquet")]
#[test]
fn a_text_column_of_parquet_is_searched_row_by_row() {
    let (kind, found) = scan_as("a", TABLE, &search("needle[0-9]", &[Layer::Body]));
    assert_eq!(kind.format, Format::Parquet);
    let rows: Vec<(u64, Option<&str>)> =
        found.hits.iter().map(|hit| (hit.stored.offset(), hit.url.as_deref())).collect();
    assert_eq!(rows, [(0, Some("http://h/0")), (1, None), (3, Some("http://h/3"))]);
    let coverage = &found.scanned.coverage;
    assert_eq!((coverage.read + coverage.skipped_bytes(), coverage.complete()), (TABLE.len() as u64, true));
    assert_eq!(coverage.skipped[0].reason, Reason::ColumnNotAsked);
    assert_eq!(coverage.records["row"], 4);
    for shard_bytes in [1, 50, 400] {
        let (hits, digest, _) = scan_in_shards(TABLE, &search("needle[0-9]", &[Layer::Body]), shard_bytes);
        assert_eq!((hits.len(), digest), (3, found.digest), "{shard_bytes}");
    }
    let spec = SearchSpec { field: Some("nothing".into()), ..spec("needle", &[Layer::Body]) };
    let (_, missing) = scan_as("a", TABLE, &Search::compile(&spec).unwrap());
    assert_eq!(missing.scanned.coverage.skipped[0].reason, Reason::Undecodable);
}

/// Its footer, which the fuzzer broke, gives columns that overlap.
#[cfg(feature = "parquet")]
#[test]
fn columns_of_parquet_that_overlap_are_refused() {
    let file = include_bytes!("../corpus/overlapping.parquet");
    let (kind, found) = scan_as("a", file, &search("needle[0-9]", &[Layer::Body]));
    let coverage = &found.scanned.coverage;
    assert_eq!((kind.format, coverage.skipped[0].reason), (Format::Parquet, Reason::Undecodable));
    assert_eq!(coverage.read + coverage.skipped_bytes(), file.len() as u64);
}

#[test]
fn json_that_is_nested_without_end_is_searched_as_it_stands() {
    let deep = format!("{{\"text\":\"needle\",\"a\":{}{}}}\n", "[".repeat(200_000), "]".repeat(200_000));
    let spec = SearchSpec { field: Some("text".into()), ..spec("needle", &[Layer::Body]) };
    let (_, found) = scan_as("a.jsonl", deep.as_bytes(), &Search::compile(&spec).unwrap());
    assert_eq!(found.matches(), ["needle"]);
    assert!(!found.scanned.coverage.complete());
}

#[test]
fn a_break_in_one_coding_keeps_what_the_others_give() {
    let coded = gzip(b"needle1 and more", 6);
    let chunked = [format!("{:x}\r\n", coded.len()).into_bytes(), coded, b"\r\nzz\r\n".to_vec()].concat();
    let headers = "Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n";
    let file = members(&[response("http://h/", headers, &chunked)], 6);
    let found = scan_all(&file, &search("needle[0-9]", &[Layer::Body]));
    assert_eq!((found.matches(), found.scanned.coverage.undecoded.len()), (vec!["needle1"], 1));
}
