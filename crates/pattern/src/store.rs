//! What a store can do: the verbs of the pattern, each one transaction.
//!
//! There is one trait, so that controllers, API and tests see no database. [`crate::sqlite`] is the
//! embedded one, `postgres` the one for several machines; the suite in `tests/store.rs` is written against the trait alone.

use crate::{Error, Status, Step};
use async_trait::async_trait;
use serde_json::Value as Json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// One accepted request of any kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// Sortable by time (UUID version 7).
    pub id: String,
    /// Who submitted it and is billed.
    pub tenant: String,
    /// What kind of work it is; names its [`crate::Machine`].
    pub kind: String,
    /// What is to be done, as the kind understands it.
    pub spec: Json,
    /// How far it has come.
    pub stage: String,
    /// Where it stands.
    pub status: Status,
    /// How it will end, once that is known.
    pub outcome: Option<Status>,
    /// Why it failed or is parked, for its client.
    pub error: Option<Json>,
    /// Whether its client no longer wants it.
    pub cancel: bool,
    /// Milliseconds since 1970, as all times here.
    pub created_ms: i64,
    /// When a controller first claimed it.
    pub started_ms: Option<i64>,
    /// When it became terminal.
    pub ended_ms: Option<i64>,
    /// When its client wants it to be over, if ever.
    pub deadline_ms: Option<i64>,
    /// The number of its last event: grows with every change, so it versions the work.
    pub events: i64,
    /// From 0 to 9: among works of its tenant that wait, the highest goes first.
    pub priority: i64,
}

/// The priority of a work whose client asks for none.
pub const PRIORITY: i64 = 5;
/// The highest priority; the lowest is 0.
pub const PRIORITY_MAX: i64 = 9;

/// A controller's row of a work: its alone to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The controller's name, which is also its group's.
    pub controller: String,
    /// Where the row stands.
    pub step: Step,
    /// The number of the last claim: the fencing token.
    pub attempt: i64,
    /// Failures in a row that count.
    pub failures: i64,
    /// Times in a row that it was released to wait for a dependency.
    pub tries: i64,
    /// The dependency that it waits for.
    pub waiting_for: Option<String>,
    /// What it wants clients to see.
    pub metrics: Json,
    /// What it wants to remember, for itself.
    pub memo: Json,
    /// Its last error.
    pub error: Option<String>,
    /// Whether its part in the work's end is done.
    pub settled: bool,
    /// When it was first claimed.
    pub started_ms: Option<i64>,
    /// When it settled.
    pub ended_ms: Option<i64>,
}

/// The right to write one row until the lease ends.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The work as it was at the claim.
    pub work: Work,
    /// The row as it was before the claim, but for the attempt.
    pub row: Row,
    /// The other controllers' rows.
    pub others: Vec<Row>,
    /// What every write of this claim must prove.
    pub fence: Fence,
    /// The database's clock at the claim, in milliseconds since 1970.
    pub now_ms: i64,
    /// When the row began to wait for the dependency it waits for.
    pub waiting_since_ms: Option<i64>,
}

impl Claim {
    /// The row of another controller.
    pub fn other(&self, controller: &str) -> Option<&Row> {
        self.others.iter().find(|row| row.controller == controller)
    }
}

/// Proof of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The work's id.
    pub work: String,
    /// The controller's name.
    pub controller: String,
    /// The claim's number.
    pub attempt: i64,
    /// Who claimed.
    pub owner: String,
}

/// Who claims, for how long, and what.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// A random name, as [`crate::Owner`] has one.
    pub owner: String,
    /// How long a claim lasts without renewal.
    pub lease: Duration,
    /// The one work that is claimed, where others are left to others.
    pub only: Option<String>,
    /// How much of it may be one tenant's.
    pub shares: Shares,
    /// Whether what was in hand at a crash is claimed like anything else: by controllers that can't have
    /// been what crashed.
    pub takes_suspects: bool,
}

/// Keeps one tenant from having all that a claimant does at once.
#[derive(Debug, Clone, Default)]
pub struct Shares {
    /// The most rows of one tenant in hand at once; all where there is none.
    pub most: Option<usize>,
    /// How many each tenant has in hand already.
    pub in_hand: HashMap<String, usize>,
}

impl Shares {
    /// How many more rows of the tenant may be claimed.
    pub fn room(&self, tenant: &str) -> usize {
        let in_hand = self.in_hand.get(tenant).copied().unwrap_or_default();
        self.most.map_or(usize::MAX, |most| most.saturating_sub(in_hand))
    }
}

