//! Money: what a job would cost, whether its budget is spent, the caller's invoices and usage.

use crate::answer::answer;
use crate::gate::Agreed;
use crate::routes::{CSV, HTML, JSON};
use crate::{Api, Caller, Problem};
use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dragnet_job::estimate::{self, TIME_MAX, estimate};
use dragnet_job::spec::JobSpec;
use dragnet_job::{budget, dataset, invoice, usage};
use dragnet_pattern::{IdempotencyKey, Statement};
use dragnet_tenant::{Tenant, now_ms};
use serde::Deserialize;
use serde_json::json;

/// The most events of one page.
const EVENTS_MAX: usize = 1000;
/// The invoice's page has a style of its own, which is known by its hash, and nothing else.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'sha256-/KLoMMubxx3wnIn/Pj/nf/W9Wl34VBakuM9M8Py9nkE='; \
                           base-uri 'none'; frame-ancestors 'none'";

/// The answer to `validate_only=true`: the plan of a job that is not submitted.
pub(crate) async fn plan(api: &Api, caller: &Caller, spec: &JobSpec) -> Result<Response, Problem> {
    let by = (&api.rates, &api.guard);
    let plan = estimate(&*api.store, &caller.tenant, spec, by, TIME_MAX).await.map_err(|e| match e {
        estimate::Error::Store(e) => e.into(),
        estimate::Error::Limits(detail) => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "limits", "A limit can't be kept", detail)
        }
        other => {
            let title = "The dataset can't be searched";
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "dataset", title, other.to_string())
        }
    })?;
    Ok(answer(StatusCode::OK, &plan))
}

/// Refuses a job whose budget is spent already; what is only reserved may come back. A request that is repeated is
/// answered as it was the first time.
pub(crate) async fn refuse_spent(
    api: &Api,
    caller: &Caller,
    key: Option<&IdempotencyKey>,
) -> Result<(), Problem> {
    if caller.settings.budget_micros.is_none() {
        return Ok(());
    }
    let tenant = Tenant { id: caller.tenant.clone(), settings: (*caller.settings).clone(), removed_ms: None };
    let Some(detail) = budget::spent(&*api.store, &tenant, &budget::month_of(now_ms())).await? else {
        return Ok(());
    };
    if is_repeated(api, caller, key).await? {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::PAYMENT_REQUIRED,
        "budget-spent",
        "The budget of this month is spent",
        detail,
    ))
}

/// Whether a request with this key was accepted before: what has changed since then refuses no repetition.
pub(crate) async fn is_repeated(
    api: &Api,
    caller: &Caller,
    key: Option<&IdempotencyKey>,
) -> Result<bool, Problem> {
    let Some(key) = key else { return Ok(false) };
    let sql = "select 1 from idempotency_key where tenant = ?1 and scope = ?2 and key = ?3";
    let values = vec![caller.tenant.as_str().into(), key.scope.as_str().into(), key.key.as_str().into()];
    Ok(!api.store.query(Statement::new(sql, values)).await?.is_empty())
}

/// The caller's invoice of a month.
pub(crate) async fn invoice(
    State(api): State<Api>,
    caller: Caller,
    Path(month): Path<String>,
    Extension(Agreed(media)): Extension<Agreed>,
) -> Result<Response, Problem> {
    let span = invoice::span(&month).map_err(Problem::invalid)?;
    let invoice = invoice::of(&*api.store, &caller.tenant, span, now_ms()).await?;
    Ok(match media {
        CSV => ([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], invoice.csv()).into_response(),
        HTML => {
            let policy = (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
            let media = (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            ([media, policy], invoice.html()).into_response()
        }
        _ => answer(StatusCode::OK, &invoice),
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsageQuery {
    limit: Option<usize>,
    cursor: Option<String>,
}

/// The caller's usage as CloudEvents, the oldest first.
pub(crate) async fn usage(
    State(api): State<Api>,
    caller: Caller,
    query: Result<Query<UsageQuery>, QueryRejection>,
    Extension(Agreed(media)): Extension<Agreed>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(100);
    if !(1..=EVENTS_MAX).contains(&limit) {
        return Err(Problem::invalid(format!("`limit` is {limit}: 1 to {EVENTS_MAX} are taken")));
    }
    let refused = |e: usage::Error| match e {
        usage::Error::Store(e) => Problem::from(e),
        usage::Error::Cursor(_) => Problem::invalid(e.to_string()),
        usage::Error::OtherLedger(_) => {
            let title = "The cursor is of another ledger";
            Problem::new(StatusCode::CONFLICT, "other-ledger", title, e.to_string())
        }
    };
    let from = query.cursor.as_deref().map(str::parse).transpose().map_err(refused)?.unwrap_or_default();
    let events = usage::after(&*api.store, from, Some(&caller.tenant), limit).await.map_err(refused)?;
    if media == JSON {
        return Ok(answer(
            StatusCode::OK,
            &json!({ "events": events.events, "cursor": events.cursor.to_string() }),
        ));
    }
    let body = json!(events.events).to_string() + "\n";
    Ok(([(header::CONTENT_TYPE, usage::BATCH)], body).into_response())
}

/// Refuses a dataset that is not the caller's, as far as its entries tell; what they hold is checked when it is listed.
pub(crate) fn refuse_foreign(api: &Api, caller: &Caller, spec: &JobSpec) -> Result<(), Problem> {
    let tenant = Tenant { id: caller.tenant.clone(), settings: (*caller.settings).clone(), removed_ms: None };
    let policy = api.guard.policy(&tenant);
    for (n, source) in spec.dataset.iter().enumerate() {
        dataset::allows(&policy, source).map_err(|e| {
            let title = "The dataset may not be read";
            Problem::new(StatusCode::FORBIDDEN, "dataset-not-allowed", title, e.to_string())
                .at(format!("/dataset/{n}"))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest, Sha256};

    /// CSP 3, 8.2: else a browser would show the page without its style.
    #[test]
    fn the_page_s_style_is_the_one_that_is_allowed() {
        let page = include_str!("../../job/src/invoice.html");
        let style = page.split_once("<style>").and_then(|(_, rest)| Some(rest.split_once("</style>")?.0));
        let hash = STANDARD.encode(Sha256::digest(style.expect("a style")));
        assert!(PAGE_POLICY.contains(&format!("'sha256-{hash}'")), "{hash}");
    }
}
