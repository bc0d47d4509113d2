//! A mapper as a child process: tasks go in as lines, outcomes come out as lines, counters on stderr.
//!
//! A decoder that crashes or eats memory takes its process with it and costs one attempt. The child's stdin
//! is its life-line: when this process dies, however, the pipe ends, and the child exits.

use dragnet_run::{Outcome, Task};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

/// How to start a mapper.
#[derive(Debug, Clone)]
pub struct MapperCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables of its environment beside those of this process.
    pub variables: Vec<(&'static str, &'static str)>,
}

/// What the kernel sends a process that has used its processor time, on Linux and macOS alike.
const SIGXCPU: i32 = 24;

/// A mapper that lives.
pub(crate) struct Mapper {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    signs: mpsc::UnboundedReceiver<Sign>,
    pub(crate) idle_since: Instant,
}

/// What a mapper says on stderr.
enum Sign {
    /// `reporter:counter:dragnet,bytes_read,N`.
    BytesRead(u64),
    /// Anything else is a sign of life, and perhaps of what is wrong.
    Line(String),
}

impl Mapper {
    pub(crate) fn start(command: &MapperCommand) -> std::io::Result<Mapper> {
        let mut child = Command::new(&command.program)
            .args(&command.arguments)
            .envs(command.variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let piped = || std::io::Error::other("the mapper has no pipe");
        let stdin = child.stdin.take().ok_or_else(piped)?;
        let stdout = BufReader::new(child.stdout.take().ok_or_else(piped)?).lines();
        let mut stderr = BufReader::new(child.stderr.take().ok_or_else(piped)?).lines();
        let (said, signs) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                let counter =
                    line.strip_prefix("reporter:counter:dragnet,bytes_read,").and_then(|n| n.parse().ok());
                if said.send(counter.map_or(Sign::Line(line), Sign::BytesRead)).is_err() {
                    return;
                }
            }
        });
        Ok(Mapper { child, stdin, stdout, signs, idle_since: Instant::now() })
    }

    /// Whether the process is still there.
    pub(crate) fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Gives it a task and waits for the outcome, as long as it shows that it lives.
    ///
    /// # Errors
    /// A sentence on how the process was lost; it must not be used again.
    pub(crate) async fn run(
        &mut self,
        task: &Task,
        silence_max: Duration,
        bytes_read: &Arc<AtomicU64>,
    ) -> Result<Outcome, String> {
        let mut line = serde_json::to_string(task).map_err(|e| e.to_string())?;
        line.push('\n');
        if self.stdin.write_all(line.as_bytes()).await.is_err() {
            return Err(self.lost(None).await);
        }
        let mut last_line = None;
        loop {
            tokio::select! {
                biased;
                sign = self.signs.recv() => match sign {
                    Some(Sign::BytesRead(n)) => drop(bytes_read.fetch_add(n, Ordering::Relaxed)),
                    Some(Sign::Line(line)) if line.starts_with("reporter:status:") => {}
                    Some(Sign::Line(line)) => last_line = Some(line),
                    None => return Err(self.lost(last_line).await),
                },
                line = self.stdout.next_line() => match line {
                    Ok(Some(line)) => {
                        self.idle_since = Instant::now();
                        return serde_json::from_str(&line).map_err(|e| format!("it answered what is no outcome: {e}"));
                    }
                    Ok(None) | Err(_) => return Err(self.lost(last_line).await),
                },
                () = tokio::time::sleep(silence_max) => {
                    let _ = self.child.kill().await;
                    return Err(format!("it made no progress for {} s", silence_max.as_secs()));
                }
            }
        }
    }

    /// How it ended, for a person: by which signal or with which code, and its last word.
    async fn lost(&mut self, last_line: Option<String>) -> String {
        let ended = match tokio::time::timeout(Duration::from_secs(5), self.child.wait()).await {
            Ok(Ok(status)) if status.signal() == Some(SIGXCPU) => {
                return "the shard took more processor time than one may".into();
            }
            Ok(Ok(status)) => status.to_string(),
            _ => "no answer".into(),
        };
        let mut last_line = last_line;
        while let Ok(sign) = self.signs.try_recv() {
            if let Sign::Line(line) = sign {
                last_line = Some(line);
            }
        }
        let word = last_line.map(|line| format!(": {}", line.chars().take(200).collect::<String>()));
        format!("the mapper ended ({ended}){}", word.unwrap_or_default())
    }
}
