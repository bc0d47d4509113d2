//! The outbox relay: publishes what the store has to say and notes what the brokers have taken.
//!
//! Any number of relays may run; a message that two of them publish is looked at twice. One that was
//! consumed before its turn is gone from the outbox, and nobody misses it.

use crate::consumer::stopped;
use crate::{Error, Event, Kafka, Publisher, Record};
use dragnet_pattern::{OUTBOX, Store, full_jitter};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Messages that are published and noted together.
const AT_ONCE: usize = 512;
/// How often the outbox is looked at while messages come, and for how long after the last one.
const BUSY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));
/// How often it is looked at otherwise: other processes write to it as well.
const QUIET: Duration = Duration::from_millis(100);
/// The first and the longest delay after an error.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Relays messages until `stop` becomes true. Errors are logged once per outage and tried again.
pub async fn relay(store: Arc<dyn Store>, kafka: Kafka, mut stop: watch::Receiver<bool>) {
    let publisher = Publisher::new(kafka);
    let signal = store.signal(OUTBOX);
    let (mut failures, mut last) = (0, Instant::now());
    loop {
        let pause = match relay_some(&*store, &publisher).await {
            Ok(relayed) => {
                if failures > 0 {
                    tracing::info!("messages are relayed to Kafka again");
                }
                failures = 0;
                if relayed > 0 {
                    last = Instant::now();
                }
                match relayed {
                    AT_ONCE.. => Duration::ZERO,
                    _ if last.elapsed() < BUSY.1 => BUSY.0,
                    _ => QUIET,
                }
            }
            Err(e) => {
                if failures == 0 {
                    tracing::warn!(error = %e, "messages can't be relayed to Kafka now; works go on by the sweeper");
                }
                failures += 1;
                full_jitter(BACKOFF, failures).max(BACKOFF.0)
            }
        };
        let is_up = failures == 0;
        tokio::select! {
            () = signal.notified(), if is_up => {}
            () = tokio::time::sleep(pause) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

async fn relay_some(store: &dyn Store, publisher: &Publisher) -> Result<usize, Error> {
    let messages = store.unrelayed(AT_ONCE).await?;
    if messages.is_empty() {
        return Ok(0);
    }
    let records: Vec<Record> = messages
        .iter()
        .map(|message| Record { topic: message.topic.clone(), event: Event::look(message) })
        .collect();
    publisher.publish(&records).await?;
    store.relayed(messages.iter().map(|message| message.id).collect()).await?;
    Ok(messages.len())
}
