//! The mapper: takes tasks, scans their shards, commits what it found.
//!
//! It can be run any number of times for the same task, beside itself and after the run's end: a record is
//! put if absent and a closed run takes nothing.

use crate::output::{Output, Part};
use crate::plan::{Object, Plan, Shard, Task};
use crate::record::{CommitRecord, FailureNote, INLINE_BYTES_MAX, ObjectCoverage, Totals};
use crate::{Error, Put, object};
use dragnet_kernel::coverage::Reason;
use dragnet_kernel::{Digest, Hit, Range, ReadAt, Scanned, Seam, Search, scan};
use dragnet_objects::Blob;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// What became of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A record counts for it: this attempt's, or an earlier one's.
    Committed(Done),
    /// The bytes could not be had; another attempt may.
    Failed(FailureNote),
    /// The output can't be written now: nobody's failure, and no attempt of the shard.
    Blocked {
        /// What could not be written.
        path: String,
        /// Why.
        reason: String,
    },
    /// A server that has the input does not serve now: nobody's failure either.
    Away {
        /// The server, bucket or cluster.
        host: String,
        /// What it said.
        reason: String,
    },
    /// The run is over.
    Closed,
}

/// What a committed shard adds up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The shard's number.
    pub shard: usize,
    /// The record's name.
    pub record: String,
    /// Stored bytes that were read.
    pub bytes: u64,
    /// Records that were searched.
    pub records: u64,
    /// Hits.
    pub hits: u64,
}

/// Runs tasks one after the other, keeping what they share.
pub struct Mapper<'a> {
    /// Told how many stored bytes were read, at least every quarter second of a scan.
    progress: &'a dyn Fn(u64),
    loaded: Option<Loaded>,
}

struct Loaded {
    uri: String,
    output: Output,
    plan: Plan,
    search: Search,
}

