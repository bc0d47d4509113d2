//! Where Kafka is, and how its clients are set up. Time-outs are short: who waits for Kafka waits for a hint.

use crate::Error;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::StreamConsumer;
use rdkafka::producer::FutureProducer;
use rdkafka::types::RDKafkaErrorCode;
use std::time::Duration;

/// Partitions of a topic that we make: so many processes can share a group's messages.
const PARTITIONS: i32 = 3;
/// How long a call to the brokers may take.
const CALL: Duration = Duration::from_secs(5);

/// A Kafka cluster, and what the names of our topics and groups begin with.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// `HOST:PORT`, several with commas.
    pub bootstrap: String,
    /// What all names begin with, before a dot.
    pub prefix: String,
}

impl Kafka {
    /// A name within the prefix.
    pub fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", "dragnet")
            .set("socket.timeout.ms", CALL.as_millis().to_string())
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "1000");
        config
    }

    /// Acknowledged means: by all replicas that are in sync, once and in order.
    pub(crate) fn producer(&self) -> Result<FutureProducer, Error> {
        let mut config = self.client();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            .set("message.timeout.ms", CALL.as_millis().to_string());
        Ok(config.create()?)
    }

    pub(crate) fn consumer(&self, group: &str) -> Result<StreamConsumer, Error> {
        let mut config = self.client();
        config
            .set("group.id", self.name(group))
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "1000")
            .set("topic.metadata.refresh.interval.ms", "5000");
        Ok(config.create()?)
    }

    /// Makes topics that are missing.
    ///
    /// # Errors
    /// [`Error::Kafka`] when no broker answers in 5 s, [`Error::Topic`] when one refuses.
    pub async fn make_topics(&self, topics: &[String]) -> Result<(), Error> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let wanted: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|topic| NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(-1)))
            .collect();
        let options = AdminOptions::new().request_timeout(Some(CALL)).operation_timeout(Some(CALL));
        let made = admin.create_topics(&wanted, &options).await;
        drop_aside(admin);
        for result in made? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(Error::Topic { topic, code }),
            }
        }
        Ok(())
    }
}

/// Drops a client where that may wait for its threads.
pub(crate) fn drop_aside<T: Send + 'static>(client: T) {
    drop(tokio::task::spawn_blocking(move || drop(client)));
}
