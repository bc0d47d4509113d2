//! Publishes events and waits until the brokers have them. A producer that has failed once is replaced: the
//! brokers that come back may know neither its number nor its topics.

use crate::config::drop_aside;
use crate::event::MEDIA_TYPE;
use crate::{Error, Event, Kafka};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::Mutex;

/// An event and where it goes.
#[derive(Debug, Clone)]
pub struct Record {
    /// The topic, without the prefix.
    pub topic: String,
    /// The event; its subject is the key.
    pub event: Event,
}

/// A client that publishes, shared by all that do.
pub struct Publisher {
    kafka: Kafka,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    producer: Option<FutureProducer>,
    /// Topics that are known to be there.
    made: BTreeSet<String>,
}

impl Publisher {
    /// A publisher that connects when it is first used.
    pub fn new(kafka: Kafka) -> Publisher {
        Publisher { kafka, state: Mutex::default() }
    }

    /// Publishes all records and returns when all in-sync replicas have them. After an error any of them may
    /// have been published.
    ///
    /// # Errors
    /// [`Error::Kafka`] when they were not all acknowledged within 5 s, and those of
    /// [`Kafka::make_topics`].
    pub async fn publish(&self, records: &[Record]) -> Result<(), Error> {
        let published = self.try_publish(records).await;
        if published.is_err() {
            let State { producer, .. } = std::mem::take(&mut *self.state.lock().await);
            drop_aside(producer);
        }
        published
    }

    async fn try_publish(&self, records: &[Record]) -> Result<(), Error> {
        let topics: BTreeSet<String> = records.iter().map(|record| self.kafka.name(&record.topic)).collect();
        let producer = self.producer_for(&topics).await?;
        let mut sent = Vec::with_capacity(records.len());
        for record in records {
            let topic = self.kafka.name(&record.topic);
            let payload = record.event.to_json(&self.kafka.prefix);
            let headers = OwnedHeaders::new().insert(Header { key: "content-type", value: Some(MEDIA_TYPE) });
            let record =
                FutureRecord::to(&topic).key(&record.event.subject).payload(&payload).headers(headers);
            sent.push(producer.send_result(record).map_err(|(e, _)| e)?);
        }
        for delivery in sent {
            delivery.await.map_err(|_| Error::Stopped)?.map_err(|(e, _)| e)?;
        }
        Ok(())
    }

    async fn producer_for(&self, topics: &BTreeSet<String>) -> Result<FutureProducer, Error> {
        let mut state = self.state.lock().await;
        let missing: Vec<String> = topics.difference(&state.made).cloned().collect();
        if !missing.is_empty() {
            self.kafka.make_topics(&missing).await?;
            state.made.extend(missing);
        }
        if state.producer.is_none() {
            state.producer = Some(self.kafka.producer()?);
        }
        state.producer.clone().ok_or(Error::Stopped)
    }
}

/// The longest that [`Publisher::publish`] takes: topics, then acknowledgements.
pub(crate) const PUBLISH_MAX: Duration = Duration::from_secs(12);
