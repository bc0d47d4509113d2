//! A job's events: as they happen, by server-sent events, or as a page of JSON.
//!
//! A stream asks the store for the next events when its client has taken the last ones, so a slow client costs no
//! memory; and whichever process writes them, they are seen.

use crate::answer::answer;
use crate::gate::Agreed;
use crate::jobs::find;
use crate::routes::EVENT_STREAM;
use crate::watch::{Watch, has_ended};
use crate::{Api, Caller, Problem};
use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use dragnet_job::view;
use dragnet_pattern::{Error, Event};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::collections::VecDeque;
use std::time::Duration;

/// Events that are read at once.
const BATCH: usize = 100;
/// A line is sent at least this often, so that nobody on the way takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a client waits before it comes back.
const RETRY: Duration = Duration::from_secs(1);
const LAST_EVENT_ID: &str = "last-event-id";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsQuery {
    limit: Option<usize>,
    #[serde(default, deserialize_with = "crate::number::cursor")]
    cursor: Option<i64>,
}

pub(crate) async fn events(
    State(api): State<Api>,
    caller: Caller,
    Extension(Agreed(media)): Extension<Agreed>,
    Path(id): Path<String>,
    query: Result<Query<EventsQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let (work, _) = find(&api, &caller, &id).await?;
    let last = headers.get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or("?"));
    let after = match last {
        None => query.cursor.unwrap_or(0),
        Some(text) => text.parse::<i64>().ok().filter(|seq| *seq >= 0).ok_or_else(|| {
            Problem::invalid(format!("`{text}` is no id of an event of this job: begin without one"))
        })?,
    };
    let limit = query.limit.unwrap_or(BATCH);
    if !(1..=1000).contains(&limit) {
        return Err(Problem::invalid(format!("`limit` is {limit}: 1 to 1000 are taken")));
    }
    if media != EVENT_STREAM {
        let events = api.store.events(&id, after, limit).await?;
        let next = events.last().map_or(after, |event| event.seq);
        let more = events.len() == limit || !work.status.is_terminal();
        let events: Vec<Json> = events.iter().map(shown).collect();
        let next = more.then(|| next.to_string());
        return Ok(answer(StatusCode::OK, &json!({ "events": events, "next": next })));
    }
    // Upon 204 an EventSource comes back no more.
    if last.is_some() && work.status.is_terminal() && api.store.events(&id, after, 1).await?.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let watch = api.watches.enter(&caller.tenant)?;
    let begin = std::iter::once(Ok(sse::Event::default().retry(RETRY).comment("events of a job")));
    let follower = Follower { api, caller, id, after, read: VecDeque::new(), over: false, watch };
    let messages = futures_util::stream::unfold(follower, |mut follower| async {
        let message = follower.next().await?;
        Some((message, follower))
    });
    let messages = futures_util::StreamExt::chain(futures_util::stream::iter(begin), messages);
    Ok(Sse::new(messages).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// An event as clients see it.
fn shown(event: &Event) -> Json {
    json!({ "seq": event.seq, "at": view::time(event.at_ms), "kind": event.kind, "data": event.data })
}

/// Where a client is in a job's events.
struct Follower {
    api: Api,
    caller: Caller,
    id: String,
    /// The number of the last event that was read.
    after: i64,
    /// Read, and not sent.
    read: VecDeque<Event>,
    over: bool,
    watch: Watch,
}

impl Follower {
    /// The next message; nothing when the job has ended, the service stops, or the store fails: then the client
    /// comes back with the last id.
    async fn next(&mut self) -> Option<Result<sse::Event, axum::Error>> {
        loop {
            if let Some(event) = self.read.pop_front() {
                let message = sse::Event::default().id(event.seq.to_string()).event(&event.kind);
                return Some(message.json_data(shown(&event)));
            }
            if self.over {
                return None;
            }
            self.over = match self.look().await {
                Ok(ended) => ended && self.read.is_empty(),
                Err(e) => {
                    tracing::warn!(error = %e, "a stream of events ends early");
                    return None;
                }
            };
            if self.over {
                return Some(Ok(sse::Event::default().event("end").data("the job has ended")));
            }
            if !self.read.is_empty() {
                self.watch.changed();
            } else if !self.watch.pause(None).await {
                return None;
            }
        }
    }

    /// Reads what has happened. Returns whether the job had ended before that: then nothing follows what was read.
    async fn look(&mut self) -> Result<bool, Error> {
        if !self.api.door.holds(&self.caller).await? {
            return Err(Error::Refused(format!("the key that follows `{}` has ended", self.id)));
        }
        let ended = has_ended(&*self.api.store, &self.id).await?;
        self.read = self.api.store.events(&self.id, self.after, BATCH).await?.into();
        self.after = self.read.back().map_or(self.after, |event| event.seq);
        Ok(ended)
    }
}
