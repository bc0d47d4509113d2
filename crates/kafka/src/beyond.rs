//! A controller on the other side of Kafka: its group and row stand in the store like any other's, and its
//! step publishes an event, until somebody confirms it through the API.
//!
//! At least once: what is not confirmed in time is published again with the same id, also when Kafka has lost
//! all that it was given. Who is told keeps what it has seen.

use crate::publisher::PUBLISH_MAX;
use crate::{Event, Publisher, Record};
use async_trait::async_trait;
use dragnet_pattern::{Advance, Claim, Controller, Dependency, DependencyPolicy, Failure, Next, Store};
use serde_json::json;
use std::time::Duration;

/// Publishes an event for each work of a topic until it is confirmed.
pub struct Beyond {
    name: &'static str,
    topic: &'static str,
    publisher: Publisher,
    dependency: Dependency,
    confirm: Duration,
}

impl Beyond {
    /// A controller `name` on `topic`, whose events are published again when they are not confirmed after
    /// `confirm`.
    pub fn new(name: &'static str, topic: &'static str, publisher: Publisher, confirm: Duration) -> Beyond {
        let policy = DependencyPolicy {
            timeout: PUBLISH_MAX,
            // To publish again is this controller's purpose: the breaker alone holds it back.
            retry_share: 1.0,
            backoff: (Duration::from_millis(200), Duration::from_secs(5)),
            ..DependencyPolicy::default()
        };
        Beyond { name, topic, publisher, dependency: Dependency::new("kafka", policy), confirm }
    }
}

#[async_trait]
impl Controller for Beyond {
    fn name(&self) -> &'static str {
        self.name
    }

    fn topic(&self) -> &'static str {
        self.topic
    }

    /// What ended is told however long Kafka is away: nobody would look at a job that has ended to redrive it.
    fn waits_without_end(&self) -> bool {
        true
    }

    async fn step(&self, store: &dyn Store, claim: &Claim) -> Result<Advance, Failure> {
        let published = claim.row.metrics.get("published").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if store.confirmed(&claim.work.id, self.name).await? {
            if claim.row.settled {
                return Ok(Advance::to(Next::Done));
            }
            let event = format!("{}.confirmed", self.name);
            let done = Advance { settled: true, ..Advance::to(Next::Done) };
            return Ok(done.event(&event, json!({ "published": published })));
        }
        let record = Record {
            topic: format!("beyond.{}", self.name),
            event: Event::beyond(self.name, self.topic, claim),
        };
        let tries = u32::try_from(claim.row.tries).unwrap_or(u32::MAX);
        let records = [record];
        self.dependency.call(tries, self.publisher.publish(&records)).await?;
        let mut again = Advance::to(Next::Again(self.confirm));
        again.metrics = Some(json!({ "published": published + 1 }));
        Ok(again)
    }
}
