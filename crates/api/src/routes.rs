//! The table of all routes: the one place from which the router, the OpenAPI document, the scopes that a caller
//! needs and the answers 404, 405, 406 and 415 come, so that none of them can forget a route.

use crate::{Api, audit, events, groups, hits, jobs, money, pages};
use axum::Router;
use axum::http::Method;
use axum::routing::{MethodRouter, get, post};
use dragnet_tenant::keys::Scope;
use std::collections::HashSet;

/// One method of one path.
#[derive(Debug)]
pub struct Route {
    /// The method; `HEAD` goes with `GET`.
    pub method: Method,
    /// The path. `{name}` stands for one segment; a verb may follow it (`{id}:cancel`, as AIP-136 has it).
    pub path: &'static str,
    /// What the caller must be allowed to do; nothing where anybody may.
    pub scope: Option<Scope>,
    /// Its name in the audit log, where it changes anything.
    pub action: Option<&'static str>,
    /// Media types of its answer, the preferred one first.
    pub gives: &'static [&'static str],
    /// What the OpenAPI document says of it; nothing for the service's own pages.
    pub about: Option<About>,
    handler: fn() -> MethodRouter<Api>,
}

/// What the OpenAPI document says of a route. Names are those of its components.
#[derive(Debug)]
pub struct About {
    /// The operation's id.
    pub name: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// More of it.
    pub description: &'static str,
    /// The parameters that it takes beside those of its path.
    pub parameters: &'static [&'static str],
    /// The schema of the JSON that it takes.
    pub takes: Option<&'static str>,
    /// Its answers, but for those that are problems.
    pub answers: &'static [(u16, &'static str)],
    /// The status codes of its own problems, beside those that any route may answer.
    pub problems: &'static [u16],
}

pub(crate) const JSON: &str = "application/json";
pub(crate) const JSON_LINES: &str = "application/jsonl";
pub(crate) const NDJSON: &str = "application/x-ndjson";
pub(crate) const EVENT_STREAM: &str = "text/event-stream";
pub(crate) const CSV: &str = "text/csv";
pub(crate) const HTML: &str = "text/html";

