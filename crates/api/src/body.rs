//! Bodies that come slowly.

use crate::Problem;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::time::Duration;

/// Takes the body in before the handler runs, all of it within `time`, so that a byte now and then does not hold a
/// connection for ever. An encoding, which would make few bytes many, is refused by the gate.
pub(crate) async fn in_time(State(time): State<Duration>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let taken = Bytes::from_request(Request::from_parts(parts.clone(), body), &());
    let body = match tokio::time::timeout(time, taken).await {
        Ok(Ok(bytes)) => Body::from(bytes),
        Ok(Err(rejection)) => return Problem::from(rejection).into_response(),
        Err(_) => {
            let detail = format!("it was not there after {} s", time.as_secs());
            let problem =
                Problem::new(StatusCode::REQUEST_TIMEOUT, "body", "The body can't be taken", detail);
            let mut response = problem.into_response();
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return response;
        }
    };
    next.run(Request::from_parts(parts, body)).await
}
