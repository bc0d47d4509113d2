//! The real binary as its users run it, and what must hold when it, its mappers or its inputs fail.
//!
//! `cargo test --all-features`: the crash points are a feature.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod backup;
mod cap;
#[cfg(feature = "hadoop")]
mod cluster;
#[cfg(feature = "crash-points")]
mod crash;
mod dependencies;
#[cfg(feature = "hadoop")]
mod doors;
mod fairness;
mod faults;
#[cfg(feature = "hadoop")]
mod hadoop;
mod handbook;
mod harness;
mod http;
#[cfg(all(feature = "kafka", feature = "postgres"))]
mod kafka;
mod listen;
mod money;
#[cfg(feature = "hadoop")]
mod objects;
mod operation;
mod oracle;
mod packaging;
#[cfg(all(feature = "hadoop", feature = "kafka", feature = "postgres"))]
mod pipeline;
#[cfg(feature = "postgres")]
mod roles;
mod scan;
mod search;
mod servers;
mod soak;
mod standards;
mod tenants;
mod two;
#[cfg(feature = "webhooks")]
mod webhooks;
