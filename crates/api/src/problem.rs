//! Errors as clients get them: RFC 9457, always, the framework's own included.

use crate::answer::text_of;
use crate::kinds;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use dragnet_job::hits;
use dragnet_pattern::Error;
use serde::Serialize;

/// An error response.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    pointer: Option<String>,
    retry_after_s: Option<u32>,
    challenge: Option<String>,
}

impl Problem {
    /// A problem of a stable type, which is one of [`kinds::KINDS`].
    pub fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Problem {
        debug_assert!(
            kinds::find(kind).is_some(),
            "the kind of problem `{kind}` has no page: give it a row in kinds.rs"
        );
        Problem {
            status,
            kind,
            title,
            detail: detail.into(),
            pointer: None,
            retry_after_s: None,
            challenge: None,
        }
    }

    /// Says where in the body it lies (RFC 6901).
    #[must_use]
    pub fn at(self, pointer: String) -> Problem {
        Problem { pointer: Some(pointer), ..self }
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Problem {
        Problem { retry_after_s: Some(seconds), ..self }
    }

    /// Says what to show for being let in (RFC 9110, 11.6.1).
    pub(crate) fn challenge(self, challenge: String) -> Problem {
        Problem { challenge: Some(challenge), ..self }
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "invalid", "The request is not valid", detail)
    }

    pub(crate) fn no_job(id: &str) -> Problem {
        let detail = format!("there is no job `{id}`");
        Problem::new(StatusCode::NOT_FOUND, "no-such-job", "There is no such job", detail)
    }
}

/// A problem as it is written (RFC 9457, 3).
#[derive(Debug, Serialize)]
struct Document {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
            kind: format!("/problems/{}", self.kind),
            title: self.title,
            status: self.status.as_u16(),
            detail: self.detail,
            pointer: self.pointer,
        };
        let media = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, media, text_of(&document)).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(challenge) = self.challenge.and_then(|text| text.parse().ok()) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<Error> for Problem {
    fn from(e: Error) -> Problem {
        match e {
            Error::NoSuchWork(id) => Problem::no_job(&id),
            Error::KeyReused => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The idempotency key was used for another request",
                "send a new Idempotency-Key, or the same body as before",
            ),
            e @ Error::Quota { .. } => Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "quota-exceeded",
                "The tenant has too many jobs that have not ended",
                e.to_string(),
            )
            .retry_after(10),
            Error::Unavailable(reason) | Error::Unregistered(reason) => {
                tracing::warn!(reason, "the store is not available");
                let detail = "the store can't be reached or written now; nothing of this request was done";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available now", detail)
                    .retry_after(1)
            }
            other => {
                tracing::error!(error = %other, "a request failed");
                Problem::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal",
                    "The service failed",
                    "its log says more",
                )
            }
        }
    }
}

impl From<hits::Error> for Problem {
    fn from(e: hits::Error) -> Problem {
        match e {
            hits::Error::Store(e) => e.into(),
            hits::Error::Cursor(_) => Problem::invalid(e.to_string()),
            hits::Error::NotSealed => Problem::not_ready(e.to_string()),
            hits::Error::Expired => {
                let title = "The hits are not kept any more";
                Problem::new(StatusCode::GONE, "hits-expired", title, e.to_string())
            }
            hits::Error::Counts => {
                let title = "Too many different things to count";
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "too-many-counts", title, e.to_string())
            }
            hits::Error::Output(_) | hits::Error::Run(_) | hits::Error::Part(_) => {
                tracing::error!(error = %e, "hits could not be read");
                Problem::unreadable()
            }
        }
    }
}

impl Problem {
    pub(crate) fn unreadable() -> Problem {
        let detail = "the output can't be read now";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available now", detail)
            .retry_after(1)
    }

    pub(crate) fn not_ready(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, "not-ready", "Not ready yet", detail).retry_after(1)
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Problem {
        Problem::invalid(rejection.body_text())
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Problem {
        let status = rejection.status();
        Problem::new(status, "body", "The body can't be taken", rejection.body_text())
    }
}
