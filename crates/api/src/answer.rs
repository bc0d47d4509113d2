//! Answers: JSON as a line, its tag, and what a browser saves instead of showing it.

use crate::routes::JSON;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dragnet_kernel::Digest;
use serde::Serialize;

/// JSON, tagged where it is what was found.
pub(crate) fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    written(status, text_of(body))
}

/// The line that says it.
pub(crate) fn text_of(body: &impl Serialize) -> String {
    // Nothing that is shown has keys that are no text, all that could fail.
    serde_json::to_string(body).unwrap_or_default() + "\n"
}

pub(crate) fn written(status: StatusCode, text: String) -> Response {
    match status {
        StatusCode::OK => tagged(JSON, text),
        _ => (status, [(header::CONTENT_TYPE, JSON)], text).into_response(),
    }
}

/// What is found, with a tag by which a client asks whether it has changed.
pub(crate) fn tagged(media: &'static str, text: impl Into<Body> + AsRef<str>) -> Response {
    let tag = tag_of(text.as_ref());
    ([(header::CONTENT_TYPE, media.to_owned()), (header::ETAG, tag)], text.into()).into_response()
}

pub(crate) fn tag_of(text: &str) -> String {
    format!("\"{}\"", &Digest::of_file(text.as_bytes())[..16])
}

/// A result that a browser saves and does not show.
pub(crate) fn attached(mut response: Response, id: &str, name: &str) -> Response {
    // An id that was found is a UUID.
    if let Ok(value) = HeaderValue::try_from(format!("attachment; filename=\"{id}.{name}\"")) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
    }
    response
}
