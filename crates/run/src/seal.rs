//! The seal: the manifest of what counts, and the coverage that follows from it.

use crate::chain::{Anchored, Chain};
use crate::output::Output;
use crate::plan::{Plan, Shard};
use crate::record::{CommitRecord, FailureNote};
use crate::{Error, Put};
use dragnet_kernel::Digest;
use dragnet_kernel::coverage::{Class, Coverage, Reason, Skip, Undecoded};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The file that the seal is.
const MANIFEST: &str = "manifest.json";
/// The file that holds the coverage.
const COVERAGE: &str = "coverage.json";

/// What counts of a run; what it does not name never was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Commit records in the dataset's order.
    pub records: Vec<String>,
    /// Parts of these records.
    pub parts: Vec<String>,
    /// Hits in them.
    pub hits: u64,
    /// Records that were searched.
    pub records_read: u64,
    /// Stored bytes that were read and searched.
    pub bytes_read: u64,
    /// Stored bytes that the plan was to read. A record that begins before a limit is read to its end, so fewer than were
    /// read. Nothing in manifests of older programs.
    #[serde(default)]
    pub bytes_planned: Option<u64>,
    /// The digest over all hits.
    pub digest: Digest,
    /// Whether the answer has no gap.
    pub complete: bool,
    /// Whether anything at all was searched.
    pub searched: bool,
    /// The limits that cut something, as the coverage names them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub cut_by: BTreeSet<Reason>,
}

/// What is left out and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Gap {
    /// Why the shards that no record counts for were not searched.
    pub rest: Reason,
    /// More on single shards, by their number.
    pub notes: BTreeMap<usize, Vec<FailureNote>>,
}

/// The coverage of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Every object, in the dataset's order.
    pub objects: Vec<ObjectReport>,
    /// Their sum.
    pub totals: ReportTotals,
    /// Whether the answer has no gap.
    pub complete: bool,
}

/// The coverage of one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectReport {
    /// The object's URI.
    pub object: String,
    /// Stored bytes.
    pub size: u64,
    /// Of them, read and searched.
    pub read: u64,
    /// Of them, not.
    pub skipped: Vec<Skip>,
    /// Records by type.
    pub records: BTreeMap<String, u64>,
    /// Records that were not searched in the layer that was asked for.
    pub undecoded: Vec<Undecoded>,
    /// Whether this object has no gap.
    pub complete: bool,
}

/// The sum over all objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportTotals {
    /// How many.
    pub objects: u64,
    /// Stored bytes.
    pub size: u64,
    /// Of them, read and searched.
    pub read: u64,
    /// Of them, not.
    pub skipped_bytes: u64,
    /// Records that were searched.
    pub records: u64,
    /// Hits.
    pub hits: u64,
    /// Records that were not searched in the layer that was asked for.
    pub undecoded: u64,
}

/// A manifest as it lies in the output, and the hash that the Status DB keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct Sealed {
    /// What counts.
    pub manifest: Manifest,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

impl Sealed {
    /// The seal of a run, if it has been sealed.
    ///
    /// # Errors
    /// [`Error::Output`] and [`Error::Malformed`].
    pub fn read(output: &Output) -> Result<Option<Sealed>, Error> {
        let Some(bytes) = output.read(MANIFEST)? else { return Ok(None) };
        let manifest = serde_json::from_slice(&bytes)
            .map_err(|e| Error::Malformed { path: output.name_of(MANIFEST), reason: e.to_string() })?;
        Ok(Some(Sealed { manifest, sha256: Digest::of_file(&bytes) }))
    }

    /// Seals a run: what `chain` anchors counts, all else is a gap. The first seal wins and is returned.
    ///
    /// # Errors
    /// [`Error::Output`] and [`Error::Malformed`].
    pub fn write(output: &Output, plan: &Plan, chain: &Chain, gap: &Gap) -> Result<Sealed, Error> {
        let (manifest, report) = draw_up(output, plan, chain, gap)?;
        // Coverage first: whoever sees the seal sees it too.
        if output.put_json(COVERAGE, &report)? == Put::Exists && Sealed::read(output)?.is_none() {
            // Left by an attempt that died before its seal, which may have known less.
            output.remove(COVERAGE)?;
            output.put_json(COVERAGE, &report)?;
        }
        output.put_json(MANIFEST, &manifest)?;
        let missing = || Error::Malformed { path: MANIFEST.into(), reason: "it has gone".into() };
        Sealed::read(output)?.ok_or_else(missing)
    }

    /// Whether a file of the output is the seal's, and holds no hit.
    pub fn is_part_of_seal(name: &str) -> bool {
        [MANIFEST, COVERAGE, "plan.json", "closed"].contains(&name)
    }

    /// Whether a file of the output is named by the seal, or is part of it.
    pub fn keeps(&self, name: &str) -> bool {
        Sealed::is_part_of_seal(name)
            || self.manifest.records.iter().chain(&self.manifest.parts).any(|kept| kept == name)
    }
}

impl Report {
    /// The coverage of a sealed run.
    ///
    /// # Errors
    /// [`Error::Output`] and [`Error::Malformed`].
    pub fn read(output: &Output) -> Result<Option<Report>, Error> {
        output.read_json(COVERAGE)
    }
}

