//! What was read, what was not and why: so that "no match" is never all that one is told.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why bytes were not searched, by who is to blame for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Left out as the search asked: the answer is complete.
    Chosen,
    /// Could not be searched: the answer has a gap.
    Lost,
    /// A limit came first: the answer has a gap.
    Cut,
}

/// Why bytes were not searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Records that the filter leaves out. One gap stands for all of a range: its offset is the first one's,
    /// its length the sum of theirs.
    Filtered,
    /// Columns that are not searched.
    ColumnNotAsked,
    /// A binary file, by the rule that a NUL stands in its first 8 KiB.
    Binary,
    /// Not a file that holds bytes: a device, a FIFO, a socket.
    NotADocument,
    /// The bytes are broken.
    Damaged,
    /// The object ends inside a record.
    Truncated,
    /// The object can't be read: it has gone, or may not be.
    Unreadable,
    /// The object is not the one that was planned.
    Changed,
    /// A format that this build can't read.
    Undecodable,
    /// Every attempt to search the shard failed.
    ShardFailed,
    /// The limit on hits was reached.
    HitsCap,
    /// The limit on input bytes was reached.
    BytesCap,
    /// The limit on the cost was reached.
    CostCap,
    /// The record is larger than what is searched of one.
    RecordCap,
    /// The deadline passed.
    Deadline,
    /// The job was cancelled.
    Cancelled,
}

impl Reason {
    /// The class that the reason belongs to.
    pub fn class(self) -> Class {
        match self {
            Reason::Filtered | Reason::ColumnNotAsked | Reason::Binary | Reason::NotADocument => {
                Class::Chosen
            }
            Reason::Damaged
            | Reason::Truncated
            | Reason::Unreadable
            | Reason::Changed
            | Reason::Undecodable
            | Reason::ShardFailed => Class::Lost,
            Reason::HitsCap
            | Reason::BytesCap
            | Reason::CostCap
            | Reason::RecordCap
            | Reason::Deadline
            | Reason::Cancelled => Class::Cut,
        }
    }
}

/// A run of stored bytes that was not searched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    /// Stored bytes from the start of the object.
    pub offset: u64,
    /// How many stored bytes.
    pub length: u64,
    /// The reason's class.
    pub class: Class,
    /// Why.
    pub reason: Reason,
    /// More than the reason says, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Skip {
    /// A skip with the reason's own class.
    pub fn new(offset: u64, length: u64, reason: Reason) -> Skip {
        Skip { offset, length, class: reason.class(), reason, detail: None }
    }

    /// The same with a sentence for a person.
    #[must_use]
    pub fn because(self, detail: impl Into<String>) -> Skip {
        Skip { detail: Some(detail.into()), ..self }
    }
}

/// A layer of a record that was not searched as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undecoded {
    /// Where the record is stored.
    pub offset: u64,
    /// How many stored bytes hold it.
    pub length: u64,
    /// The record's id, where it has one.
    pub record_id: Option<String>,
    /// The layer that was asked for.
    pub layer: String,
    /// The layer that was searched in its place.
    pub searched_instead: String,
    /// Why.
    pub reason: String,
}

/// How the reason ends of a record that had more hits than one may give.
const LIMIT_OF_RECORD: &str = "hits, the limit for one record";

impl Undecoded {
    /// The reason of a record that had more hits than one may give.
    pub(crate) fn more_hits_than(max: u64) -> String {
        format!("the record has more than {max} {LIMIT_OF_RECORD}")
    }

    /// Whether the limit on hits of one record is why.
    pub fn is_cut(&self) -> bool {
        self.reason.ends_with(LIMIT_OF_RECORD)
    }
}

/// What was covered of one object, or of a range of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Stored bytes that were read and searched.
    pub read: u64,
    /// Stored bytes that were not; in a sealed job `read` and these add up to the object's size.
    pub skipped: Vec<Skip>,
    /// Records that were searched, by their type.
    pub records: BTreeMap<String, u64>,
    /// Records whose bytes were searched, though not in the layer that was asked for.
    pub undecoded: Vec<Undecoded>,
}

impl Coverage {
    /// Whether the answer for these bytes has no gap.
    pub fn complete(&self) -> bool {
        self.undecoded.is_empty() && self.skipped.iter().all(|skip| skip.class == Class::Chosen)
    }

    /// Stored bytes that were not searched.
    pub fn skipped_bytes(&self) -> u64 {
        self.skipped.iter().map(|skip| skip.length).sum()
    }

    /// Records that were searched.
    pub fn records_total(&self) -> u64 {
        self.records.values().sum()
    }

    /// Adds what comes behind: skips that touch and have one reason become one.
    pub fn add(&mut self, other: &Coverage) {
        self.read += other.read;
        for skip in &other.skipped {
            self.skip(skip.clone());
        }
        for (kind, n) in &other.records {
            *self.records.entry(kind.clone()).or_default() += n;
        }
        self.undecoded.extend(other.undecoded.iter().cloned());
    }

    /// Adds one skip.
    pub fn skip(&mut self, skip: Skip) {
        match self.skipped.last_mut() {
            Some(last)
                if last.offset + last.length == skip.offset
                    && last.reason == skip.reason
                    && last.detail == skip.detail =>
            {
                last.length += skip.length;
            }
            _ => self.skipped.push(skip),
        }
    }
}
