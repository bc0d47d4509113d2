//! The asynchronous computation pattern, as a library.
//!
//! A client's request is logged durably and answered with an id; controllers take the work through its
//! stages in the background; progress stands at a place of its own. Whatever dies on the way, the work goes
//! on from the stage that failed, and each effect happens once.
//!
//! ```text
//!  accept ──► one transaction: work + idempotency key + message ──► id
//!                                   │
//!              ┌────────────────────▼───┐  claim: lease + attempt (the fencing token)
//!              │ a controller           │  act: external effects, by keys that were decided before
//!              └────────────────────┬───┘  advance: ONE transaction = fence + consume + stage
//!                                   │               + side rows + next messages + events
//!              ┌────────────────────▼───┐
//!              │ the next controllers   │  … the one that settles last ends the work
//!              └────────────────────────┘
//! ```
//!
//! What makes it right:
//!
//! * **The store is the truth; a message only says "look".** Each controller has a [`Row`] per work, and the
//!   row alone says what is to be done. A lost message costs time: [`Store::sweep`] sends it again.
//! * **Every claim raises the attempt; every write says `where attempt = ?`.** No row changed means that
//!   somebody else owns it: [`Error::Fenced`], and the loser stops.
//! * **Leases are short and renewed**, and on one machine a file lock frees the claims of a killed process
//!   at once ([`Owner`]).
//! * **A dependency that is down is not a failure of the work** ([`Dependency`]): it waits, visible, holding
//!   no thread, connection or transaction, and goes on by itself.
//!
//! The states and their transitions are declared once, in [`machine`].
//!
//! `cargo run --example dosomework` shows all of it on the book's own example.

mod controller;
pub mod crash;
mod dependency;
mod error;
pub mod machine;
mod owner;
mod places;
#[cfg(feature = "postgres")]
pub mod postgres;
mod sql;
pub mod sqlite;
mod store;
mod worker;

/// The guide: its code is compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/plug-in-a-controller.md")]
mod plug_in_a_controller {}

pub use controller::{Controller, Failure};
pub use dependency::{Dependency, DependencyPolicy, Down, full_jitter};
pub use error::Error;
pub use machine::{Machine, Status, Step};
pub use owner::{Owner, reap};
pub use places::{Place, Places};
pub use sql::{Sql, SqlStore, Tables};
pub use store::{
    Accept, Accepted, Advance, Claim, Claimant, Event, Expired, Fence, Filter, Group, IdempotencyKey,
    KEY_LIFE, Message, Next, OUTBOX, PRIORITY, PRIORITY_MAX, Page, Publish, Release, Row, Shares, Statement,
    Store, Value, Work,
};
pub use worker::{Policy, Worker, run};
