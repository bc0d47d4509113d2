//! The audit log of the caller's tenant.

use crate::answer::answer;
use crate::{Api, Caller, Problem};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

/// The most lines of one page.
const PAGE_MAX: usize = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinesQuery {
    limit: Option<usize>,
    #[serde(default, deserialize_with = "crate::number::cursor")]
    cursor: Option<i64>,
}

/// The newest lines first.
pub(crate) async fn lines(
    State(api): State<Api>,
    caller: Caller,
    query: Result<Query<LinesQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(100);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Problem::invalid(format!("`limit` is {limit}: 1 to {PAGE_MAX} are taken")));
    }
    let mut lines =
        dragnet_tenant::audit::lines(&*api.store, Some(&caller.tenant), query.cursor, limit + 1).await?;
    let more = lines.len() > limit;
    lines.truncate(limit);
    let next = lines.last().filter(|_| more).map(|line| line.id.to_string());
    Ok(answer(StatusCode::OK, &json!({ "lines": lines, "next": next })))
}