/// All routes.
pub static ROUTES: &[Route] = &[
    Route {
        method: Method::POST,
        path: "/v1/jobs",
        scope: Some(Scope::Submit),
        action: Some("submit"),
        gives: &[JSON],
        about: Some(About {
            name: "submitJob",
            summary: "Submit a job",
            description: "Answers 202 once the job is logged durably, or 200 if it ended within `Prefer: wait=N`. With \
                          `validate_only=true` nothing is submitted, and the answer is the plan: what would be read \
                          and what it would cost.",
            parameters: &["validate_only", "Idempotency-Key", "Prefer"],
            takes: Some("JobSpec"),
            answers: &[(200, "JobOrPlan"), (202, "JobAccepted")],
            problems: &[400, 402, 408, 409, 413, 415, 422],
        }),
        handler: || post(jobs::submit),
    },
    Route {
        method: Method::GET,
        path: "/v1/jobs",
        scope: Some(Scope::Read),
        action: None,
        gives: &[JSON],
        about: Some(About {
            name: "listJobs",
            summary: "List jobs, newest first",
            description: "",
            parameters: &[
                "limit",
                "jobs_cursor",
                "status",
                "created_after",
                "created_before",
                "If-None-Match",
            ],
            takes: None,
            answers: &[(200, "JobList"), (304, "NotModified")],
            problems: &[400],
        }),
        handler: || get(jobs::list),
    },
    Route {
        method: Method::GET,
        path: "/v1/jobs/{id}",
        scope: Some(Scope::Read),
        action: None,
        gives: &[JSON],
        about: Some(About {
            name: "getJob",
            summary: "Show a job",
            description: "200 whatever became of the job; `Retry-After` stands there until it has ended. With `Prefer: \
                          wait=N` the answer waits up to N seconds for the job's end, or, with `If-None-Match`, for \
                          any change.",
            parameters: &["If-None-Match", "Prefer"],
            takes: None,
            answers: &[(200, "Job"), (304, "NotModified")],
            problems: &[400, 404],
        }),
        handler: || get(jobs::status),
    },
    Route {
        method: Method::POST,
        path: "/v1/jobs/{id}:cancel",
        scope: Some(Scope::Cancel),
        action: Some("cancel"),
        gives: &[JSON],
        about: Some(About {
            name: "cancelJob",
            summary: "End a job, keeping its results so far",
            description: "Records the wish; harmless when the job has ended.",
            parameters: &[],
            takes: None,
            answers: &[(202, "Job")],
            problems: &[404],
        }),
        handler: || post(jobs::wish),
    },
    Route {
        method: Method::POST,
        path: "/v1/jobs/{id}:redrive",
        scope: Some(Scope::Cancel),
        action: Some("redrive"),
        gives: &[JSON],
        about: Some(About {
            name: "redriveJob",
            summary: "Resume a parked job",
            description: "From the stage at which it is parked; harmless when nothing is.",
            parameters: &[],
            takes: None,
            answers: &[(202, "Job")],
            problems: &[404],
        }),
        handler: || post(jobs::wish),
    },
    Route {
        method: Method::GET,
        path: "/v1/jobs/{id}/hits",
        scope: Some(Scope::Read),
        action: None,
        gives: &[JSON_LINES, NDJSON, JSON],
        about: Some(About {
            name: "getHits",
            summary: "Read a job's hits, or count them",
            description: "While the job runs, the hits that have settled; what was shown is never taken back. The next \
                          page is named by `Link` with `rel=\"next\"`, and, in JSON, by `next`. With `count_by` the \
                          answer is JSON.",
            parameters: &["hits_limit", "hits_cursor", "order", "count_by", "top", "redact", "If-None-Match"],
            takes: None,
            answers: &[(200, "Hits"), (304, "NotModified")],
            problems: &[400, 404, 409, 410, 422],
        }),
        handler: || get(hits::hits),
    },
    Route {
        method: Method::GET,
        path: "/v1/jobs/{id}/coverage",
        scope: Some(Scope::Read),
        action: None,
        gives: &[JSON],
        about: Some(About {
            name: "getCoverage",
            summary: "Show what a job read, what it skipped, and why",
            description: "Known once the run is sealed: until then 409 with `Retry-After`.",
            parameters: &["If-None-Match"],
            takes: None,
            answers: &[(200, "Coverage"), (304, "NotModified")],
            problems: &[404, 409],
        }),
        handler: || get(jobs::coverage),
    },
    Route {
        method: Method::GET,
        path: "/v1/jobs/{id}/bill",
        scope: Some(Scope::Bill),
        action: None,
        gives: &[JSON],
        about: Some(About {
            name: "getBill",
            summary: "Show what a job cost",
            description: "",
            parameters: &["If-None-Match"],
            takes: None,
            answers: &[(200, "Bill"), (304, "NotModified")],
            problems: &[404],
        }),
        handler: || get(jobs::bill),
    },
    Route {
        method: Method::GET,
        path: "/v1/jobs/{id}/events",
        scope: Some(Scope::Read),
        action: None,
        gives: &[EVENT_STREAM, JSON],
        about: Some(About {
            name: "getEvents",
            summary: "Follow a job's events, or list them",
            description: "As `text/event-stream` each event as it happens, until the job has ended (`event: end`); who \
                          comes back with the last `Last-Event-ID` then gets 204, upon which an EventSource stops. As \
                          `application/json` a page of what has happened.",
            parameters: &["events_limit", "number_cursor", "Last-Event-ID"],
            takes: None,
            answers: &[(200, "Events"), (204, "NoMoreEvents"), (304, "NotModified")],
            problems: &[400, 404],
        }),
        handler: || get(events::events),
    },
    Route {
        method: Method::POST,
        path: "/v1/groups/{name}/confirmations",
        scope: Some(Scope::Admin),
        action: Some("confirm"),
        gives: &[JSON],
        about: Some(About {
            name: "confirmEvent",
            summary: "Confirm an event that was published to an external group",
            description: "What isn't confirmed in time is published again.",
            parameters: &[],
            takes: Some("Confirmation"),
            answers: &[(204, "Confirmed")],
            problems: &[400, 404, 408, 413, 415],
        }),
        handler: || post(groups::confirm),
    },
    Route {
        method: Method::GET,
        path: "/v1/audit",
        scope: Some(Scope::Admin),
        action: None,
        gives: &[JSON],
        about: Some(About {
            name: "listAudit",
            summary: "List who did what, newest first",
            description: "The audit log of the caller's tenant.",
            parameters: &["audit_limit", "number_cursor", "If-None-Match"],
            takes: None,
            answers: &[(200, "AuditList"), (304, "NotModified")],
            problems: &[400],
        }),
        handler: || get(audit::lines),
    },
    Route {
        method: Method::GET,
        path: "/v1/invoices/{month}",
        scope: Some(Scope::Bill),
        action: None,
        gives: &[JSON, CSV, HTML],
        about: Some(About {
            name: "getInvoice",
            summary: "The invoice of a month",
            description: "What was charged to the caller's tenant and taken back in a month (UTC), written `2026-11`. \
                          From an hour after the month's end it never changes.",
            parameters: &["If-None-Match"],
            takes: None,
            answers: &[(200, "Invoice"), (304, "NotModified")],
            problems: &[400],
        }),
        handler: || get(money::invoice),
    },
    Route {
        method: Method::GET,
        path: "/v1/usage",
        scope: Some(Scope::Bill),
        action: None,
        gives: &[JSON, dragnet_job::usage::BATCH],
        about: Some(About {
            name: "listUsage",
            summary: "Usage as CloudEvents, oldest first",
            description: "Each line of the ledger of the caller's tenant. Ids are deterministic; read on with the last \
                          `cursor`.",
            parameters: &["audit_limit", "usage_cursor", "If-None-Match"],
            takes: None,
            answers: &[(200, "Usage"), (304, "NotModified")],
            problems: &[400, 409],
        }),
        handler: || get(money::usage),
    },
    Route {
        method: Method::GET,
        path: "/openapi.json",
        scope: None,
        action: None,
        gives: &[JSON],
        about: Some(About {
            name: "getOpenApi",
            summary: "This document",
            description: "",
            parameters: &["If-None-Match"],
            takes: None,
            answers: &[(200, "OpenApi"), (304, "NotModified")],
            problems: &[],
        }),
        handler: || get(pages::openapi),
    },
    page("/", &[HTML], || get(pages::dashboard)),
    page("/docs", &[HTML], || get(pages::reference)),
    page("/problems", &[HTML], || get(pages::problems)),
    page("/problems/{kind}", &[HTML], || get(pages::problem)),
    page("/ui/style.css", &["text/css"], || get(pages::style)),
    page("/ui/dashboard.js", &["text/javascript"], || get(pages::dashboard_js)),
    page("/ui/reference.js", &["text/javascript"], || get(pages::reference_js)),
];