/// A request to be logged.
#[derive(Debug, Clone)]
pub struct Accept {
    /// Who asks.
    pub tenant: String,
    /// The kind of work, which must have a [`crate::Machine`].
    pub kind: String,
    /// What is to be done.
    pub spec: Json,
    /// The topic whose groups begin.
    pub topic: String,
    /// Where the same request is found again.
    pub key: Option<IdempotencyKey>,
    /// Milliseconds from now after which the work should be over.
    pub deadline: Option<Duration>,
    /// From 0 to [`PRIORITY_MAX`], where [`PRIORITY`] is usual.
    pub priority: i64,
    /// The most works of the tenant that may not have ended, this one among them: those that wait, run or are parked.
    pub waiting_max: Option<i64>,
}

/// A client's name for its request, so that a repetition is known as one.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// What the key is unique within, beside the tenant: method and path.
    pub scope: String,
    /// The client's key.
    pub key: String,
    /// A hash of the request.
    pub fingerprint: String,
}

/// What became of a request.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The work.
    pub work: Work,
    /// Whether it had been accepted before.
    pub replayed: bool,
}

/// What a controller does next with its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The claim goes on: this write is a step on the way.
    Stay,
    /// Look again after so long.
    Again(Duration),
    /// Nothing until a message comes.
    Idle,
    /// Nothing ever again.
    Done,
}

/// A message to every group of a topic.
#[derive(Debug, Clone)]
pub struct Publish {
    /// The topic.
    pub topic: String,
    /// How long it stays out of sight.
    pub after: Duration,
}

/// Something that happened, for the work's log.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its number within the work, from 1, without gaps; 0 until it is written.
    pub seq: i64,
    /// When, in milliseconds since 1970; 0 until it is written.
    pub at_ms: i64,
    /// What, as `controller.verb`.
    pub kind: String,
    /// More, never a match.
    pub data: Json,
}

/// One step of a controller: all of it in one transaction, or none.
#[derive(Debug, Clone)]
pub struct Advance {
    /// What becomes of the row.
    pub next: Next,
    /// The work's new stage.
    pub stage: Option<&'static str>,
    /// How the work will end.
    pub outcome: Option<Status>,
    /// Why it fails.
    pub error: Option<Json>,
    /// Whether this controller's part in the work's end is done.
    pub settled: bool,
    /// Replaces the row's metrics.
    pub metrics: Option<Json>,
    /// Replaces the row's memo.
    pub memo: Option<Json>,
    /// Messages to send.
    pub publish: Vec<Publish>,
    /// Rows of the library's user, such as a ledger's.
    pub side: Vec<Statement>,
    /// Events to log.
    pub events: Vec<Event>,
}

impl Advance {
    /// A step that does nothing but `next`.
    pub fn to(next: Next) -> Advance {
        Advance {
            next,
            stage: None,
            outcome: None,
            error: None,
            settled: false,
            metrics: None,
            memo: None,
            publish: Vec::new(),
            side: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Sends a message to a topic.
    #[must_use]
    pub fn publish(mut self, topic: &str) -> Advance {
        self.publish.push(Publish { topic: topic.into(), after: Duration::ZERO });
        self
    }

    /// Logs an event.
    #[must_use]
    pub fn event(mut self, kind: &str, data: Json) -> Advance {
        self.events.push(Event { seq: 0, at_ms: 0, kind: kind.into(), data });
        self
    }
}

/// How a claim ends without a step forward.
#[derive(Debug, Clone)]
pub enum Release {
    /// A dependency is down: nobody's failure.
    Wait {
        /// The dependency.
        dependency: String,
        /// What is wrong with it.
        reason: String,
        /// When to look again.
        after: Duration,
    },
    /// The controller failed: try again, or park at the limit.
    Failed {
        /// Why.
        reason: String,
        /// When to try again.
        after: Duration,
        /// Failures in a row at which the work is parked.
        failures_max: i64,
    },
    /// The work is parked at its stage.
    Park {
        /// Why.
        reason: String,
    },
    /// A graceful stop: somebody else may go on at once.
    Yield,
}

/// A value in a statement or of a column.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// SQL's NULL.
    Null,
    /// A 64-bit integer.
    Int(i64),
    /// Text.
    Text(String),
}

impl From<i64> for Value {
    fn from(n: i64) -> Value {
        Value::Int(n)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

impl Value {
    /// The integer, 0 where it is none.
    pub fn int(&self) -> i64 {
        if let Value::Int(n) = self { *n } else { 0 }
    }

    /// The text, empty where it is none.
    pub fn text(&self) -> &str {
        if let Value::Text(text) = self { text } else { "" }
    }
}

/// SQL that SQLite and PostgreSQL both understand, with `?1`, `?2`, … for its values.
#[derive(Debug, Clone)]
pub struct Statement {
    /// The text.
    pub sql: &'static str,
    /// The values.
    pub values: Vec<Value>,
}

impl Statement {
    /// A statement.
    pub fn new(sql: &'static str, values: Vec<Value>) -> Statement {
        Statement { sql, values }
    }
}

/// A page of a list, newest first.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// The most works that are wanted.
    pub limit: usize,
    /// The id after which the page begins.
    pub after: Option<&'a str>,
}

/// Which works are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Only these.
    pub status: Option<Status>,
    /// Only those accepted then or later, in milliseconds since 1970.
    pub created_after_ms: Option<i64>,
    /// Only those accepted before.
    pub created_before_ms: Option<i64>,
}

/// A work whose time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// Its tenant.
    pub tenant: String,
    /// Its id.
    pub work: String,
}

