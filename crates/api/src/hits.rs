//! Hits, as JSON lines and paged; or counted.

use crate::answer::{answer, attached, tag_of};
use crate::gate::Agreed;
use crate::jobs::{find, output_of};
use crate::routes::JSON;
use crate::{Api, Caller, Problem};
use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use dragnet_job::hits::{self, CountBy, Cursor, Order};
use serde::Deserialize;
use serde_json::{Value as Json, json};

/// The most hits of one page.
const PAGE_MAX: usize = 10_000;
/// The most counts of one answer, where they are limited.
const TOP_MAX: usize = 1_000_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HitsQuery {
    limit: Option<usize>,
    cursor: Option<String>,
    order: Option<String>,
    count_by: Option<String>,
    top: Option<usize>,
    #[serde(default)]
    redact: bool,
}

pub(crate) async fn hits(
    State(api): State<Api>,
    caller: Caller,
    Extension(Agreed(media)): Extension<Agreed>,
    Path(id): Path<String>,
    query: Result<Query<HitsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let (work, _) = find(&api, &caller, &id).await?;
    let output = output_of(&api, &work)?;
    let limit = query.limit.unwrap_or(1000);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Problem::invalid(format!("`limit` is {limit}: 1 to {PAGE_MAX} are taken")));
    }
    let order = match query.order.as_deref() {
        None | Some("settled") => Order::Settled,
        Some("dataset") => Order::Dataset,
        Some(other) => {
            return Err(Problem::invalid(format!("there is no order `{other}`: use `settled` or `dataset`")));
        }
    };
    if let Some(top) = query.top.filter(|top| *top > TOP_MAX) {
        return Err(Problem::invalid(format!("`top` is {top}: 0 to {TOP_MAX} are taken")));
    }
    let from = query.cursor.as_deref().map_or(Ok(Cursor::default()), str::parse)?;
    if let Some(name) = &query.count_by {
        let by = CountBy::NAMES.iter().find(|(known, _)| known == name).map(|(_, by)| *by);
        let names = CountBy::NAMES.map(|(name, _)| name).join(", ");
        let by = by.ok_or_else(|| {
            Problem::invalid(format!("hits can't be counted by `{name}`: use one of {names}"))
        })?;
        let counts = hits::count(&*api.store, &output, &id, by, query.top, query.redact).await?;
        let counts: Vec<_> =
            counts.into_iter().map(|(key, count)| json!({ "key": key, "count": count })).collect();
        let counts = answer(StatusCode::OK, &json!({ "count_by": name, "counts": counts }));
        return Ok(attached(counts, &id, "counts.json"));
    }
    let page = match hits::page(&*api.store, &output, &id, order, from, limit, query.redact).await {
        // It ended without a run, and there never will be a seal.
        Err(hits::Error::NotSealed) if work.status.is_terminal() => {
            hits::Page { end: from, ..hits::Page::default() }
        }
        page => page?,
    };
    // A job that still runs may have more later, behind the same cursor.
    let goes_on = page.next.is_some() || !work.status.is_terminal();
    let next = goes_on.then(|| page.next.unwrap_or(page.end).to_string());
    let response = match media {
        JSON => {
            let lines = page.lines.lines().map(serde_json::from_str);
            let hits: Vec<Json> = lines.collect::<Result<_, _>>().map_err(|e| {
                tracing::error!(error = %e, "a hit in the output is no JSON");
                Problem::unreadable()
            })?;
            answer(StatusCode::OK, &json!({ "hits": hits, "next": next }))
        }
        lines => {
            // Whether there is more is a part of what is found.
            let tag = tag_of(&format!("{}{next:?}", page.lines));
            ([(header::CONTENT_TYPE, lines.to_owned()), (header::ETAG, tag)], page.lines).into_response()
        }
    };
    let mut response = attached(response, &id, if media == JSON { "hits.json" } else { "hits.jsonl" });
    if let Some(cursor) = next {
        let order = if order == Order::Dataset { "&order=dataset" } else { "" };
        let redact = if query.redact { "&redact=true" } else { "" };
        let link = format!("</v1/jobs/{id}/hits?limit={limit}&cursor={cursor}{order}{redact}>; rel=\"next\"");
        if let Ok(link) = link.parse() {
            response.headers_mut().insert(header::LINK, link);
        }
    }
    Ok(response)
}
