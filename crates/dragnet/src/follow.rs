//! A job in the foreground: its hits to stdout as they settle, its progress and summary to stderr.

use crate::client::Client;
use crate::exit::{self, Exit};
use crate::output::Format;
use anyhow::Result;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use serde_json::Value as Json;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How a job is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// `OBJECT:OFFSET:URL:MATCH` lines.
    Text,
    /// JSON lines.
    Json,
    /// No hits.
    Nothing,
}

/// Follows a job to its end.
pub(crate) fn follow(client: &Client, id: &str, show: Show) -> Result<Exit> {
    let begun = Instant::now();
    let bar = progress_bar();
    let mut next = Some(format!("/v1/jobs/{id}/hits?limit=1000"));
    let mut pause = Duration::from_millis(5);
    loop {
        let job = client.job(id)?;
        draw(&bar, &job);
        // Hits are read after the status, so a terminal one has all of them before it.
        let over = is_over(&job);
        if show != Show::Nothing {
            bar.suspend(|| print_settled(client, &mut next, show))?;
        }
        if over {
            bar.finish_and_clear();
            summarise(client, &job, begun.elapsed());
            return Ok(exit_of(&job));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    let template = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}";
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn draw(bar: &ProgressBar, job: &Json) {
    let progress = &job["progress"];
    let number = |name: &str| progress[name].as_u64().unwrap_or(0);
    bar.set_length(number("bytes_total"));
    bar.set_position(number("bytes_done"));
    let stage = job["stage"].as_str().unwrap_or_default();
    let waits = waits_for(job).map_or(String::new(), |dependency| format!(", waits for {dependency}"));
    bar.set_message(format!("{} hits, {stage}{waits}", HumanCount(number("hits"))));
}

fn waits_for(job: &Json) -> Option<&str> {
    job["controllers"].as_object()?.values().find_map(|row| row["waiting_for"].as_str())
}

/// Prints what has settled since the last call. `next` is where to go on; `None` after the last page of a job
/// that has ended.
fn print_settled(client: &Client, next: &mut Option<String>, show: Show) -> Result<()> {
    let mut out = std::io::stdout().lock();
    while let Some(path) = next {
        let page = client.hits(path)?;
        write_hits(&mut out, &page.lines, show)?;
        *next = page.next;
        if page.lines.is_empty() {
            break;
        }
    }
    Ok(out.flush()?)
}

/// Writes JSON lines of hits as a person or a program wants them.
pub(crate) fn write_hits(out: &mut impl Write, lines: &str, show: Show) -> Result<()> {
    match show {
        Show::Json => out.write_all(lines.as_bytes())?,
        Show::Nothing => {}
        Show::Text => {
            let mut text = Vec::new();
            for line in lines.lines() {
                Format::Text { color: false }.hit(&serde_json::from_str(line)?, &mut text)?;
            }
            out.write_all(&text)?;
        }
    }
    Ok(())
}

pub(crate) fn is_over(job: &Json) -> bool {
    !matches!(job["status"].as_str(), Some("accepted" | "running"))
}

/// The exit code that a job's end has.
pub(crate) fn exit_of(job: &Json) -> Exit {
    let hits = job["progress"]["hits"].as_u64().unwrap_or(0);
    match job["status"].as_str() {
        Some("completed") if hits > 0 => exit::HITS,
        Some("completed") => exit::NO_HIT,
        Some("completed_with_gaps" | "cancelled") => exit::GAPS,
        _ => exit::ERROR,
    }
}

fn summarise(client: &Client, job: &Json, took: Duration) {
    let id = job["id"].as_str().unwrap_or_default();
    let status = job["status"].as_str().unwrap_or_default();
    let number = |name: &str| job["progress"][name].as_u64().unwrap_or(0);
    let launched = &job["controllers"]["launch"]["metrics"];
    say!("job       {id}: {}", status.replace('_', " "));
    if let Some(detail) = job["error"]["detail"].as_str() {
        say!("error     {detail}");
    }
    for (name, row) in job["controllers"].as_object().into_iter().flatten() {
        if let (Some("parked"), Some(error)) = (row["status"].as_str(), row["error"].as_str()) {
            say!("parked    at {name}: {error}");
            say!("          `dragnet redrive {id}` sends it on its way again");
        }
    }
    say!("hits      {} in {} records", HumanCount(number("hits")), HumanCount(number("records")));
    let (objects, shards) = (launched["objects"].as_u64().unwrap_or(0), number("shards_done"));
    say!(
        "read      {} of {} objects in {shards} {}, {:.2} s",
        HumanBytes(number("bytes_done")),
        HumanCount(objects),
        if shards == 1 { "shard" } else { "shards" },
        took.as_secs_f64()
    );
    if let Ok(report) = client.get(&format!("/v1/jobs/{id}/coverage")) {
        say!("coverage  {}", coverage_line(&report));
    }
    if let Some(digest) = job["digest"].as_str() {
        say!("digest    {digest}");
    }
    if let Some(cost) = job["cost_micros"].as_i64() {
        let currency = job["controllers"]["billing"]["metrics"]["currency"].as_str().unwrap_or_default();
        say!("cost      {} {currency}", dragnet_job::invoice::money(cost));
    }
}

/// What a report comes to, in a line.
pub(crate) fn coverage_line(report: &Json) -> String {
    if report["complete"] == true {
        return "complete".into();
    }
    let mut reasons: Vec<(String, u64, u64)> = Vec::new();
    for object in report["objects"].as_array().into_iter().flatten() {
        for skip in
            object["skipped"].as_array().into_iter().flatten().filter(|skip| skip["class"] != "chosen")
        {
            let reason = skip["reason"].as_str().unwrap_or_default();
            let length = skip["length"].as_u64().unwrap_or(0);
            match reasons.iter_mut().find(|(known, _, _)| known == reason) {
                Some((_, gaps, bytes)) => {
                    *gaps += 1;
                    *bytes += length;
                }
                None => reasons.push((reason.to_owned(), 1, length)),
            }
        }
    }
    let mut parts: Vec<String> = reasons
        .iter()
        .map(|(reason, gaps, bytes)| format!("{gaps} × {reason} ({})", HumanBytes(*bytes)))
        .collect();
    let undecoded = report["totals"]["undecoded"].as_u64().unwrap_or(0);
    if undecoded > 0 {
        parts.push(format!("{undecoded} records not searched as asked"));
    }
    format!(
        "NOT complete: {}",
        if parts.is_empty() { "nothing was searched".into() } else { parts.join(", ") }
    )
}
