//! What HTTP itself asks of every request and answer, whatever the route: RFC 9110's 404, 405, 406, 413 and 415,
//! `OPTIONS`, conditional requests, and the headers that keep a browser from harm.
//!
//! [`pass`] finds the route before anything else looks at the request, so that whoever asks for a scope and whoever
//! answers speak of the same route.

use crate::routes::{self, Found, JSON, Route};
use crate::{Allowance, BODY_BYTES_MAX, Problem};
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use std::convert::Infallible;

/// The media type that was agreed on, for handlers that give more than one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Agreed(pub(crate) &'static str);

/// Pages are of our own making alone: nothing from elsewhere, nothing inline, in nobody's frame.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);
/// What is data is never a page.
const DATA_POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox");
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const PERMITTED_ORIGIN: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Finds the route of a request that HTTP has nothing against.
pub(crate) fn pass(request: &mut Request) -> Result<&'static Route, Box<Response>> {
    host_is_one(request).map_err(|problem| Box::new(problem.into_response()))?;
    let (method, path) = (request.method(), request.uri().path());
    // Handlers take names as text.
    let found = match is_text(path) {
        true => routes::find(method, path),
        false => Found::Nothing,
    };
    let route = match found {
        Found::Nothing => {
            let detail =
                format!("there is nothing at `{path}`: jobs are at `/v1/jobs`, and `/docs` says more");
            let problem = Problem::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here", detail);
            return Err(Box::new(problem.into_response()));
        }
        Found::Methods(routes) => return Err(Box::new(other_method(method, path, &routes))),
        Found::Route(route) => route,
    };
    let Some(agreed) = agree(request.headers(), route.gives) else {
        let detail = format!("what `Accept` asks for is not here: take {}", route.gives.join(" or "));
        let title = "No such representation";
        let problem = Problem::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", title, detail);
        return Err(Box::new(problem.into_response()));
    };
    if let Err(problem) = body_is_taken(route, request.headers()) {
        let mut response = problem.into_response();
        response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        response.headers_mut().insert(ACCEPT_POST, HeaderValue::from_static(JSON));
        return Err(Box::new(response));
    }
    length_is_taken(request.headers()).map_err(|problem| Box::new(problem.into_response()))?;
    request.extensions_mut().insert(Agreed(agreed));
    Ok(route)
}

/// RFC 9112, 3.2: of HTTP/1.1 a request names its host once. Without that nobody can tell whom it means.
fn host_is_one(request: &Request) -> Result<(), Problem> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let is_old = request.version() < Version::HTTP_11;
    match hosts {
        1 => Ok(()),
        0 if is_old => Ok(()),
        _ => Err(Problem::invalid(format!("there are {hosts} `Host` headers: send one (RFC 9112, 3.2)"))),
    }
}

