//! The HTTP API: what a client of any language sees of jobs.
//!
//! It owns nothing: it logs requests, records wishes and reads. It knows no engine and no controller, only
//! the Status DB and the output that they write.

mod allowance;
mod caller;
mod events;
mod gate;
mod groups;
mod hits;
mod idempotency;
mod jobs;
pub mod kinds;
pub mod openapi;
mod pages;
mod prefer;
mod problem;
pub mod routes;
mod watch;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn;
use dragnet_pattern::Store;
use std::sync::Arc;
use tokio::sync::watch::Receiver;

pub use allowance::Allowance;
pub use caller::Caller;
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
    watches: watch::Watches,
    twins: idempotency::Twins,
}

impl Api {
    /// An API that ends its streams when `stopped` says so.
    pub fn new(store: Arc<dyn Store>, output: String, stopped: Receiver<bool>) -> Api {
        Api { store, output, watches: watch::Watches::new(stopped), twins: idempotency::Twins::default() }
    }
}

/// The routes of the table, behind what HTTP asks of all of them.
pub fn router(api: Api) -> Router {
    routes::router()
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(gate::refuse_by_length))
        .layer(from_fn(gate::pass))
        .layer(from_fn(gate::complete))
        .with_state(api)
}
