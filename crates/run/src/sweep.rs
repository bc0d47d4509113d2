//! A sweep: many objects scanned by the threads of one process, with nothing durable about it.
//!
//! It splits large objects as a job does, seams and all, and gives what it finds in the dataset's order. A
//! shard that began wrongly is scanned again from where its left neighbour ended.

use crate::{Error, uri};
use dragnet_kernel::coverage::{Coverage, Reason, Skip};
use dragnet_kernel::{Entry, Hit, Kind, Range, ReadAt, Scanned, Seam, Search, Sink, scan};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

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

/// Where an object's bytes are.
#[derive(Debug, Clone)]
pub enum Source {
    /// In a file.
    File(PathBuf),
    /// On standard input, read to its end.
    Stdin,
}

/// Objects up to this many stored bytes are read at once.
const SMALL_BYTES: u64 = 1 << 20;
/// Objects that are handed over together.
const BATCH_OBJECTS: usize = 64;
/// Units that wait at most.
const QUEUE_UNITS: usize = 256;

enum Unit {
    /// Objects from a place on.
    Objects(usize, Vec<Source>),
    /// A shard of a large object that is being read already.
    Shard(Shard),
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

/// What became of a shard.
struct Done {
    shard: Shard,
    scanned: Result<Scanned, Failure>,
    out: Vec<u8>,
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
            let walker = scope.spawn(|| {
                let walked = queue.fill(walk);
                queue.close();
                walked
            });
            for _ in 0..self.threads.max(1) {
                let done = done.clone();
                scope.spawn(|| self.work(&queue, writer, done));
            }
            drop(done);
            let collected = self.collect(&queue, results, writer, take);
            queue.abandon();
            collected?;
            walker.join().unwrap_or(Ok(()))
        })
    }

    fn work(&self, queue: &Queue, writer: &dyn Writer, done: Sender<Vec<Done>>) {
        let mut bytes = Vec::new();
        while let Some((unit, in_hand)) = queue.take() {
            let mut batch = Vec::new();
            match unit {
                Unit::Shard(shard) => batch.push(self.shard(shard, writer)),
                Unit::Objects(first, sources) => {
                    let mut sources = sources.into_iter().enumerate();
                    while let Some((n, source)) = sources.next() {
                        let large = self.object(queue, first + n, source, writer, &mut bytes, &mut batch);
                        if large {
                            // The others of the batch need not wait for a large one.
                            let rest: Vec<Source> = sources.map(|(_, source)| source).collect();
                            queue.give_back(first + n + 1, rest);
                            break;
                        }
                    }
                }
            }
            drop(in_hand);
            if done.send(batch).is_err() {
                return;
            }
        }
    }

    /// Scans an object, or its first shard where it is split. Says whether it is a large one.
    fn object(
        &self,
        queue: &Queue,
        place: usize,
        source: Source,
        writer: &dyn Writer,
        bytes: &mut Vec<u8>,
        batch: &mut Vec<Done>,
    ) -> bool {
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
        let opened = match shard.source.open(bytes) {
            Ok(opened) => opened,
            Err(gap) => {
                batch.push(Done { shard, scanned: Err(Failure::Gap(gap)), out: Vec::new() });
                return false;
            }
        };
        shard.size = opened.size();
        shard.end = shard.size;
        if queue.is_stopped() {
            let gap = Skip::new(0, shard.size, Reason::HitsCap);
            batch.push(Done { shard, scanned: Err(Failure::Gap(gap)), out: Vec::new() });
            return false;
        }
        match Kind::of(opened.object(), &shard.uri) {
            Ok(kind) => shard.kind = kind,
            Err(e) => {
                let gap = Skip::new(0, shard.size, Reason::Unreadable).because(e.to_string());
                batch.push(Done { shard, scanned: Err(Failure::Gap(gap)), out: Vec::new() });
                return false;
            }
        }
        let splits = shard.kind.splits() && matches!(shard.source, Source::File(_));
        let shard_bytes = self.shard_bytes.max(1);
        if splits && shard.size > shard_bytes {
            shard.of = shard.size.div_ceil(shard_bytes);
            shard.end = shard_bytes;
            let shards = (1..shard.of).map(|number| Shard {
                number,
                start: number * shard_bytes,
                end: ((number + 1) * shard_bytes).min(shard.size),
                ..shard.clone()
            });
            queue.add_shards(shards);
        }
        let is_large = shard.size > SMALL_BYTES;
        let mut out = Vec::new();
        let scanned = self.scan(opened.object(), &shard, None, self.hits_max, writer, &mut out);
        batch.push(Done { shard, scanned, out });
        is_large
    }

    fn shard(&self, shard: Shard, writer: &dyn Writer) -> Done {
        let mut out = Vec::new();
        let scanned = self.again(&shard, None, self.hits_max, writer, &mut out);
        Done { shard, scanned, out }
    }

    /// Opens a shard's object and scans it from where it is said to begin.
    fn again(
        &self,
        shard: &Shard,
        begin: Option<Seam>,
        hits_max: Option<u64>,
        writer: &dyn Writer,
        out: &mut Vec<u8>,
    ) -> Result<Scanned, Failure> {
        let mut bytes = Vec::new();
        let opened = shard.source.open(&mut bytes).map_err(|gap| {
            Failure::Gap(Skip { offset: shard.start, length: shard.end - shard.start, ..gap })
        })?;
        self.scan(opened.object(), shard, begin, hits_max, writer, out)
    }

    fn scan(
        &self,
        object: &dyn ReadAt,
        shard: &Shard,
        begin: Option<Seam>,
        hits_max: Option<u64>,
        writer: &dyn Writer,
        out: &mut Vec<u8>,
    ) -> Result<Scanned, Failure> {
        let range =
            Range { uri: &shard.uri, size: shard.size, start: shard.start, end: shard.end, begin, hits_max };
        let from = out.len();
        match scan(object, shard.kind, &range, self.search, &mut Out { writer, out }) {
            Ok(scanned) => Ok(scanned),
            Err(e @ (dragnet_kernel::Error::Read { .. } | dragnet_kernel::Error::Shrunk { .. })) => {
                out.truncate(from);
                let reason = match e {
                    dragnet_kernel::Error::Shrunk { .. } => Reason::Changed,
                    _ => Reason::Unreadable,
                };
                let gap = Skip::new(shard.start, shard.end - shard.start, reason);
                Err(Failure::Gap(gap.because(e.to_string())))
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
        let mut waiting: BTreeMap<(usize, u64), Done> = BTreeMap::new();
        let mut turn = (0, 0);
        let mut object = Swept::default();
        let mut seam = Seam::at(0);
        let mut left = self.hits_max;
        for batch in results {
            waiting.extend(batch.into_iter().map(|done| ((done.shard.place, done.shard.number), done)));
            while let Some(done) = waiting.remove(&turn) {
                let Done { shard, scanned, mut out } = done;
                if shard.number == 0 {
                    object = Swept { uri: shard.uri.clone(), size: shard.size, ..Swept::default() };
                    seam = Seam::at(0);
                }
                let passed = seam.offset >= shard.end && shard.of > 1;
                if !passed || matches!(scanned, Err(Failure::Fatal(_))) {
                    let right = match scanned {
                        Ok(scanned) if self.counts(&shard, &scanned, seam, left) => Ok(scanned),
                        Ok(_) => {
                            out.clear();
                            self.again(&shard, Some(seam), left, writer, &mut out)
                        }
                        failed => failed,
                    };
                    match right {
                        Ok(scanned) => {
                            object.hits += scanned.hits;
                            object.coverage.add(&scanned.coverage);
                            seam = scanned.next;
                            left = left.map(|left| left.saturating_sub(scanned.hits));
                            if scanned.capped {
                                let rest = shard.size - seam.offset;
                                object.coverage.skip(Skip::new(seam.offset, rest, Reason::HitsCap));
                                seam = Seam::at(shard.size);
                                queue.stop();
                            }
                            take(&out, None)?;
                        }
                        Err(Failure::Gap(gap)) => {
                            // What the shard before it read past its own end stays read.
                            let to = gap.offset + gap.length;
                            let from = gap.offset.max(seam.offset).min(to);
                            seam = Seam::at(seam.offset.max(to));
                            object.coverage.skip(Skip { offset: from, length: to - from, ..gap });
                        }
                        Err(Failure::Fatal(e)) => return Err(e.into()),
                    }
                }
                turn = (turn.0, turn.1 + 1);
                if turn.1 == shard.of {
                    take(&[], Some(std::mem::take(&mut object)))?;
                    turn = (turn.0 + 1, 0);
                }
            }
        }
        Ok(())
    }

    /// Whether what a shard found is what one sequential read up to the limit finds.
    fn counts(&self, shard: &Shard, scanned: &Scanned, seam: Seam, left: Option<u64>) -> bool {
        let begins_right = scanned.first == Some(seam) || shard.size == 0;
        let ends_right = left.is_none_or(|left| match scanned.capped {
            true => scanned.hits == left,
            false => scanned.hits <= left,
        });
        begins_right && ends_right
    }
}

/// A writer and what it writes to.
struct Out<'a> {
    writer: &'a dyn Writer,
    out: &'a mut Vec<u8>,
}

