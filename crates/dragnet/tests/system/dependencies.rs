//! What others' code is in the program: its licences, where it comes from, and what must not be there, as `deny.toml` has
//! it for those who run `cargo deny`.

use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn texts(value: &toml::Value) -> BTreeSet<&str> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry.get("crate").unwrap_or(entry).as_str().unwrap())
        .collect()
}

#[test]
fn every_dependency_is_of_a_known_licence_and_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let deny: toml::Table = std::fs::read_to_string(root.join("deny.toml")).unwrap().parse().unwrap();
    let allowed = texts(&deny["licenses"]["allow"]);
    let banned = texts(&deny["bans"]["deny"]);
    let registries = texts(&deny["sources"]["allow-registry"]);
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--all-features", "--locked"])
        .current_dir(&root)
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Json = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100);
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or_default();
        // Older packages write `/` for `OR`.
        let expression = spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX).unwrap();
        let is_allowed = |asked: &spdx::LicenseReq| allowed.contains(asked.to_string().as_str());
        assert!(expression.evaluate(is_allowed), "{name}: {licence}");
        assert!(!banned.contains(name), "{name} is banned");
        if let Some(source) = package["source"].as_str() {
            let registry = source.strip_prefix("registry+").unwrap_or(source);
            assert!(registries.contains(registry), "{name}: {source}");
        }
    }
}
