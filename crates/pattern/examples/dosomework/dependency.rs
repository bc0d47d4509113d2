//! DependencyI: books things, with switches for the ways in which dependencies fail.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How it behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Mode {
    #[default]
    Up,
    /// It answers long after anybody listens.
    Slow,
    /// It hangs up.
    Down,
    /// It says yes and forgets, every first time.
    Forget,
    /// It books and hangs up without an answer.
    Drop,
}

#[derive(Debug, Default)]
struct Desk {
    mode: Mode,
    /// How often each thing was booked.
    bookings: BTreeMap<String, u32>,
    /// What it has forgotten once.
    forgotten: Vec<String>,
    calls: u64,
}

type Shared = Arc<Mutex<Desk>>;

fn lock(desk: &Shared) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tokio::main]
pub(crate) async fn serve() {
    let app = Router::new()
        .route("/mode/{mode}", put(switch))
        .route("/bookings", get(all))
        .route("/bookings/{id}", put(book).get(look))
        .with_state(Shared::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
    println!("http://{}", listener.local_addr().expect("it is bound"));
    axum::serve(listener, app).await.expect("it serves");
}

async fn switch(State(desk): State<Shared>, Path(mode): Path<String>) -> StatusCode {
    lock(&desk).mode = match mode.as_str() {
        "up" => Mode::Up,
        "slow" => Mode::Slow,
        "down" => Mode::Down,
        "forget" => Mode::Forget,
        "drop" => Mode::Drop,
        _ => return StatusCode::NOT_FOUND,
    };
    StatusCode::OK
}

async fn all(State(desk): State<Shared>) -> axum::Json<serde_json::Value> {
    let desk = lock(&desk);
    axum::Json(json!({ "bookings": desk.bookings, "calls": desk.calls }))
}

/// Closes the connection without an answer, by ending its task.
fn hang_up() -> ! {
    std::panic::resume_unwind(Box::new("hang up"))
}

/// Books under an id that the client has decided: a second time it is the same booking.
async fn book(State(desk): State<Shared>, Path(id): Path<String>) -> StatusCode {
    let mode = {
        let mut desk = lock(&desk);
        desk.calls += 1;
        let forgets = desk.mode == Mode::Forget && !desk.forgotten.contains(&id);
        if forgets {
            desk.forgotten.push(id.clone());
        } else if desk.mode != Mode::Down {
            desk.bookings.entry(id).or_insert(1);
        }
        desk.mode
    };
    match mode {
        Mode::Slow => tokio::time::sleep(Duration::from_secs(2)).await,
        Mode::Down | Mode::Drop => hang_up(),
        Mode::Up | Mode::Forget => {}
    }
    StatusCode::OK
}

async fn look(State(desk): State<Shared>, Path(id): Path<String>) -> StatusCode {
    let desk = lock(&desk);
    match desk.mode {
        Mode::Down => hang_up(),
        _ if desk.bookings.contains_key(&id) => StatusCode::OK,
        _ => StatusCode::NOT_FOUND,
    }
}
