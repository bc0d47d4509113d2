//! The HTTP API: what a client of any language sees of jobs.
//!
//! It owns nothing: it logs requests, records wishes and reads. It knows no engine and no controller, only
//! the Status DB and the output that they write.

mod caller;
mod groups;
mod hits;
mod jobs;
mod problem;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use dragnet_pattern::Store;
use std::sync::Arc;

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
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn(problem::refuse_by_length))
        .with_state(api)
}
