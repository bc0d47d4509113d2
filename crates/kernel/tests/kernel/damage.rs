//! What readers get wrong: each broken or odd archive is a row, with what is found and what is named.

use crate::archive::{drawn, gzip, members, response, scan_all, search};
use dragnet_kernel::Layer;
use dragnet_kernel::coverage::Reason;

fn page(n: usize) -> Vec<u8> {
    response(&format!("http://h/{n}"), "", format!("needle{n} {}", "x".repeat(200)).as_bytes())
}

fn pages(n: usize) -> Vec<Vec<u8>> {
    (0..n).map(page).collect()
}

/// A page whose Content-Length is said to be something else.
fn claims(n: usize, length: &str) -> Vec<u8> {
    let text = String::from_utf8(page(n)).unwrap();
    let from = text.find("Content-Length: ").unwrap() + 16;
    let to = from + text[from..].find('\r').unwrap();
    format!("{}{length}{}", &text[..from], &text[to..]).into_bytes()
}

#[test]
fn broken_and_odd_archives_are_read_as_far_as_they_can_be() {
    let member = gzip(&page(1), 6);
    let (a, b, c) = (gzip(&page(0), 6), gzip(&page(1), 6), gzip(&page(2), 6));
    let (na, nb) = (a.len(), b.len());
    let mut flipped = b.clone();
    flipped[nb / 2] ^= 0x55;
    let mut crc = b.clone();
    crc[nb - 5] ^= 1;
    let mut size = b.clone();
    size[nb - 1] ^= 1;
    let noise = b"some noise that is no gzip".to_vec();
    // FLG: 16 is a comment, 8 a name, 4 an extra field, 2 the header's check sum (RFC 1952, 2.3.1).
    let flagged = |flags: u8, fields: &[u8]| {
        [&[0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3][..], fields, &member[10..]].concat()
    };
    let with_header = |n: usize, header: &[u8]| {
        let page = page(n);
        let at = page.windows(2).position(|two| two == b"\r\n").unwrap() + 2;
        gzip(&[&page[..at], header, &page[at..]].concat(), 6)
    };
    let without_end = |n: usize| page(n).strip_suffix(b"\r\n\r\n").unwrap().to_vec();
    let table: Vec<(&str, Vec<u8>, String)> = vec![
        ("whole", [a.clone(), b.clone(), c.clone()].concat(), "0 1 2".into()),
        ("flipped in the middle", [a.clone(), flipped, c.clone()].concat(), format!("0 2 Damaged@{na}+{nb}")),
        ("wrong check sum", [a.clone(), crc, c.clone()].concat(), format!("0 2 Damaged@{na}+{nb}")),
        (
            "noise between",
            [a.clone(), noise.clone(), c.clone()].concat(),
            format!("0 2 Damaged@{na}+{}", noise.len()),
        ),
        ("zeros between", [a.clone(), vec![0; 99], c.clone()].concat(), format!("0 2 Damaged@{na}+99")),
        ("zeros at the end", [a.clone(), vec![0; 99]].concat(), "0".into()),
        ("cut off", [a.clone(), b[..nb - 9].to_vec()].concat(), format!("0 Truncated@{na}+{}", nb - 9)),
        ("cut off in the header", [a.clone(), b[..5].to_vec()].concat(), format!("0 Truncated@{na}+5")),
        ("an empty member", [a.clone(), gzip(b"", 6), c.clone()].concat(), "0 2".into()),
        (
            "two records in a member",
            [gzip(&[page(0), page(1)].concat(), 6), c.clone()].concat(),
            "0 1 2".into(),
        ),
        (
            "a header that a member cuts off",
            [gzip(&page(0)[..60], 6), b.clone(), c.clone()].concat(),
            format!("1 2 Damaged@0+{}", gzip(&page(0)[..60], 6).len()),
        ),
        ("one member for all", gzip(&pages(3).concat(), 6), "0 1 2".into()),
        ("a file name", [a.clone(), flagged(8, b"name\0"), c.clone()].concat(), "0 1 2".into()),
        ("a comment", [a.clone(), flagged(16, b"why\0"), c.clone()].concat(), "0 1 2".into()),
        ("an extra field", [a.clone(), flagged(4, b"\x04\0sl\0\0"), c.clone()].concat(), "0 1 2".into()),
        ("a check sum of the header", [a.clone(), flagged(2, b"\0\0"), c.clone()].concat(), "0 1 2".into()),
        (
            "reserved flags",
            [a.clone(), flagged(0xe0, b""), c.clone()].concat(),
            format!("0 2 Damaged@{na}+{nb}"),
        ),
        ("wrong size at the end", [a.clone(), size, c.clone()].concat(), format!("0 2 Damaged@{na}+{nb}")),
        (
            "a value of 1 MiB",
            [with_header(0, &[b"X: ", &vec![b'x'; 1 << 20][..], b"\r\n"].concat()), c.clone()].concat(),
            "0 2".into(),
        ),
        (
            "a header of 20,000 lines",
            [with_header(0, &b"X: a\r\n".repeat(20_000)), c.clone()].concat(),
            "0 2".into(),
        ),
        (
            "a value folded behind an empty line of it",
            [with_header(0, b"X:\r\n  folded\r\n\tand more\r\n"), c.clone()].concat(),
            "0 2".into(),
        ),
        (
            "NUL and bytes that are not UTF-8 in a value",
            [with_header(0, b"X: \0\xff\xfe\r\n"), c.clone()].concat(),
            "0 2".into(),
        ),
        (
            "a segment of a record",
            [with_header(0, b"WARC-Segment-Number: 1\r\n"), c.clone()].concat(),
            "0 2 doubts:1".into(),
        ),
        ("nothing between records", [without_end(0), without_end(1), page(2)].concat(), "0 1 2".into()),
        (
            "six line ends between records",
            [page(0), b"\r\n\r\n\r\n\r\n".to_vec(), page(1), page(2)].concat(),
            "0 1 2".into(),
        ),
        (
            "line ends at the start of the next member",
            [gzip(&without_end(0), 6), gzip(&[b"\r\n\r\n".to_vec(), page(1)].concat(), 6)].concat(),
            "0 1".into(),
        ),
        (
            "record over two members",
            [gzip(&page(0)[..100], 6), gzip(&page(0)[100..], 6), c.clone()].concat(),
            "0 2".into(),
        ),
        ("length too long", members(&[page(0), claims(1, "9999"), page(2)], 6), "0 1 2 doubts:1".into()),
        ("length too short", members(&[page(0), claims(1, "3"), page(2)], 6), "0 1 2 doubts:1".into()),
        (
            "length absurd",
            members(&[page(0), claims(1, "99999999999999999999"), page(2)], 6),
            "0 1 2 doubts:1".into(),
        ),
        ("length of 3 GB", members(&[page(0), claims(1, "3221225472"), page(2)], 6), "0 1 2 doubts:1".into()),
        ("length negative", members(&[page(0), claims(1, "-1"), page(2)], 6), "0 1 2 doubts:1".into()),
        ("plain", pages(3).concat(), "0 1 2".into()),
        ("plain with LF at the start", [b"\n\n".to_vec(), pages(2).concat()].concat(), "0 1".into()),
    ];
    let search = search("needle[0-9]", &[Layer::Body]);
    for (name, file, expected) in table {
        let found = scan_all(&file, &search);
        assert_eq!(drawn(&found), expected, "{name}");
        let coverage = &found.scanned.coverage;
        assert_eq!(
            coverage.read + coverage.skipped_bytes(),
            file.len() as u64,
            "{name}: every byte is accounted for"
        );
    }
}

