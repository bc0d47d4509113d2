//! The HTTP API: what a client of any language sees of jobs.
//!
//! It owns nothing: it logs requests, records wishes and reads. It knows no engine and no controller, only
//! the Status DB and the output that they write.

mod allowance;
mod answer;
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
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use dragnet_job::guard::Guard;
use dragnet_job::rates::Rates;
use dragnet_pattern::Store;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Receiver;

pub use allowance::Allowance;
pub use caller::Caller;
pub use door::{Door, Entry, KEPT};
pub use problem::Problem;

/// The largest body of a request.
pub(crate) const BODY_BYTES_MAX: usize = 4 << 20;

/// What the API serves. Each request takes a clone, which is cheap.
#[derive(Clone)]
pub struct Api(Arc<Served>);

/// What an [`Api`] is made of.
pub struct Served {
    /// The Status DB.
    pub store: Arc<dyn Store>,
    /// The URI of the folder of all jobs' output.
    pub output: String,
    /// Who is let in.
    pub door: Door,
    /// How long the body of a request may take.
    pub client_time: Duration,
    /// What a plan is reckoned by.
    pub rates: Rates,
    /// What jobs may read.
    pub guard: Guard,
    watches: watch::Watches,
    twins: idempotency::Twins,
}

impl Api {
    /// An API that ends its streams when `stopped` says so.
    pub fn new(
        store: Arc<dyn Store>,
        output: String,
        door: Door,
        client_time: Duration,
        (rates, guard): (Rates, Guard),
        stopped: Receiver<bool>,
    ) -> Api {
        let (watches, twins) = (watch::Watches::new(stopped), idempotency::Twins::default());
        Api(Arc::new(Served { store, output, door, client_time, rates, guard, watches, twins }))
    }
}

impl Deref for Api {
    type Target = Served;

    fn deref(&self) -> &Served {
        &self.0
    }
}

/// The routes of the table, behind what is asked of every request.
pub fn router(api: Api) -> Router {
    routes::router().layer(from_fn_with_state(api.clone(), serve)).with_state(api)
}

/// One layer for all that comes before and after a handler: each layer of axum's copies those beneath it for every
/// request, which came to more than they did.
async fn serve(State(api): State<Api>, request: Request, next: Next) -> Response {
    let conditions = gate::Conditions::of(&request);
    let response = admitted(&api, request, next).await.unwrap_or_else(|refusal| *refusal);
    conditions.complete(response)
}

/// The handler's answer to a request that HTTP has nothing against, that may be asked, and whose body has come.
async fn admitted(api: &Api, mut request: Request, next: Next) -> Result<Response, Box<Response>> {
    let route = gate::pass(&mut request)?;
    let mut guest = api.door.enter(route, &mut request).await?;
    let mut response = match body::in_time(request, api.client_time).await {
        Ok(request) => {
            guest.begin();
            next.run(request).await
        }
        Err(refusal) => *refusal,
    };
    gate::vary(route, &mut response);
    api.door.leave(guest, &mut response);
    Ok(response)
}
