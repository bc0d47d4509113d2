//! Jobs: submit, list, look at, wish for.

use crate::{Api, Caller, Problem};
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dragnet_job::spec::JobSpec;
use dragnet_job::{KIND, bill as bills, topic, view};
use dragnet_kernel::Digest;
use dragnet_pattern::{Accept, Filter, IdempotencyKey, PRIORITY, Page, Row, Status, Work, crash};
use dragnet_run::{Output, Report, ReportTotals};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::time::Duration;

/// Seconds between two looks at a job that we suggest.
const LOOK_AGAIN_S: u32 = 1;
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// The longest idempotency key.
const KEY_BYTES_MAX: usize = 255;

pub(crate) fn answer(status: StatusCode, body: &Json) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string() + "\n").into_response()
}

#[derive(Debug, Deserialize)]
pub(crate) struct SubmitQuery {
    validate_only: Option<bool>,
}

pub(crate) async fn submit(
    State(api): State<Api>,
    caller: Caller,
    query: Result<Query<SubmitQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    if query.validate_only.is_some_and(|only| only) {
        return Err(Problem::invalid("`validate_only` is not in this version: nothing was submitted"));
    }
    let body = body?;
    let posted = parse(&headers, &body)?;
    let mut spec: JobSpec =
        serde_json::from_value(posted.clone()).map_err(|e| Problem::invalid(format!("the job: {e}")))?;
    if spec.output.take().is_some() {
        return Err(
            Problem::invalid("`output` is the service's to choose: leave it out").at("/output".into())
        );
    }
    spec.check().map_err(|e| Problem::invalid(e.detail).at(e.pointer))?;
    spec.output = Some(api.output.clone());
    let accept = Accept {
        tenant: caller.tenant,
        kind: KIND.into(),
        spec: serde_json::to_value(&spec).map_err(|e| Problem::invalid(e.to_string()))?,
        topic: topic::LAUNCH.into(),
        key: key_of(&headers, &posted)?,
        deadline: spec.limits.deadline_s.map(Duration::from_secs),
        priority: spec.priority.map_or(PRIORITY, i64::from),
        waiting_max: caller.settings.jobs_open.map(|most| i64::try_from(most).unwrap_or(i64::MAX)),
    };
    crash::point("api", "before_accept");
    let accepted = api.store.accept(accept).await?;
    crash::point("api", "after_accept");
    let job = view::of(&*api.store, &accepted.work, &[]).await?;
    let mut response = answer(StatusCode::ACCEPTED, &job);
    let location = format!("/v1/jobs/{}", accepted.work.id)
        .parse()
        .map_err(|_| Problem::invalid("the id is no header"))?;
    response.headers_mut().insert(header::LOCATION, location);
    response.headers_mut().insert(header::RETRY_AFTER, LOOK_AGAIN_S.into());
    if accepted.replayed {
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, header::HeaderValue::from_static("true"));
    }
    Ok(response)
}

fn parse(headers: &HeaderMap, body: &Bytes) -> Result<Json, Problem> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media != "application/json" {
        let detail = format!("the body is `{media}`: send `Content-Type: application/json`");
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "media-type",
            "This media type is not taken",
            detail,
        ));
    }
    serde_json::from_slice(body).map_err(|e| Problem::invalid(format!("the body is no JSON: {e}")))
}

/// The client's key (draft-ietf-httpapi-idempotency-key-header): a quoted string, or bare. Requests are
/// compared as parsed, so that spaces and the order of members don't matter.
fn key_of(headers: &HeaderMap, posted: &Json) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let wrong = |detail: String| {
        Problem::new(StatusCode::BAD_REQUEST, "idempotency-key", "The idempotency key is not valid", detail)
    };
    let text =
        value.to_str().map_err(|_| wrong("it holds characters other than visible ASCII".into()))?.trim();
    let key = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(wrong(format!("it has {} bytes: 1 to {KEY_BYTES_MAX} are taken", key.len())));
    }
    let fingerprint = Digest::of_file(posted.to_string().as_bytes());
    Ok(Some(IdempotencyKey { scope: "POST /v1/jobs".into(), key: key.into(), fingerprint }))
}

#[derive(Debug, Deserialize)]
pub(crate) struct ListQuery {
    limit: Option<usize>,
    cursor: Option<String>,
    status: Option<String>,
}

pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(50);
    if !(1..=1000).contains(&limit) {
        return Err(Problem::invalid(format!("`limit` is {limit}: 1 to 1000 are taken")));
    }
    let status = match query.status.as_deref() {
        None => None,
        Some(name) => Some(Status::parse(name).ok_or_else(|| {
            let names = Status::ALL.map(Status::name).join(", ");
            Problem::invalid(format!("there is no status `{name}`: use one of {names}"))
        })?),
    };
    // One more than is wanted tells whether there is a next page.
    let page = Page { limit: limit + 1, after: query.cursor.as_deref() };
    let mut works = api.store.works(&caller.tenant, Filter { status, ..Filter::default() }, page).await?;
    let more = works.len() > limit;
    works.truncate(limit);
    let next = works.last().filter(|_| more).map(|work| work.id.clone());
    let jobs: Vec<Json> = works.iter().map(view::summary).collect();
    Ok(answer(StatusCode::OK, &json!({ "jobs": jobs, "next": next })))
}

pub(crate) async fn find(api: &Api, caller: &Caller, id: &str) -> Result<(Work, Vec<Row>), Problem> {
    api.store.work(&caller.tenant, id).await?.ok_or_else(|| Problem::no_job(id))
}

pub(crate) fn output_of(api: &Api, work: &Work) -> Result<Output, Problem> {
    let root = work.spec.get("output").and_then(Json::as_str).unwrap_or(&api.output);
    let output = Output::at(root).map_err(dragnet_job::hits::Error::Run)?;
    Ok(output.of_job(&work.tenant, &work.id))
}

pub(crate) async fn status(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (work, rows) = find(&api, &caller, &id).await?;
    let job = view::of(&*api.store, &work, &rows).await?;
    let tag = format!("\"{}\"", &Digest::of_file(job.to_string().as_bytes())[..16]);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let same =
        known.is_some_and(|tags| tags.split(',').any(|known| known.trim().trim_start_matches("W/") == tag));
    let mut response =
        if same { StatusCode::NOT_MODIFIED.into_response() } else { answer(StatusCode::OK, &job) };
    if let Ok(tag) = tag.parse() {
        response.headers_mut().insert(header::ETAG, tag);
    }
    if !work.status.is_terminal() {
        response.headers_mut().insert(header::RETRY_AFTER, LOOK_AGAIN_S.into());
    }
    Ok(response)
}

pub(crate) async fn wish(
    State(api): State<Api>,
    caller: Caller,
    Path(target): Path<String>,
) -> Result<Response, Problem> {
    let (id, verb) = target.rsplit_once(':').unwrap_or((&target, ""));
    crash::point("api", "before_wish");
    let work = match verb {
        "cancel" => api.store.cancel(&caller.tenant, id).await?,
        "redrive" => api.store.redrive(&caller.tenant, id).await?,
        "" => {
            let detail = format!("`POST` to a job needs a verb: `/v1/jobs/{id}:cancel` or `:redrive`");
            let problem = Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "This method is not allowed here",
                detail,
            );
            return Ok(([(header::ALLOW, "GET, HEAD")], problem).into_response());
        }
        other => {
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                "not-found",
                "There is nothing here",
                format!("a job has no verb `{other}`"),
            ));
        }
    };
    crash::point("api", "after_wish");
    let (_, rows) = find(&api, &caller, id).await?;
    let job = view::of(&*api.store, &work, &rows).await?;
    Ok(answer(StatusCode::ACCEPTED, &job))
}

pub(crate) async fn coverage(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let (work, _) = find(&api, &caller, &id).await?;
    let output = output_of(&api, &work)?;
    let report = tokio::task::spawn_blocking(move || Report::read(&output)).await;
    let report =
        report.map_err(|e| Problem::not_ready(e.to_string()))?.map_err(dragnet_job::hits::Error::Run)?;
    let report = match report {
        // The coverage is written just before the seal; it holds once the job is past it.
        Some(report) if work.stage == dragnet_job::stage::FINISH => report,
        _ if work.status.is_terminal() => {
            Report { objects: Vec::new(), totals: ReportTotals::default(), complete: false }
        }
        _ => return Err(Problem::not_ready("the coverage is known when the run has been sealed")),
    };
    let body = serde_json::to_value(&report).map_err(|e| Problem::not_ready(e.to_string()))?;
    Ok(answer(StatusCode::OK, &body))
}

pub(crate) async fn bill(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    find(&api, &caller, &id).await?;
    let bill = bills::of(&*api.store, &caller.tenant, &id).await?;
    Ok(answer(StatusCode::OK, &json!(bill)))
}
