//! A sweep: many objects scanned by the threads of one process, with nothing durable about it.
//!
//! It splits large objects as a job does, seams and all, and gives what it finds in the dataset's order. A
//! shard that began wrongly is scanned again from where its left neighbour ended.

mod found;
mod queue;
mod source;

use crate::Error;
use dragnet_kernel::coverage::{Coverage, Reason, Skip};
use dragnet_kernel::{Entry, Hit, Kind, Range, ReadAt, Scanned, Seam, Search, Sink, scan};
use found::Found;
use queue::{Queue, Turn, Unit};
use source::{Opened, SMALL_BYTES};
pub use source::{Source, Stream};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};

/// How hits and records become output; called by many threads.
pub trait Writer: Sync {
    /// Appends a hit.
    ///
    /// # Errors
    /// What ends the sweep.
    fn hit(&self, hit: &Hit<'_>, out: &mut Vec<u8>) -> std::io::Result<()>;

    /// Appends a record that was read; called where [`Writer::lists_records`] is true.
    ///
    /// # Errors
    /// What ends the sweep.
    fn record(&self, _entry: &Entry<'_>, _out: &mut Vec<u8>) -> std::io::Result<()> {
        Ok(())
    }

    /// Whether it wants to see hits, and not only their number.
    fn wants_hits(&self) -> bool {
        true
    }

    /// Whether it wants to see every record.
    fn lists_records(&self) -> bool {
        false
    }
}

/// Takes the output piece by piece, in the dataset's order, and each object when it is done.
pub type Take<'a, E> = dyn FnMut(&[u8], Option<Swept>) -> Result<(), E> + 'a;

/// What is swept, and how.
pub struct Sweep<'a> {
    /// What is searched for.
    pub search: &'a Search,
    /// How many threads scan.
    pub threads: usize,
    /// About how many stored bytes a shard has.
    pub shard_bytes: u64,
    /// The same of an object on a server, where each shard begins with a request that has to be waited for.
    pub served_shard_bytes: u64,
    /// The most hits, in the dataset's order.
    pub hits_max: Option<u64>,
}

/// What was found in one object.
#[derive(Debug, Default)]
pub struct Swept {
    /// The object's URI.
    pub uri: String,
    /// Its stored bytes.
    pub size: u64,
    /// What was read of it, and what was not.
    pub coverage: Coverage,
    /// Hits in it.
    pub hits: u64,
}

#[derive(Debug, Clone)]
struct Shard {
    place: usize,
    number: u64,
    of: u64,
    source: Source,
    uri: String,
    kind: Kind,
    size: u64,
    start: u64,
    end: u64,
}

impl Shard {
    /// Another shard of the object that this one is the first of.
    fn numbered(&self, number: u64) -> Shard {
        let start = number * self.end;
        Shard { number, start, end: (start + self.end).min(self.size), ..self.clone() }
    }
}

/// What became of a shard.
struct Done {
    shard: Shard,
    scanned: Result<Scanned, Failure>,
    found: Found,
}

impl Done {
    /// About how many bytes it takes while it waits for its turn.
    fn weight(&self) -> u64 {
        let gaps = self
            .scanned
            .as_ref()
            .map_or(1, |scanned| scanned.coverage.skipped.len() + scanned.coverage.undecoded.len());
        self.found.len() + 512 + 256 * gaps as u64
    }
}

/// Why an object was not scanned.
enum Failure {
    /// The gap that says so.
    Gap(Skip),
    /// The writer failed, or the search can't be.
    Fatal(Error),
}