impl<'a> Mapper<'a> {
    /// A mapper that reports to `progress`.
    pub fn new(progress: &'a dyn Fn(u64)) -> Mapper<'a> {
        Mapper { progress, loaded: None }
    }

    /// Runs one task to its commit.
    ///
    /// # Errors
    /// When the output can't be read or written, or the plan makes no sense; what is wrong with the input
    /// is an [`Outcome`].
    pub fn run(&mut self, task: &Task) -> Result<Outcome, Error> {
        let loaded = match self.loaded.take() {
            Some(loaded) if loaded.uri == task.output => loaded,
            _ => load(&task.output)?,
        };
        let loaded = self.loaded.insert(loaded);
        match attempt(loaded, task, self.progress) {
            Err(Error::Closed) => Ok(Outcome::Closed),
            // A run that has ended takes its folders with it: that is no trouble with the output.
            Err(Error::Output { .. } | Error::Kernel(dragnet_kernel::Error::Sink(_)))
                if loaded.output.is_closed().unwrap_or(false) =>
            {
                Ok(Outcome::Closed)
            }
            Err(Error::Away { host, reason }) => Ok(Outcome::Away { host, reason }),
            Err(Error::Output { path, source, .. }) => {
                Ok(Outcome::Blocked { path, reason: source.to_string() })
            }
            Err(Error::Kernel(dragnet_kernel::Error::Sink(source))) => {
                Ok(Outcome::Blocked { path: "a part".into(), reason: source.to_string() })
            }
            Err(Error::Object { uri, reason, detail }) => {
                let object = loaded.plan.objects.iter().position(|o| o.uri == uri);
                note(
                    &loaded.output,
                    FailureNote { shard: task.shard, object, reason, detail: format!("{uri}: {detail}") },
                )
            }
            other => other,
        }
    }
}

fn note(output: &Output, note: FailureNote) -> Result<Outcome, Error> {
    // A note in a closed run would only be litter.
    if !output.is_closed()? {
        output.put_json(&FailureNote::name(note.shard), &note)?;
    }
    Ok(Outcome::Failed(note))
}

fn load(uri: &str) -> Result<Loaded, Error> {
    let output = Output::at(uri)?;
    let missing = || Error::Malformed { path: format!("{uri}/plan.json"), reason: "there is none".into() };
    let plan: Plan = output.read_json("plan.json")?.ok_or_else(missing)?;
    let search = Search::compile(&plan.search)?;
    Ok(Loaded { uri: uri.to_owned(), output, plan, search })
}

fn attempt(loaded: &Loaded, task: &Task, progress: &dyn Fn(u64)) -> Result<Outcome, Error> {
    let output = &loaded.output;
    if output.is_closed()? {
        return Err(Error::Closed);
    }
    if let Some(done) = committed(output, task)? {
        return Ok(Outcome::Committed(done));
    }
    let cpu_before = cpu_ms();
    let mut hits = Hits::new(output, task.shard);
    let shard = loaded.plan.shards.get(task.shard).ok_or_else(|| Error::Malformed {
        path: output.uri(),
        reason: format!("the plan has no shard {}", task.shard),
    })?;
    let mut record = match shard {
        Shard::Range { object, start, end } => {
            range(loaded, task, *object, *start, *end, &mut hits, progress)?
        }
        Shard::Bundle { first, count } => bundle(loaded, task, *first, *count, &mut hits, progress)?,
    };
    record.attempt = hits.attempt.clone();
    record.cpu_ms = cpu_ms().saturating_sub(cpu_before);
    record.searches = vec![hits.finish()?];
    commit(output, &record)
}

/// What was committed for a task before, if anything was.
fn committed(output: &Output, task: &Task) -> Result<Option<Done>, Error> {
    let name = match CommitRecord::name_for(task) {
        Some(name) => Some(name),
        None => {
            let folder = CommitRecord::folder(task.shard);
            let found = output.list(&folder)?.into_iter().next();
            found.map(|name| format!("{folder}/{name}"))
        }
    };
    let Some(name) = name else { return Ok(None) };
    let record: Option<CommitRecord> = output.read_json(&name)?;
    Ok(record.map(|record| done(&record)))
}

fn done(record: &CommitRecord) -> Done {
    Done {
        shard: record.shard,
        record: record.name(),
        bytes: record.bytes(),
        records: record.records(),
        hits: record.hits(),
    }
}

/// The first record wins; a slow twin finds it there and changes nothing.
fn commit(output: &Output, record: &CommitRecord) -> Result<Outcome, Error> {
    if output.is_closed()? {
        return Err(Error::Closed);
    }
    let name = record.name();
    let put = output.put_json(&name, record);
    if let Ok(Put::Won) = put {
        return Ok(Outcome::Committed(done(record)));
    }
    // Any answer but success means: look who is there.
    let there: Option<CommitRecord> = output.read_json(&name)?;
    match (there, put) {
        (Some(there), _) => {
            if there.attempt != record.attempt
                && let Some(part) = record.searches.iter().find_map(|totals| totals.part.as_ref())
            {
                output.remove(part)?;
            }
            Ok(Outcome::Committed(done(&there)))
        }
        (None, Err(e)) => Err(e),
        (None, Ok(_)) => Err(Error::Malformed { path: name, reason: "it was there and has gone".into() }),
    }
}

fn range(
    loaded: &Loaded,
    task: &Task,
    place: usize,
    start: u64,
    end: u64,
    hits: &mut Hits<'_>,
    progress: &dyn Fn(u64),
) -> Result<CommitRecord, Error> {
    let object = &loaded.plan.objects[place];
    let end = if task.to_end { loaded.plan.end_of(place) } else { end };
    let scanned =
        scan_object(loaded, object, place, (start, end), task.begin, task.hits_max, hits, progress)?;
    let mut record = CommitRecord::of(task, scanned.first, scanned.next);
    record.capped = scanned.capped;
    record.coverage.push(ObjectCoverage { object: place, coverage: scanned.coverage });
    Ok(record)
}

fn bundle(
    loaded: &Loaded,
    task: &Task,
    first: usize,
    count: usize,
    hits: &mut Hits<'_>,
    progress: &dyn Fn(u64),
) -> Result<CommitRecord, Error> {
    let mut record = CommitRecord::of(task, Some(Seam::at(0)), Seam::at(0));
    let mut failed = None;
    for place in (first..first + count).filter(|place| !task.leave_out.contains(place)) {
        let object = &loaded.plan.objects[place];
        let left = task.hits_max.map(|max| max.saturating_sub(hits.totals.hits));
        if record.capped || left == Some(0) {
            // The seal names the rest as cut.
            record.capped = true;
            break;
        }
        let coverage = match scan_object(
            loaded,
            object,
            place,
            (0, object.size),
            Some(Seam::at(0)),
            left,
            hits,
            progress,
        ) {
            Ok(scanned) => {
                record.capped |= scanned.capped;
                scanned.coverage
            }
            // Not to get an object is never committed: it fails the attempt, after all such are noted, so
            // that the next round can leave them out together.
            Err(Error::Object { uri, reason, detail }) => {
                if let Some(Error::Object { uri, reason, detail }) =
                    failed.replace(Error::Object { uri, reason, detail })
                {
                    let detail = format!("{uri}: {detail}");
                    let object = loaded.plan.objects.iter().position(|o| o.uri == uri);
                    note(&loaded.output, FailureNote { shard: task.shard, object, reason, detail })?;
                }
                continue;
            }
            Err(e) => return Err(e),
        };
        record.coverage.push(ObjectCoverage { object: place, coverage });
    }
    failed.map_or(Ok(record), Err)
}

#[expect(clippy::too_many_arguments, reason = "they are one call of the kernel's scan, spelled out")]
fn scan_object(
    loaded: &Loaded,
    object: &Object,
    place: usize,
    (start, end): (u64, u64),
    begin: Option<Seam>,
    hits_max: Option<u64>,
    hits: &mut Hits<'_>,
    progress: &dyn Fn(u64),
) -> Result<Scanned, Error> {
    let opened = object::open(&loaded.plan.policy, object, end)?;
    let counted =
        Counted { blob: &opened.blob, progress, unsaid: Cell::new(0), said: Cell::new(Instant::now()) };
    let range = Range { uri: &object.uri, size: object.size, start, end, begin, hits_max };
    let before = hits.totals.hits;
    let scanned =
        scan(&counted, object.kind, &range, &loaded.search, &mut |hit: &Hit<'_>| hits.add(place, hit));
    let scanned = scanned.and_then(|mut scanned| {
        // The shard that has the first byte looks for all of them.
        if let Some(stated) = object.stated.as_ref().filter(|_| start == 0) {
            stated.differs(&counted, object.size)?.into_iter().for_each(|gap| scanned.coverage.skip(gap));
        }
        Ok(scanned)
    });
    let scanned = match scanned {
        // The object that could not be had is named, so that the others of its bundle can do without it.
        Err(e @ (dragnet_kernel::Error::Read { .. } | dragnet_kernel::Error::Shrunk { .. })) => {
            if let dragnet_kernel::Error::Read { source, .. } = &e
                && let Some(said) = dragnet_objects::Error::in_io(source)
            {
                return Err(object::of_server(&object.uri, said.clone()));
            }
            // A file that changes under the read is a changed one, whatever the read said.
            opened.check()?;
            let (uri, detail) = (object.uri.clone(), e.to_string());
            return Err(Error::Object { uri, reason: Reason::Unreadable, detail });
        }
        other => other?,
    };
    opened.check()?;
    debug_assert_eq!(hits.totals.hits - before, scanned.hits);
    Ok(scanned)
}

/// Tells of every read, so that nobody takes a long shard for a dead one.
struct Counted<'a> {
    blob: &'a Blob,
    progress: &'a dyn Fn(u64),
    unsaid: Cell<u64>,
    said: Cell<Instant>,
}

impl ReadAt for Counted<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.blob.read_at(offset, buf)?;
        self.unsaid.set(self.unsaid.get() + n as u64);
        if self.said.get().elapsed() > Duration::from_millis(250) {
            (self.progress)(self.unsaid.take());
            self.said.set(Instant::now());
        }
        Ok(n)
    }
}