#[test]
fn a_plain_file_goes_on_behind_a_wrong_length() {
    for length in ["20", "99999999", "3221225472", "18446744073709551615", "none"] {
        let file = [page(0), claims(1, length), page(2), page(3)].concat();
        let found = scan_all(&file, &search("needle[0-9]", &[Layer::Body]));
        assert_eq!(found.matches(), ["needle0", "needle2", "needle3"], "{length}");
        let skips = &found.scanned.coverage.skipped;
        assert_eq!((skips.len(), skips[0].reason), (1, Reason::Damaged), "{length}");
    }
}

#[test]
fn no_file_that_is_cut_anywhere_is_a_panic_or_a_silent_loss() {
    let search = search("needle[0-9]", &[Layer::Body]);
    for (name, file, ends) in [
        ("gzip", members(&pages(3), 6), pages(3).iter().map(|page| gzip(page, 6).len()).collect::<Vec<_>>()),
        ("plain", pages(3).concat(), pages(3).iter().map(Vec::len).collect()),
    ] {
        let mut border = 0;
        let borders: Vec<usize> = ends
            .iter()
            .map(|n| {
                border += n;
                border
            })
            .collect();
        for cut in 8..file.len() {
            let found = scan_all(&file[..cut], &search);
            let coverage = &found.scanned.coverage;
            assert_eq!(coverage.read + coverage.skipped_bytes(), cut as u64, "{name} cut at {cut}");
            // Between records a cut can't be seen; a record's two closing line ends are not missed.
            let between = borders.iter().any(|end| {
                (*end..end + 1).contains(&cut) || name == "plain" && (end - 4..=*end).contains(&cut)
            });
            assert_eq!(coverage.complete(), between, "{name} cut at {cut}");
            assert_eq!(
                found.hits.len(),
                borders.iter().filter(|end| **end <= cut + if name == "plain" { 4 } else { 0 }).count(),
                "{name} cut at {cut}"
            );
        }
    }
}
