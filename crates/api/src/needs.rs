//! What each route needs of whoever asks.

use axum::http::Method;
use dragnet_tenant::keys::Scope;

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: it tells of nobody's jobs.
    Nothing,
    /// A key, whatever it may do: the route has no such method, and only says so.
    Key,
    /// A key with this scope.
    Scope(Scope),
}

/// Every route that tells of a tenant's jobs or changes them.
const NEEDS: &[(&str, &str, Scope)] = &[
    ("GET", "/v1/jobs", Scope::Read),
    ("POST", "/v1/jobs", Scope::Submit),
    ("GET", "/v1/jobs/{id}", Scope::Read),
    ("POST", "/v1/jobs/{id}", Scope::Cancel),
    ("GET", "/v1/jobs/{id}/hits", Scope::Read),
    ("GET", "/v1/jobs/{id}/coverage", Scope::Read),
    ("GET", "/v1/jobs/{id}/bill", Scope::Bill),
    ("POST", "/v1/groups/{name}/confirmations", Scope::Admin),
    ("GET", "/v1/audit", Scope::Admin),
];

/// What a request to a route needs.
pub(crate) fn of(method: &Method, route: &str) -> Need {
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    let found = NEEDS.iter().find(|(known, path, _)| (*known, *path) == (method, route));
    match found {
        Some((_, _, scope)) => Need::Scope(*scope),
        None if method == "OPTIONS" => Need::Nothing,
        None => Need::Key,
    }
}

/// What the audit log calls a request, if it is told of it: what changes something.
pub(crate) fn action(method: &Method, route: &str, path: &str) -> Option<&'static str> {
    if *method != Method::POST {
        return None;
    }
    Some(match (route, path.rsplit_once(':')) {
        ("/v1/jobs", _) => "submit",
        ("/v1/jobs/{id}", Some((_, "cancel"))) => "cancel",
        ("/v1/jobs/{id}", Some((_, "redrive"))) => "redrive",
        ("/v1/groups/{name}/confirmations", _) => "confirm",
        _ => "post",
    })
}
