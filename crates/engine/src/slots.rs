//! Mappers are few, and many jobs want one: whose shard runs next.
//!
//! A mapper that falls free goes to the tenant that has the fewest, and among those to the one that was served longest
//! ago; of a tenant's jobs to that of the highest priority, and of these to the oldest. So however much one tenant has
//! waiting, another's shard begins when the next mapper falls free.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// What decides whose turn it is.
#[derive(Debug, Clone)]
pub(crate) struct Claimed {
    pub(crate) tenant: String,
    pub(crate) priority: i64,
    /// Ids of runs grow with time.
    pub(crate) run: String,
}

/// So many mappers at once.
#[derive(Clone)]
pub(crate) struct Slots(Arc<Mutex<State>>);

struct State {
    free: usize,
    held: HashMap<String, usize>,
    /// When each tenant had a mapper last, counted in mappers that were given.
    served: HashMap<String, u64>,
    given: u64,
    waiting: Vec<Waiting>,
}

struct Waiting {
    by: Claimed,
    give: oneshot::Sender<Slot>,
}

/// The right to run one mapper, until it is dropped.
pub(crate) struct Slot {
    slots: Slots,
    tenant: String,
}

impl Slots {
    pub(crate) fn new(slots: usize) -> Slots {
        let (held, served, waiting) = (HashMap::new(), HashMap::new(), Vec::new());
        Slots(Arc::new(Mutex::new(State { free: slots, held, served, given: 0, waiting })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Slots that are held.
    pub(crate) fn held(&self) -> usize {
        self.state().held.values().sum()
    }

    /// Waits for a slot. Whoever stops waiting has lost nothing but may ask again: the turn does not depend on since when.
    pub(crate) async fn acquire(&self, by: &Claimed) -> Slot {
        loop {
            let (give, given) = oneshot::channel();
            self.state().waiting.push(Waiting { by: by.clone(), give });
            self.give_all();
            if let Ok(slot) = given.await {
                return slot;
            }
        }
    }

    /// Gives what is free to those whose turn it is.
    fn give_all(&self) {
        loop {
            let next = self.state().next();
            let Some(Waiting { by, give }) = next else { return };
            let slot = Slot { slots: self.clone(), tenant: by.tenant };
            // Whoever has gone meanwhile drops it here, where nothing is locked, and it goes to the next.
            drop(give.send(slot));
        }
    }
}

impl State {
    /// Takes out of those that wait the one whose turn it is, with a slot.
    fn next(&mut self) -> Option<Waiting> {
        self.waiting.retain(|waiting| !waiting.give.is_closed());
        if self.free == 0 {
            return None;
        }
        let of = |map: &HashMap<String, u64>, tenant: &str| map.get(tenant).copied().unwrap_or_default();
        let turn = self.waiting.iter().enumerate().min_by_key(|(place, Waiting { by, .. })| {
            let held = self.held.get(&by.tenant).copied().unwrap_or_default();
            (held, of(&self.served, &by.tenant), &by.tenant, Reverse(by.priority), &by.run, *place)
        });
        let waiting = turn.map(|(place, _)| place).map(|place| self.waiting.remove(place))?;
        self.free -= 1;
        self.given += 1;
        *self.held.entry(waiting.by.tenant.clone()).or_default() += 1;
        self.served.insert(waiting.by.tenant.clone(), self.given);
        Some(waiting)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.state();
        state.free += 1;
        if let Some(held) = state.held.get_mut(&self.tenant) {
            *held -= 1;
            if *held == 0 {
                state.held.remove(&self.tenant);
            }
        }
        drop(state);
        self.slots.give_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    /// One that holds a slot until it is told to end, and names itself when it has one.
    fn shard(slots: &Slots, name: &str, priority: i64, had: &mpsc::UnboundedSender<(String, Slot)>) {
        let tenant = name.split('/').next().unwrap().to_owned();
        let by = Claimed { tenant, priority, run: name.to_owned() };
        let (slots, had) = (slots.clone(), had.clone());
        tokio::spawn(async move {
            let slot = slots.acquire(&by).await;
            let _ = had.send((by.run, slot));
        });
    }

    /// The order in which shards run on so many mappers, where each ends when the next is awaited.
    async fn order(mappers: usize, shards: &[(&str, i64)]) -> Vec<String> {
        let slots = Slots::new(mappers);
        let first = Claimed { tenant: "first".into(), priority: 0, run: String::new() };
        let mut blocked = Vec::new();
        for _ in 0..mappers {
            blocked.push(slots.acquire(&first).await);
        }
        let (had, mut order) = mpsc::unbounded_channel();
        for (name, priority) in shards {
            shard(&slots, name, *priority, &had);
        }
        // All of them wait before the first mapper falls free.
        while slots.state().waiting.len() < shards.len() {
            tokio::task::yield_now().await;
        }
        drop(blocked);
        let mut names = Vec::new();
        for _ in shards {
            names.push(order.recv().await.unwrap().0);
        }
        names
    }

    #[tokio::test]
    async fn tenants_take_turns_and_within_one_priority_and_age_decide() {
        type Shards = &'static [(&'static str, i64)];
        let table: [(Shards, &[&str]); 4] = [
            (&[("a/1", 5), ("a/2", 5), ("a/3", 5), ("b/1", 5)], &["a/1", "b/1", "a/2", "a/3"]),
            (&[("a/2", 5), ("a/1", 5), ("a/3", 9)], &["a/3", "a/1", "a/2"]),
            // A priority counts within its tenant alone.
            (&[("a/1", 0), ("b/1", 9), ("b/2", 9)], &["a/1", "b/1", "b/2"]),
            (
                &[("c/1", 5), ("b/1", 5), ("a/1", 5), ("c/2", 5), ("a/2", 5)],
                &["a/1", "b/1", "c/1", "a/2", "c/2"],
            ),
        ];
        for (shards, expected) in table {
            assert_eq!(order(1, shards).await, expected);
        }
    }

    #[tokio::test]
    async fn a_crowd_delays_another_tenant_by_one_shard() {
        let slots = Slots::new(2);
        let (had, mut order) = mpsc::unbounded_channel();
        for n in 0..1000 {
            shard(&slots, &format!("crowd/{n:04}"), 9, &had);
        }
        let first = [order.recv().await.unwrap(), order.recv().await.unwrap()];
        while slots.state().waiting.len() < 998 {
            tokio::task::yield_now().await;
        }
        shard(&slots, "small/1", 0, &had);
        while slots.state().waiting.len() < 999 {
            tokio::task::yield_now().await;
        }
        let [one, other] = first;
        drop(one);
        assert_eq!(order.recv().await.unwrap().0, "small/1", "it has the mapper that fell free first");
        drop(other);
    }

    #[tokio::test]
    async fn who_stops_waiting_takes_nothing_along() {
        let slots = Slots::new(1);
        let by = |run: &str| Claimed { tenant: run.into(), priority: 5, run: run.into() };
        let held = slots.acquire(&by("a")).await;
        for _ in 0..100 {
            let waited = tokio::time::timeout(std::time::Duration::ZERO, slots.acquire(&by("b"))).await;
            assert!(waited.is_err());
        }
        drop(held);
        drop(slots.acquire(&by("c")).await);
        let state = slots.state();
        assert_eq!((state.free, state.waiting.len(), state.held.len()), (1, 0, 0));
    }
}
