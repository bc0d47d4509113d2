//! What stands in a run's output about its rounds on Hadoop: the applications that were reserved, by which whoever comes
//! after a crash goes on.

use super::job::ATTEMPTS_MAX;
use super::lines;
use super::rest::down;
use crate::{Error, Round};
use dragnet_kernel::coverage::Reason;
use dragnet_run::{FailureNote, Output};
use serde::{Deserialize, Serialize};

/// An application of a round, as it stands in the run's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reserved {
    /// `application_…`.
    pub(super) application: String,
    /// Who owns it: its staging is found by that.
    pub(super) user: String,
    /// Fixed here, so that every attempt at staging cuts alike.
    pub(super) lines_per_map: usize,
    /// Map tasks at once, if that is limited.
    #[serde(default)]
    pub(super) maps_at_once: Option<usize>,
}

/// What stands in the output about a round.
pub(super) struct Standing {
    /// Its lines.
    pub(super) text: Vec<u8>,
    /// Its applications, of which the last counts.
    pub(super) reserved: Vec<Reserved>,
    /// Those of the rounds before it, and those of its own that failed.
    pub(super) earlier: Vec<String>,
    /// Whether it was stopped, or the run released.
    pub(super) over: bool,
}

/// Where the application number `attempt` of a round stands.
pub(super) fn reservation(round: u32, attempt: usize) -> String {
    match attempt {
        1 => format!("tasks/{round:03}.hadoop.json"),
        _ => format!("tasks/{round:03}.hadoop-{attempt}.json"),
    }
}

pub(super) fn tag_of_run(run: &str) -> String {
    format!("dragnet-{run}")
}

/// The run's, and the one of this application alone.
pub(super) fn tags_of(round: &Round, attempt: usize) -> Vec<String> {
    let run = tag_of_run(&round.run);
    let own = match attempt {
        0 | 1 => format!("{run}-{}", round.number),
        _ => format!("{run}-{}-{attempt}", round.number),
    };
    vec![run, own]
}

pub(super) fn name_of(round: &Round) -> String {
    format!("dragnet {} round {}", round.run, round.number)
}

pub(super) async fn standing(round: &Round) -> Result<Standing, Error> {
    let round = round.clone();
    blocking(move || {
        let output = &round.output;
        let mut reserved = Vec::new();
        while let Some(next) = output.read_json(&reservation(round.number, reserved.len() + 1))? {
            reserved.push(next);
        }
        let mut earlier: Vec<String> = reserved.iter().map(|r: &Reserved| r.application.clone()).collect();
        earlier.pop();
        for number in 1..round.number {
            let mut attempt = 1;
            while let Some(one) = output.read_json::<Reserved>(&reservation(number, attempt))? {
                earlier.push(one.application);
                attempt += 1;
            }
        }
        Ok(Standing {
            text: output.read(&round.tasks())?.unwrap_or_default(),
            reserved,
            earlier,
            over: output.is_closed()? || output.read(&round.stop_mark())?.is_some(),
        })
    })
    .await
}

/// Every application that the run's output names.
pub(super) fn all_reserved(output: &Output) -> Result<Vec<Reserved>, Error> {
    let mut all = Vec::new();
    for name in output.list("tasks")? {
        if name.contains(".hadoop") && name.ends_with(".json") {
            all.extend(output.read_json::<Reserved>(&format!("tasks/{name}"))?);
        }
    }
    Ok(all)
}

/// A task whose mapper was lost in every attempt leaves no word of its own. Where it had a map task for
/// itself, its job's end says that all attempts were used up, and that is noted in its stead.
pub(super) fn note_failures(output: &Output, number: u32, text: &[u8], last: &Reserved) -> Result<(), Error> {
    if last.lines_per_map > 1 || output.is_closed()? {
        return Ok(());
    }
    for task in lines::parse(text)? {
        if lines::is_committed(output, &task)? {
            continue;
        }
        let note = FailureNote {
            shard: task.shard,
            object: None,
            reason: Reason::ShardFailed,
            detail: format!("its map task failed {ATTEMPTS_MAX} times on Hadoop (`{}`)", last.application),
        };
        output.put_json(&format!("failed/{:06}-hadoop-{number:03}.json", task.shard), &note)?;
    }
    Ok(())
}

/// Runs what waits for the disk where it holds up no other task.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| down(format!("a look at the output was lost: {e}")))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use dragnet_kernel::Seam;
    use dragnet_run::{CommitRecord, Task};
    use std::path::PathBuf;

    fn output(name: &str) -> (PathBuf, Output) {
        let folder = std::env::temp_dir().join(format!("dragnet-hadoop-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let output = Output::at(&dragnet_run::uri::of_path(&folder)).unwrap();
        (folder, output)
    }

    #[test]
    fn a_task_that_used_up_its_attempts_is_noted_once() {
        let (folder, output) = output("notes");
        let task = |shard, begin| Task {
            output: output.uri(),
            shard,
            begin,
            to_end: false,
            hits_max: None,
            leave_out: Vec::new(),
        };
        let tasks = [task(0, Some(Seam::at(0))), task(1, None), task(2, Some(Seam::at(9))), task(3, None)];
        let text: String = tasks.iter().map(|task| serde_json::to_string(task).unwrap() + "\n").collect();
        let named = CommitRecord::name_for(&tasks[0]).unwrap();
        // Where its first record begins was not known before, so any record of the shard is its own.
        for name in [named, format!("{}/7.json", CommitRecord::folder(1))] {
            output.put(&name, b"{}").unwrap();
        }
        let mut last = Reserved {
            application: "application_1_2".into(),
            user: "me".into(),
            lines_per_map: 2,
            maps_at_once: None,
        };
        note_failures(&output, 1, text.as_bytes(), &last).unwrap();
        assert_eq!(
            output.list("failed").unwrap(),
            Vec::<String>::new(),
            "another may have killed its mapper"
        );
        last.lines_per_map = 1;
        for _ in 0..2 {
            note_failures(&output, 2, text.as_bytes(), &last).unwrap();
            let noted = output.list("failed").unwrap();
            assert_eq!(noted, ["000002-hadoop-002.json", "000003-hadoop-002.json"]);
        }
        let note: FailureNote = output.read_json("failed/000002-hadoop-002.json").unwrap().unwrap();
        assert_eq!((note.shard, note.reason), (2, Reason::ShardFailed));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn names_of_a_round() {
        let (folder, output) = output("names");
        let round = Round { run: "r".into(), number: 3, output };
        assert_eq!(tags_of(&round, 1), ["dragnet-r", "dragnet-r-3"]);
        assert_eq!(tags_of(&round, 2), ["dragnet-r", "dragnet-r-3-2"]);
        assert_eq!(
            [reservation(3, 1), reservation(3, 2)],
            ["tasks/003.hadoop.json", "tasks/003.hadoop-2.json"]
        );
        std::fs::remove_dir_all(folder).unwrap();
    }
}
