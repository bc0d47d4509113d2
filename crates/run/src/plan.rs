//! The plan: every object with its size and version, every shard; written once, before the run.

use dragnet_kernel::coverage::Skip;
use dragnet_kernel::{Kind, Seam, SearchSpec, Stated};
use dragnet_objects::Policy;
use serde::{Deserialize, Serialize};

/// The most shards of a job; shards grow so that there are no more.
const SHARDS_MAX: u64 = 50_000;
/// The most objects in one bundle.
const BUNDLE_OBJECTS_MAX: usize = 2_000;

/// What is to be done, frozen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The version of the program whose mapper runs it.
    pub mapper: String,
    /// What is searched for.
    pub search: SearchSpec,
    /// Every object, in the dataset's order.
    pub objects: Vec<Object>,
    /// Every shard, in the dataset's order.
    pub shards: Vec<Shard>,
    /// What no shard reads, by the object's place.
    pub skipped: Vec<(usize, Skip)>,
    /// The most hits of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits_max: Option<u64>,
    /// What may be read, wherever a mapper runs.
    #[serde(default, skip_serializing_if = "Policy::is_open")]
    pub policy: Policy,
}

/// One object of the dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Where it is.
    pub uri: String,
    /// Stored bytes.
    pub size: u64,
    /// What must still be so when it is read: size and time of change, or an ETag. Empty for what can't be
    /// read at all, which is in [`Plan::skipped`] and in no shard.
    pub version: String,
    /// What it is, by its first bytes.
    pub kind: Kind,
    /// What a manifest states of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stated: Option<Stated>,
}

/// The unit of map work and of loss.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shard {
    /// Records that begin in a byte range of one object.
    Range {
        /// The object's place.
        object: usize,
        /// First stored byte.
        start: u64,
        /// The byte after the last.
        end: u64,
    },
    /// Small objects as a whole.
    Bundle {
        /// The first object's place.
        first: usize,
        /// How many.
        count: usize,
    },
}

/// One line of a mapper's input: a shard, and how it is to be run this time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The run's output folder.
    pub output: String,
    /// The shard's number, from 0.
    pub shard: usize,
    /// Where its first record begins, once its left neighbour has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin: Option<Seam>,
    /// Whether it goes on to the end of its object, because seams found by their look were wrong too often.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub to_end: bool,
    /// The most hits that it may give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits_max: Option<u64>,
    /// Objects of a bundle that could not be had in an earlier round, and are left to the seal to name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leave_out: Vec<usize>,
}

impl Plan {
    /// Cuts objects into shards of about `shard_bytes`, and bundles small ones. `ends` limits how far an
    /// object is read: records that begin at or after its end are left out.
    pub fn cut(objects: &[Object], ends: &[u64], shard_bytes: u64) -> Vec<Shard> {
        let total: u64 = ends.iter().sum();
        let shard_bytes = shard_bytes.max(1).max(total.div_ceil(SHARDS_MAX));
        let mut shards = Vec::new();
        let mut bundle: Option<(usize, usize, u64)> = None;
        for (place, (object, end)) in objects.iter().zip(ends.iter().copied()).enumerate() {
            if object.version.is_empty() {
                // It could not be read when the plan was made, and the plan says so.
                flush(&mut bundle, &mut shards);
                continue;
            }
            let small = end == object.size && (!object.kind.splits() || object.size <= shard_bytes / 8);
            if !small {
                flush(&mut bundle, &mut shards);
                let pieces =
                    if object.kind.splits() { end.div_ceil(shard_bytes) } else { u64::from(end > 0) };
                for n in 0..pieces {
                    let (start, stop) =
                        if pieces == 1 { (0, end) } else { (n * shard_bytes, (n + 1) * shard_bytes) };
                    shards.push(Shard::Range { object: place, start, end: stop.min(end) });
                }
                continue;
            }
            let fits = |(first, count, bytes): &(usize, usize, u64)| {
                *first + *count == place && *count < BUNDLE_OBJECTS_MAX && *bytes + object.size <= shard_bytes
            };
            match bundle.as_mut().filter(|b| fits(b)) {
                Some((_, count, bytes)) => {
                    *count += 1;
                    *bytes += object.size;
                }
                None => {
                    flush(&mut bundle, &mut shards);
                    bundle = Some((place, 1, object.size));
                }
            }
        }
        flush(&mut bundle, &mut shards);
        shards
    }

    /// The task of a shard's first round.
    pub fn task(&self, output: &str, shard: usize) -> Task {
        let begin = match &self.shards[shard] {
            Shard::Range { start: 0, .. } | Shard::Bundle { .. } => Some(Seam::at(0)),
            Shard::Range { .. } => None,
        };
        Task {
            output: output.to_owned(),
            shard,
            begin,
            to_end: false,
            hits_max: self.hits_max,
            leave_out: Vec::new(),
        }
    }

    /// Stored bytes that the shards read.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| self.shard_bytes(shard)).sum()
    }

    /// Stored bytes of one shard.
    pub fn shard_bytes(&self, shard: &Shard) -> u64 {
        match shard {
            Shard::Range { start, end, .. } => end - start,
            Shard::Bundle { first, count } => {
                self.objects[*first..first + count].iter().map(|o| o.size).sum()
            }
        }
    }

    /// The last byte that shards of an object read, plus one.
    pub fn end_of(&self, object: usize) -> u64 {
        let end = |shard: &Shard| match shard {
            Shard::Range { object: of, end, .. } if *of == object => Some(*end),
            _ => None,
        };
        self.shards.iter().filter_map(end).max().unwrap_or(self.objects[object].size)
    }
}

fn flush(bundle: &mut Option<(usize, usize, u64)>, shards: &mut Vec<Shard>) {
    if let Some((first, count, _)) = bundle.take() {
        shards.push(Shard::Bundle { first, count });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dragnet_kernel::Codec;

    #[test]
    fn shards_cover_every_byte_once() {
        let object =
            |size, kind| Object { uri: String::new(), size, version: "v".into(), kind, stated: None };
        let objects = [
            object(1000, Kind::WARC_GZIP),
            object(3, Kind::DOCUMENT),
            object(4, Kind::DOCUMENT),
            object(0, Kind::DOCUMENT),
            object(250, Kind::DOCUMENT),
            object(100, Kind { codec: Codec::Plain, ..Kind::WARC_GZIP }),
        ];
        let ends: Vec<u64> = objects.iter().map(|o| o.size).collect();
        let shards = Plan::cut(&objects, &ends, 300);
        let range = |object, start, end| Shard::Range { object, start, end };
        let expected = [
            range(0, 0, 300),
            range(0, 300, 600),
            range(0, 600, 900),
            range(0, 900, 1000),
            Shard::Bundle { first: 1, count: 4 },
            range(5, 0, 100),
        ];
        assert_eq!(shards, expected);
    }
}
