//! What we build on: its licences, where it comes from, and what we don't want among it. `deny.toml` says the same to
//! `cargo deny`; here it needs no tool but cargo.

use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Licences that ask for no more than to be named.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

/// Other implementations of TLS than rustls over ring, and what brings a compiler of C++ or cmake into a build.
const BANNED: &[&str] =
    &["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys", "cmake", "bindgen", "cxx"];

fn metadata() -> Json {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--offline",
            "--locked",
            "--all-features",
            "--format-version",
            "1",
            "--manifest-path",
        ])
        .arg(manifest)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Whether we may use what is under that expression (SPDX), by the licences that we take.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let mut alternatives = split(&expression, " OR ");
    alternatives.any(|one| {
        split(one, " AND ").all(|part| match part.strip_prefix('(') {
            Some(inner) => is_allowed(inner.strip_suffix(')').unwrap_or(inner)),
            None => LICENCES.contains(&part),
        })
    })
}

/// Splits where no parenthesis is open.
fn split<'a>(text: &'a str, by: &'a str) -> impl Iterator<Item = &'a str> {
    let (mut pieces, mut begin, mut depth) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && at >= begin && text[at..].starts_with(by) => {
                pieces.push(text[begin..at].trim());
                begin = at + by.len();
            }
            _ => {}
        }
    }
    pieces.push(text[begin..].trim());
    pieces.into_iter()
}

#[test]
fn expressions_are_read_as_spdx_has_them() {
    for (expression, want) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT OR GPL-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("MIT/Apache-2.0", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(MIT OR Apache-2.0) AND LGPL-2.1", false),
        ("Apache-2.0 WITH LLVM-exception OR MIT", true),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression), want, "{expression}");
    }
}

#[test]
fn all_that_we_build_on_may_be_used_and_comes_from_crates_io() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100, "there are {} packages", packages.len());
    let mut wrong = BTreeSet::new();
    for package in packages {
        let name = format!("{} {}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        let licence = package["license"].as_str().unwrap_or_default();
        if !is_allowed(licence) {
            wrong.insert(format!("{name}: its licence `{licence}` is not among ours"));
        }
        // Our own have none.
        if let Some(source) = package["source"].as_str()
            && source != "registry+https://github.com/rust-lang/crates.io-index"
        {
            wrong.insert(format!("{name}: it comes from `{source}`"));
        }
    }
    // A package may be listed for a feature that nobody asks for: what is built is what the graph holds.
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let package = packages.iter().find(|package| package["id"] == node["id"]).unwrap();
        let name = package["name"].as_str().unwrap();
        if BANNED.contains(&name) {
            wrong.insert(format!("{name}: we don't want it in a build"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn deny_toml_says_the_same() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let deny = std::fs::read_to_string(root.join("deny.toml")).unwrap();
    let quoted = |name: &&&str| deny.contains(&format!("\"{name}\""));
    let missing: Vec<_> = LICENCES.iter().chain(BANNED).filter(|name| !quoted(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
