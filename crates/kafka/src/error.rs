//! What can go wrong with Kafka.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client or the brokers failed.
    #[error("Kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// A topic could not be made.
    #[error("Kafka: the topic `{topic}` could not be made: {code}")]
    Topic {
        /// The topic.
        topic: String,
        /// What the broker answered.
        code: rdkafka::types::RDKafkaErrorCode,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] dragnet_pattern::Error),
    /// The process is ending.
    #[error("the client of Kafka was stopped")]
    Stopped,
}