/// Whether a path is UTF-8 once its escapes are undone.
fn is_text(path: &str) -> bool {
    let bytes = path.as_bytes();
    let hex = |at: usize| (*bytes.get(at)? as char).to_digit(16).map(|digit| digit as u8);
    let (mut plain, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(at) {
        match (byte, hex(at + 1).zip(hex(at + 2))) {
            (b'%', Some((high, low))) => {
                plain.push(high << 4 | low);
                at += 3;
            }
            _ => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    std::str::from_utf8(&plain).is_ok()
}

/// Says that what a route gives depends on `Accept`, where it does.
pub(crate) fn vary(route: &Route, response: &mut Response) {
    if route.gives.len() > 1 {
        response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    }
}

/// `OPTIONS`, or a method that the path doesn't have.
fn other_method(method: &Method, path: &str, routes: &[&'static Route]) -> Response {
    let mut allowed: Vec<&str> = routes.iter().map(|route| route.method.as_str()).collect();
    if allowed.contains(&"GET") {
        allowed.push("HEAD");
    }
    allowed.push("OPTIONS");
    allowed.sort_unstable();
    let allowed = allowed.join(", ");
    let mut response = match *method {
        Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        _ => {
            let detail = format!("`{method}` is not allowed for `{path}`: use {allowed}");
            let title = "This method is not allowed here";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", title, detail).into_response()
        }
    };
    if let Ok(allowed) = allowed.parse() {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    if routes.iter().any(|route| route.method == Method::POST) {
        response.headers_mut().insert(ACCEPT_POST, HeaderValue::from_static(JSON));
    }
    response
}

/// Whether the headers speak of a body that the route takes. What takes none ignores one.
fn body_is_taken(route: &Route, headers: &HeaderMap) -> Result<(), Problem> {
    if route.about.as_ref().is_none_or(|about| about.takes.is_none()) {
        return Ok(());
    }
    let text = |name| headers.get(name).map_or("", |value| value.to_str().unwrap_or("?"));
    let refuse = |detail: String| {
        let title = "This media type is not taken";
        Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", title, detail))
    };
    let coding = text(header::CONTENT_ENCODING);
    if !coding.is_empty() && !coding.eq_ignore_ascii_case("identity") {
        return refuse(format!("the body is encoded with `{coding}`: send it as it is"));
    }
    let media = text(header::CONTENT_TYPE);
    let mut parts = media.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|media| media.eq_ignore_ascii_case(JSON));
    let is_utf8 = parts.filter_map(|part| part.split_once('=')).all(|(name, value)| {
        !name.trim().eq_ignore_ascii_case("charset")
            || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    if !is_json || !is_utf8 {
        return refuse(format!("the body is `{media}`: send `Content-Type: {JSON}`, in UTF-8"));
    }
    Ok(())
}

/// Refuses a body that says it is too long before a byte of it is read: a client that waits for `100 Continue`
/// (RFC 9110, 10.1.1) then hears why, and is not cut off while it sends.
fn length_is_taken(headers: &HeaderMap) -> Result<(), Problem> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    match length.filter(|length| *length > BODY_BYTES_MAX as u64) {
        None => Ok(()),
        Some(length) => {
            let detail = format!("it has {length} bytes: {BODY_BYTES_MAX} are taken");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body", "The body can't be taken", detail))
        }
    }
}

/// The offer that `Accept` likes best (RFC 9110, 12.5.1), the first of equals; any where nothing is asked for.
fn agree(headers: &HeaderMap, offers: &[&'static str]) -> Option<&'static str> {
    let values: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    let ranges: Vec<(&str, f32)> =
        values.iter().flat_map(|value| value.split(',')).filter_map(range).collect();
    if ranges.is_empty() {
        return offers.first().copied();
    }
    let mut best = (None, 0.0);
    for offer in offers {
        // The most specific range that fits decides.
        let fitting = ranges.iter().filter_map(|(range, q)| Some((specificity(range, offer)?, *q)));
        let quality = fitting.max_by_key(|(specificity, _)| *specificity).map_or(0.0, |(_, q)| q);
        if quality > best.1 {
            best = (Some(*offer), quality);
        }
    }
    best.0
}

/// A media range and its weight; nothing where it is none.
fn range(text: &str) -> Option<(&str, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next().filter(|range| range.contains('/'))?;
    let weight =
        parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    let quality = weight.map_or(Some(1.0), |(_, q)| q.trim().parse().ok());
    Some((range, quality?))
}

fn specificity(range: &str, offer: &str) -> Option<u8> {
    let (kind, _) = offer.split_once('/')?;
    match range.to_ascii_lowercase() {
        range if range == offer => Some(2),
        range if range.strip_suffix("/*") == Some(kind) => Some(1),
        range if range == "*/*" => Some(0),
        _ => None,
    }
}

/// What a request says of the answers that it has.
pub(crate) struct Conditions {
    is_read: bool,
    known: Vec<HeaderValue>,
}

impl Conditions {
    pub(crate) fn of(request: &Request) -> Conditions {
        let known = request.headers().get_all(header::IF_NONE_MATCH).iter().cloned().collect();
        Conditions { is_read: matches!(*request.method(), Method::GET | Method::HEAD), known }
    }

    /// Completes an answer: 304 where the client has it already, what is left of a quota, and what browsers must know.
    pub(crate) fn complete(self, mut response: Response) -> Response {
        if self.is_read && response.status() == StatusCode::OK && is_known(&self.known, response.headers()) {
            response = not_modified(response);
        }
        if matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            *response.body_mut() = nothing();
        }
        if let Some(allowance) = response.extensions_mut().remove::<Allowance>() {
            allowance.write(response.headers_mut());
        }
        let headers = response.headers_mut();
        headers.reserve(HEADERS);
        let is_page =
            headers.get(header::CONTENT_TYPE).is_some_and(|media| media.as_bytes().starts_with(b"text/html"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let policy = if is_page { PAGE_POLICY } else { DATA_POLICY };
        headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(policy);
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(PERMITTED_ORIGIN, HeaderValue::from_static("same-origin"));
        // Whatever is somebody's is kept by nobody on the way; who has a tag asks again with it.
        let has_tag = headers.contains_key(header::ETAG);
        let kept = HeaderValue::from_static(if has_tag { "private, no-cache" } else { "no-store" });
        headers.entry(header::CACHE_CONTROL).or_insert(kept);
        response
    }
}

/// As many as all answers are given beside their own.
const HEADERS: usize = 5;

/// Whether a request's `If-None-Match` names a tag.
pub(crate) fn names(headers: &HeaderMap, tag: &str) -> bool {
    let known: Vec<HeaderValue> = headers.get_all(header::IF_NONE_MATCH).iter().cloned().collect();
    is_among(&known, tag)
}

/// Whether the client names the tag that the answer has.
fn is_known(known: &[HeaderValue], headers: &HeaderMap) -> bool {
    headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()).is_some_and(|tag| is_among(known, tag))
}

/// Whether a tag is among those that are named (RFC 9110, 13.1.2: compared weakly).
fn is_among(known: &[HeaderValue], tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let named = known.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    named.map(opaque).any(|known| known == "*" || known == opaque(tag))
}

/// No body, and no word of its length: a 304's would be that of the 200, and a 204 has none (RFC 9110, 8.6). axum states
/// whatever length it can tell.
fn nothing() -> Body {
    Body::from_stream(futures_util::stream::empty::<Result<Bytes, Infallible>>())
}

/// The same answer without what it says (RFC 9110, 15.4.5).
fn not_modified(response: Response) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.status = StatusCode::NOT_MODIFIED;
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CONTENT_DISPOSITION] {
        parts.headers.remove(name);
    }
    Response::from_parts(parts, Body::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_on_a_media_type() {
        let offers = ["text/event-stream", "application/json"];
        let table = [
            ("", Some("text/event-stream")),
            ("*/*", Some("text/event-stream")),
            ("application/json", Some("application/json")),
            ("Application/JSON;charset=utf-8", Some("application/json")),
            ("text/event-stream;q=0.5, application/json", Some("application/json")),
            ("text/*;q=0, */*", Some("application/json")),
            ("*/*, text/event-stream;q=0.1", Some("application/json")),
            ("text/html, application/xhtml+xml", None),
            ("application/json;q=0", None),
            ("nonsense", Some("text/event-stream")),
        ];
        for (accept, expected) in table {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(agree(&headers, &offers), expected, "{accept}");
        }
    }
}
