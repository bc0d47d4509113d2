//! The rows of the table.

use super::{Answer, Row, Suite, Verdict};
use serde_json::{Value as Json, json};

/// All promises.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "a job is accepted by 202 with Location and Retry-After",
        reference: "RFC 9110, 15.3.3",
        check: |suite| {
            row(|| {
                let accepted = suite.post("/v1/jobs", &[], &suite.spec("accepted")?.to_string());
                holds(accepted.status == 202, &accepted)?;
                holds(accepted.header("retry-after").parse::<u64>().is_ok(), &accepted)?;
                let id = accepted.json()["id"].as_str().unwrap_or("?").to_owned();
                holds(accepted.header("location") == format!("/v1/jobs/{id}"), &accepted)?;
                let job = suite.get(accepted.header("location"));
                holds(job.status == 200 && job.json()["id"] == id, &job)
            })
        },
    },
    Row {
        name: "a plan costs nothing: validate_only answers 200 and submits nothing",
        reference: "openapi.json",
        check: |suite| {
            row(|| {
                let newest = |answer: Answer| answer.json()["jobs"][0]["id"].clone();
                let before = newest(suite.get("/v1/jobs?limit=1"));
                let plan = suite.post("/v1/jobs?validate_only=true", &[], &suite.spec("plan")?.to_string());
                holds(plan.status == 200 && plan.header("location").is_empty(), &plan)?;
                holds(plan.json()["objects"].is_u64(), &plan)?;
                said(newest(suite.get("/v1/jobs?limit=1")) == before, "a job was submitted")
            })
        },
    },
    Row {
        name: "errors are problems whose type is a page of the service",
        reference: "RFC 9457, 3.1.1",
        check: |suite| {
            row(|| {
                let missing = suite.get("/v1/jobs/00000000-0000-7000-8000-000000000000");
                holds(missing.is_problem(404), &missing)?;
                let kind = missing.json()["type"].as_str().unwrap_or_default().to_owned();
                let page = suite.ask("GET", &kind, &[("Accept", "text/html")], None);
                holds(page.status == 200 && page.header("content-type").starts_with("text/html"), &page)
            })
        },
    },
    Row {
        name: "what is not there is 404",
        reference: "RFC 9110, 15.5.5",
        check: |suite| {
            row(|| {
                for path in ["/v1/nothing", "/v1/jobs/", "/v1/jobs/x/nothing", "/v1//jobs"] {
                    let answer = suite.get(path);
                    holds(answer.is_problem(404), &answer)?;
                }
                let verb = suite.post("/v1/jobs/x:smile", &[], "");
                holds(verb.is_problem(404), &verb)
            })
        },
    },
    Row {
        name: "another method is 405 with Allow",
        reference: "RFC 9110, 15.5.6",
        check: |suite| {
            row(|| {
                for (method, path, allowed) in [
                    ("DELETE", "/v1/jobs", "POST"),
                    ("GET", "/v1/jobs/x:cancel", "POST"),
                    ("DELETE", "/v1/jobs/x", "GET"),
                ] {
                    let answer = suite.ask(method, path, &[], None);
                    holds(answer.is_problem(405) && lists(answer.header("allow"), allowed), &answer)?;
                }
                Ok(())
            })
        },
    },
    Row {
        name: "OPTIONS tells the methods of every documented path",
        reference: "RFC 9110, 9.3.7",
        check: |suite| {
            row(|| {
                let document = suite.get("/openapi.json").json();
                for (path, operations) in document["paths"].as_object().into_iter().flatten() {
                    let answer = suite.ask("OPTIONS", &path.replace(['{', '}'], ""), &[], None);
                    for method in operations.as_object().into_iter().flatten().map(|(name, _)| name) {
                        let method = method.to_ascii_uppercase();
                        let named = method == "PARAMETERS" || lists(answer.header("allow"), &method);
                        said(
                            answer.status < 300 && named,
                            &format!("OPTIONS {path} does not name {method}"),
                        )?;
                    }
                }
                said(document["paths"]["/v1/jobs"]["post"].is_object(), "openapi.json has no POST /v1/jobs")
            })
        },
    },
    Row {
        name: "HEAD is GET without content",
        reference: "RFC 9110, 9.3.2",
        check: |suite| {
            row(|| {
                let path = suite.job()?;
                while_still(suite, &path, |get| {
                    let head = suite.ask("HEAD", &path, &[], None);
                    holds(head.status == 200 && head.body.is_empty(), &head)?;
                    for name in ["etag", "content-type", "content-length"] {
                        said(get.header(name) == head.header(name), &format!("`{name}` differs"))?;
                    }
                    Ok(())
                })
            })
        },
    },
    Row {
        name: "an Accept that can't be met is 406",
        reference: "RFC 9110, 15.5.7",
        check: |suite| {
            row(|| {
                for (accept, status) in [
                    ("image/png", 406),
                    ("application/json;q=0", 406),
                    ("application/*, image/png;q=0.5", 200),
                    ("*/*", 200),
                ] {
                    let answer = suite.ask("GET", "/v1/jobs", &[("Accept", accept)], None);
                    holds(answer.status == status && (status == 200 || answer.is_problem(status)), &answer)?;
                }
                Ok(())
            })
        },
    },
    Row {
        name: "another media type or coding of a body is 415",
        reference: "RFC 9110, 15.5.16",
        check: |suite| {
            row(|| {
                let xml = suite.ask("POST", "/v1/jobs", &[("Content-Type", "application/xml")], Some("<x/>"));
                holds(xml.is_problem(415) && xml.header("accept-post").contains("application/json"), &xml)?;
                let none = suite.ask("POST", "/v1/jobs", &[], Some("{}"));
                holds(none.is_problem(415), &none)?;
                let coded = suite.post("/v1/jobs", &[("Content-Encoding", "gzip")], "{}");
                holds(coded.is_problem(415) && !coded.header("accept-encoding").is_empty(), &coded)
            })
        },
    },
    Row {
        name: "a body that is too long is 413",
        reference: "RFC 9110, 15.5.14",
        check: |suite| {
            row(|| {
                let long = format!("{{\"x\":\"{}\"}}", "y".repeat(8 << 20));
                let answer = suite.post("/v1/jobs", &[("Expect", "100-continue")], &long);
                holds(answer.is_problem(413), &answer)
            })
        },
    },
    Row {
        name: "what is no job is 400, with a pointer to what is wrong",
        reference: "RFC 9457, 3.2",
        check: |suite| {
            row(|| {
                let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
                for body in ["", "{", "[]", "null", "{\"patterns\":[]}", "\u{1}", &deep] {
                    let answer = suite.post("/v1/jobs", &[], body);
                    holds(answer.is_problem(400), &answer)?;
                }
                let broken = json!({ "patterns": [{ "regex": "ok" }, { "name": "b", "regex": "(" }], "dataset": ["/x"] });
                let answer = suite.post("/v1/jobs", &[], &broken.to_string());
                holds(answer.is_problem(400) && answer.json()["pointer"] == "/patterns/1", &answer)
            })
        },
    },
    Row {
        name: "an unknown or a wrong query parameter is 400",
        reference: "openapi.json",
        check: |suite| {
            row(|| {
                let queries = [
                    "colour=red",
                    "limit=0",
                    "limit=x",
                    "limit=1&limit=2",
                    "status=nice",
                    "cursor=x",
                    "created_after=soon",
                ];
                for query in queries {
                    let answer = suite.get(&format!("/v1/jobs?{query}"));
                    holds(answer.is_problem(400), &answer)?;
                }
                Ok(())
            })
        },
    },
    Row {
        name: "an ETag that is known is answered by 304",
        reference: "RFC 9110, 13.1.2",
        check: |suite| {
            row(|| {
                for path in [suite.job()?, format!("{}/hits", suite.job()?)] {
                    while_still(suite, &path, |get| {
                        let tag = get.header("etag").to_owned();
                        said(!tag.is_empty(), &format!("{path} has no ETag"))?;
                        for (known, status) in [
                            (tag.clone(), 304),
                            (format!("W/{tag}"), 304),
                            (format!("\"a\", {tag}"), 304),
                            ("*".into(), 304),
                            ("\"a\"".into(), 200),
                        ] {
                            for method in ["GET", "HEAD"] {
                                let answer = suite.ask(method, &path, &[("If-None-Match", &known)], None);
                                // What has no body says no length but that of the 200 (RFC 9110, 8.6).
                                let is_bare =
                                    answer.body.is_empty() && answer.header("content-length") != "0";
                                let is_right = answer.status == status && answer.header("etag") == tag;
                                holds(is_right && (status == 200 || is_bare), &answer)?;
                            }
                        }
                        Ok(())
                    })?;
                }
                Ok(())
            })
        },
    },
    Row {
        name: "Prefer: wait and respond-async are kept and said",
        reference: "RFC 7240, 3",
        check: |suite| {
            row(|| {
                let prefer = [("Prefer", "respond-async, wait=30, handling=lenient")];
                let ended = suite.post("/v1/jobs", &prefer, &suite.spec("wait")?.to_string());
                let applied = ended.header("preference-applied");
                holds(lists(applied, "respond-async") && applied.contains("wait="), &ended)?;
                holds(ended.status == 202 || ended.json()["ended"].is_string(), &ended)?;
                let status = suite.ask("GET", &suite.job()?, &[("Prefer", "wait=1")], None);
                holds(status.status == 200 && status.header("preference-applied") == "wait=1", &status)
            })
        },
    },
    Row {
        name: "a repeated Idempotency-Key is the same job, and says so",
        reference: "draft-ietf-httpapi-idempotency-key-header, 2.6",
        check: |suite| {
            row(|| {
                let key = format!("\"{}\"", uuid::Uuid::new_v4());
                let spec = suite.spec("key")?;
                let first = suite.post("/v1/jobs", &[("Idempotency-Key", &key)], &spec.to_string());
                holds(first.status == 202 && first.header("idempotent-replayed").is_empty(), &first)?;
                // As parsed: neither spaces nor the order of members matter.
                let spaced =
                    format!("{{ \"dataset\": {}, \"patterns\": {} }}\n", spec["dataset"], spec["patterns"]);
                let again = suite.post("/v1/jobs", &[("Idempotency-Key", &key)], &spaced);
                holds(again.status == 202 && again.header("idempotent-replayed") == "true", &again)?;
                said(again.json()["id"] == first.json()["id"], "it is another job")
            })
        },
    },
    Row {
        name: "an Idempotency-Key with another body is 422, a wrong one 400",
        reference: "draft-ietf-httpapi-idempotency-key-header, 2.7",
        check: |suite| {
            row(|| {
                let key = format!("\"{}\"", uuid::Uuid::new_v4());
                for (name, status) in [("one", 202), ("two", 422)] {
                    let answer =
                        suite.post("/v1/jobs", &[("Idempotency-Key", &key)], &suite.spec(name)?.to_string());
                    holds(answer.status == status && (status == 202 || answer.is_problem(status)), &answer)?;
                }
                for key in ["\"\"", "\"open", "\"a\" b", &"k".repeat(300)] {
                    let answer =
                        suite.post("/v1/jobs", &[("Idempotency-Key", key)], &suite.spec("k")?.to_string());
                    holds(answer.is_problem(400), &answer)?;
                }
                Ok(())
            })
        },
    },
    Row {
        name: "eight twins at once are one job",
        reference: "draft-ietf-httpapi-idempotency-key-header, 2.6",
        check: |suite| {
            row(|| {
                let key = format!("\"{}\"", uuid::Uuid::new_v4());
                let spec = suite.spec("twins")?.to_string();
                let (url, authorization) = (suite.url.clone(), suite.authorization.clone());
                let twin = || {
                    let mut twin = Suite::new(&url, None, None);
                    twin.authorization.clone_from(&authorization);
                    twin.post("/v1/jobs", &[("Idempotency-Key", &key)], &spec)
                };
                let answers: Vec<Answer> = std::thread::scope(|scope| {
                    let twins: Vec<_> = (0..8).map(|_| scope.spawn(twin)).collect();
                    twins.into_iter().filter_map(|twin| twin.join().ok()).collect()
                });
                let ids: Vec<Json> = answers.iter().map(|answer| answer.json()["id"].clone()).collect();
                let first = answers.iter().filter(|answer| answer.header("idempotent-replayed").is_empty());
                said(
                    ids.len() == 8 && ids.iter().all(|id| id.is_string() && *id == ids[0]),
                    &format!("ids: {ids:?}"),
                )?;
                said(first.count() == 1, "more than one is not marked as replayed")
            })
        },
    },
    Row {
        name: "a list is paged by a cursor and Link, and filtered",
        reference: "RFC 8288",
        check: |suite| {
            row(|| {
                for name in ["page-1", "page-2"] {
                    suite.post("/v1/jobs", &[], &suite.spec(name)?.to_string());
                }
                let first = suite.get("/v1/jobs?limit=1");
                let list = first.json();
                holds(list["jobs"].as_array().is_some_and(|jobs| jobs.len() == 1), &first)?;
                let link = first.header("link");
                holds(
                    link.contains("rel=\"next\"") && link.contains(list["next"].as_str().unwrap_or("?")),
                    &first,
                )?;
                let path = link.trim_start_matches('<').split('>').next().unwrap_or_default();
                let second = suite.get(path).json();
                said(
                    second["jobs"][0]["id"].is_string() && second["jobs"][0]["id"] != list["jobs"][0]["id"],
                    "the second page is the first",
                )?;
                for (query, none) in [
                    ("created_before=2000-01-01T00:00:00Z", true),
                    ("created_after=2000-01-01T00:00:00Z", false),
                    ("created_after=2999-01-01T00:00:00Z", true),
                ] {
                    let answer = suite.get(&format!("/v1/jobs?{query}"));
                    holds(answer.status == 200 && (answer.json()["jobs"] == json!([])) == none, &answer)?;
                }
                let ended = suite.get("/v1/jobs?status=completed");
                let all = ended.json()["jobs"]
                    .as_array()
                    .is_some_and(|jobs| jobs.iter().all(|job| job["status"] == "completed"));
                holds(ended.status == 200 && all, &ended)
            })
        },
    },
    Row {
        name: "events stream to the job's end and resume by Last-Event-ID",
        reference: "HTML, 9.2 (server-sent events)",
        check: |suite| {
            row(|| {
                let path = format!("{}/events", suite.job()?);
                let all = suite.ask("GET", &path, &[("Accept", "text/event-stream")], None);
                holds(
                    all.status == 200 && all.header("content-type").starts_with("text/event-stream"),
                    &all,
                )?;
                let ids = event_ids(&all.body);
                holds(ids.len() > 1 && ids.windows(2).all(|pair| pair[0] < pair[1]), &all)?;
                holds(all.body.contains("event: end"), &all)?;
                let rest = suite.ask(
                    "GET",
                    &path,
                    &[("Accept", "text/event-stream"), ("Last-Event-ID", &ids[0].to_string())],
                    None,
                );
                said(
                    event_ids(&rest.body)[..] == ids[1..],
                    "what comes after Last-Event-ID is not the rest",
                )?;
                let last = ids.last().map_or_else(String::new, i64::to_string);
                let none = suite.ask(
                    "GET",
                    &path,
                    &[("Accept", "text/event-stream"), ("Last-Event-ID", &last)],
                    None,
                );
                holds(none.status == 204, &none)?;
                let listed = suite.ask("GET", &path, &[("Accept", "application/json")], None);
                let listed_ids: Vec<i64> = listed.json()["events"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|event| event["seq"].as_i64())
                    .collect();
                holds(listed_ids == ids, &listed)
            })
        },
    },
    Row {
        name: "results are attachments that no browser sniffs",
        reference: "RFC 6266; Fetch, 2.2.6",
        check: |suite| {
            row(|| {
                let path = suite.job()?;
                for (name, media) in [
                    ("hits", "application/jsonl"),
                    ("coverage", "application/json"),
                    ("bill", "application/json"),
                ] {
                    let answer = suite.get(&format!("{path}/{name}"));
                    holds(answer.status == 200 && answer.header("content-type") == media, &answer)?;
                    holds(answer.header("content-disposition").starts_with("attachment"), &answer)?;
                    holds(answer.header("x-content-type-options") == "nosniff", &answer)?;
                }
                Ok(())
            })
        },
    },
    Row {
        name: "hits are lines, or a list where JSON is asked for",
        reference: "RFC 9110, 12.5.1",
        check: |suite| {
            row(|| {
                let path = format!("{}/hits", suite.job()?);
                let lines = suite.get(&path);
                let parsed: Vec<Json> =
                    lines.body.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
                let listed = suite.ask("GET", &path, &[("Accept", "application/json")], None);
                holds(listed.json()["hits"] == json!(parsed), &listed)?;
                let first = suite.get(&format!("{path}?limit=1"));
                let more = parsed.len() > 1;
                holds(first.header("link").contains("rel=\"next\"") == more, &first)?;
                let redacted = suite.get(&format!("{path}?redact=true"));
                holds(!redacted.body.contains("\"needle\""), &redacted)
            })
        },
    },
    Row {
        name: "cancel and redrive are harmless when the job has ended",
        reference: "RFC 9110, 9.2.2",
        check: |suite| {
            row(|| {
                let path = suite.job()?;
                let before = suite.get(&path).json()["status"].clone();
                for verb in ["cancel", "redrive", "cancel"] {
                    let answer = suite.ask("POST", &format!("{path}:{verb}"), &[], Some(""));
                    holds(answer.status == 202 && answer.json()["status"] == before, &answer)?;
                }
                Ok(())
            })
        },
    },
    Row {
        name: "the document is OpenAPI 3.1 and its responses are JSON or problems",
        reference: "OpenAPI 3.1",
        check: |suite| {
            row(|| {
                let answer = suite.get("/openapi.json");
                let document = answer.json();
                holds(
                    answer.status == 200
                        && document["openapi"].as_str().is_some_and(|v| v.starts_with("3.1.")),
                    &answer,
                )?;
                for (path, operations) in document["paths"].as_object().into_iter().flatten() {
                    for (method, operation) in
                        operations.as_object().into_iter().flatten().filter(|(name, _)| *name != "parameters")
                    {
                        let complete =
                            operation["operationId"].is_string() && operation["responses"].is_object();
                        said(complete, &format!("{method} {path} is not complete"))?;
                    }
                }
                Ok(())
            })
        },
    },
    Row {
        name: "pages run no script but the service's own",
        reference: "Content Security Policy Level 3",
        check: |suite| {
            row(|| {
                for path in ["/", "/docs", "/problems"] {
                    let page = suite.ask("GET", path, &[("Accept", "text/html")], None);
                    holds(page.status == 200, &page)?;
                    let policy = page.header("content-security-policy");
                    let strict =
                        policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'");
                    said(
                        strict && !policy.contains("unsafe"),
                        &format!("the policy of {path} is `{policy}`"),
                    )?;
                    said(
                        !page.body.contains("http:") && !page.body.contains("https:"),
                        &format!("{path} fetches from elsewhere"),
                    )?;
                }
                Ok(())
            })
        },
    },
    Row {
        name: "what is left of a quota is said as the draft has it",
        reference: "draft-ietf-httpapi-ratelimit-headers-10",
        check: |suite| {
            row(|| {
                let answer = suite.post("/v1/jobs", &[], &suite.spec("quota")?.to_string());
                let (policy, limit) = (answer.header("ratelimit-policy"), answer.header("ratelimit"));
                if policy.is_empty() && limit.is_empty() {
                    return Err(Verdict::Skipped("this caller has no quota".into()));
                }
                let name = policy.split(';').next().unwrap_or_default();
                let quoted = name.len() > 2 && name.starts_with('"') && name.ends_with('"');
                holds(quoted && policy.contains(";q=") && policy.contains(";w="), &answer)?;
                said(limit.starts_with(name) && limit.contains(";r="), &format!("RateLimit is `{limit}`"))
            })
        },
    },
    Row {
        name: "without a key or with a wrong one it is 401 with a challenge",
        reference: "RFC 6750, 3",
        check: |suite| {
            row(|| {
                if suite.authorization.is_none() {
                    return Err(Verdict::Skipped("DRAGNET_API_KEY is not set".into()));
                }
                for authorization in ["Basic eDp5", "Bearer nonsense", "Bearer"] {
                    let answer = suite.ask("GET", "/v1/jobs", &[("Authorization", authorization)], None);
                    holds(answer.is_problem(401), &answer)?;
                    holds(answer.header("www-authenticate").starts_with("Bearer"), &answer)?;
                }
                Ok(())
            })
        },
    },
];

