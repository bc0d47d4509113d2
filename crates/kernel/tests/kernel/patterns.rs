//! However a pattern is asked, it matches what the `regex` crate says: line by line, all at once, and before
//! anything is decoded.

use crate::archive::{gzip, members, response, scan_all, search};
use dragnet_kernel::{Layer, Pattern, Search, SearchSpec};
use proptest::prelude::*;
use regex::bytes::Regex;
use std::sync::LazyLock;

const PATTERNS: [&str; 24] = [
    r"\b[A-Z]\w+ [A-Z]\w+ [A-Z]\w+\b",
    r"\b\w+ing\b",
    r"(?i)\bkiss\b",
    r"(?i)straße|maße",
    r"\w+@\w+\.com",
    r"^\w+",
    r"\w+$",
    r"(?s)b.b",
    r"[^a]b",
    r"\d{2,}",
    r"(?-u:\b)a\w",
    r"\Ba",
    r"é+",
    r"\p{Lu}\p{Ll}+",
    r"a|ab",
    r"(\w)(\d)?x",
    r"",
    r"x*",
    r"\s+b",
    r"(?:ab){2,}",
    r"[A-Z][a-z]? [A-Z]",
    r"(?-u:\xc3)",
    r"\ba\b|\bKé",
    r"^$|^a",
];

/// Words that patterns are after, borders, and bytes that are not UTF-8.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => prop::sample::select(vec!["a", "b", "x", "A", "Ab", "K", "kiss", "KISS", "\u{212a}i\u{17f}s", "é", "É", "ß", "straße", "sing", "1", "22", "@", ".com", "abab"]).prop_map(|s| s.as_bytes().to_vec()),
        4 => prop::sample::select(vec![" ", "\n", "\r\n", "-", "_", " ", "\n\n"]).prop_map(|s| s.as_bytes().to_vec()),
        1 => prop::sample::select(vec![vec![0xff], vec![0xc3], vec![0x80, 0xbf], vec![0xe2, 0x82]]),
        1 => (1..70usize).prop_map(|n| vec![b'q'; n]),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// What the `regex` crate finds: pattern, start, end.
fn expected(patterns: &[Regex], text: &[u8]) -> Vec<(usize, u64, u64)> {
    let mut found = Vec::new();
    for (n, regex) in patterns.iter().enumerate() {
        let hits = regex.find_iter(text).filter(|m| !m.is_empty());
        found.extend(hits.map(|m| (n, m.start() as u64, m.end() as u64)));
    }
    found
}

fn oracle(pattern: &str) -> Regex {
    regex::bytes::RegexBuilder::new(pattern).multi_line(true).build().unwrap()
}

/// Each pattern alone.
static EACH: LazyLock<Vec<(Search, Regex)>> =
    LazyLock::new(|| PATTERNS.iter().map(|pattern| (compiled(&[pattern]), oracle(pattern))).collect());

/// So many patterns that they are searched as a set.
static MANY: LazyLock<(Search, Vec<Regex>)> = LazyLock::new(|| {
    let more = ["kiss", "abab", "(?i)sing", "straße", "ss x|abab a", r"a\wkiss"];
    let many: Vec<&str> = PATTERNS.iter().copied().chain(more).collect();
    (compiled(&many), many.iter().map(|pattern| oracle(pattern)).collect())
});

fn compiled(patterns: &[&str]) -> Search {
    let named = patterns.iter().enumerate().map(|(n, regex)| Pattern {
        name: format!("p{n}"),
        regex: (*regex).into(),
        case_insensitive: false,
    });
    Search::compile(&SearchSpec { layers: vec![Layer::Raw], ..SearchSpec::new(named.collect()) }).unwrap()
}

