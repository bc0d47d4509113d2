//! Whether the process lives, and whether it is ready: `/livez`, `/readyz`, and on the admin address `/metrics`.
//!
//! Ready means that a request would be served now: the store takes a write, the output keeps what it is given, the
//! disk has room, and nobody has told the process to stop. What was found out is kept for a moment, so that probes
//! cost little however often they come. Reasons are for whoever reads the admin address or the log.

use crate::disk::Disk;
use crate::metrics::Metrics;
use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use dragnet_api::Problem;
use dragnet_api::routes::{self, Found};
use dragnet_job::controllers::Engines;
use dragnet_pattern::{Statement, Store, Worker};
use dragnet_run::Output;
use serde_json::json;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

/// The longest that the store and the output may take to answer.
const STORE_TIME: Duration = Duration::from_secs(2);
const OUTPUT_TIME: Duration = Duration::from_secs(5);
const ENGINE_TIME: Duration = Duration::from_secs(5);
/// For how long an answer holds.
const STORE_HOLDS: Duration = Duration::from_secs(1);
const OUTPUT_HOLDS: Duration = Duration::from_secs(30);
const TROUBLE_HOLDS: Duration = Duration::from_secs(2);
/// When a client whose job found no room may come again.
const ROOM_RETRY_S: u32 = 30;

/// What health depends on.
pub(crate) struct Health {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) disk: Arc<Disk>,
    /// Set once the process works.
    pub(crate) worker: OnceLock<Arc<Worker>>,
    /// Set with it: whether they can be reached is for the metrics alone, as jobs are taken without.
    pub(crate) engines: OnceLock<Engines>,
    output: String,
    draining: watch::Receiver<bool>,
    probed: Mutex<Probed>,
}

/// What was found out last, and a probe of the output that has not come back.
#[derive(Default)]
struct Probed {
    store: Option<(Instant, Option<String>)>,
    output: Option<(Instant, Option<String>)>,
    output_under_way: Option<JoinHandle<Result<(), dragnet_run::Error>>>,
    engines: Option<(Instant, Vec<(&'static str, bool)>)>,
}

/// A name, and what is wrong.
type Check = (&'static str, Option<String>);

fn holds(found: &Option<(Instant, Option<String>)>, fine: Duration) -> Option<Option<String>> {
    let (at, wrong) = found.as_ref()?;
    let life = if wrong.is_some() { TROUBLE_HOLDS } else { fine };
    (at.elapsed() < life).then(|| wrong.clone())
}

impl Health {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        output: String,
        metrics: Arc<Metrics>,
        disk: Arc<Disk>,
        draining: watch::Receiver<bool>,
    ) -> Health {
        // The output was probed just before.
        let probed = Probed { output: Some((Instant::now(), None)), ..Probed::default() };
        let (worker, engines, probed) = (OnceLock::new(), OnceLock::new(), Mutex::new(probed));
        Health { store, metrics, disk, worker, engines, output, draining, probed }
    }

    async fn checks(&self) -> Vec<Check> {
        if self.is_draining() {
            // Nothing else matters any more, and nothing is asked any more.
            return vec![("draining", Some("the process is about to stop".to_owned()))];
        }
        let mut probed = self.probed.lock().await;
        let store = match holds(&probed.store, STORE_HOLDS) {
            Some(wrong) => wrong,
            None => {
                let wrong = store_wrong(&*self.store).await;
                probed.store = Some((Instant::now(), wrong.clone()));
                wrong
            }
        };
        let output = match holds(&probed.output, OUTPUT_HOLDS) {
            Some(wrong) => wrong,
            None => {
                let wrong = self.output_wrong(&mut probed.output_under_way).await;
                probed.output = Some((Instant::now(), wrong.clone()));
                wrong
            }
        };
        vec![("store", store), ("output", output), ("disk", self.disk.is_low()), ("draining", None)]
    }

    fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Which engines can be reached.
    async fn engines_up(&self) -> Vec<(&'static str, bool)> {
        let mut probed = self.probed.lock().await;
        if let Some((_, known)) = probed.engines.as_ref().filter(|(at, _)| at.elapsed() < OUTPUT_HOLDS) {
            return known.clone();
        }
        let mut up = Vec::new();
        for engine in self.engines.get().into_iter().flatten() {
            let reached = tokio::time::timeout(ENGINE_TIME, engine.reach()).await;
            up.push((engine.name(), matches!(reached, Ok(Ok(())))));
        }
        probed.engines = Some((Instant::now(), up.clone()));
        up
    }

    /// One probe at a time: storage that hangs must not take a thread for each look.
    async fn output_wrong(
        &self,
        under_way: &mut Option<JoinHandle<Result<(), dragnet_run::Error>>>,
    ) -> Option<String> {
        // It stays there while it is waited for: who asked may go before it answers.
        let probe = under_way.get_or_insert_with(|| {
            let output = self.output.clone();
            tokio::task::spawn_blocking(move || Output::at(&output)?.probe())
        });
        let Ok(probed) = tokio::time::timeout(OUTPUT_TIME, probe).await else {
            return Some(format!("no answer in {} s", OUTPUT_TIME.as_secs()));
        };
        *under_way = None;
        match probed {
            Ok(Ok(())) => None,
            Ok(Err(e)) => Some(e.to_string()),
            Err(e) => Some(e.to_string()),
        }
    }
}

/// A transaction that writes: a store that can only be read is not ready.
pub(crate) async fn store_wrong(store: &dyn Store) -> Option<String> {
    let sql = "update module set version = version where name = ?1";
    let written = store.write(vec![Statement::new(sql, vec![dragnet_tenant::TABLES.name.into()])]);
    match tokio::time::timeout(STORE_TIME, written).await {
        Ok(Ok(_)) => None,
        Ok(Err(e)) => Some(e.to_string()),
        Err(_) => Some(format!("no answer in {} s", STORE_TIME.as_secs())),
    }
}

/// `/livez` and `/readyz` for everybody: names of what is wrong, and no more.
pub(crate) fn public_router(health: Arc<Health>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .method_not_allowed_fallback(only_read)
        .with_state(health)
}

/// The same with reasons, and the metrics: for the operator's address.
pub(crate) fn admin_router(health: Arc<Health>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz_with_reasons))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(only_read)
        .with_state(health)
}

