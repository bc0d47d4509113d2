//! Who calls: found out once, before any handler runs.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use std::convert::Infallible;

/// The caller of a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The tenant for whom it speaks. Every query has it.
    pub tenant: String,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Caller, Infallible> {
        let known = parts.extensions.get::<Caller>().cloned();
        Ok(known.unwrap_or_else(|| Caller { tenant: dragnet_tenant::DEFAULT.into() }))
    }
}
