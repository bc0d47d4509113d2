//! A consumer for a controller: each message of its topic wakes the controller's worker, which then looks
//! into the store. What the message says is not believed.
//!
//! An offset is committed once the store has consumed what it stands for, so that a message that nobody
//! acted upon comes again to the next process of the group.

use crate::config::drop_aside;
use crate::event::message_of;
use crate::{Error, Kafka};
use dragnet_pattern::{Store, full_jitter};
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Message, Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often offsets are committed.
const COMMIT: Duration = Duration::from_millis(500);
/// After so long an offset is committed whatever the store says: delays and retries stand there, not here.
const HELD_MAX: Duration = Duration::from_secs(10);
/// The first and the longest delay after an error.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// Who is woken by which topics.
#[derive(Debug, Clone)]
pub struct Waker {
    /// The controller's name, which is also its group's.
    pub controller: String,
    /// The topic that it listens to, without the prefix.
    pub topic: String,
}

impl Waker {
    /// What is sent again for one group alone has the topic of its name.
    fn topics(&self, kafka: &Kafka) -> Vec<String> {
        let both: BTreeSet<&str> = [self.topic.as_str(), self.controller.as_str()].into();
        both.into_iter().map(|topic| kafka.name(topic)).collect()
    }
}

/// Wakes a controller until `stop` becomes true. Errors are logged once per outage; then a new consumer begins.
pub async fn wake(store: Arc<dyn Store>, kafka: Kafka, waker: Waker, mut stop: watch::Receiver<bool>) {
    let mut failures = 0;
    while !*stop.borrow() {
        let Err(e) = listen(&*store, &kafka, &waker, &mut failures, stop.clone()).await else { return };
        // The brokers may not know of a topic yet that was just made.
        if failures == 0 && !is_unknown_topic(&e) {
            tracing::warn!(controller = waker.controller, error = %e, "Kafka can't be listened to now");
        }
        failures += 1;
        tokio::select! {
            () = tokio::time::sleep(full_jitter(BACKOFF, failures).max(BACKOFF.0)) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

fn is_unknown_topic(e: &Error) -> bool {
    matches!(e, Error::Kafka(e) if e.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownTopicOrPartition))
}

/// Waits until the process is to stop.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stopped| *stopped).await;
}

/// Listens until the process is to stop or Kafka fails.
async fn listen(
    store: &dyn Store,
    kafka: &Kafka,
    waker: &Waker,
    failures: &mut u32,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Error> {
    let topics = waker.topics(kafka);
    kafka.make_topics(&topics).await?;
    let consumer = Listening(Some(kafka.consumer(&waker.controller)?));
    consumer.get()?.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
    let signal = store.signal(&waker.controller);
    // What was sent meanwhile may not have been heard.
    signal.notify_one();
    let mut seen = Seen::default();
    let mut commits = tokio::time::interval(COMMIT);
    commits.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return Ok(()),
            message = consumer.get()?.recv() => {
                let message = message?;
                if std::mem::take(failures) > 0 {
                    tracing::info!(controller = waker.controller, "Kafka is listened to again");
                }
                let id = message.payload().and_then(message_of);
                seen.add(message.topic(), message.partition(), message.offset(), id);
                signal.notify_one();
            }
            _ = commits.tick() => commit(store, consumer.get()?, waker, &mut seen).await,
        }
    }
}

/// Commits what the store has consumed. An error costs only that messages come again.
async fn commit(store: &dyn Store, consumer: &StreamConsumer, waker: &Waker, seen: &mut Seen) {
    let Some(range) = seen.range() else { return seen.forget(consumer, &BTreeSet::new()) };
    match store.unconsumed(&waker.controller, range).await {
        Ok(open) => seen.forget(consumer, &open.into_iter().collect()),
        Err(e) => tracing::debug!(error = %e, "offsets are committed later"),
    }
}

/// A consumer that leaves its group aside when it is dropped, as that waits for the brokers.
struct Listening(Option<StreamConsumer>);

impl Listening {
    fn get(&self) -> Result<&StreamConsumer, Error> {
        self.0.as_ref().ok_or(Error::Stopped)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        drop_aside(self.0.take());
    }
}

/// Messages whose offsets are not committed yet, by topic and partition in their order.
#[derive(Default)]
struct Seen(BTreeMap<(String, i32), VecDeque<Held>>);

struct Held {
    offset: i64,
    /// The store's message; none for what is no message of ours.
    message: Option<i64>,
    since: Instant,
}

impl Seen {
    fn add(&mut self, topic: &str, partition: i32, offset: i64, message: Option<i64>) {
        let held = Held { offset, message, since: Instant::now() };
        self.0.entry((topic.to_owned(), partition)).or_default().push_back(held);
    }

    /// The first and the last of the store's messages.
    fn range(&self) -> Option<(i64, i64)> {
        let ids = || self.0.values().flatten().filter_map(|held| held.message);
        Some((ids().min()?, ids().max()?))
    }

    /// Forgets what is done, up to the first in each partition that is not, and returns where each goes on.
    fn done(&mut self, open: &BTreeSet<i64>) -> Vec<(String, i32, i64)> {
        let mut next = Vec::new();
        for ((topic, partition), held) in &mut self.0 {
            let is_open = |held: &Held| {
                held.message.is_some_and(|id| open.contains(&id)) && held.since.elapsed() < HELD_MAX
            };
            let mut last = None;
            while held.front().is_some_and(|first| !is_open(first)) {
                last = held.pop_front().map(|held| held.offset);
            }
            next.extend(last.map(|offset| (topic.clone(), *partition, offset + 1)));
        }
        next
    }

    fn forget(&mut self, consumer: &StreamConsumer, open: &BTreeSet<i64>) {
        let mut offsets = TopicPartitionList::new();
        for (topic, partition, next) in self.done(open) {
            let _ = offsets.add_partition_offset(&topic, partition, Offset::Offset(next));
        }
        if offsets.count() > 0
            && let Err(e) = consumer.commit(&offsets, CommitMode::Async)
        {
            tracing::debug!(error = %e, "offsets were not committed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_done_when_all_before_it_are() {
        let mut seen = Seen::default();
        for (offset, message) in [(4, Some(10)), (5, None), (6, Some(12)), (7, Some(11))] {
            seen.add("t", 0, offset, message);
        }
        assert_eq!(seen.range(), Some((10, 12)));
        let table: [(&[i64], Option<i64>); 5] =
            [(&[10, 12], None), (&[12], Some(6)), (&[12], None), (&[11], Some(7)), (&[], Some(8))];
        for (open, next) in table {
            let next: Vec<_> = next.map(|next| ("t".to_owned(), 0, next)).into_iter().collect();
            assert_eq!(seen.done(&open.iter().copied().collect()), next, "{open:?} are open");
        }
        assert_eq!(seen.range(), None);
    }
}
