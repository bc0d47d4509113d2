//! The commit record of a shard: what one attempt found, and that it counts if the chain says so.

use crate::plan::Task;
use dragnet_kernel::coverage::{Coverage, Reason};
use dragnet_kernel::{Digest, Seam};
use serde::{Deserialize, Serialize};

/// Hits up to this many bytes of JSON lines stand in the record itself.
pub const INLINE_BYTES_MAX: usize = 64 << 10;

/// The record of one shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// The shard's number.
    pub shard: usize,
    /// A random name of the attempt that wrote it.
    pub attempt: String,
    /// The version of the program that wrote it.
    pub mapper: String,
    /// Where the shard's first record begins; `None` where none does.
    pub first: Option<Seam>,
    /// Where the first record behind the shard begins, or its object's end.
    pub next: Seam,
    /// Whether it goes on to the end of its object.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub to_end: bool,
    /// The limit on hits that it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits_max: Option<u64>,
    /// Objects of the bundle that it was told to leave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leave_out: Vec<usize>,
    /// Whether that limit ended it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub capped: bool,
    /// What was covered, by object.
    pub coverage: Vec<ObjectCoverage>,
    /// What was found, by search: one today.
    pub searches: Vec<Totals>,
    /// Processor time of the attempt in milliseconds: shown, not billed.
    #[serde(default)]
    pub cpu_ms: u64,
}

/// What was covered of one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectCoverage {
    /// The object's place in the plan.
    pub object: usize,
    /// What was covered of it.
    #[serde(flatten)]
    pub coverage: Coverage,
}

/// What one search found in one shard.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// How many hits.
    pub hits: u64,
    /// The sum over them.
    pub digest: Digest,
    /// The file that holds them, where they are too many for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// The hits as JSON lines, where no file holds them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub inline: String,
}

impl CommitRecord {
    /// The record's name in the output: it holds where the shard's first record begins, so that a redo from
    /// the right place does not meet the wrong one.
    pub fn name(&self) -> String {
        let first = self.first.map_or("none".into(), |seam| seam.to_string());
        let to_end = if self.to_end { "-end" } else { "" };
        let hits_max = self.hits_max.map_or(String::new(), |max| format!("-max{max}"));
        let without =
            self.leave_out.iter().map(|object| format!("-without{object}")).take(8).collect::<String>();
        let left =
            if self.leave_out.len() > 8 { format!("-and{}", self.leave_out.len()) } else { String::new() };
        format!("{}/{first}{to_end}{hits_max}{without}{left}.json", CommitRecord::folder(self.shard))
    }

    /// The folder of all records of a shard.
    pub fn folder(shard: usize) -> String {
        format!("records/{shard:06}")
    }

    /// The record of a task as it begins: nothing found, nothing covered.
    pub(crate) fn of(task: &Task, first: Option<Seam>, next: Seam) -> CommitRecord {
        CommitRecord {
            shard: task.shard,
            attempt: String::new(),
            mapper: env!("CARGO_PKG_VERSION").into(),
            first,
            next,
            to_end: task.to_end,
            hits_max: task.hits_max,
            leave_out: task.leave_out.clone(),
            capped: false,
            coverage: Vec::new(),
            searches: Vec::new(),
            cpu_ms: 0,
        }
    }

    /// The name that a task's record will have, if the task knows where it begins.
    pub fn name_for(task: &Task) -> Option<String> {
        Some(CommitRecord::of(task, Some(task.begin?), Seam::at(0)).name())
    }

    /// Stored bytes that were read and searched.
    pub fn bytes(&self) -> u64 {
        self.coverage.iter().map(|c| c.coverage.read).sum()
    }

    /// Records that were searched.
    pub fn records(&self) -> u64 {
        self.coverage.iter().map(|c| c.coverage.records_total()).sum()
    }

    /// Hits of all searches.
    pub fn hits(&self) -> u64 {
        self.searches.iter().map(|totals| totals.hits).sum()
    }
}

/// Why an attempt could not get its bytes: a note for whoever must name the gap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailureNote {
    /// The shard's number.
    pub shard: usize,
    /// The object's place, where one object is to blame.
    pub object: Option<usize>,
    /// `unreadable`, `changed` or `shard_failed`.
    pub reason: Reason,
    /// More, for a person.
    pub detail: String,
}

impl FailureNote {
    /// A new name for such a note.
    pub fn name(shard: usize) -> String {
        format!("failed/{shard:06}-{}.json", uuid::Uuid::new_v4().simple())
    }
}
