//! The HTTP API: what a client of any language sees of jobs.
//!
//! It owns nothing: it logs requests, records wishes and reads. It knows no engine and no controller, only
//! the Status DB and the output that they write.

mod audit;
mod body;
mod caller;
mod door;
mod groups;
mod hits;
mod jobs;
mod needs;
mod pace;
mod problem;
mod trail;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use dragnet_pattern::Store;
use std::sync::Arc;
use std::time::Duration;

pub use caller::Caller;
pub use door::{Door, Entry, KEPT};
pub use pace::Allowance;
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
}

/// The routes.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/jobs", get(jobs::list).post(jobs::submit))
        // `{id}` takes `ID:cancel` and `ID:redrive` as well: a verb is no resource (AIP-136).
        .route("/v1/jobs/{id}", get(jobs::status).post(jobs::wish))
        .route("/v1/jobs/{id}/hits", get(hits::hits))
        .route("/v1/jobs/{id}/coverage", get(jobs::coverage))
        .route("/v1/jobs/{id}/bill", get(jobs::bill))
        .route("/v1/groups/{name}/confirmations", post(groups::confirm))
        .route("/v1/audit", get(audit::lines))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(axum::middleware::from_fn_with_state(api.client_time, body::in_time))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn_with_state(api.door.clone(), door::enter))
        .layer(axum::middleware::from_fn(problem::refuse_by_length))
        .with_state(api)
}
