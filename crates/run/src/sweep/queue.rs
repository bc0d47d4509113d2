//! The units that wait to be scanned, in the dataset's order, and how far the scan may run ahead of what is
//! handed out.

use super::{Shard, Source};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Objects that are handed over together.
const BATCH_OBJECTS: usize = 64;
/// Units that wait at most.
const UNITS_MAX: usize = 256;
/// Bytes of output that may wait for an earlier unit; from there on only that one is scanned.
const OUTPUT_BYTES_MAX: u64 = 64 << 20;

pub(super) enum Unit {
    /// Objects from a place on.
    Objects(usize, Vec<Source>),
    /// A shard of an object.
    Shard(Shard),
}

/// What waits.
enum Waiting {
    Objects(usize, Vec<Source>),
    /// The shards of an object from a number on, each as long as the first.
    Shards {
        first: Shard,
        next: u64,
    },
}

/// A unit's place: its object's, and the shard's number in it.
pub(super) type Turn = (usize, u64);

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// There may be a unit to take, or there will be none.
    ready: Condvar,
    /// There is room for another unit.
    room: Condvar,
    /// No more hits are wanted: what is left is only named.
    stopped: AtomicBool,
    /// As [`State::abandoned`], for who looks often.
    ended: AtomicBool,
}

#[derive(Default)]
struct State {
    units: VecDeque<Waiting>,
    /// No more objects come.
    closed: bool,
    /// Nobody waits for results any more.
    abandoned: bool,
    /// Units in hand, which may yet add others.
    busy: usize,
    /// Whose output is handed out next.
    turn: Turn,
    /// Bytes of output that wait for their turn.
    output: u64,
}

impl Waiting {
    fn has(&self, turn: Turn) -> bool {
        match self {
            Waiting::Objects(first, sources) => (*first..first + sources.len()).contains(&turn.0),
            // Shards are taken one after the other, so the one whose turn it is is the next.
            Waiting::Shards { first, next } => first.place == turn.0 && *next <= turn.1,
        }
    }
}

impl State {
    /// The unit that may be scanned now.
    fn next(&mut self) -> Option<Unit> {
        let at = match self.output < OUTPUT_BYTES_MAX {
            true => 0,
            false => self.units.iter().position(|unit| unit.has(self.turn))?,
        };
        if let Some(Waiting::Shards { first, next }) = self.units.get_mut(at)
            && *next + 1 < first.of
        {
            *next += 1;
            return Some(Unit::Shard(first.numbered(*next - 1)));
        }
        Some(match self.units.remove(at)? {
            Waiting::Objects(first, sources) => Unit::Objects(first, sources),
            Waiting::Shards { first, next } => Unit::Shard(first.numbered(next)),
        })
    }
}

impl Queue {
    /// Hands over what `walk` names, in batches.
    pub(super) fn fill<E>(
        &self,
        walk: impl FnOnce(&mut dyn FnMut(Source) -> bool) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut first, mut batch) = (0, Vec::new());
        let walked = walk(&mut |source| {
            batch.push(source);
            if batch.len() < BATCH_OBJECTS {
                return true;
            }
            let full = std::mem::take(&mut batch);
            first += full.len();
            self.add(Waiting::Objects(first - full.len(), full))
        });
        if !batch.is_empty() {
            self.add(Waiting::Objects(first, batch));
        }
        walked
    }

    /// Adds a unit when there is room; false where nobody wants it any more.
    fn add(&self, unit: Waiting) -> bool {
        let mut state = self.lock();
        while state.units.len() >= UNITS_MAX && !state.abandoned {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.units.push_back(unit);
        self.ready.notify_one();
        !state.abandoned
    }

    /// Puts the other shards of an object before all that waits, so that it is done before others are begun.
    pub(super) fn add_others(&self, first: &Shard) {
        self.lock().units.push_front(Waiting::Shards { first: first.clone(), next: 1 });
        self.ready.notify_all();
    }

    /// Puts objects back, behind the shards of the one before them.
    pub(super) fn give_back(&self, first: usize, sources: Vec<Source>) {
        if sources.is_empty() {
            return;
        }
        let mut state = self.lock();
        let shards = state.units.iter().take_while(|unit| matches!(unit, Waiting::Shards { .. })).count();
        state.units.insert(shards, Waiting::Objects(first, sources));
        self.ready.notify_all();
    }

    /// The next unit; `None` when there will be none.
    pub(super) fn take(&self) -> Option<(Unit, InHand<'_>)> {
        let mut state = self.lock();
        loop {
            if state.abandoned {
                return None;
            }
            if let Some(unit) = state.next() {
                state.busy += 1;
                if state.units.len() == UNITS_MAX / 2 {
                    self.room.notify_one();
                }
                return Some((unit, InHand(self)));
            }
            if state.closed && state.busy == 0 && state.units.is_empty() {
                return None;
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Counts output that waits for its turn.
    pub(super) fn waits(&self, bytes: u64) {
        self.lock().output += bytes;
    }

    /// Counts output that was handed out, and says whose turn it is now.
    pub(super) fn handed_out(&self, bytes: u64, turn: Turn) {
        let mut state = self.lock();
        let was_held = state.output >= OUTPUT_BYTES_MAX;
        state.output -= bytes;
        state.turn = turn;
        if was_held {
            self.ready.notify_all();
        }
    }

    pub(super) fn abandon(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.lock().abandoned = true;
        self.ready.notify_all();
        self.room.notify_all();
    }

    /// No more objects come once the guard is dropped.
    pub(super) fn closes(&self) -> impl Drop + '_ {
        Guard(move || {
            self.lock().closed = true;
            self.ready.notify_all();
        })
    }

    /// Nobody waits for results once the guard is dropped.
    pub(super) fn ends(&self) -> impl Drop + '_ {
        Guard(move || self.abandon())
    }

    /// Becomes true when nobody waits for results any more.
    pub(super) fn ended(&self) -> &AtomicBool {
        &self.ended
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does something when it is dropped.
struct Guard<F: FnMut()>(F);

impl<F: FnMut()> Drop for Guard<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A unit that is being scanned, and may yet add others.
pub(super) struct InHand<'a>(&'a Queue);

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Its turn will never come: the others must not wait for it.
            self.0.abandon();
        }
        let mut state = self.0.lock();
        state.busy -= 1;
        if state.closed && state.busy == 0 {
            self.0.ready.notify_all();
        }
    }
}
