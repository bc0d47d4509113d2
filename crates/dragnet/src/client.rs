//! The client of the HTTP API: what a program of any language would do, in Rust.
//!
//! A submission carries an idempotency key and is repeated with it until it is answered, so that a lost
//! connection makes no second job.

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value as Json;
use std::time::Duration;

/// How often a request is repeated when nobody answers or the service is not available.
const TRIES: u32 = 8;

/// A service that is talked to.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    url: String,
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
    body: String,
}

impl Client {
    pub(crate) fn new(url: &str) -> Result<Client> {
        let url = url.trim_end_matches('/').to_owned();
        if url.starts_with("https:") {
            bail!(
                "`{url}`: this build's client speaks no TLS: use `http:`, through a tunnel where the network is not yours"
            );
        }
        if !url.starts_with("http://") {
            bail!("`{url}` is no URL of a service: use one like http://127.0.0.1:7070");
        }
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .max_idle_connections_per_host(1)
            .build();
        Ok(Client { url, agent: config.into() })
    }

    /// Whether the service is on this machine, so that it sees the same files.
    pub(crate) fn is_local(&self) -> bool {
        let host = self.url.trim_start_matches("http://").split('/').next().unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        name == "localhost" || name == "[::1]" || name.starts_with("127.")
    }

    pub(crate) fn submit(&self, spec: &Json) -> Result<Json> {
        let key = format!("\"{}\"", uuid::Uuid::new_v4());
        let body = spec.to_string();
        let answer = self.repeat(|| {
            let request = self.agent.post(format!("{}/v1/jobs", self.url));
            request.header("Content-Type", "application/json").header("Idempotency-Key", &key).send(&body)
        })?;
        json_of(answer)
    }

    pub(crate) fn get(&self, path: &str) -> Result<Json> {
        json_of(self.answer(path)?)
    }

    pub(crate) fn job(&self, id: &str) -> Result<Json> {
        self.get(&format!("/v1/jobs/{id}"))
    }

    pub(crate) fn wish(&self, id: &str, verb: &str) -> Result<Json> {
        json_of(self.repeat(|| self.agent.post(format!("{}/v1/jobs/{id}:{verb}", self.url)).send_empty())?)
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
        self.repeat(|| self.agent.get(format!("{}{path}", self.url)).call())
    }

    /// Every request of ours may be repeated: reads, wishes, and submissions by their key.
    fn repeat(
        &self,
        call: impl Fn() -> Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Answer> {
        let mut tries = 0;
        loop {
            tries += 1;
            let wait = match call() {
                Ok(response) if response.status() == 503 && tries < TRIES => {
                    let after =
                        response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
                    Duration::from_secs(after.unwrap_or(1))
                }
                Ok(mut response) => {
                    let link = response.headers().get("link").and_then(|v| Some(v.to_str().ok()?.to_owned()));
                    let status = response.status().as_u16();
                    match response.body_mut().with_config().limit(u64::MAX).read_to_string() {
                        Ok(body) => return Ok(Answer { status, link, body }),
                        Err(e) if tries >= TRIES => {
                            return Err(anyhow!(e))
                                .with_context(|| format!("read the answer of {}", self.url));
                        }
                        Err(_) => Duration::from_millis(100),
                    }
                }
                Err(e) if tries >= TRIES => {
                    return Err(anyhow!(e)).with_context(|| {
                        format!("reach the service at {}: is it running (`dragnet serve`)?", self.url)
                    });
                }
                Err(_) => {
                    dragnet_pattern::full_jitter((Duration::from_millis(100), Duration::from_secs(2)), tries)
                }
            };
            std::thread::sleep(wait);
        }
    }
}

fn checked(answer: Answer) -> Result<Answer> {
    if answer.status < 400 {
        return Ok(answer);
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
