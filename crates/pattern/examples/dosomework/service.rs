//! The service: `POST /dosomework` is logged and answered at once; a controller books in the background.

use async_trait::async_trait;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use dragnet_pattern::{
    Accept, Advance, Claim, Controller, Dependency, DependencyPolicy, Failure, IdempotencyKey, Machine, Next,
    PRIORITY, Policy, Statement, Store, Worker, run, sqlite,
};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const KIND: &str = "something";
const TOPIC: &str = "book";
const MACHINES: &[Machine] = &[Machine { kind: KIND, stages: &["book"], required: &["book"], ended: None }];

#[tokio::main]
pub(crate) async fn serve(file: &std::path::Path, dependency: &str) {
    let store: Arc<dyn Store> = Arc::new(sqlite::open(file, MACHINES, &[]).expect("the store opens"));
    store.add_group("book", TOPIC, true).await.expect("the group is registered");
    let policy = DependencyPolicy {
        timeout: Duration::from_millis(300),
        open_for: Duration::from_millis(200),
        retry_share: 1.0,
        backoff: (Duration::from_millis(20), Duration::from_millis(500)),
        ..DependencyPolicy::default()
    };
    let book = Book { url: dependency.to_owned(), dependency: Dependency::new("DependencyI", policy) };
    let locks = file.with_extension("owners");
    let worker = Worker::new(store.clone(), Policy::default(), &locks, None).expect("the worker starts");
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    tokio::spawn(run(Arc::new(worker), vec![Arc::new(book)], stopped));
    let app = Router::new()
        .route("/dosomework", post(accept))
        .route("/dosomework/{id}", get(status))
        .route("/waiting", get(waiting))
        .with_state(store);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
    println!("http://{}", listener.local_addr().expect("it is bound"));
    axum::serve(listener, app).await.expect("it serves");
}

async fn accept(State(store): State<Arc<dyn Store>>, headers: HeaderMap, body: String) -> Response {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).map(|key| IdempotencyKey {
        scope: "POST /dosomework".into(),
        key: key.into(),
        fingerprint: body.clone(),
    });
    let (tenant, kind, topic) = ("default".into(), KIND.into(), TOPIC.into());
    let accept = Accept {
        tenant,
        kind,
        spec: json!(body),
        topic,
        key,
        deadline: None,
        priority: PRIORITY,
        waiting_max: None,
    };
    match store.accept(accept).await {
        Ok(accepted) => {
            let location = format!("/dosomework/{}", accepted.work.id);
            (StatusCode::ACCEPTED, [(header::LOCATION, location)], accepted.work.id).into_response()
        }
        Err(e) if e.is_transient() => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Err(e) => (StatusCode::UNPROCESSABLE_ENTITY, e.to_string()).into_response(),
    }
}

async fn status(State(store): State<Arc<dyn Store>>, Path(id): Path<String>) -> Response {
    match store.work("default", &id).await {
        Ok(Some((work, _))) => axum::Json(json!({ "status": work.status })).into_response(),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// How many works wait for the dependency, and how many are in somebody's hand.
async fn waiting(State(store): State<Arc<dyn Store>>) -> Response {
    let sql = "select count(waiting_for), sum(step = 'running') from controller";
    match store.query(Statement::new(sql, vec![])).await {
        Ok(rows) => {
            axum::Json(json!({ "waiting": rows[0][0].int(), "running": rows[0][1].int() })).into_response()
        }
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Books through DependencyI, under the work's id: decided and committed long before the call.
struct Book {
    url: String,
    dependency: Dependency,
}

#[async_trait]
impl Controller for Book {
    fn name(&self) -> &'static str {
        "book"
    }

    fn topic(&self) -> &'static str {
        TOPIC
    }

    async fn step(&self, store: &dyn Store, claim: &Claim) -> Result<Advance, Failure> {
        let url = format!("{}/bookings/{}", self.url, claim.work.id);
        let tries = claim.row.tries.clamp(0, 20) as u32;
        let was_down = !self.dependency.is_closed();
        self.dependency.call(tries, request("PUT", url.clone())).await?;
        // It said yes. Whether it meant it, only a look tells.
        if self.dependency.call(0, request("GET", url)).await? == 404 {
            return Err(Failure::Down {
                dependency: "DependencyI".into(),
                reason: "it has forgotten the booking".into(),
                after: Duration::from_millis(50),
            });
        }
        if was_down {
            // The probe has succeeded: all that waited goes on at once.
            store.wake("DependencyI").await?;
        }
        let mut advance = Advance::to(Next::Done).event("booked", json!({}));
        advance.settled = true;
        Ok(advance)
    }
}

/// The answer's status; a blocking client on a thread that is given back after the time-out.
async fn request(method: &'static str, url: String) -> Result<u16, String> {
    let call = move || {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_millis(300)));
        let agent: ureq::Agent = config.build().into();
        let answer = if method == "PUT" { agent.put(url).send("") } else { agent.get(url).call() };
        answer.map(|response| response.status().as_u16()).map_err(|e| e.to_string())
    };
    tokio::task::spawn_blocking(call).await.map_err(|e| e.to_string())?
}