fn draw_up(output: &Output, plan: &Plan, chain: &Chain, gap: &Gap) -> Result<(Manifest, Report), Error> {
    let mut manifest = Manifest {
        records: Vec::new(),
        parts: Vec::new(),
        hits: 0,
        records_read: 0,
        bytes_read: 0,
        bytes_planned: Some(plan.bytes()),
        digest: Digest::default(),
        complete: true,
        searched: false,
        cut_by: BTreeSet::new(),
    };
    let mut of_objects: Vec<Covered> = plan.objects.iter().map(|_| Covered::default()).collect();
    let names: Vec<&str> = (0..plan.shards.len())
        .filter_map(|number| match chain.anchored.get(&number) {
            Some(Anchored::Record(summary)) => Some(&*summary.name),
            _ => None,
        })
        .collect();
    let mut read = output.read_all_json::<CommitRecord>(&names);
    for (number, shard) in plan.shards.iter().enumerate() {
        match chain.anchored.get(&number) {
            Some(Anchored::Record(summary)) => {
                let missing =
                    || Error::Malformed { path: summary.name.clone(), reason: "it has gone".into() };
                let record = read.next().transpose()?.flatten().ok_or_else(missing)?;
                for totals in &record.searches {
                    manifest.digest.add(&totals.digest);
                    manifest.parts.extend(totals.part.clone());
                }
                manifest.hits += record.hits();
                manifest.records.push(summary.name.clone());
                manifest.searched |= record.records() > 0 || record.bytes() > 0;
                for of in &record.coverage {
                    let covered = &mut of_objects[of.object];
                    covered.coverage.add(&of.coverage);
                    covered.to = record.next.offset;
                    covered.seen = true;
                }
            }
            Some(Anchored::Lost { from, to }) => {
                if let Shard::Range { object, .. } = shard {
                    let to = to.unwrap_or_else(|| plan.end_of(*object));
                    let skip = named(
                        Skip::new(*from, to.saturating_sub(*from), Reason::ShardFailed),
                        gap,
                        number,
                        None,
                    );
                    of_objects[*object].coverage.skip(skip);
                    of_objects[*object].to = to;
                    of_objects[*object].seen = true;
                }
            }
            Some(Anchored::Passed) | None => {}
        }
    }
    fill_up(plan, chain, gap, &mut of_objects);
    let mut report = Report::default();
    for (object, covered) in plan.objects.iter().zip(of_objects) {
        report.add(object.uri.clone(), object.size, covered.coverage);
    }
    report.totals.hits = manifest.hits;
    manifest.complete = report.complete;
    let skips = report.objects.iter().flat_map(|object| &object.skipped);
    manifest.cut_by = skips.filter(|skip| skip.class == Class::Cut).map(|skip| skip.reason).collect();
    if report.objects.iter().flat_map(|object| &object.undecoded).any(Undecoded::is_cut) {
        manifest.cut_by.insert(Reason::HitsCap);
    }
    manifest.bytes_read = report.totals.read;
    manifest.records_read = report.totals.records;
    Ok((manifest, report))
}

/// What is known of one object while the report is drawn up.
#[derive(Default)]
struct Covered {
    coverage: Coverage,
    /// Stored bytes up to here are accounted for.
    to: u64,
    seen: bool,
}

/// Names what no record speaks of.
fn fill_up(plan: &Plan, chain: &Chain, gap: &Gap, of_objects: &mut [Covered]) {
    for (number, shard) in plan.shards.iter().enumerate() {
        let Shard::Bundle { first, count } = shard else { continue };
        let failed = matches!(chain.anchored.get(&number), Some(Anchored::Lost { .. }));
        for (place, covered) in of_objects.iter_mut().enumerate().skip(*first).take(*count) {
            if covered.seen {
                continue;
            }
            let reason = if failed { Reason::ShardFailed } else { gap.rest };
            let skip = named(Skip::new(0, plan.objects[place].size, reason), gap, number, Some(place));
            covered.coverage.skip(skip);
            covered.seen = true;
        }
    }
    let mut ends: BTreeMap<usize, u64> = BTreeMap::new();
    for shard in &plan.shards {
        if let Shard::Range { object, end, .. } = shard {
            let known = ends.entry(*object).or_default();
            *known = (*known).max(*end);
        }
    }
    for (place, end) in ends {
        let covered = &mut of_objects[place];
        if covered.to < end {
            covered.coverage.skip(Skip::new(covered.to, end - covered.to, gap.rest));
            covered.to = end;
        }
    }
    for (place, skip) in &plan.skipped {
        let covered = &mut of_objects[*place];
        // A record that begins before a limit is read past it.
        let from = skip.offset.max(covered.to);
        let length = (skip.offset + skip.length).saturating_sub(from);
        if length > 0 || plan.objects[*place].size == 0 {
            covered.coverage.skip(Skip { offset: from, length, ..skip.clone() });
        }
    }
}

/// The skip as the notes of failed attempts explain it.
fn named(skip: Skip, gap: &Gap, shard: usize, object: Option<usize>) -> Skip {
    let mut notes = gap.notes.get(&shard).into_iter().flatten();
    match notes.rfind(|note| object.is_none() || note.object.is_none() || note.object == object) {
        Some(note) => Skip {
            class: note.reason.class(),
            reason: note.reason,
            detail: Some(note.detail.clone()),
            ..skip
        },
        None => skip,
    }
}

impl Default for Report {
    /// The coverage of nothing, which is complete.
    fn default() -> Report {
        Report { objects: Vec::new(), totals: ReportTotals::default(), complete: true }
    }
}

impl Report {
    /// Adds an object.
    pub fn add(&mut self, object: String, size: u64, coverage: Coverage) {
        let complete = coverage.complete();
        let totals = &mut self.totals;
        totals.objects += 1;
        totals.size += size;
        totals.read += coverage.read;
        totals.skipped_bytes += coverage.skipped_bytes();
        totals.records += coverage.records_total();
        totals.undecoded += coverage.undecoded.len() as u64;
        self.complete &= complete;
        let Coverage { read, mut skipped, records, undecoded } = coverage;
        // In the object's order, whichever shard named them.
        skipped.sort_by_key(|skip| skip.offset);
        self.objects.push(ObjectReport { object, size, read, skipped, records, undecoded, complete });
    }
}