impl Sink for Out<'_> {
    fn hit(&mut self, hit: &Hit<'_>) -> std::io::Result<()> {
        self.writer.hit(hit, self.out)
    }

    fn lists_records(&self) -> bool {
        self.writer.lists_records()
    }

    fn record(&mut self, entry: &Entry<'_>) -> std::io::Result<()> {
        if self.writer.lists_records() {
            self.writer.record(entry, self.out)?;
        }
        Ok(())
    }
}

/// An object that is open.
enum Opened<'a> {
    File(File, u64),
    Memory(&'a [u8]),
}

impl<'a> Opened<'a> {
    fn size(&self) -> u64 {
        match self {
            Opened::File(_, size) => *size,
            Opened::Memory(bytes) => bytes.len() as u64,
        }
    }

    fn object(&self) -> &(dyn ReadAt + 'a) {
        match self {
            Opened::File(file, _) => file,
            Opened::Memory(bytes) => bytes,
        }
    }
}

impl Source {
    /// The object's URI.
    pub fn uri(&self) -> String {
        match self {
            Source::Stdin => "-".into(),
            Source::File(path) => match path.is_absolute() {
                true => uri::of_path(path),
                false => uri::of_path(&std::path::absolute(path).unwrap_or_else(|_| path.clone())),
            },
        }
    }