fn found(search: &Search, text: &[u8]) -> Vec<(usize, u64, u64)> {
    let found = scan_all(text, search);
    found.hits.iter().map(|hit| (hit.pattern[1..].parse().unwrap(), hit.start, hit.end)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_pattern_matches_what_the_regex_crate_matches(text in text(), n in 0..PATTERNS.len()) {
        prop_assume!(!text.starts_with(b"{"));
        let (search, oracle) = &EACH[n];
        prop_assert_eq!(found(search, &text), expected(std::slice::from_ref(oracle), &text), "{}", PATTERNS[n]);
    }

    #[test]
    fn many_patterns_match_what_each_matches_alone(text in text()) {
        prop_assert_eq!(found(&MANY.0, &text), expected(&MANY.1, &text));
    }
}

/// One page in many disguises: no prefilter may take one of them for a page without the word.
#[test]
fn no_disguise_hides_a_match() {
    let utf16 =
        |text: &str| [vec![0xff, 0xfe], text.encode_utf16().flat_map(u16::to_le_bytes).collect()].concat();
    let gbk = [b"\xc4\xe3 ".to_vec(), b"needle".to_vec()].concat();
    let html = "Content-Type: text/html\r\n";
    let table: Vec<(&str, String, Vec<u8>)> = vec![
        ("as it is", html.into(), b"a needle".to_vec()),
        ("UTF-16 by mark", html.into(), utf16("a needle")),
        (
            "UTF-16 by header",
            "Content-Type: text/html; charset=utf-16le\r\n".into(),
            utf16("a needle")[2..].to_vec(),
        ),
        ("GBK", "Content-Type: text/html; charset=gbk\r\n".into(), gbk),
        (
            "ISO-2022-JP",
            "Content-Type: text/html; charset=iso-2022-jp\r\n".into(),
            b"\x1b$B$\"\x1b(B needle".to_vec(),
        ),
        ("no charset, not UTF-8", html.into(), b"\xe9 needle".to_vec()),
        ("gzip", format!("{html}Content-Encoding: gzip\r\n"), gzip(b"a needle", 6)),
        ("gzip, UTF-16", format!("{html}Content-Encoding: gzip\r\n"), gzip(&utf16("a needle"), 6)),
        (
            "chunked in the word",
            format!("{html}Transfer-Encoding: chunked\r\n"),
            b"4\r\na ne\r\n4\r\nedle\r\n0\r\n\r\n".to_vec(),
        ),
        ("deflate", format!("{html}Content-Encoding: deflate\r\n"), gzip(b"a needle", 6)[10..].to_vec()),
        ("brotli", format!("{html}Content-Encoding: br\r\n"), b"\x8b\x03\x80a needle\x03".to_vec()),
    ];
    let words: Vec<String> = (0..40).map(|n| format!("word{n}word")).collect();
    let mut many: Vec<&str> = words.iter().map(String::as_str).collect();
    many.push("needle");
    let set = {
        let named = many.iter().enumerate().map(|(n, regex)| Pattern {
            name: format!("p{n}"),
            regex: (*regex).into(),
            case_insensitive: n % 2 == 0,
        });
        Search::compile(&SearchSpec::new(named.collect())).unwrap()
    };
    for (name, headers, body) in table {
        let file = members(&[response("http://h/", &headers, &body)], 6);
        for (how, search) in [
            ("literal", &search("needle", &[Layer::Body])),
            ("word", &search(r"\b\w+dle\b", &[Layer::Body])),
            ("set", &set),
        ] {
            assert_eq!(scan_all(&file, search).matches(), ["needle"], "{name}, by {how}");
        }
    }
}

#[test]
fn a_match_over_any_border_of_a_buffer_is_found() {
    // The borders of steps, members and windows are powers of two.
    for border in [64 << 10, 128 << 10, 512 << 10, 8 << 20] {
        for level in [0, 6] {
            let mut body = vec![b'x'; border - 3];
            body.extend_from_slice(b" needle ");
            body.extend(vec![b'y'; 100]);
            let file = members(&[response("http://h/", "", &body)], level);
            assert_eq!(
                scan_all(&file, &search("needle", &[Layer::Body])).hits.len(),
                1,
                "{border}, level {level}"
            );
        }
    }
}

/// What is checked is what is compiled, at the limits too: forwards and backwards a pattern comes to different sizes.
#[test]
fn a_search_is_right_if_it_compiles() {
    let repeated = [r"\w", r"\pL", r"(?i:k\pN)", "[^a]", "ab|c"];
    let wrong = ["(", r"\p{nothing}", "a{9999999}", "x{2}{3", ""];
    let sizes = [1, 20, 60, 120, 200, 300, 600, 5000];
    let all = repeated.iter().flat_map(|one| sizes.map(|n| format!("(?:{one}){{{n}}}")));
    let (mut right, mut refused) = (0, 0);
    for regex in all.chain(wrong.map(str::to_owned)) {
        let pattern = Pattern { name: "m".into(), regex: regex.clone(), case_insensitive: false };
        let spec = SearchSpec::new(vec![pattern]);
        let said = |e: dragnet_kernel::Error| e.to_string();
        let checked = Search::check(&spec).map_err(said);
        assert_eq!(checked, Search::compile(&spec).map(drop).map_err(said), "{regex}");
        *(if checked.is_ok() { &mut right } else { &mut refused }) += 1;
    }
    assert!(right > 15 && refused > 10, "{right} right, {refused} refused");
}
