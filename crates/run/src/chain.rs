//! The chain of seams: which records count.
//!
//! A shard in the middle of an object guesses where its first record begins. Its left neighbour knows: it
//! has read up to there. So a record counts only if it begins where the one before it ended, and the first
//! begins at byte 0. What looks right but does not meet its neighbour is run again from the right place.

use crate::plan::{Plan, Shard, Task};
use crate::record::CommitRecord;
use dragnet_kernel::Seam;
use std::collections::{BTreeMap, BTreeSet};

/// What of a commit record decides whether it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The record's name.
    pub name: String,
    /// Where its first record begins.
    pub first: Option<Seam>,
    /// Where the next one begins.
    pub next: Seam,
    /// Whether it goes on to the end of its object.
    pub to_end: bool,
    /// The limit on hits that it was given.
    pub hits_max: Option<u64>,
    /// Objects of the bundle that it was told to leave out.
    pub leave_out: Vec<usize>,
    /// Whether that limit ended it.
    pub capped: bool,
    /// Hits.
    pub hits: u64,
    /// Stored bytes that were read.
    pub bytes: u64,
    /// Records that were searched.
    pub records: u64,
}

impl Summary {
    /// The summary of a record.
    pub fn of(record: &CommitRecord) -> Summary {
        Summary {
            name: record.name(),
            first: record.first,
            next: record.next,
            to_end: record.to_end,
            hits_max: record.hits_max,
            leave_out: record.leave_out.clone(),
            capped: record.capped,
            hits: record.hits(),
            bytes: record.bytes(),
            records: record.records(),
        }
    }
}

/// What is known of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchored {
    /// This record counts.
    Record(Summary),
    /// No record begins in it: its left neighbour has read past it.
    Passed,
    /// It was given up: from here to where the next one that could be read begins (`None`: to the end).
    Lost {
        /// Where the chain broke.
        from: u64,
        /// Where it was taken up again, by its look.
        to: Option<u64>,
    },
}

/// The chains of all objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Shards that are settled one way or the other.
    pub anchored: BTreeMap<usize, Anchored>,
    /// What must run before the others can be.
    pub missing: Vec<Task>,
}

/// Follows the chains from left to right. `given_up` are shards that are not to be run again; `to_end` asks
/// that the rest of a broken object is run as one shard.
pub fn follow(
    plan: &Plan,
    output: &str,
    have: &BTreeMap<usize, Vec<Summary>>,
    given_up: &BTreeSet<usize>,
    to_end: bool,
) -> Chain {
    let mut chain = Chain::default();
    let mut shard = 0;
    while shard < plan.shards.len() {
        match plan.shards[shard] {
            Shard::Bundle { .. } => {
                let records = have.get(&shard).into_iter().flatten();
                match records.min_by_key(|s| s.hits_max.unwrap_or(u64::MAX)) {
                    Some(summary) => drop(chain.anchored.insert(shard, Anchored::Record(summary.clone()))),
                    None if given_up.contains(&shard) => {
                        chain.anchored.insert(shard, Anchored::Lost { from: 0, to: None });
                    }
                    None => chain.missing.push(plan.task(output, shard)),
                }
                shard += 1;
            }
            Shard::Range { object, .. } => {
                let of_object = |s: &Shard| matches!(s, Shard::Range { object: of, .. } if *of == object);
                let count = plan.shards[shard..].iter().take_while(|s| of_object(s)).count();
                Object { plan, output, have, given_up, to_end }.follow(shard..shard + count, &mut chain);
                shard += count;
            }
        }
    }
    chain
}

/// The chain of one object.
struct Object<'a> {
    plan: &'a Plan,
    output: &'a str,
    have: &'a BTreeMap<usize, Vec<Summary>>,
    given_up: &'a BTreeSet<usize>,
    to_end: bool,
}

/// What is known when a shard is looked at.
enum At {
    /// The next record begins here.
    Seam(Seam),
    /// The chain is broken behind this offset: the next shard is taken by its look.
    Lost { from: u64, shard: usize },
    /// The chain waits for a shard.
    Waiting,
}