/// Collects a shard's hits: in memory while they fit the record, in a part after that.
struct Hits<'a> {
    output: &'a Output,
    shard: usize,
    attempt: String,
    totals: Totals,
    inline: Vec<u8>,
    part: Option<Part>,
}

impl<'a> Hits<'a> {
    fn new(output: &'a Output, shard: usize) -> Hits<'a> {
        let attempt = uuid::Uuid::new_v4().simple().to_string();
        let totals = Totals { digest: Digest::default(), ..Totals::default() };
        Hits { output, shard, attempt, totals, inline: Vec::new(), part: None }
    }

    fn add(&mut self, place: usize, hit: &Hit<'_>) -> std::io::Result<()> {
        self.totals.hits += 1;
        self.totals.digest.add_hit(hit.canonical(place as u64));
        serde_json::to_writer(&mut self.inline, hit)?;
        self.inline.push(b'\n');
        if self.inline.len() > INLINE_BYTES_MAX {
            self.spill()?;
        }
        Ok(())
    }

    fn spill(&mut self) -> std::io::Result<()> {
        let part = match &mut self.part {
            Some(part) => part,
            none => {
                let name = format!("parts/{:06}-{}.jsonl", self.shard, self.attempt);
                let part = self.output.part(&name).map_err(std::io::Error::other)?;
                self.totals.part = Some(name);
                none.insert(part)
            }
        };
        part.write(&self.inline)?;
        self.inline.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Totals, Error> {
        if self.part.is_some() {
            self.spill().map_err(|e| Error::Kernel(dragnet_kernel::Error::Sink(e)))?;
        }
        match self.part {
            Some(part) => part.sync()?,
            // The bytes are JSON, so they are UTF-8.
            None => self.totals.inline = String::from_utf8_lossy(&self.inline).into_owned(),
        }
        Ok(self.totals)
    }
}

/// Processor time of this process so far, in milliseconds.
fn cpu_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}