/// A check that ends at the first thing which does not hold.
fn row(check: impl FnOnce() -> Result<(), Verdict>) -> Verdict {
    check().err().unwrap_or(Verdict::Holds)
}

/// Checks a resource that may change meanwhile: a job does after its end as well, when the last of it is cleaned up.
fn while_still(
    suite: &Suite,
    path: &str,
    check: impl Fn(&Answer) -> Result<(), Verdict>,
) -> Result<(), Verdict> {
    const CHANGES_MAX: usize = 10;
    let mut now = suite.get(path);
    for _ in 0..CHANGES_MAX {
        let found = check(&now);
        let then = suite.get(path);
        if found.is_ok() || then.header("etag") == now.header("etag") {
            return found;
        }
        now = then;
    }
    check(&now)
}

fn holds(condition: bool, answer: &Answer) -> Result<(), Verdict> {
    said(condition, &format!("the answer was {}", answer.said()))
}

fn said(condition: bool, why: &str) -> Result<(), Verdict> {
    if condition { Ok(()) } else { Err(Verdict::Fails(why.into())) }
}

/// Whether a list of tokens has one.
fn lists(header: &str, token: &str) -> bool {
    header.split(',').any(|entry| entry.trim() == token)
}

/// The ids of a stream's events.
fn event_ids(stream: &str) -> Vec<i64> {
    stream.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect()
}
