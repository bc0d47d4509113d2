//! Jobs: submit, list, look at, wish for.

use crate::answer::{answer, attached, tag_of, text_of, written};
use crate::prefer::Preferences;
use crate::watch::has_ended;
use crate::{Api, Caller, Problem, gate, idempotency, money};
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use dragnet_job::spec::JobSpec;
use dragnet_job::{KIND, bill as bills, topic, view};
use dragnet_pattern::{Accept, Filter, PRIORITY, Page, Row, Status, Work, crash};
use dragnet_run::{Output, Report, ReportTotals};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::time::Duration;

/// Seconds between two looks at a job that we suggest.
const LOOK_AGAIN_S: u32 = 1;
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Patterns of a job that are checked where the request is answered, in bytes.
const LIGHT_BYTES_MAX: usize = 200;
/// How deep a body's lists and objects may stand in each other.
const DEPTH_MAX: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubmitQuery {
    #[serde(default)]
    validate_only: bool,
}

pub(crate) async fn submit(
    State(api): State<Api>,
    caller: Caller,
    query: Result<Query<SubmitQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let body = body?;
    let posted = read(&body)?;
    let key = idempotency::key_of(&headers, &body)?;
    let mut spec = checked(posted).await?;
    if let Err(foreign) = money::refuse_foreign(&api, &caller, &spec)
        && (query.validate_only || !money::is_repeated(&api, &caller, key.as_ref()).await?)
    {
        return Err(foreign);
    }
    if query.validate_only {
        return money::plan(&api, &caller, &spec).await;
    }
    let turn = api.twins.enter(&caller.tenant, key.as_ref()).await?;
    money::refuse_spent(&api, &caller, key.as_ref()).await?;
    spec.output = Some(api.output.clone());
    let accept = Accept {
        tenant: caller.tenant.clone(),
        kind: KIND.into(),
        spec: serde_json::to_value(&spec).map_err(|e| Problem::invalid(e.to_string()))?,
        topic: topic::LAUNCH.into(),
        key,
        deadline: spec.limits.deadline_s.map(Duration::from_secs),
        priority: spec.priority.map_or(PRIORITY, i64::from),
        waiting_max: caller.settings.jobs_open.map(|most| i64::try_from(most).unwrap_or(i64::MAX)),
    };
    crash::point("api", "before_accept");
    let accepted = api.store.accept(accept).await?;
    crash::point("api", "after_accept");
    drop(turn);
    let preferences = Preferences::of(&headers);
    let ended = match preferences.wait() {
        // It is accepted: that it can't be waited for is no failure of the request.
        Some(wait) => until_ended(&api, &caller, &accepted.work, wait).await.unwrap_or_else(|problem| {
            tracing::warn!(
                work = accepted.work.id,
                tenant = caller.tenant,
                ?problem,
                "a job was accepted and is not waited for"
            );
            None
        }),
        None => None,
    };
    let mut response = match ended {
        Some(job) => written(StatusCode::OK, job),
        None => {
            // What is new has no rows yet, and needs no look at the store that could fail.
            let rows = match accepted.replayed {
                true => find(&api, &caller, &accepted.work.id).await?.1,
                false => Vec::new(),
            };
            let job = view::of(&*api.store, &accepted.work, &rows).await?;
            let mut response = answer(StatusCode::ACCEPTED, &job);
            response.headers_mut().insert(header::RETRY_AFTER, LOOK_AGAIN_S.into());
            response
        }
    };
    let location = format!("/v1/jobs/{}", accepted.work.id);
    let location = HeaderValue::try_from(location).map_err(|_| Problem::invalid("the id is no header"))?;
    response.headers_mut().insert(header::LOCATION, location);
    if accepted.replayed {
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    preferences.applied(&mut response);
    Ok(response)
}

/// The line that shows the job, once it has ended; nothing where that takes longer.
async fn until_ended(
    api: &Api,
    caller: &Caller,
    work: &Work,
    wait: Duration,
) -> Result<Option<String>, Problem> {
    let mut watch = api.watches.enter(&caller.tenant)?;
    let end = tokio::time::Instant::now() + wait;
    while !has_ended(&*api.store, &work.id).await? {
        if !watch.pause(Some(end)).await {
            return Ok(None);
        }
    }
    let (work, rows) = find(api, caller, &work.id).await?;
    Ok(Some(text_of(&view::of(&*api.store, &work, &rows).await?)))
}

/// The job that is posted. It is read as what it is and not as any JSON first, so that a member that is given twice is
/// refused and not half of it forgotten.
fn read(body: &Bytes) -> Result<JobSpec, Problem> {
    let depth = depth_of(body);
    if depth > DEPTH_MAX {
        return Err(Problem::invalid(format!(
            "the body is nested {depth} deep: at most {DEPTH_MAX} is taken"
        )));
    }
    serde_json::from_slice(body).map_err(|e| match e.is_data() {
        true => Problem::invalid(format!("the job: {e}")),
        false => Problem::invalid(format!("the body is no JSON: {e}")),
    })
}

/// How deep brackets stand in each other, outside of strings.
fn depth_of(body: &[u8]) -> usize {
    let (mut depth, mut most, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                most = most.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    most
}

/// The job, if it can be one. To know that its patterns are compiled, which takes a processor for up to
/// seconds, and then is done beside the threads that answer others.
async fn checked(spec: JobSpec) -> Result<JobSpec, Problem> {
    if spec.output.is_some() {
        let detail = "`output` is the service's to choose: leave it out";
        return Err(Problem::invalid(detail).at("/output".into()));
    }
    let is_light = is_light(&spec);
    let check = move || match spec.check() {
        Ok(()) => Ok(spec),
        Err(e) => Err(Problem::invalid(e.detail).at(e.pointer)),
    };
    if is_light {
        return check();
    }
    tokio::task::spawn_blocking(check).await.map_err(|e| {
        tracing::error!(error = %e, "a job could not be checked");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The service failed", "its log says more")
    })?
}

/// Whether patterns compile in less time than another thread takes to begin: what is short, and repeats nothing by a
/// number, which can make much of little.
fn is_light(spec: &JobSpec) -> bool {
    let regexes =
        || spec.patterns.iter().map(|pattern| pattern.regex.as_str()).chain(spec.filter.url_regex.as_deref());
    regexes().map(str::len).sum::<usize>() <= LIGHT_BYTES_MAX && !regexes().any(|regex| regex.contains('{'))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    limit: Option<usize>,
    cursor: Option<String>,
    status: Option<String>,
    created_after: Option<String>,
    created_before: Option<String>,
}

#[derive(Debug, Serialize)]
struct List<'a> {
    jobs: Vec<view::Summary<'a>>,
    next: Option<&'a str>,
}

pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    uri: Uri,
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
    let filter = Filter {
        status,
        created_after_ms: moment("created_after", query.created_after.as_deref())?,
        created_before_ms: moment("created_before", query.created_before.as_deref())?,
    };
    let after = query.cursor.as_deref();
    if let Some(cursor) = after.filter(|cursor| uuid::Uuid::try_parse(cursor).is_err()) {
        return Err(Problem::invalid(format!("`{cursor}` is no cursor of this list: begin without one")));
    }
    // One more than is wanted tells whether there is a next page.
    let mut works = api.store.works(&caller.tenant, filter, Page { limit: limit + 1, after }).await?;
    let more = works.len() > limit;
    works.truncate(limit);
    let next = works.last().filter(|_| more).map(|work| work.id.clone());
    let jobs = works.iter().map(view::summary).collect();
    let mut response = answer(StatusCode::OK, &List { jobs, next: next.as_deref() });
    if let Some(Ok(link)) = next.map(|next| next_page(&uri, &next).parse()) {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// A moment of a query (RFC 3339), in milliseconds since 1970.
fn moment(name: &str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let moment: jiff::Timestamp = text.parse().map_err(|_| {
        Problem::invalid(format!("`{name}` is `{text}`: write a moment as 2024-05-20T09:30:00Z"))
    })?;
    Ok(Some(moment.as_millisecond()))
}

/// The same list behind another cursor, as `Link` has it (RFC 8288).
fn next_page(uri: &Uri, cursor: &str) -> String {
    let pieces = uri.query().unwrap_or_default().split('&').filter(|piece| !piece.is_empty());
    let kept: String =
        pieces.filter(|piece| !piece.starts_with("cursor=")).map(|piece| format!("{piece}&")).collect();
    format!("<{}?{kept}cursor={cursor}>; rel=\"next\"", uri.path())
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
    let preferences = Preferences::of(&headers);
    let mut watch = None;
    let end = preferences.wait().map(|wait| tokio::time::Instant::now() + wait);
    let (work, job) = loop {
        let (work, rows) = find(&api, &caller, &id).await?;
        let job = text_of(&view::of(&*api.store, &work, &rows).await?);
        let Some(end) = end.filter(|_| !work.status.is_terminal()) else { break (work, job) };
        let tag = tag_of(&job);
        if headers.contains_key(header::IF_NONE_MATCH) && !gate::names(&headers, &tag) {
            break (work, job);
        }
        let watch = match &mut watch {
            Some(watch) => watch,
            none => none.insert(api.watches.enter(&caller.tenant)?),
        };
        if !watch.pause(Some(end)).await {
            break (work, job);
        }
    };
    let mut response = written(StatusCode::OK, job);
    if !work.status.is_terminal() {
        response.headers_mut().insert(header::RETRY_AFTER, LOOK_AGAIN_S.into());
    }
    preferences.applied(&mut response);
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
    Ok(attached(answer(StatusCode::OK, &report), &id, "coverage.json"))
}

pub(crate) async fn bill(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    find(&api, &caller, &id).await?;
    let bill = bills::of(&*api.store, &caller.tenant, &id).await?;
    Ok(attached(answer(StatusCode::OK, &bill), &id, "bill.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_the_depth_of_json() {
        let table =
            [("1", 0), ("[]", 1), ("[[],{\"a\":[]}]", 3), (r#"["[[[\"[["]"#, 1), ("]]]][", 1), ("[[[", 3)];
        for (body, expected) in table {
            assert_eq!(depth_of(body.as_bytes()), expected, "{body}");
        }
    }
}
