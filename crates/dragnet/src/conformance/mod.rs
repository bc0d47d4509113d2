//! What the HTTP API promises, as checks that run against any URL.
//!
//! It knows nothing of the service but what a stranger reads in the API's documents: a row for each promise, with the
//! standard that it comes from. A row never depends on another's having run.

mod rows;

use crate::wire;
use anyhow::{Context, Result};
use dragnet_tenant::Secret;
use serde_json::{Value as Json, json};
use std::cell::OnceCell;
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Request};

pub(crate) use rows::ROWS;

/// How long an answer is waited for: longer than any that a row asks to be kept back.
const ANSWER_MAX: Duration = Duration::from_secs(40);
/// How long a job of three lines may take.
const JOB_TIME: Duration = Duration::from_secs(60);

/// A promise.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Where it is written.
    pub(crate) reference: &'static str,
    pub(crate) check: fn(&Suite) -> Verdict,
}

/// Whether it holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Holds,
    Fails(String),
    /// It can't be known here.
    Skipped(String),
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// Whether it is a problem of this status that says what RFC 9457 lets it say.
    fn is_problem(&self, status: u16) -> bool {
        let problem = self.json();
        self.status == status
            && self.header("content-type").starts_with("application/problem+json")
            && problem["status"] == status
            && ["type", "title", "detail"]
                .iter()
                .all(|name| problem[name].as_str().is_some_and(|s| !s.is_empty()))
    }

    /// The answer in a line, for whoever reads why a row fails.
    fn said(&self) -> String {
        let body: String = self.body.chars().take(160).collect();
        format!("{} {} {body}", self.status, self.header("content-type")).trim_end().replace('\n', " ")
    }
}

/// A service that is checked.
pub(crate) struct Suite {
    url: String,
    authorization: Option<String>,
    dataset: Option<String>,
    agent: ureq::Agent,
    /// The id of a job that has ended, made when the first row needs it.
    job: OnceCell<Result<String, String>>,
}

impl Suite {
    pub(crate) fn new(url: &str, key: Option<&Secret>, dataset: Option<String>) -> Suite {
        let authorization = key.map(|key| format!("Bearer {}", key.expose()));
        Suite {
            url: url.into(),
            authorization,
            dataset,
            agent: wire::agent(ANSWER_MAX),
            job: OnceCell::new(),
        }
    }

    /// Fails where nobody answers at all: then no row says anything.
    pub(crate) fn reach(&self) -> Result<()> {
        self.try_ask("GET", "/openapi.json", &[], None)
            .map(drop)
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("reach the service at {}: is it running?", self.url))
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
        // An answer that does not come is one that no row expects.
        self.try_ask(method, path, headers, body).unwrap_or_else(|e| Answer {
            status: 0,
            headers: HeaderMap::new(),
            body: format!("no answer: {e}"),
        })
    }

    fn try_ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        let own = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        if let Some(authorization) = self.authorization.as_deref().filter(|_| !own) {
            request = request.header("Authorization", authorization);
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let answered = match body {
            None => self.agent.run(request.body(()).map_err(|e| e.to_string())?),
            Some(body) => self.agent.run(request.body(body).map_err(|e| e.to_string())?),
        };
        let mut response = answered.map_err(|e| e.to_string())?;
        let body = response.body_mut().read_to_string().map_err(|e| e.to_string())?;
        Ok(Answer { status: response.status().as_u16(), headers: response.headers().clone(), body })
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], None)
    }

    fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let json = [("Content-Type", "application/json")];
        let headers: Vec<_> = json.iter().chain(headers).copied().collect();
        self.ask("POST", path, &headers, Some(body))
    }

    /// A small job, which nothing but `name` tells from others.
    fn spec(&self, name: &str) -> Result<Json, Verdict> {
        match &self.dataset {
            Some(dataset) => {
                Ok(json!({ "patterns": [{ "name": name, "regex": "needle" }], "dataset": [dataset] }))
            }
            None => Err(Verdict::Skipped("the service is not on this machine: say `--dataset URI`".into())),
        }
    }

    /// The path of a job that has ended.
    fn job(&self) -> Result<String, Verdict> {
        let spec = self.spec("ended")?;
        self.job.get_or_init(|| self.ended_job(&spec)).clone().map_err(Verdict::Skipped)
    }

    fn ended_job(&self, spec: &Json) -> Result<String, String> {
        let accepted = self.post("/v1/jobs", &[], &spec.to_string());
        let path = accepted.header("location").to_owned();
        if path.is_empty() {
            return Err(format!("no job was accepted: {}", accepted.said()));
        }
        let begun = Instant::now();
        while begun.elapsed() < JOB_TIME {
            let job = self.ask("GET", &path, &[("Prefer", "wait=5")], None).json();
            if job["ended"].is_string() {
                return Ok(path);
            }
        }
        Err(format!("the job at {path} did not end within {} s", JOB_TIME.as_secs()))
    }
}
