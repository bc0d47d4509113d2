//! Groups that live beyond the service confirm here what they have done.

use crate::{Api, Caller, Problem};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use dragnet_pattern::Error;
use serde::Deserialize;

/// What is confirmed: an event that was published to the group.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    id: String,
}

pub(crate) async fn confirm(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Problem> {
    let Confirmation { id } = serde_json::from_slice(&body?)
        .map_err(|e| Problem::invalid(format!("the confirmation: {e}; it is {{\"id\": \"WORK/{name}\"}}")))?;
    let unknown = || {
        let detail = format!("the group `{name}` was never sent an event `{id}`");
        Problem::new(StatusCode::NOT_FOUND, "no-such-event", "There is no such event", detail)
    };
    let (work, _) = id.rsplit_once('/').filter(|(_, group)| *group == name).ok_or_else(unknown)?;
    match api.store.confirm(&caller.tenant, work, &name).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(Error::NoSuchWork(_)) => Err(unknown()),
        Err(e) => Err(e.into()),
    }
}