/// A group of consumers and how far it is behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its topic.
    pub topic: String,
    /// Messages that it has not consumed.
    pub waiting: i64,
    /// When the oldest of them fell due, in milliseconds since 1970.
    pub oldest_ms: Option<i64>,
}

/// A message as it stands in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its number, which no other message of this store ever had.
    pub id: i64,
    /// Its topic; one that was sent again for one group alone has that group's name.
    pub topic: String,
    /// The work to look at.
    pub work: String,
    /// When it was sent, in milliseconds since 1970.
    pub created_ms: i64,
}

/// How long an idempotency key is kept at least.
pub const KEY_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The name of the signal for whoever relays messages, beside those of the groups ([`Store::signal`]).
pub const OUTBOX: &str = "";

/// The Status DB, the queues and the event log in one.
///
/// Every method is one transaction, or reads one snapshot. All may fail with [`Error::Unavailable`], after
/// which nothing of the call was done; what else a method can fail with stands at it.
#[async_trait]
pub trait Store: Send + Sync {
    /// Logs a request: work, idempotency key, message and event.
    ///
    /// # Errors
    /// [`Error::KeyReused`] when the key names another request, [`Error::Unregistered`] when nobody has
    /// registered for the topic yet: the request would be lost. [`Error::Quota`] when the tenant has too much
    /// that has not ended; a request that is replayed is never refused for that.
    async fn accept(&self, accept: Accept) -> Result<Accepted, Error>;

    /// Claims up to `most` rows of a controller that are due: one of each tenant, beginning after the tenant that was
    /// served last, then a second of each; of a tenant by priority, then what fell due first. What was in hand at a crash is left to
    /// [`Store::claim_alone`].
    async fn claim(&self, controller: &str, by: &Claimant, most: usize) -> Result<Vec<Claim>, Error>;

    /// Claims one row that was in hand when its process died, of any of these controllers; it is to be
    /// worked on with nothing else under way.
    async fn claim_alone(&self, controllers: &[String], by: &Claimant) -> Result<Option<Claim>, Error>;

    /// Renews leases; returns the claims that are lost.
    async fn renew(&self, fences: Vec<Fence>, lease: Duration) -> Result<Vec<Fence>, Error>;

    /// Takes a step. Returns whether the work is terminal now.
    ///
    /// # Errors
    /// [`Error::Fenced`] when somebody else owns the row, [`Error::Transition`] when the machine has no
    /// such step, [`Error::Refused`] when a side statement fails: nothing is written.
    async fn advance(&self, fence: &Fence, advance: Advance) -> Result<bool, Error>;

    /// Ends a claim without a step.
    ///
    /// # Errors
    /// [`Error::Fenced`] as for [`Store::advance`].
    async fn release(&self, fence: &Fence, release: Release) -> Result<(), Error>;

    /// Sends a message to every group of a topic, outside of a step: for what begins beside the work's own
    /// controllers, such as a run.
    async fn send(&self, work: &str, topic: &str) -> Result<(), Error>;

    /// Tells one controller to look at a work now. Harmless when there is nothing to see.
    async fn nudge(&self, work: &str, controller: &str) -> Result<(), Error>;

