//! The HTTP API: what a client of any language sees of jobs.
//!
//! It owns nothing: it logs requests, records wishes and reads. It knows no engine and no controller, only
//! the Status DB and the output that they write.

mod allowance;
mod audit;
mod body;
mod caller;
mod door;
mod events;
mod gate;
mod groups;
mod hits;
mod idempotency;
mod jobs;
pub mod kinds;
mod money;
mod number;
pub mod openapi;
mod pace;
mod pages;
mod prefer;
mod problem;
pub mod routes;
mod trail;
mod watch;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use dragnet_pattern::Store;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Receiver;

pub use allowance::Allowance;
pub use caller::Caller;
pub use door::{Door, Entry, KEPT};
pub use problem::Problem;

/// The largest body of a request.
pub(crate) const BODY_BYTES_MAX: usize = 4 << 20;

/// What the API serves.
#[derive(Clone)]
pub struct Api {
    /// The Status DB.
    pub store: Arc<dyn Store>,
    /// The URI of the folder of all jobs' output.
    pub output: String,
    /// Who is let in.
    pub door: Arc<Door>,
    /// How long the body of a request may take.
    pub client_time: Duration,
    watches: watch::Watches,
    twins: idempotency::Twins,
}

impl Api {
    /// An API that ends its streams when `stopped` says so.
    pub fn new(
        store: Arc<dyn Store>,
        output: String,
        door: Arc<Door>,
        client_time: Duration,
        stopped: Receiver<bool>,
    ) -> Api {
        let watches = watch::Watches::new(stopped);
        Api { store, output, door, client_time, watches, twins: idempotency::Twins::default() }
    }
}

/// The routes of the table, behind what HTTP asks of all of them and the door. What is added last sees a request
/// first.
pub fn router(api: Api) -> Router {
    routes::router()
        .layer(from_fn_with_state(api.client_time, body::in_time))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(api.door.clone(), door::enter))
        .layer(from_fn(gate::refuse_by_length))
        .layer(from_fn(gate::pass))
        .layer(from_fn(gate::complete))
        .with_state(api)
}
