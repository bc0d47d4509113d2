//! Messages as CloudEvents 1.0 in structured mode: JSON that holds ids alone.

use dragnet_pattern::{Claim, Message};
use serde_json::{Value as Json, json};

/// The media type of a structured event, for the header `content-type`.
pub(crate) const MEDIA_TYPE: &str = "application/cloudevents+json; charset=UTF-8";
/// The type of what a relay publishes.
const LOOK: &str = "dragnet.look";

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Unique within the source and the same however often it is published.
    pub id: String,
    /// What it says.
    pub kind: String,
    /// The work, which is the message's key too.
    pub subject: String,
    /// When what it tells happened, in milliseconds since 1970.
    pub time_ms: i64,
    /// Ids, never a match and never a state.
    pub data: Json,
}

impl Event {
    /// A message of the store.
    pub fn look(message: &Message) -> Event {
        Event {
            id: format!("message/{}", message.id),
            kind: LOOK.into(),
            subject: message.work.clone(),
            time_ms: message.created_ms,
            data: json!({ "message": message.id }),
        }
    }

    /// What a controller beyond the store is told of a work.
    pub fn beyond(name: &str, topic: &str, claim: &Claim) -> Event {
        let work = &claim.work;
        Event {
            id: format!("{}/{name}", work.id),
            kind: format!("dragnet.{topic}"),
            subject: work.id.clone(),
            time_ms: work.ended_ms.unwrap_or(work.created_ms),
            data: json!({ "job": work.id, "tenant": work.tenant }),
        }
    }

    /// The event as it is published by the service that calls itself `source`.
    pub fn to_json(&self, source: &str) -> String {
        let time = jiff::Timestamp::from_millisecond(self.time_ms).unwrap_or_default();
        json!({
            "specversion": "1.0",
            "id": self.id,
            "source": format!("/dragnet/{source}"),
            "type": self.kind,
            "subject": self.subject,
            "time": format!("{time:.3}"),
            "datacontenttype": "application/json",
            "data": self.data,
        })
        .to_string()
    }
}

/// The number of the store's message that a payload carries. None for whatever else was put into the topic.
pub(crate) fn message_of(payload: &[u8]) -> Option<i64> {
    let event: Json = serde_json::from_slice(payload).ok()?;
    event.get("data")?.get("message")?.as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_cloud_event_and_is_read_back() {
        let message = Message { id: 7, topic: "launch".into(), work: "w".into(), created_ms: 1_500 };
        let text = Event::look(&message).to_json("dragnet");
        let event: Json = serde_json::from_str(&text).unwrap();
        let expected = json!({
            "specversion": "1.0", "id": "message/7", "source": "/dragnet/dragnet", "type": "dragnet.look", "subject": "w",
            "time": "1970-01-01T00:00:01.500Z", "datacontenttype": "application/json", "data": { "message": 7 },
        });
        assert_eq!(event, expected);
        assert_eq!(message_of(text.as_bytes()), Some(7));
    }

    #[test]
    fn anything_else_is_no_message() {
        let table: [&[u8]; 6] =
            [b"", b"\xff\xfe\x00", b"{", b"[1]", b"{\"data\":{\"message\":\"7\"}}", b"{\"data\":7}"];
        for payload in table {
            assert_eq!(message_of(payload), None, "{payload:?}");
        }
    }
}