    /// Opens the object; a small one is read into `bytes`.
    fn open<'a>(&self, bytes: &'a mut Vec<u8>) -> Result<Opened<'a>, Skip> {
        match self {
            Source::Stdin => {
                bytes.clear();
                let read = std::io::stdin().lock().read_to_end(bytes);
                read.map_err(|e| Skip::new(0, 0, Reason::Unreadable).because(e.to_string()))?;
                Ok(Opened::Memory(bytes))
            }
            Source::File(path) => open(path, bytes),
        }
    }
}

fn open<'a>(path: &Path, bytes: &'a mut Vec<u8>) -> Result<Opened<'a>, Skip> {
    let unreadable = |e: std::io::Error| {
        let detail = match e.kind() {
            ErrorKind::NotFound => "it does not exist".into(),
            ErrorKind::PermissionDenied => "it may not be read".into(),
            _ => e.to_string(),
        };
        Skip::new(0, 0, Reason::Unreadable).because(detail)
    };
    let mut file = crate::object::open_file(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Skip::new(0, 0, Reason::NotADocument));
    }
    let size = metadata.len();
    if size > SMALL_BYTES {
        return Ok(Opened::File(file, size));
    }
    let bytes = dragnet_kernel::aligned(bytes, size as usize);
    match file.read_exact(bytes) {
        Ok(()) => Ok(Opened::Memory(bytes)),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
            Err(Skip::new(0, size, Reason::Changed).because("it has shrunk while it was read"))
        }
        Err(e) => Err(Skip { length: size, ..unreadable(e) }),
    }
}

/// Units that wait to be scanned.
#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    /// There is a unit to take, or there will be none.
    ready: Condvar,
    /// There is room for another unit.
    room: Condvar,
    /// No more hits are wanted: what is left is only named.
    stopped: AtomicBool,
}

#[derive(Default)]
struct QueueState {
    units: VecDeque<Unit>,
    /// No more objects come.
    closed: bool,
    /// Nobody waits for results any more.
    abandoned: bool,
    /// Units in hand, which may yet add others.
    busy: usize,
}

impl Queue {
    /// Hands over what `walk` names, in batches.
    fn fill<E>(&self, walk: impl FnOnce(&mut dyn FnMut(Source) -> bool) -> Result<(), E>) -> Result<(), E> {
        let (mut first, mut batch) = (0, Vec::new());
        let walked = walk(&mut |source| {
            batch.push(source);
            if batch.len() < BATCH_OBJECTS {
                return true;
            }
            let full = std::mem::take(&mut batch);
            first += full.len();
            self.add(Unit::Objects(first - full.len(), full))
        });
        if !batch.is_empty() {
            self.add(Unit::Objects(first, batch));
        }
        walked
    }

    /// Adds a unit when there is room; false where nobody wants it any more.
    fn add(&self, unit: Unit) -> bool {
        let mut state = self.lock();
        while state.units.len() >= QUEUE_UNITS && !state.abandoned {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.units.push_back(unit);
        self.ready.notify_one();
        !state.abandoned
    }

    /// Puts shards before all that waits, so that the object is done before others are begun.
    fn add_shards(&self, shards: impl DoubleEndedIterator<Item = Shard>) {
        let mut state = self.lock();
        for shard in shards.rev() {
            state.units.push_front(Unit::Shard(shard));
        }
        self.ready.notify_all();
    }

    /// Puts objects back, behind the shards of the one before them.
    fn give_back(&self, first: usize, sources: Vec<Source>) {
        if sources.is_empty() {
            return;
        }
        let mut state = self.lock();
        let shards = state.units.iter().take_while(|unit| matches!(unit, Unit::Shard(_))).count();
        state.units.insert(shards, Unit::Objects(first, sources));
        self.ready.notify_all();
    }

    /// The next unit; `None` when there will be none.
    fn take(&self) -> Option<(Unit, InHand<'_>)> {
        let mut state = self.lock();
        loop {
            if state.abandoned {
                return None;
            }
            if let Some(unit) = state.units.pop_front() {
                state.busy += 1;
                if state.units.len() == QUEUE_UNITS / 2 {
                    self.room.notify_one();
                }
                return Some((unit, InHand(self)));
            }
            if state.closed && state.busy == 0 {
                return None;
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_all();
    }

    fn abandon(&self) {
        self.lock().abandoned = true;
        self.ready.notify_all();
        self.room.notify_all();
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A unit that is being scanned, and may yet add others.
struct InHand<'a>(&'a Queue);

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.busy -= 1;
        if state.closed && state.busy == 0 {
            self.0.ready.notify_all();
        }
    }
}