/// A page of the service's own, for anybody.
const fn page(
    path: &'static str,
    gives: &'static [&'static str],
    handler: fn() -> MethodRouter<Api>,
) -> Route {
    Route { method: Method::GET, path, scope: None, action: None, gives, about: None, handler }
}

/// What the table has for a request.
#[derive(Debug)]
pub enum Found {
    /// A route.
    Route(&'static Route),
    /// Routes of this path with other methods.
    Methods(Vec<&'static Route>),
    /// Nothing.
    Nothing,
}

/// Looks a request up. `HEAD` is answered as `GET`.
pub fn find(method: &Method, path: &str) -> Found {
    // Most requests name a path that has no variable; all others are looked at segment by segment.
    if let Some(route) = ROUTES.iter().find(|route| route.path == path && route.method == method) {
        return Found::Route(route);
    }
    let of_path: Vec<&'static Route> = ROUTES.iter().filter(|route| route.matches(path)).collect();
    let asked = if method == Method::HEAD { &Method::GET } else { method };
    match of_path.iter().find(|route| route.method == asked) {
        Some(route) => Found::Route(route),
        None if of_path.is_empty() => Found::Nothing,
        None => Found::Methods(of_path),
    }
}

impl Route {
    /// Whether a request's path is one of this route. A colon parts an id from a verb, so no id has one.
    fn matches(&self, path: &str) -> bool {
        let (mut ours, mut theirs) = (self.path.split('/'), path.split('/'));
        loop {
            let fits = match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some(own), Some(segment)) => match own.strip_prefix('{').and_then(|own| own.split_once('}'))
                {
                    None => own == segment,
                    Some((_, verb)) => segment
                        .strip_suffix(verb)
                        .is_some_and(|value| !value.is_empty() && !value.contains(':')),
                },
                _ => false,
            };
            if !fits {
                return false;
            }
        }
    }

