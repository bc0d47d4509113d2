//! The commands as a person runs them: output, exit codes, and what is left when they are killed.

use crate::harness::{Sandbox, spec, undisturbed, until};
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Output, Stdio};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn exit_codes_are_greps_with_one_more() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("a.txt", b"one needle-1\n").display().to_string();
    let parquet = sandbox.write("b.parquet", b"PAR1....").display().to_string();
    let table: [(&str, Vec<&str>, i32, &str); 8] = [
        ("hits", vec!["search", "needle", &file], 0, "coverage  complete"),
        ("no hit", vec!["search", "zzz", &file], 1, "hits      0"),
        ("gaps", vec!["search", "needle", &file, &parquet], 3, "NOT complete"),
        ("a broken pattern", vec!["search", "x(", &file], 2, "unclosed group"),
        ("a missing path", vec!["search", "x", "/none"], 2, "`/none` does not exist"),
        ("an unknown scheme", vec!["search", "x", "ftp://h/p"], 2, "only paths and"),
        ("no data", vec!["search", "x"], 2, "nothing to search"),
        ("no such job", vec!["status", "none"], 2, "there is no job `none`"),
    ];
    for (name, arguments, expected, said) in table {
        let output = sandbox.run(&arguments);
        assert_eq!(code(&output), Some(expected), "{name}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(said), "{name}: {}", text(&output.stderr));
    }
    // Nothing listens at port 1.
    let postgres = sandbox.run(&["serve", "--store", "postgres://u:secret@127.0.0.1:1/db"]);
    let said = text(&postgres.stderr);
    assert!(said.contains("PostgreSQL") && said.contains("refused") && !said.contains("secret"), "{said}");
    let open = sandbox.run(&["serve", "--listen", "0.0.0.0:0"]);
    assert!(text(&open.stderr).contains("there is no API key: make one"));
}

#[test]
fn flags_say_what_is_searched_for() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("a.txt", b"Needle needles a.b axb\n").display().to_string();
    let patterns =
        sandbox.write("patterns", b"# a comment\nupper=Needle\nlower=needles\n").display().to_string();
    let table: [(&[&str], &[&str]); 6] = [
        (&["needle"], &["needle"]),
        (&["-i", "needle"], &["Needle", "needle"]),
        (&["-w", "-i", "needle"], &["Needle"]),
        (&["-F", "a.b"], &["a.b"]),
        (&["a.b"], &["a.b", "axb"]),
        (&["-f", &patterns], &["Needle", "needles"]),
    ];
    for (flags, expected) in table {
        let output = sandbox.run(&[&["search"], flags, &[&file]].concat());
        let lines = text(&output.stdout);
        let matches: Vec<&str> = lines.lines().map(|line| line.rsplit(':').next().unwrap()).collect();
        assert_eq!(matches, expected, "{flags:?}");
    }
}

#[test]
fn every_client_command_has_json() {
    let sandbox = Sandbox::new();
    let spec = spec(&sandbox.corpus());
    let service = sandbox.serve();
    let id = service.submit(&spec);
    service.end_of(&id);
    let data = sandbox.path("data").display().to_string();
    let commands: [&[&str]; 9] = [
        &["submit", "needle", &data],
        &["status", &id],
        &["watch", &id],
        &["list"],
        &["hits", &id],
        &["coverage", &id],
        &["bill", &id],
        &["cancel", &id],
        &["redrive", &id],
    ];
    for command in commands {
        let output = sandbox.run(&[command, &["--json", "--server", &service.url]].concat());
        assert_eq!(code(&output), Some(0), "{command:?}: {}", text(&output.stderr));
        let first =
            serde_json::Deserializer::from_slice(&output.stdout).into_iter::<serde_json::Value>().next();
        assert!(first.is_some_and(|value| value.is_ok_and(|value| value.is_object())), "{command:?}");
    }
}

#[test]
fn a_search_that_is_killed_goes_on_with_watch() {
    let sandbox = Sandbox::new();
    let data = sandbox.corpus();
    let expected = undisturbed(&spec(&data));
    let data = data.display().to_string();
    for signal in [Signal::KILL, Signal::INT] {
        let mut search = sandbox.dragnet(&[
            "search",
            "-e",
            "n=needle-[0-9]+",
            "--shard-bytes",
            "20000",
            "--mappers",
            "1",
            &data,
        ]);
        let mut child = search.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let before = |sandbox: &Sandbox| match sandbox.state().join("dragnet.db").exists() {
            true => sandbox.db().query_row("select count(*) from settled", [], |row| row.get(0)).unwrap_or(0),
            false => 0i64,
        };
        let settled = before(&sandbox);
        until("a settled shard, or the end", || {
            before(&sandbox) > settled || child.try_wait().unwrap().is_some()
        });
        let _ = kill_process(Pid::from_child(&child), signal);
        let ended = child.wait_with_output().unwrap();
        if signal == Signal::INT && ended.status.code() == Some(130) {
            assert!(text(&ended.stderr).contains("nothing is lost"), "{}", text(&ended.stderr));
        }
        let id: String = sandbox.db().query_row("select max(id) from work", [], |row| row.get(0)).unwrap();
        let watched = sandbox.run(&["watch", "--quiet", &id]);
        assert_eq!(code(&watched), Some(0), "{}", text(&watched.stderr));
        let service = sandbox.serve();
        assert_eq!(service.result(&id), expected, "{signal:?}");
    }
}

#[test]
fn an_embedded_search_leaves_other_jobs_alone_and_names_them() {
    let sandbox = Sandbox::new();
    let data = sandbox.corpus().display().to_string();
    let submitted = sandbox.run(&["submit", "needle", &data]);
    let other = text(&submitted.stdout).trim().to_owned();
    let search = sandbox.run(&["search", "needle-1\\b", &data]);
    assert!(
        text(&search.stderr).contains(&format!("unfinished: {other} (accepted)")),
        "{}",
        text(&search.stderr)
    );
    let job: serde_json::Value =
        serde_json::from_slice(&sandbox.run(&["status", "--json", &other]).stdout).unwrap();
    assert_eq!(job["status"], "accepted");
    assert_eq!(code(&sandbox.run(&["watch", "--quiet", &other])), Some(0));
}

#[test]
fn state_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    let file = sandbox.write("a.txt", b"needle").display().to_string();
    sandbox.run(&["search", "needle", &file]);
    let mut open = vec![sandbox.state()];
    while let Some(path) = open.pop() {
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}
