//! What is made from the command line's own definition, and what is checked before a service starts: the configuration,
//! completions, manual pages, the unit of systemd.

use crate::harness::Sandbox;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs a program of this machine, if it is there.
fn on_this_machine(program: &str, arguments: &[&str], input: &[u8]) -> Option<Output> {
    use std::io::Write;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        eprintln!("skipped: there is no `{program}` here");
        return None;
    };
    let _ = child.stdin.take().unwrap().write_all(input);
    Some(child.wait_with_output().unwrap())
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
        "output = '{}'\ndisk-low-mib = {}\nrates = '/nowhere'\nkafka = '{free}'\n",
        file.display(),
        u64::MAX >> 24
    );
    let config = sandbox.write("config.toml", config.as_bytes());
    let wrong = sandbox.run(&["serve", "--check", "--config", config.to_str().unwrap()]);
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong));
    let found = rows(&wrong);
    let kafka = if cfg!(feature = "kafka") { &["failed kafka"][..] } else { &[] };
    let want = ["ok state", "ok store", "failed output", "failed disk", "failed rates"];
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
        ("mapers = 2\n", "there is no key `mapers`: is it `mappers`?"),
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

#[test]
fn shells_accept_the_completions() {
    let sandbox = Sandbox::new();
    for (shell, arguments) in
        [("bash", &["-n"][..]), ("zsh", &["-n"]), ("fish", &["--no-execute"]), ("elvish", &["-compileonly"])]
    {
        let script = sandbox.run(&["completions", shell]);
        assert!(script.status.success() && !script.stdout.is_empty(), "{shell}");
        assert!(text(&script).contains("admin-listen"), "{shell}: a flag is missing");
        let path = sandbox.write(&format!("completions.{shell}"), &script.stdout);
        let Some(read) = on_this_machine(shell, &[arguments, &[path.to_str().unwrap()]].concat(), b"") else {
            continue;
        };
        assert!(read.status.success(), "{shell}: {}", text(&read));
    }
}

#[test]
fn the_manual_s_pages_are_written_without_a_warning() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("man1");
    assert!(sandbox.run(&["man", folder.to_str().unwrap()]).status.success());
    let pages: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|page| page.unwrap().path()).collect();
    assert!(pages.len() > 15 && pages.iter().any(|page| page.ends_with("dragnet-serve.1")), "{pages:?}");
    for page in pages {
        let page = page.to_str().unwrap();
        let Some(formatted) = on_this_machine("groff", &["-man", "-Tutf8", "-ww", "-z", page], b"") else {
            return;
        };
        assert!(formatted.status.success(), "{page}");
        assert_eq!(String::from_utf8_lossy(&formatted.stderr), "", "{page}");
    }
}

#[test]
fn systemd_accepts_the_unit_and_finds_it_hardened() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/dragnet.service");
    let sandbox = Sandbox::new();
    // The program is named where a package puts it; here it is another.
    let here =
        std::fs::read_to_string(unit).unwrap().replace("/usr/bin/dragnet", env!("CARGO_BIN_EXE_dragnet"));
    let unit = sandbox.write("dragnet.service", here.as_bytes());
    let unit = unit.to_str().unwrap();
    let Some(verified) = on_this_machine("systemd-analyze", &["verify", "--man=no", unit], b"") else {
        return;
    };
    assert!(verified.status.success(), "{}", text(&verified));
    assert!(!text(&verified).contains("dragnet.service:"), "{}", text(&verified));
    // 0 is the least exposed and 100 the most, in tenths.
    let security = ["security", "--offline=true", "--threshold=20", "--no-pager", unit];
    let Some(rated) = on_this_machine("systemd-analyze", &security, b"") else { return };
    assert!(rated.status.success(), "{}", text(&rated));
}
