//! Tenants: who submits jobs and is billed, and what each may use.
//!
//! A service without tenants has one, [`DEFAULT`], which stands in no table and may do everything. As soon as
//! one is defined, a client shows by a [key](keys) for whom it speaks, and what was done stands in the
//! [audit log](audit).

pub mod audit;
mod error;
pub mod keys;
mod secret;
pub mod slots;
mod tenants;

use dragnet_pattern::{Sql, Tables};
use std::time::{SystemTime, UNIX_EPOCH};

pub use error::Error;
pub use secret::{KeyError, Presented, Secret};
pub use tenants::{ANY, PUBLIC, Settings, Tenant, add, any, find, list, remove, set};

/// The tenant of a service without tenants.
pub const DEFAULT: &str = "default";

/// The tables of tenants in the Status DB.
pub const TABLES: Tables = Tables {
    name: "tenant",
    versions: &[
        Sql {
            all: include_str!("tables.sql"),
            sqlite: include_str!("append_only.sqlite.sql"),
            postgres: include_str!("append_only.postgres.sql"),
        },
        Sql { all: include_str!("tables_2.sql"), sqlite: "", postgres: "" },
    ],
};

/// This machine's clock, in milliseconds since 1970. Keys live for days: seconds between machines don't matter.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
