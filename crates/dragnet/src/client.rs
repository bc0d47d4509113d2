//! The client of the HTTP API: what a program of any language would do, in Rust.
//!
//! A submission carries an idempotency key and is repeated with it until it is answered, so that a lost
//! connection makes no second job. Of several services of one store the next is asked when one does not answer.

use crate::wire;
use anyhow::{Context, Result, anyhow, bail};
use dragnet_tenant::Secret;
use serde_json::Value as Json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How often each service is asked when nobody answers or it is not available.
const TRIES: u32 = 8;
/// How long an answer is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// A service that is talked to.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    urls: Vec<String>,
    /// Which of them is asked.
    current: Arc<AtomicUsize>,
    key: Option<Secret>,
    agent: ureq::Agent,
}

/// A page of hits.
#[derive(Debug)]
pub(crate) struct HitPage {
    /// JSON lines.
    pub(crate) lines: String,
    /// Path and query of the next page.
    pub(crate) next: Option<String>,
}

struct Answer {
    status: u16,
    link: Option<String>,
    location: Option<String>,
    body: String,
}

/// Where a job is. What is no id must not become another path, with another verb.
pub(crate) fn path_of(job: &str) -> Result<String> {
    match uuid::Uuid::try_parse(job).is_ok_and(|id| id.to_string() == job) {
        true => Ok(format!("/v1/jobs/{job}")),
        false => bail!("there is no job `{job}`: `dragnet list` shows which there are"),
    }
}

impl Client {
    /// A client of the services at `urls`, which commas part, that shows a key if it has one.
    pub(crate) fn new(urls: &str, key: Option<Secret>) -> Result<Client> {
        if let Some(e) = key.as_ref().and_then(|key| key.presented().err()) {
            bail!("DRAGNET_API_KEY: {e}");
        }
        let urls: Vec<String> =
            urls.split(',').map(|url| url.trim().trim_end_matches('/').to_owned()).collect();
        for url in &urls {
            wire::check(url)?;
        }
        Ok(Client { urls, current: Arc::default(), key, agent: wire::agent(ANSWER_MAX) })
    }

    /// A request that shows the key.
    fn keyed<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.key {
            Some(key) => request.header("Authorization", format!("Bearer {}", key.expose())),
            None => request,
        }
    }

    /// Whether the services are on this machine, so that they see the same files.
    pub(crate) fn is_local(&self) -> bool {
        self.urls.iter().all(|url| wire::is_local(url))
    }

    pub(crate) fn submit(&self, spec: &Json) -> Result<Json> {
        let key = format!("\"{}\"", uuid::Uuid::new_v4());
        let body = spec.to_string();
        let answer = self.repeat(|url| {
            let request = self.keyed(self.agent.post(format!("{url}/v1/jobs")));
            request.header("Content-Type", "application/json").header("Idempotency-Key", &key).send(&body)
        })?;
        json_of(answer)
    }

    /// What a job would come to; nothing is submitted.
    pub(crate) fn plan(&self, spec: &Json) -> Result<Json> {
        let body = spec.to_string();
        let answer = self.repeat(|url| {
            let request = self.keyed(self.agent.post(format!("{url}/v1/jobs?validate_only=true")));
            request.header("Content-Type", "application/json").send(&body)
        })?;
        json_of(answer)
    }

    pub(crate) fn get(&self, path: &str) -> Result<Json> {
        json_of(self.answer(path)?)
    }

    pub(crate) fn job(&self, id: &str) -> Result<Json> {
        self.get(&path_of(id)?)
    }

    pub(crate) fn wish(&self, id: &str, verb: &str) -> Result<Json> {
        let path = path_of(id)?;
        json_of(self.repeat(|url| self.keyed(self.agent.post(format!("{url}{path}:{verb}"))).send_empty())?)
    }

    pub(crate) fn hits(&self, path: &str) -> Result<HitPage> {
        let answer = checked(self.answer(path)?)?;
        let next = answer
            .link
            .as_deref()
            .and_then(|link| link.strip_prefix('<')?.split_once('>'))
            .map(|(next, _)| next.to_owned());
        Ok(HitPage { lines: answer.body, next })
    }

    fn answer(&self, path: &str) -> Result<Answer> {
        self.repeat(|url| self.keyed(self.agent.get(format!("{url}{path}"))).call())
    }

    /// Every request of ours may be repeated: reads, wishes, and submissions by their key.
    fn repeat(
        &self,
        call: impl Fn(&str) -> Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Answer> {
        let tries_max = TRIES * self.urls.len() as u32;
        let mut tries = 0;
        loop {
            tries += 1;
            let current = self.current.load(Ordering::Relaxed) % self.urls.len();
            let url = &self.urls[current];
            let wait = match call(url) {
                Ok(response) if response.status() == 503 && tries < tries_max => {
                    let after =
                        response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
                    Duration::from_secs(after.unwrap_or(1))
                }
                Ok(mut response) => {
                    let header = |name: &str| {
                        response.headers().get(name).and_then(|v| Some(v.to_str().ok()?.to_owned()))
                    };
                    let (link, location) = (header("link"), header("location"));
                    let status = response.status().as_u16();
                    match response.body_mut().with_config().limit(u64::MAX).read_to_string() {
                        Ok(body) => return Ok(Answer { status, link, location, body }),
                        Err(e) if tries >= tries_max => {
                            return Err(anyhow!(e)).with_context(|| format!("read the answer of {url}"));
                        }
                        Err(_) => Duration::from_millis(100),
                    }
                }
                Err(e) if tries >= tries_max => {
                    return Err(anyhow!(e)).with_context(|| {
                        format!(
                            "reach the service at {}: is it running (`dragnet serve`)?",
                            self.urls.join(", ")
                        )
                    });
                }
                Err(_) => {
                    dragnet_pattern::full_jitter((Duration::from_millis(100), Duration::from_secs(2)), tries)
                }
            };
            self.current.store(current + 1, Ordering::Relaxed);
            // The next service is asked at once; after a round of all of them the client waits.
            if (tries as usize).is_multiple_of(self.urls.len()) {
                std::thread::sleep(wait);
            }
        }
    }
}

fn checked(answer: Answer) -> Result<Answer> {
    if answer.status < 300 {
        return Ok(answer);
    }
    if answer.status < 400 {
        let to = answer.location.as_deref().unwrap_or("nowhere");
        bail!(
            "it answers {} and leads to `{to}`: name that URL, as a key is shown to nobody else",
            answer.status
        );
    }
    let problem: Json = serde_json::from_str(&answer.body).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or(&answer.body);
    match problem["pointer"].as_str() {
        Some(pointer) => bail!("{detail} (at {pointer})"),
        None => bail!("{detail}"),
    }
}

fn json_of(answer: Answer) -> Result<Json> {
    let answer = checked(answer)?;
    serde_json::from_str(&answer.body).context("the service answered what is no JSON")
}
