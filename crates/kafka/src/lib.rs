//! Apache Kafka between machines: a relay that publishes the store's messages, consumers that wake
//! controllers, and controllers that live on the other side.
//!
//! The store stays the truth. What Kafka carries says "look" and no more: a message that comes twice, late,
//! out of order or never costs time alone, and all of Kafka's data may be lost. `docs/messages.md` is the
//! contract with programs that are not ours.

mod beyond;
mod config;
mod consumer;
mod error;
mod event;
mod publisher;
mod relay;

pub use beyond::Beyond;
pub use config::Kafka;
pub use consumer::{Waker, wake};
pub use error::Error;
pub use event::Event;
pub use publisher::{Publisher, Record};
pub use relay::relay;