async fn only_read(method: Method, uri: Uri) -> Problem {
    let detail = format!("`{method}` is not allowed for `{}`: use GET, HEAD", uri.path());
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "This method is not allowed here",
        detail,
    )
}

/// That this is answered says that the runtime turns.
async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(health): State<Arc<Health>>) -> Response {
    answer(health.checks().await, false)
}

async fn readyz_with_reasons(State(health): State<Arc<Health>>) -> Response {
    answer(health.checks().await, true)
}

fn answer(checks: Vec<Check>, with_reasons: bool) -> Response {
    let is_ready = checks.iter().all(|(_, wrong)| wrong.is_none());
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let said = checks.into_iter().map(|(name, wrong)| {
        let said = match wrong {
            None => "ok".to_owned(),
            Some(reason) if with_reasons => reason,
            Some(_) => "failed".to_owned(),
        };
        (name, said)
    });
    let body = json!({ "ready": is_ready, "checks": said.collect::<BTreeMap<_, _>>() });
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    let checks = health.checks().await;
    let mut up: Vec<_> = checks
        .iter()
        .filter(|(name, _)| *name != "draining")
        .map(|(name, wrong)| (*name, wrong.is_none()))
        .collect();
    up.extend(health.engines_up().await);
    let mappers =
        health.engines.get().map_or(0, |engines| engines.iter().map(|engine| engine.mappers()).sum());
    let lost = health.worker.get().map_or(0, |worker| worker.leases_lost());
    let text = health.metrics.text(&*health.store, lost, &up, mappers, health.is_draining()).await;
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response()
}

/// Around every route: counts, and refuses new jobs where there is no room for them.
pub(crate) async fn watch(State(health): State<Arc<Health>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    let route = route_of(&request);
    let response = match no_room(&health, &request, route.as_deref()) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    };
    let route = route.unwrap_or("none".into());
    health.metrics.answered(&method, route, response.status().as_u16(), begun.elapsed());
    response
}

/// The path of the table of routes that a request is for. The API is this router's fallback, so what axum matched
/// is known here for the probes alone.
fn route_of(request: &Request) -> Option<Cow<'static, str>> {
    match routes::find(request.method(), request.uri().path()) {
        Found::Route(route) => Some(route.path.into()),
        Found::Methods(routes) => routes.first().map(|route| route.path.into()),
        Found::Nothing => {
            request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned().into())
        }
    }
}

#[derive(serde::Deserialize)]
struct Asks {
    #[serde(default)]
    validate_only: bool,
}

fn no_room(health: &Health, request: &Request, route: Option<&str>) -> Option<Problem> {
    let is_submit = *request.method() == Method::POST && route == Some("/v1/jobs");
    let asks_only = || Query::<Asks>::try_from_uri(request.uri()).is_ok_and(|asks| asks.validate_only);
    if !is_submit || asks_only() {
        return None;
    }
    let reason = health.disk.is_low()?;
    tracing::warn!(reason, "a job was refused: the disk is low");
    let detail = "there is too little room for new jobs now; nothing of this request was done";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available now", detail);
    Some(problem.retry_after(ROOM_RETRY_S))
}
