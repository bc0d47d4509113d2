//! The mapper, as Hadoop Streaming and the local engine run it: tasks come as lines on stdin, a line on stdout says what
//! became of each, and stderr tells of progress in Hadoop's words (`reporter:counter:`, `reporter:status:`).
//!
//! It is `dragnet map`, and a program of its own, `dragnet-map`, that holds nothing else and can be shipped.

use anyhow::{Context, Result};
use dragnet_run::{Mapper, Outcome, Task};
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How a mapper is run.
#[derive(Debug, clap::Args)]
pub struct Map {
    /// Exit at once when stdin ends, because the process that started this one has died
    #[arg(long)]
    lifeline: bool,
    /// Memory limit, in MiB
    #[arg(long, value_name = "MIB")]
    memory_mib: Option<u64>,
    /// Processor time limit per shard, in seconds
    #[arg(long, value_name = "S")]
    cpu_s: Option<u64>,
    /// Seconds for which a task is retried while the output or an object server is unavailable
    #[arg(long, value_name = "S", default_value_t = 0)]
    patience_s: u64,
    /// Limit on concurrent requests to one object server
    #[arg(long, value_name = "N")]
    host_connections: Option<usize>,
    /// Limit on bytes per second from one object server
    #[arg(long, value_name = "N")]
    host_bytes_s: Option<u64>,
    /// Folder in which the processes of this machine tell each other how long a server wants to be left alone
    #[arg(long, value_name = "DIR")]
    manners: Option<PathBuf>,
    /// Connect only to public addresses
    #[arg(long)]
    public_addresses: bool,
    /// A host that may be connected to even if its address is not public
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
    /// A port that may be connected to on public addresses, besides 80 and 443
    #[arg(long, value_name = "PORT")]
    allow_port: Vec<u16>,
}

/// A shard could not be had: Hadoop is to count the attempt as failed.
const FAILED: u8 = 2;

impl Map {
    /// Runs all tasks that stdin names.
    ///
    /// # Errors
    /// When a task can't be understood, or the run's output can't be read or written.
    pub fn run(self) -> Result<ExitCode> {
        dragnet_objects::set_limits(dragnet_objects::Limits {
            connections: self.host_connections,
            bytes_per_s: self.host_bytes_s,
            manners: self.manners.clone(),
        });
        dragnet_objects::set_network(dragnet_objects::Network {
            public_only: self.public_addresses,
            hosts: self.allow_host.clone(),
            ports: self.allow_port.clone(),
        });
        dragnet_objects::on_waiting(|| eprintln!("reporter:status:waits for a server of objects"));
        if let Some(mib) = self.memory_mib {
            let limit = rustix::process::Rlimit { current: Some(mib << 20), maximum: Some(mib << 20) };
            // What is only reserved, as allocators do, is free.
            rustix::process::setrlimit(rustix::process::Resource::Data, limit)
                .context("limit the mapper's memory")?;
        }
        let lines = read_lines(self.lifeline);
        let progress = |bytes: u64| eprintln!("reporter:counter:dragnet,bytes_read,{bytes}");
        let mut mapper = Mapper::new(&progress);
        let mut failed = false;
        for line in lines {
            let line = line.context("read tasks")?;
            // Hadoop may put the line's offset and a tab before it.
            let text = line.rsplit('\t').next().unwrap_or(&line).trim();
            if text.is_empty() {
                continue;
            }
            let task: Task = serde_json::from_str(text).with_context(|| format!("read the task `{text}`"))?;
            eprintln!("reporter:status:shard {}", task.shard);
            if let Some(seconds) = self.cpu_s {
                limit_processor_time(seconds).context("limit the shard's processor time")?;
            }
            let outcome = self.run_patiently(&mut mapper, &task);
            let outcome = outcome.with_context(|| format!("run shard {}", task.shard))?;
            failed |= matches!(outcome, Outcome::Failed(_) | Outcome::Blocked { .. } | Outcome::Away { .. });
            if let Outcome::Committed(done) = &outcome {
                eprintln!("reporter:counter:dragnet,records,{}", done.records);
                eprintln!("reporter:counter:dragnet,hits,{}", done.hits);
            }
            let mut out = std::io::stdout().lock();
            serde_json::to_writer(&mut out, &outcome)?;
            out.write_all(b"\n")?;
            out.flush()?;
        }
        Ok(if failed { FAILED } else { 0 }.into())
    }

    /// Runs a task, again and again while the output or a server of objects does not serve, as long as there is
    /// patience: an engine that counts attempts must not take an outage for them.
    fn run_patiently(&self, mapper: &mut Mapper<'_>, task: &Task) -> Result<Outcome, dragnet_run::Error> {
        let (begun, mut pause) = (Instant::now(), Duration::from_secs(1));
        loop {
            let outcome = mapper.run(task);
            let trouble = match &outcome {
                Ok(Outcome::Away { host: place, reason } | Outcome::Blocked { path: place, reason }) => {
                    format!("{place}: {reason}")
                }
                Err(e @ (dragnet_run::Error::Output { .. } | dragnet_run::Error::Away { .. })) => {
                    e.to_string()
                }
                _ => return outcome,
            };
            if begun.elapsed() + pause > Duration::from_secs(self.patience_s) {
                return match outcome {
                    Err(dragnet_run::Error::Output { path, source, .. }) => {
                        Ok(Outcome::Blocked { path, reason: source.to_string() })
                    }
                    Err(dragnet_run::Error::Away { host, reason }) => Ok(Outcome::Away { host, reason }),
                    other => other,
                };
            }
            // A line is a sign of life, too.
            eprintln!("reporter:status:shard {} waits: {trouble}", task.shard);
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(30));
        }
    }
}

/// Has the kernel end this process (SIGXCPU) when it has run for so long from now on: a pattern may take quadratic time,
/// and no other shard is to wait for it. The limit is of the whole process's time, so it moves on with each shard.
fn limit_processor_time(seconds: u64) -> std::io::Result<()> {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).tv_sec;
    let hard = rustix::process::getrlimit(rustix::process::Resource::Cpu).maximum;
    let soft = u64::try_from(used).unwrap_or_default().saturating_add(seconds).saturating_add(1);
    let soft = hard.map_or(soft, |hard| soft.min(hard));
    let limit = rustix::process::Rlimit { current: Some(soft), maximum: hard };
    Ok(rustix::process::setrlimit(rustix::process::Resource::Cpu, limit)?)
}

/// Lines of stdin, read by a thread of their own, so that its end is noticed while a shard is scanned.
fn read_lines(lifeline: bool) -> mpsc::IntoIter<std::io::Result<String>> {
    let (found, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if found.send(line).is_err() {
                return;
            }
        }
        if lifeline {
            std::process::exit(0);
        }
    });
    lines.into_iter()
}