    /// The names in its path.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name)
    }

    /// The path as axum routes it, which knows no verbs behind a name: the handler sees `ID:VERB`.
    fn mount(&self) -> &'static str {
        self.path.rsplit_once("}:").map_or(self.path, |(stem, _)| &self.path[..=stem.len()])
    }
}

/// The table as axum's router.
pub(crate) fn router() -> Router<Api> {
    let mut mounted = HashSet::new();
    let new = ROUTES.iter().filter(|route| mounted.insert((route.method.clone(), route.mount())));
    new.fold(Router::new(), |router, route| router.route(route.mount(), (route.handler)()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_asked_for() {
        let table = [
            ("GET", "/v1/jobs/a", "GET /v1/jobs/{id}"),
            ("HEAD", "/v1/jobs/a", "GET /v1/jobs/{id}"),
            ("POST", "/v1/jobs/a:cancel", "POST /v1/jobs/{id}:cancel"),
            ("GET", "/v1/jobs/a:cancel", "405 POST"),
            ("POST", "/v1/jobs/a", "405 GET"),
            ("POST", "/v1/jobs/a:smile", "404"),
            ("POST", "/v1/jobs/:cancel", "404"),
            ("POST", "/v1/jobs/a:b:cancel", "404"),
            ("DELETE", "/v1/jobs", "405 POST,GET"),
            ("GET", "/v1/jobs/", "404"),
            ("GET", "/v1//jobs", "404"),
            ("GET", "/", "GET /"),
            ("GET", "", "404"),
            ("GET", "/problems/invalid", "GET /problems/{kind}"),
        ];
        for (method, path, expected) in table {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let found = match find(&method, path) {
                Found::Route(route) => format!("{} {}", route.method, route.path),
                Found::Methods(routes) => {
                    let methods: Vec<&str> = routes.iter().map(|route| route.method.as_str()).collect();
                    format!("405 {}", methods.join(","))
                }
                Found::Nothing => "404".into(),
            };
            assert_eq!(found, expected, "{method} {path}");
        }
    }

    #[test]
    fn every_route_is_one_and_changes_are_named() {
        let mut seen = HashSet::new();
        for route in ROUTES {
            assert!(
                seen.insert((route.method.clone(), route.path)),
                "{} {} stands twice",
                route.method,
                route.path
            );
            assert_eq!(
                route.action.is_some(),
                route.method != Method::GET,
                "{} {}",
                route.method,
                route.path
            );
            assert_eq!(route.scope.is_some(), route.path.starts_with("/v1/"), "{}", route.path);
            assert_eq!(
                route.about.is_some(),
                route.path.starts_with("/v1/") || route.path == "/openapi.json"
            );
            let found = find(&route.method, &route.path.replace(['{', '}'], ""));
            assert!(matches!(found, Found::Route(found) if std::ptr::eq(found, route)), "{}", route.path);
        }
    }
}
