//! Groups that live beyond the service confirm here what they have done.

use crate::{Api, Caller, Problem};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use dragnet_pattern::Error;
use dragnet_tenant::DEFAULT;
use serde::Deserialize;

/// What is confirmed: an event that was published to the group.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    id: String,
}

/// Whose works it may confirm: a group is told of all tenants', so the default tenant's key, which is the operator's own,
/// confirms them all.
fn whose(caller: &Caller) -> Option<&str> {
    (caller.tenant != DEFAULT).then_some(&*caller.tenant)
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
    match api.store.confirm(whose(&caller), work, &name).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(Error::NoSuchWork(_)) => Err(unknown()),
        Err(e) => Err(e.into()),
    }
}
