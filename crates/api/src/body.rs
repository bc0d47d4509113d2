//! Bodies that come slowly.

use crate::{BODY_BYTES_MAX, Problem};
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::time::Duration;

/// Takes the body in before the handler runs, all of it within `time`, so that a byte now and then does not hold a
/// connection for ever. An encoding, which would make few bytes many, is refused by the gate.
pub(crate) async fn in_time(request: Request, time: Duration) -> Result<Request, Box<Response>> {
    if request.body().is_end_stream() {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    let mut incoming = Request::new(body);
    DefaultBodyLimit::max(BODY_BYTES_MAX).apply(&mut incoming);
    let bytes = match tokio::time::timeout(time, Bytes::from_request(incoming, &())).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(rejection)) => return Err(Box::new(Problem::from(rejection).into_response())),
        Err(_) => {
            let detail = format!("it was not there after {} s", time.as_secs());
            let problem =
                Problem::new(StatusCode::REQUEST_TIMEOUT, "body", "The body can't be taken", detail);
            let mut response = problem.into_response();
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return Err(Box::new(response));
        }
    };
    let mut request = Request::from_parts(parts, Body::from(bytes));
    DefaultBodyLimit::max(BODY_BYTES_MAX).apply(&mut request);
    Ok(request)
}
