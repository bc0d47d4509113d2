//! The `hadoop` command as the way to submit: it knows every cluster, secured ones too, and costs a JVM.
//!
//! It tells the application's id only when all is done, so a job is found again by its tag. The command must
//! not outlive this process and submit what another has submitted meanwhile: it runs below a shell that
//! reads from a pipe of ours and kills it when that ends, however this process died.

use super::job::MAPPER;
use super::rest::down;
use crate::Error;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// The longest that a submission may take: a JVM's start and a copy of its jar.
const SUBMIT_MAX: Duration = Duration::from_secs(180);

/// `$@` is the command. It gets a process group of its own, as what `hadoop` names may be a script.
const LIFELINE: &str = r#"exec 3<&0 </dev/null
setsid "$@" 3<&- &
command=$!
( read -r _ <&3; kill -KILL "-$command" || kill -KILL "$command" ) >/dev/null 2>&1 &
watcher=$!
wait "$command"
status=$?
kill -KILL "$watcher"
exit "$status""#;

/// A job, as the command gets it.
pub(crate) struct Submission<'a> {
    /// The client's configuration, for `HADOOP_CONF_DIR`.
    pub(crate) conf: &'a Path,
    pub(crate) user: &'a str,
    pub(crate) name: &'a str,
    pub(crate) tags: &'a [String],
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) lines_per_map: usize,
    /// URIs in HDFS.
    pub(crate) lines: &'a str,
    pub(crate) scratch: &'a str,
    pub(crate) mapper: &'a str,
    /// What the mapper is started with.
    pub(crate) mapper_arguments: String,
}

/// Runs the command until it has submitted.
pub(crate) async fn submit(
    program: &Path,
    streaming: &Path,
    submission: &Submission<'_>,
) -> Result<(), Error> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", LIFELINE, "sh"]).arg(program).arg("jar").arg(streaming);
    command.args(arguments(submission));
    command.env("HADOOP_CONF_DIR", submission.conf).env("HADOOP_USER_NAME", submission.user);
    run(command).await
}

async fn run(mut command: Command) -> Result<(), Error> {
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| down(format!("the hadoop command could not be started: {e}")))?;
    let ended = lines_until_end(child);
    let (status, said) = tokio::time::timeout(SUBMIT_MAX, ended)
        .await
        .map_err(|_| down(format!("the hadoop command did not end in {} s", SUBMIT_MAX.as_secs())))?
        .map_err(|e| down(format!("the hadoop command was lost: {e}")))?;
    if status.success() {
        return Ok(());
    }
    // Its last words say what is wrong; before them it chats, and after them it prints a stack.
    let telling = |line: &&str| line.contains("Exception") || line.contains("rror");
    let line = said.lines().find(telling).or(said.lines().last()).unwrap_or_default();
    let line: String = line.chars().take(300).collect();
    Err(down(format!("the hadoop command ended ({status}): {line}")))
}

/// The end of a child and what it said; its stdin stays open until then.
async fn lines_until_end(
    mut child: tokio::process::Child,
) -> std::io::Result<(std::process::ExitStatus, String)> {
    let lifeline = child.stdin.take();
    let output = child.wait_with_output().await?;
    drop(lifeline);
    let said = [output.stderr, output.stdout].concat();
    Ok((output.status, String::from_utf8_lossy(&said).into_owned()))
}

fn arguments(submission: &Submission<'_>) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut settings = submission.settings.clone();
    let more = [
        ("mapreduce.job.name", submission.name.to_owned()),
        ("mapreduce.job.tags", submission.tags.join(",")),
        ("mapreduce.input.lineinputformat.linespermap", submission.lines_per_map.to_string()),
    ];
    settings.extend(more.map(|(name, value)| (name.to_owned(), value)));
    for (name, value) in settings {
        arguments.extend(["-D".into(), format!("{name}={value}")]);
    }
    let files = format!("{}#{MAPPER}", submission.mapper);
    let mapper = format!("./{MAPPER} {}", submission.mapper_arguments);
    // What is Hadoop's in general stands before what is Streaming's.
    let rest = [
        "-files",
        &files,
        "-background",
        "-input",
        submission.lines,
        "-inputformat",
        "org.apache.hadoop.mapred.lib.NLineInputFormat",
        "-output",
        submission.scratch,
        "-outputformat",
        "org.apache.hadoop.mapred.lib.NullOutputFormat",
        "-mapper",
        &mapper,
    ];
    arguments.extend(rest.map(str::to_owned));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", LIFELINE, "sh", "/bin/sh", "-c", script]);
        command
    }

    #[tokio::test]
    async fn what_the_command_says() {
        run(shell("echo chat >&2")).await.unwrap();
        let rows = [
            ("echo chat >&2; echo 'x.FooException: no queue' >&2; echo '  at x' >&2; exit 5", "no queue"),
            ("echo last >&2; exit 1", "last"),
            ("exit 1", "exit status: 1"),
        ];
        for (script, expected) in rows {
            let said = run(shell(script)).await.unwrap_err().to_string();
            assert!(said.contains(expected), "{script}: {said}");
        }
    }

    /// The shell and its command are told apart from ours by nothing but the pipe.
    #[tokio::test]
    async fn the_command_ends_with_its_lifeline() {
        let mut child = shell("echo $$; sleep 600")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = tokio::io::BufReader::new(child.stdout.take().unwrap());
        tokio::io::AsyncBufReadExt::read_line(&mut stdout, &mut line).await.unwrap();
        drop(child.stdin.take());
        let ended = tokio::time::timeout(Duration::from_secs(20), child.wait()).await.unwrap().unwrap();
        assert!(!ended.success());
        assert!(!Path::new(&format!("/proc/{}", line.trim())).exists(), "and its command with it");
    }
}
