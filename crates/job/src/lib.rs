//! The grep job: a work whose kind is `grep`.
//!
//! [`spec`] is what a client posts, [`controllers`] take it through its stages, [`hits`], [`bill`] and
//! [`view`] are what the client gets back. Controllers never call each other: they share topics and the
//! Status DB alone.
//!
//! ```text
//!  launch ──► monitor ──► billing
//!     │          └──────► shutdown        (topics are named for who listens)
//!     └────────► billing                  (provision)
//! ```

pub mod audit;
pub mod bill;
pub mod budget;
pub mod controllers;
pub mod dataset;
pub mod estimate;
pub mod guard;
pub mod hits;
pub mod invoice;
pub mod ledger;
pub mod rates;
pub mod spec;
pub mod usage;
pub mod view;

use dragnet_pattern::{Machine, Sql, Tables};

/// The kind of work that a job is.
pub const KIND: &str = "grep";

/// The topics, each named for who listens to it.
pub mod topic {
    /// Jobs that were accepted.
    pub const LAUNCH: &str = "launch";
    /// Jobs whose run was launched, or a round of it has ended.
    pub const MONITOR: &str = "monitor";
    /// Jobs that are to be provisioned or metered.
    pub const BILLING: &str = "billing";
    /// Jobs that hold nothing any more but what is to be freed.
    pub const SHUTDOWN: &str = "shutdown";
    /// Jobs that have ended, whatever their outcome: for controllers that are plugged in.
    pub const ENDED: &str = "job.ended";
}

/// The stages of a job.
pub mod stage {
    /// The dataset is resolved and the run started.
    pub const LAUNCH: &str = "launch";
    /// The run goes on.
    pub const MONITOR: &str = "monitor";
    /// It is sealed; it is billed and cleaned up.
    pub const FINISH: &str = "finish";
}

/// How a job goes.
pub const MACHINES: &[Machine] = &[Machine {
    kind: KIND,
    stages: &[stage::LAUNCH, stage::MONITOR, stage::FINISH],
    required: &[controllers::BILLING, controllers::SHUTDOWN],
    ended: Some(topic::ENDED),
}];

/// The tables of the grep system in the Status DB.
pub const TABLES: Tables = Tables {
    name: "grep",
    versions: &[
        Sql {
            all: include_str!("tables.sql"),
            sqlite: include_str!("append_only.sqlite.sql"),
            postgres: include_str!("append_only.postgres.sql"),
        },
        Sql {
            all: include_str!("tables_2.sql"),
            sqlite: include_str!("append_only_2.sqlite.sql"),
            postgres: include_str!("append_only_2.postgres.sql"),
        },
        Sql { all: include_str!("tables_3.sql"), sqlite: "", postgres: "" },
        Sql { all: include_str!("tables_4.sql"), sqlite: "", postgres: "" },
    ],
};
