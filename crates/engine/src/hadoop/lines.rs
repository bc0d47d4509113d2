//! The lines of a round, and how many of them a map task gets.
//!
//! A map task costs a JVM's start (1.7 s of a core) and is what is lost with its node. In the first round it
//! gets a minute or two of work; later rounds hold what failed or began wrongly, and there each line stands
//! alone, so that one that kills its mapper takes no other with it.

use crate::Error;
use dragnet_run::{CommitRecord, Output, Plan, Task};

/// The most stored bytes of one map task: a core scans 50 to 130 MB/s of compressed archives, so this is one
/// to three minutes.
const MAP_BYTES_MAX: u64 = 8 << 30;
/// A round is cut into so many map tasks at least, where it has so many lines.
const MAPS_MIN: usize = 4;

/// Tasks of a round's file.
pub(crate) fn parse(text: &[u8]) -> Result<Vec<Task>, Error> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let wrong = |e: serde_json::Error| {
        Error::Run(dragnet_run::Error::Malformed { path: "a round's tasks".into(), reason: e.to_string() })
    };
    lines.map(|line| serde_json::from_slice(line).map_err(wrong)).collect()
}

/// Lines of a map task.
pub(crate) fn per_map(plan: &Plan, round: u32, text: &[u8]) -> usize {
    if round > 1 {
        return 1;
    }
    cut(text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count(), plan.bytes())
}

/// The run's plan.
pub(crate) fn plan(output: &Output) -> Result<Plan, Error> {
    let missing = || dragnet_run::Error::Malformed { path: output.uri(), reason: "it has no plan".into() };
    Ok(output.read_json("plan.json")?.ok_or_else(missing)?)
}

fn cut(lines: usize, bytes: u64) -> usize {
    let by_bytes = (bytes.div_ceil(MAP_BYTES_MAX) as usize).max(MAPS_MIN);
    // So many that no map task is larger, as lines are of about one size.
    (lines / by_bytes.max(1)).max(1)
}

/// Whether something was committed for a task, whatever it is worth.
pub(crate) fn is_committed(output: &Output, task: &Task) -> Result<bool, Error> {
    match CommitRecord::name_for(task) {
        Some(name) => Ok(output.read(&name)?.is_some()),
        None => Ok(!output.list(&CommitRecord::folder(task.shard))?.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_map_task() {
        let gib = 1 << 30;
        let rows: [(usize, u64, usize); 8] = [
            (1, 5, 1),
            (3, 5, 1),
            (4, 5, 1),
            (16, 5, 4),
            (17, 5, 4),
            (512, 32 * gib, 128),
            (6400, 400 * gib, 128),
            (50_000, 400 << 40, 1),
        ];
        for (lines, bytes, expected) in rows {
            assert_eq!(cut(lines, bytes), expected, "{lines} lines of {bytes} bytes");
        }
    }
}
