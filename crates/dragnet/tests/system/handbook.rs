//! The configuration of a service, and what is checked before it starts.

use crate::harness::Sandbox;
use std::process::Output;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_check_says_what_is_wrong_and_reads_the_file() {
    let sandbox = Sandbox::new();
    let fine = sandbox.run(&["serve", "--check"]);
    assert_eq!(fine.status.code(), Some(0), "{}", text(&fine));
    let rows = |output: &Output| -> Vec<String> {
        let words = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        String::from_utf8_lossy(&output.stdout).lines().map(words).collect()
    };
    assert_eq!(rows(&fine), ["ok state", "ok store", "ok output", "ok disk", "ok rates"]);
    // A file that is no folder, a disk that is never large enough, and a broker that is not there.
    let file = sandbox.write("in-the-way", b"");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "output = '{}'\ndisk-low-mib = {}\nrates = '/nowhere'\ndata-root = ['/nowhere']\nkafka = '{free}'\n",
        file.display(),
        u64::MAX >> 24
    );
    let config = sandbox.write("config.toml", config.as_bytes());
    let wrong = sandbox.run(&["serve", "--check", "--config", config.to_str().unwrap()]);
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong));
    let found = rows(&wrong);
    let kafka = if cfg!(feature = "kafka") { &["failed kafka"][..] } else { &[] };
    let want = ["ok state", "ok store", "failed output", "failed disk", "failed data", "failed rates"];
    assert_eq!(found, [&want, kafka].concat(), "{}", text(&wrong));
    // The command line wins over the file.
    let output = sandbox.path("out");
    let arguments = ["--output", output.to_str().unwrap(), "--disk-low-mib", "0"];
    let better =
        sandbox.run(&[&["serve", "--check", "--config", config.to_str().unwrap()], &arguments[..]].concat());
    assert_eq!(rows(&better)[2..4], ["ok output", "ok disk"], "{}", text(&better));
}

#[test]
fn a_file_that_is_not_understood_is_an_error_that_says_where() {
    let sandbox = Sandbox::new();
    for (file, want) in [
        ("mapers = 2\n", "there is no key `mapers`: `mappers` is meant?"),
        ("mappers = 'many'\n", "invalid value 'many' for '--mappers <N>'"),
        ("mappers = \n", "config.toml"),
    ] {
        let path = sandbox.write("config.toml", file.as_bytes());
        let output = sandbox.run(&["serve", "--check", "--config", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{file}");
        assert!(text(&output).contains(want), "{file}: {}", text(&output));
    }
    let missing = sandbox.run(&["serve", "--check", "--config", "/nowhere/config.toml"]);
    assert!(missing.status.code() == Some(2) && text(&missing).contains("/nowhere/config.toml"));
}

#[test]
fn the_default_file_is_a_file_that_changes_nothing() {
    let sandbox = Sandbox::new();
    let defaults = text(&sandbox.run(&["config"]));
    let folder = sandbox.path("xdg");
    sandbox.write("xdg/dragnet/config.toml", defaults.as_bytes());
    let checked = sandbox
        .dragnet(&["serve", "--check"])
        .env("XDG_CONFIG_HOME", &folder)
        .env_remove("DRAGNET_CONFIG")
        .output()
        .unwrap();
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked));
    // It is read from there: what is wrong in it is an error.
    sandbox.write("xdg/dragnet/config.toml", (defaults + "\nno-such-key = 1\n").as_bytes());
    let checked = sandbox
        .dragnet(&["serve", "--check"])
        .env("XDG_CONFIG_HOME", &folder)
        .env_remove("DRAGNET_CONFIG")
        .output()
        .unwrap();
    assert!(text(&checked).contains("no-such-key"), "{}", text(&checked));
}
