//! The layers: what is searched of a record, and where a hit says that it is.

use crate::archive::{gzip, members, record, response, scan_all, search};
use dragnet_kernel::Layer;

#[test]
fn each_layer_shows_its_own_bytes() {
    let coded = response(
        "http://h/gz",
        "Content-Type: text/html\r\nContent-Encoding: gzip\r\n",
        &gzip(b"a needle", 6),
    );
    let chunked =
        response("http://h/ch", "Transfer-Encoding: chunked\r\n", b"4\r\na ne\r\n4\r\nedle\r\n0\r\n\r\n");
    let both = response("http://h/b", "Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n", &{
        let body = gzip(b"a needle", 6);
        [format!("{:x}\r\n", body.len()).into_bytes(), body, b"\r\n0\r\n\r\n".to_vec()].concat()
    });
    let utf16: Vec<u8> =
        [0xff, 0xfe].into_iter().chain("a needle".encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let utf16 = response("http://h/16", "Content-Type: text/html\r\n", &utf16);
    let unknown = response("http://h/c", "Content-Encoding: compress\r\n", b"needle");
    let table: Vec<(&str, Vec<u8>, Layer, usize)> = vec![
        ("gzip inside", coded.clone(), Layer::Body, 1),
        ("gzip inside, as stored", coded, Layer::Raw, 0),
        ("chunked", chunked.clone(), Layer::Body, 1),
        ("chunked, as stored", chunked, Layer::Raw, 0),
        ("both", both, Layer::Body, 1),
        ("UTF-16", utf16, Layer::Body, 1),
        ("a coding that is not decoded", unknown, Layer::Body, 1),
        (
            "a charset that is refused",
            response("http://h/k", "Content-Type: text/html; charset=iso-2022-kr\r\n", b"needle"),
            Layer::Body,
            1,
        ),
        (
            "UTF-16 that is not HTTP",
            record("resource", "http://h/u", "text/plain", b"\xff\xfen\0e\0e\0d\0l\0e\0"),
            Layer::Body,
            1,
        ),
        ("not HTTP", record("conversion", "http://h/t", "text/plain", b"needle"), Layer::Body, 1),
        ("HTTP headers", response("http://h/x", "X-Needle: needle\r\n", b""), Layer::Headers, 1),
        (
            "HTTP headers are not the body",
            response("http://h/x", "X-Needle: needle\r\n", b""),
            Layer::Body,
            0,
        ),
        ("record headers", record("resource", "http://needle/", "text/plain", b""), Layer::Warc, 1),
    ];
    for (name, record, layer, expected) in table {
        let found = scan_all(&members(std::slice::from_ref(&record), 6), &search("needle", &[layer]));
        assert_eq!(found.hits.len(), expected, "{name}");
    }
}

#[test]
fn what_is_not_decoded_is_named() {
    let file = members(&[response("http://h/c", "Content-Encoding: compress\r\n", b"needle")], 6);
    let found = scan_all(&file, &search("needle", &[Layer::Body]));
    let undecoded = &found.scanned.coverage.undecoded[0];
    assert_eq!((undecoded.layer.as_str(), undecoded.searched_instead.as_str()), ("body", "raw"));
    assert!(!found.scanned.coverage.complete());
    let both = scan_all(&file, &search("needle", &[Layer::Raw, Layer::Body]));
    assert_eq!(both.hits.len(), 1, "what is searched in its place is searched once");
    let hit = &both.hits[0];
    assert_eq!((&*hit.layer, hit.start, hit.end), ("raw", found.hits[0].start, found.hits[0].end));
}

#[test]
fn a_hit_tells_all_that_finds_it_again() {
    let page = response(
        "http://h/p",
        "Content-Type: text/html; charset=utf-8\r\n",
        "one\nzwei: needle-42 é\ndrei".as_bytes(),
    );
    let first = gzip(&record("warcinfo", "", "application/warc-fields", b"software: x"), 6);
    let file = [first.clone(), gzip(&page, 6)].concat();
    let found = scan_all(&file, &search("needle-(?<n>[0-9]+)", &[Layer::Body]));
    let hit = &found.hits[0];
    assert_eq!(
        (hit.stored.offset(), hit.stored.length()),
        (first.len() as u64, (file.len() - first.len()) as u64)
    );
    assert_eq!((hit.start, hit.end, hit.status, hit.mime.as_deref()), (10, 19, Some(200), Some("text/html")));
    assert_eq!((&*hit.before, &*hit.after), ("zwei: ", " é"));
    assert_eq!(hit.captures["n"], "42");
    assert_eq!(hit.url.as_deref(), Some("http://h/p"));
}
