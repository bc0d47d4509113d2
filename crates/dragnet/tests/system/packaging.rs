//! What a machine needs beside the program: its unit, its completions, its man pages, as the programs read them that
//! will.

use crate::harness::Sandbox;
use std::path::Path;
use std::process::{Command, Stdio};

/// The output of a program that may not be there.
fn run(command: &mut Command) -> Option<(bool, String)> {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
        }
        Err(e) => {
            eprintln!("skipped: {} can't be run: {e}", command.get_program().display());
            None
        }
    }
}

#[test]
fn systemd_takes_the_unit_and_finds_it_hardened() {
    let sandbox = Sandbox::new();
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/dragnet.service");
    let text = std::fs::read_to_string(unit).unwrap();
    // It looks whether the program is there.
    let unit = text.replace("/usr/bin/dragnet", env!("CARGO_BIN_EXE_dragnet"));
    let unit = sandbox.write("dragnet.service", unit.as_bytes());
    for arguments in [&["verify", "--man=no"][..], &["security", "--offline=true", "--threshold=20"][..]] {
        let Some((is_fine, said)) = run(Command::new("systemd-analyze").args(arguments).arg(&unit)) else {
            return;
        };
        assert!(is_fine, "{arguments:?}: {said}");
    }
}

#[test]
fn shells_take_the_completions() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = sandbox.run(&["completions", shell]).stdout;
        assert!(String::from_utf8_lossy(&script).contains("coverage"), "{shell}");
        let script = sandbox.write(&format!("completions.{shell}"), &script);
        if shell == "bash"
            && let Some((is_fine, said)) = run(Command::new(shell).arg("-n").arg(script))
        {
            assert!(is_fine, "{said}");
        }
    }
}

#[test]
fn there_is_a_man_page_for_each_command() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("man");
    assert!(sandbox.run(&["completions", "--man", folder.to_str().unwrap()]).status.success());
    let help = String::from_utf8(sandbox.run(&["--help"]).stdout).unwrap();
    let lines =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What is indented further goes on about the command above it.
    let commands = lines.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    let commands: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() > 15, "{commands:?}");
    for command in commands {
        let page = folder.join(format!("dragnet-{command}.1"));
        assert!(page.exists(), "{command}");
        let Some((is_fine, said)) = run(Command::new("groff").args(["-man", "-ww", "-z"]).arg(page)) else {
            return;
        };
        assert!(is_fine && said.is_empty(), "{command}: {said}");
    }
}
