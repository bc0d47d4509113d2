//! The pattern: its store, its workers, and the book's example.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod example;
mod migration;
#[macro_use]
mod store;
mod together;
mod turns;
mod worker;