impl Sweep<'_> {
    /// Scans what `walk` names, and gives what it finds to `take`.
    ///
    /// # Errors
    /// What `walk`, `take` or the writer returned; never for what the bytes are, or that they can't be had.
    pub fn run<E: Send + From<Error>>(
        &self,
        walk: impl FnOnce(&mut dyn FnMut(Source) -> bool) -> Result<(), E> + Send,
        writer: &dyn Writer,
        take: &mut Take<'_, E>,
    ) -> Result<(), E> {
        let queue = Queue::default();
        let (done, results) = channel();
        std::thread::scope(|scope| {
            // Whatever panics, nobody is left waiting.
            let _ends = queue.ends();
            let walker = scope.spawn(|| {
                let _closes = queue.closes();
                queue.fill(walk)
            });
            for _ in 0..self.threads.max(1) {
                let done = done.clone();
                scope.spawn(|| self.work(&queue, writer, done));
            }
            drop(done);
            let collected = self.collect(&queue, results, writer, take);
            queue.abandon();
            collected?;
            walker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn work(&self, queue: &Queue, writer: &dyn Writer, done: Sender<Vec<Done>>) {
        let mut bytes = Vec::new();
        while let Some((unit, _in_hand)) = queue.take() {
            let mut batch = Vec::new();
            match unit {
                Unit::Shard(shard) => batch.push(self.shard(shard, writer)),
                Unit::Objects(first, sources) => {
                    let mut sources = sources.into_iter();
                    while let Some(source) = sources.next() {
                        let place = first + batch.len();
                        let object = self.object(queue, place, source, &mut sources, writer, &mut bytes);
                        if object.found.len() > SMALL_BYTES {
                            queue.give_back(place + 1, sources.by_ref().collect());
                        }
                        batch.push(object);
                    }
                }
            }
            queue.waits(batch.iter().map(Done::weight).sum());
            if done.send(batch).is_err() {
                return;
            }
        }
    }

    /// Scans an object, or its first shard where it is split.
    fn object(
        &self,
        queue: &Queue,
        place: usize,
        source: Source,
        others: &mut dyn Iterator<Item = Source>,
        writer: &dyn Writer,
        bytes: &mut Vec<u8>,
    ) -> Done {
        let mut shard = Shard {
            place,
            number: 0,
            of: 1,
            uri: source.uri(),
            source,
            kind: Kind::DOCUMENT,
            size: 0,
            start: 0,
            end: 0,
        };
        let mut found = Found::default();
        let scanned = self.first_shard(queue, &mut shard, others, writer, bytes, &mut found);
        Done { shard, scanned, found }
    }

    fn first_shard(
        &self,
        queue: &Queue,
        shard: &mut Shard,
        others: &mut dyn Iterator<Item = Source>,
        writer: &dyn Writer,
        bytes: &mut Vec<u8>,
        found: &mut Found,
    ) -> Result<Scanned, Failure> {
        // Every shard reads the version that the first one found.
        if let Err(gap) = shard.source.find() {
            return Err(Failure::Gap(gap));
        }
        let shard_bytes = match shard.source {
            Source::Served { .. } => self.served_shard_bytes,
            _ => self.shard_bytes,
        }
        .max(1);
        let opened = match shard.source.open(bytes, shard_bytes, queue.ended()) {
            Ok(opened) => opened,
            Err(gap) => {
                shard.size = gap.length;
                return Err(Failure::Gap(gap));
            }
        };
        shard.size = opened.size();
        shard.end = shard.size;
        if queue.is_stopped() {
            return Err(Failure::Gap(Skip::new(0, shard.size, Reason::HitsCap)));
        }
        if shard.size > SMALL_BYTES {
            // The others of its batch need not wait for a large one.
            queue.give_back(shard.place + 1, others.collect());
        }
        shard.kind = Kind::of(opened.object(), &shard.uri)
            .map_err(|e| Failure::Gap(Skip::new(0, shard.size, Reason::Unreadable).because(e.to_string())))?;
        if shard.kind.splits() && shard.size > shard_bytes {
            shard.of = shard.size.div_ceil(shard_bytes);
            shard.end = shard_bytes;
            queue.add_others(shard);
        }
        let scanned = self.scan(opened.object(), shard, None, self.hits_max, writer, found);
        unchanged(&opened, shard, scanned, found)
    }

    fn shard(&self, shard: Shard, writer: &dyn Writer) -> Done {
        let mut found = Found::default();
        let scanned = self.again(&shard, None, self.hits_max, writer, &mut found);
        Done { shard, scanned, found }
    }

    /// Opens a shard's object and scans it from where it is said to begin.
    fn again(
        &self,
        shard: &Shard,
        begin: Option<Seam>,
        hits_max: Option<u64>,
        writer: &dyn Writer,
        found: &mut Found,
    ) -> Result<Scanned, Failure> {
        let mut bytes = Vec::new();
        let opened = shard.source.open(&mut bytes, shard.end, &AtomicBool::new(false)).map_err(|gap| {
            Failure::Gap(Skip { offset: shard.start, length: shard.end - shard.start, ..gap })
        })?;
        let scanned = self.scan(opened.object(), shard, begin, hits_max, writer, found);
        unchanged(&opened, shard, scanned, found)
    }

    fn scan(
        &self,
        object: &dyn ReadAt,
        shard: &Shard,
        begin: Option<Seam>,
        hits_max: Option<u64>,
        writer: &dyn Writer,
        found: &mut Found,
    ) -> Result<Scanned, Failure> {
        let Shard { uri, size, start, end, .. } = shard;
        let range = Range { uri, size: *size, start: *start, end: *end, begin, hits_max };
        let scanned = scan(object, shard.kind, &range, self.search, &mut Out { writer, found });
        let scanned = scanned.and_then(|mut scanned| {
            // The shard that has the first byte looks for all of them.
            if let Some(stated) = shard.source.stated().filter(|_| shard.number == 0) {
                stated.differs(object, *size)?.into_iter().for_each(|gap| scanned.coverage.skip(gap));
            }
            Ok(scanned)
        });
        match scanned {
            Ok(scanned) => Ok(scanned),
            Err(e @ (dragnet_kernel::Error::Read { .. } | dragnet_kernel::Error::Shrunk { .. })) => {
                *found = Found::default();
                let reason = match &e {
                    dragnet_kernel::Error::Shrunk { .. } => Reason::Changed,
                    dragnet_kernel::Error::Read { source, .. } if crate::object::is_changed(source) => {
                        Reason::Changed
                    }
                    _ => Reason::Unreadable,
                };
                Err(Failure::Gap(Skip::new(*start, end - start, reason).because(e.to_string())))
            }
            Err(e) => Err(Failure::Fatal(e.into())),
        }
    }

    /// Puts the shards in order, and what began wrongly right.
    fn collect<E: From<Error>>(
        &self,
        queue: &Queue,
        results: Receiver<Vec<Done>>,
        writer: &dyn Writer,
        take: &mut Take<'_, E>,
    ) -> Result<(), E> {
        let mut waiting: BTreeMap<Turn, Done> = BTreeMap::new();
        let mut turn: Turn = (0, 0);
        let mut count = Count { left: self.hits_max, ..Count::default() };
        for batch in results {
            waiting.extend(batch.into_iter().map(|done| ((done.shard.place, done.shard.number), done)));
            let mut handed_out = 0;
            while let Some(done) = waiting.remove(&turn) {
                let of = done.shard.of;
                handed_out += done.weight();
                self.count(done, &mut count, writer, take)?;
                if count.capped {
                    queue.stop();
                }
                turn.1 += 1;
                if turn.1 == of {
                    take(&[], Some(std::mem::take(&mut count.object)))?;
                    turn = (turn.0 + 1, 0);
                }
            }
            queue.handed_out(handed_out, turn);
        }
        Ok(())
    }

    /// Counts what a shard found, or what it finds where it should have begun; its turn has come.
    fn count<E: From<Error>>(
        &self,
        done: Done,
        count: &mut Count,
        writer: &dyn Writer,
        take: &mut Take<'_, E>,
    ) -> Result<(), E> {
        let Done { shard, mut scanned, mut found } = done;
        if shard.number == 0 {
            count.object = Swept { uri: shard.uri.clone(), size: shard.size, ..Swept::default() };
            count.seam = Seam::at(0);
        }
        let is_there = scanned.is_ok() || shard.size > 0;
        if count.capped && is_there && !matches!(scanned, Err(Failure::Fatal(_))) {
            // How much of it was scanned by now is chance; none of it counts.
            count.leave_out_rest(&shard);
            return Ok(());
        }
        let passed = count.seam.offset >= shard.end && shard.of > 1;
        if passed && !matches!(scanned, Err(Failure::Fatal(_))) {
            return Ok(());
        }
        if scanned.as_ref().is_ok_and(|scanned| !count.agrees(&shard, scanned)) {
            found = Found::default();
            scanned = self.again(&shard, Some(count.seam), count.left, writer, &mut found);
        }
        match scanned {
            Ok(scanned) => {
                count.add(&scanned);
                if scanned.capped {
                    count.capped = true;
                    count.leave_out_rest(&shard);
                }
                found.give(&mut |piece| take(piece, None))
            }
            Err(Failure::Gap(gap)) => {
                count.gap(gap);
                Ok(())
            }
            Err(Failure::Fatal(e)) => Err(e.into()),
        }
    }
}

/// What a shard found, unless its object has changed under the read.
fn unchanged(
    opened: &Opened<'_>,
    shard: &Shard,
    scanned: Result<Scanned, Failure>,
    found: &mut Found,
) -> Result<Scanned, Failure> {
    match (&scanned, opened.check()) {
        (Ok(_), Err(e)) => {
            *found = Found::default();
            let gap = Skip::new(shard.start, shard.end - shard.start, Reason::Changed);
            Err(Failure::Gap(gap.because(e.to_string())))
        }
        _ => scanned,
    }
}

/// What was counted so far.
#[derive(Default)]
struct Count {
    /// The object whose turn it is.
    object: Swept,
    /// Where its next record begins.
    seam: Seam,
    /// Hits that are still wanted.
    left: Option<u64>,
    /// Whether the limit on hits cut something.
    capped: bool,
}

impl Count {
    /// Whether what a shard found is what one sequential read up to the limit finds.
    fn agrees(&self, shard: &Shard, scanned: &Scanned) -> bool {
        let begins_right = scanned.first == Some(self.seam) || shard.size == 0;
        // With no hit left the next record is where it ends, whichever shard that is in.
        let ends_right = self.left.is_none_or(|left| match scanned.capped {
            true => scanned.hits == left,
            false => scanned.hits <= left && (left > 0 || shard.size == 0),
        });
        begins_right && ends_right
    }

    fn add(&mut self, scanned: &Scanned) {
        self.object.hits += scanned.hits;
        self.object.coverage.add(&scanned.coverage);
        self.seam = scanned.next;
        self.left = self.left.map(|left| left.saturating_sub(scanned.hits));
    }

    /// Names a gap; what the shard before it read past its own end stays read.
    fn gap(&mut self, gap: Skip) {
        let to = gap.offset + gap.length;
        let from = gap.offset.max(self.seam.offset).min(to);
        self.seam = Seam::at(self.seam.offset.max(to));
        self.object.coverage.skip(Skip { offset: from, length: to - from, ..gap });
    }

    /// Names what the limit on hits leaves out of the shard's object.
    fn leave_out_rest(&mut self, shard: &Shard) {
        let rest = shard.size.saturating_sub(self.seam.offset);
        if rest > 0 || shard.number == 0 {
            self.object.coverage.skip(Skip::new(self.seam.offset, rest, Reason::HitsCap));
        }
        self.seam = Seam::at(shard.size);
    }
}

/// A writer and what it writes to.
struct Out<'a> {
    writer: &'a dyn Writer,
    found: &'a mut Found,
}

impl Sink for Out<'_> {
    fn hit(&mut self, hit: &Hit<'_>) -> std::io::Result<()> {
        self.found.append(|out| self.writer.hit(hit, out))
    }

    fn wants_hits(&self) -> bool {
        self.writer.wants_hits()
    }

    fn lists_records(&self) -> bool {
        self.writer.lists_records()
    }

    fn record(&mut self, entry: &Entry<'_>) -> std::io::Result<()> {
        if self.writer.lists_records() {
            self.found.append(|out| self.writer.record(entry, out))?;
        }
        Ok(())
    }
}