impl Object<'_> {
    fn follow(&self, shards: std::ops::Range<usize>, chain: &mut Chain) {
        let mut at = At::Seam(Seam::at(0));
        for shard in shards {
            at = match at {
                At::Seam(seam) => self.next(shard, seam, chain),
                At::Lost { from, shard: lost } => match self.records(shard).find(|s| s.first.is_some()) {
                    Some(summary) => {
                        let to = summary.first.map(|seam| seam.offset);
                        chain.anchored.insert(lost, Anchored::Lost { from, to });
                        chain.anchored.insert(shard, Anchored::Record(summary.clone()));
                        At::Seam(summary.next)
                    }
                    None if self.records(shard).next().is_some() || self.given_up.contains(&shard) => {
                        chain.anchored.insert(shard, Anchored::Passed);
                        At::Lost { from, shard: lost }
                    }
                    None => {
                        chain.missing.push(self.plan.task(self.output, shard));
                        At::Waiting
                    }
                },
                At::Waiting => {
                    if self.records(shard).next().is_none() && !self.to_end && !self.given_up.contains(&shard)
                    {
                        chain.missing.push(self.plan.task(self.output, shard));
                    }
                    At::Waiting
                }
            };
        }
        if let At::Lost { from, shard } = at {
            chain.anchored.insert(shard, Anchored::Lost { from, to: None });
        }
    }

    fn next(&self, shard: usize, seam: Seam, chain: &mut Chain) -> At {
        let Shard::Range { end, .. } = self.plan.shards[shard] else { return At::Waiting };
        if seam.offset >= end {
            chain.anchored.insert(shard, Anchored::Passed);
            return At::Seam(seam);
        }
        // The lower limit on hits is the later word; without limits there is one record at most.
        let meets = self.records(shard).filter(|s| s.first == Some(seam));
        if let Some(summary) = meets.min_by_key(|s| s.hits_max.unwrap_or(u64::MAX)) {
            chain.anchored.insert(shard, Anchored::Record(summary.clone()));
            return At::Seam(summary.next);
        }
        if self.given_up.contains(&shard) {
            return At::Lost { from: seam.offset, shard };
        }
        let task = Task { begin: Some(seam), to_end: self.to_end, ..self.plan.task(self.output, shard) };
        chain.missing.push(task);
        At::Waiting
    }

    fn records(&self, shard: usize) -> impl Iterator<Item = &Summary> {
        self.have.get(&shard).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;
    use dragnet_kernel::{Kind, Pattern, SearchSpec};

    fn plan_of(shards: u64) -> Plan {
        let size = shards * 100;
        let object = plan::Object {
            uri: "file:///o".into(),
            size,
            version: "v".into(),
            kind: Kind::WARC_GZIP,
            stated: None,
        };
        let patterns = vec![Pattern { name: "m".into(), regex: "x".into(), case_insensitive: false }];
        Plan {
            mapper: "0".into(),
            search: SearchSpec::new(patterns),
            shards: Plan::cut(std::slice::from_ref(&object), &[size], 100),
            objects: vec![object],
            skipped: Vec::new(),
            policy: dragnet_objects::Policy::default(),
            hits_max: None,
        }
    }

    fn record(first: Option<u64>, next: u64) -> Summary {
        Summary {
            name: format!("{first:?}"),
            first: first.map(Seam::at),
            next: Seam::at(next),
            to_end: false,
            hits_max: None,
            leave_out: Vec::new(),
            capped: false,
            hits: 0,
            bytes: 0,
            records: 0,
        }
    }

    type Row<'a> = (&'a str, &'a [(usize, Summary)], &'a [usize], bool, &'a str);

    /// A letter for each shard: `R`ecord, `P`assed, `L`ost, `.` not anchored; then what is missing.
    fn drawn(plan: &Plan, chain: &Chain) -> String {
        let letter = |shard: usize| match chain.anchored.get(&shard) {
            Some(Anchored::Record(_)) => 'R',
            Some(Anchored::Passed) => 'P',
            Some(Anchored::Lost { .. }) => 'L',
            None => '.',
        };
        let letters: String = (0..plan.shards.len()).map(letter).collect();
        let missing = chain.missing.iter().map(|task| {
            let begin = task.begin.map_or("?".into(), |seam| seam.to_string());
            format!(" {}@{begin}{}", task.shard, if task.to_end { "-end" } else { "" })
        });
        letters + &missing.collect::<String>()
    }

    #[test]
    fn only_what_meets_its_neighbour_counts() {
        let table: &[Row<'_>] = &[
            ("nothing yet", &[], &[], false, "... 0@0 1@? 2@?"),
            (
                "all meet",
                &[(0, record(Some(0), 110)), (1, record(Some(110), 205)), (2, record(Some(205), 300))],
                &[],
                false,
                "RRR",
            ),
            ("the middle waits for its left", &[(1, record(Some(110), 205))], &[], false, "... 0@0 2@?"),
            (
                "a wrong guess is run again, and its right neighbour is kept until then",
                &[(0, record(Some(0), 110)), (1, record(Some(150), 205)), (2, record(Some(205), 300))],
                &[],
                false,
                "R.. 1@110",
            ),
            (
                "a redo meets both",
                &[
                    (0, record(Some(0), 110)),
                    (1, record(Some(150), 205)),
                    (1, record(Some(110), 205)),
                    (2, record(Some(205), 300)),
                ],
                &[],
                false,
                "RRR",
            ),
            (
                "a record that spans a shard",
                &[(0, record(Some(0), 250)), (1, record(None, 200)), (2, record(Some(250), 300))],
                &[],
                false,
                "RPR",
            ),
            (
                "nothing was seen where a record begins",
                &[(0, record(Some(0), 110)), (1, record(None, 200))],
                &[],
                false,
                "R.. 1@110 2@?",
            ),
            (
                "the rest as one",
                &[(0, record(Some(0), 110)), (1, record(None, 200))],
                &[],
                true,
                "R.. 1@110-end",
            ),
            (
                "given up, and taken up behind it",
                &[(0, record(Some(0), 110)), (2, record(Some(205), 300))],
                &[1],
                false,
                "RLR",
            ),
            (
                "given up at the end",
                &[(0, record(Some(0), 110)), (1, record(Some(110), 205))],
                &[2],
                false,
                "RRL",
            ),
        ];
        let plan = plan_of(3);
        for (name, records, given_up, to_end, expected) in table {
            let mut have: BTreeMap<usize, Vec<Summary>> = BTreeMap::new();
            for (shard, summary) in *records {
                have.entry(*shard).or_default().push(summary.clone());
            }
            let chain = follow(&plan, "file:///out", &have, &given_up.iter().copied().collect(), *to_end);
            assert_eq!(drawn(&plan, &chain), *expected, "{name}");
        }
    }
}