    /// Records the client's wish to end the work; harmless when it has ended.
    ///
    /// # Errors
    /// [`Error::NoSuchWork`].
    async fn cancel(&self, tenant: &str, work: &str) -> Result<Work, Error>;

    /// Sends parked rows on their way again from their stage; harmless when there are none.
    ///
    /// # Errors
    /// [`Error::NoSuchWork`].
    async fn redrive(&self, tenant: &str, work: &str) -> Result<Work, Error>;

    /// Frees all claims of a process that is dead.
    async fn free(&self, owner: &str) -> Result<usize, Error>;

    /// Sends messages again for rows that are due and have none. Returns how many.
    async fn sweep(&self) -> Result<usize, Error>;

    /// Registers a group. With `from_beginning` it also gets the messages that other groups of its topic
    /// have not all consumed yet. Harmless when it exists.
    async fn add_group(&self, name: &str, topic: &str, from_beginning: bool) -> Result<(), Error>;

    /// Removes a group and what it has not consumed; its rows are done, so that works can be forgotten.
    async fn remove_group(&self, name: &str) -> Result<(), Error>;

    /// Every group.
    async fn groups(&self) -> Result<Vec<Group>, Error>;

    /// Milliseconds until the group's next message is due: 0 or less when one is.
    async fn next_due(&self, group: &str, only: Option<&str>) -> Result<Option<i64>, Error>;

    /// Makes everything due that waits for a dependency, because it is back.
    async fn wake(&self, dependency: &str) -> Result<(), Error>;

    /// Messages that no relay has carried yet, the oldest first. What every group has consumed meanwhile is
    /// not among them.
    async fn unrelayed(&self, most: usize) -> Result<Vec<Message>, Error>;

    /// Notes that messages were carried. One that somebody consumes just now may stay as it is.
    async fn relayed(&self, messages: Vec<i64>) -> Result<(), Error>;

    /// Those of the messages with numbers from the first to the last that the group has not consumed.
    async fn unconsumed(&self, group: &str, range: (i64, i64)) -> Result<Vec<i64>, Error>;

    /// Records that a controller beyond the store has done its part of a work, of one tenant or of whomever, and tells its
    /// group's row to look; harmless when it was recorded before.
    ///
    /// # Errors
    /// [`Error::NoSuchWork`] when there is no such work, or nothing of it for this controller.
    async fn confirm(&self, tenant: Option<&str>, work: &str, controller: &str) -> Result<(), Error>;

    /// Whether that was recorded.
    async fn confirmed(&self, work: &str, controller: &str) -> Result<bool, Error>;

    /// One work of a tenant and its rows.
    async fn work(&self, tenant: &str, id: &str) -> Result<Option<(Work, Vec<Row>)>, Error>;

    /// Works of a tenant, newest first.
    async fn works(&self, tenant: &str, filter: Filter, page: Page<'_>) -> Result<Vec<Work>, Error>;

    /// Works that ended before a time, the longest ago first, and that nothing is to be done for any more. One whose
    /// idempotency key is younger than [`KEY_LIFE`] is not among them.
    async fn expired(&self, before_ms: i64, most: usize) -> Result<Vec<Expired>, Error>;

    /// Forgets those of the works that [`Store::expired`] names for that time: with their rows, events, messages and keys,
    /// as if they never had been. Whoever keeps more of them elsewhere removes that before, so that nothing is left
    /// when the process dies in between. Returns how many were there.
    ///
    /// # Errors
    /// [`Error::Refused`] when a table of the library's user points to a work and does not say `on delete cascade`.
    async fn purge(&self, works: Vec<String>, before_ms: i64) -> Result<usize, Error>;

    /// Events of a work after a number.
    async fn events(&self, work: &str, after: i64, most: usize) -> Result<Vec<Event>, Error>;

    /// Changes tables of the library's user, outside of a step. Returns how many rows each statement changed.
    ///
    /// # Errors
    /// [`Error::Refused`] when a statement is wrong or a constraint is against it: nothing is written.
    async fn write(&self, statements: Vec<Statement>) -> Result<Vec<usize>, Error>;

    /// Reads tables of the library's user.
    ///
    /// # Errors
    /// [`Error::Refused`] when the statement is wrong.
    async fn query(&self, statement: Statement) -> Result<Vec<Vec<Value>>, Error>;

    /// Is notified when a message of the group falls due through this process, and for [`OUTBOX`] when any does.
    fn signal(&self, group: &str) -> Arc<tokio::sync::Notify>;
}
