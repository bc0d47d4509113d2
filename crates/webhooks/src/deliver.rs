//! One event to one endpoint: an HTTP POST that is signed, follows no redirect and goes to vetted addresses alone.

use crate::Endpoint;
use crate::key::Key;
use crate::sign::{signatures, valid};
use dragnet_objects::Network;
use dragnet_pattern::{Claim, Places};
use serde_json::json;
use std::time::Duration;
use ureq::http::Uri;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

/// The longest that an endpoint may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// Attempts under way at once, each on a thread of its own, and of them those of one tenant.
const AT_ONCE: usize = 64;
const AT_ONCE_OF_ONE: usize = 16;
/// Of what it says so much is kept.
const SAID_MAX: usize = 200;

/// What may be connected to.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// The tenant that is the service's own user.
    pub owner: String,
    /// For its endpoints.
    pub own: Network,
    /// For those of all others.
    pub others: Network,
}

/// What came of an attempt.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// It was taken: any status of 2xx.
    pub(crate) arrived: bool,
    /// It is not wanted there any more: 410.
    pub(crate) gone: bool,
    pub(crate) retry_after: Option<Duration>,
    /// For a person.
    pub(crate) said: String,
}

pub(crate) struct Client {
    owner: String,
    own: ureq::Agent,
    others: ureq::Agent,
    /// The store's reads have their threads from the same pool, and an endpoint that never answers must not take them all.
    turns: Places,
}

impl Client {
    pub(crate) fn new(reach: Reach) -> Client {
        let (own, others) = (Client::agent(reach.own), Client::agent(reach.others));
        Client { owner: reach.owner, own, others, turns: Places::new(AT_ONCE, AT_ONCE_OF_ONE) }
    }

    fn agent(network: Network) -> ureq::Agent {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .timeout_global(Some(ANSWER_MAX))
            .user_agent(concat!("dragnet/", env!("CARGO_PKG_VERSION")))
            .build();
        let resolver = Vetted { network, inner: DefaultResolver::default() };
        ureq::Agent::with_parts(config, DefaultConnector::default(), resolver)
    }

    /// Posts the event of a work that has ended. Its id is the work's and the endpoint's, so it stays over repetitions.
    /// Signs with the secrets that are valid when its turn comes.
    pub(crate) async fn tell(&self, endpoint: &Endpoint, key: &Key, claim: &Claim) -> Answer {
        let id = format!("{}/{}", claim.work.id, endpoint.id);
        let body = event(&id, claim).to_string();
        let turn = self.turns.wait(&claim.work.tenant).await;
        // The attempt's own time: it may have waited for its turn.
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let timestamp_s = now_ms / 1000;
        let signature = match valid(&endpoint.secrets, key, now_ms) {
            Ok(secrets) => signatures(&secrets, &id, now_ms, &body),
            Err(e) => return failed(&e.to_string()),
        };
        let agent = if claim.work.tenant == self.owner { &self.own } else { &self.others };
        let (agent, url) = (agent.clone(), endpoint.url.clone());
        let posted = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            agent
                .post(&url)
                .header("content-type", "application/cloudevents+json; charset=utf-8")
                .header("webhook-id", &id)
                .header("webhook-timestamp", timestamp_s.to_string())
                .header("webhook-signature", &signature)
                .send(body)
        });
        match posted.await {
            Ok(Ok(response)) => answer(response.status().as_u16(), response.headers().get("retry-after")),
            Ok(Err(e)) => failed(&e.to_string()),
            Err(e) => failed(&e.to_string()),
        }
    }
}

fn failed(why: &str) -> Answer {
    Answer { arrived: false, gone: false, retry_after: None, said: why.chars().take(SAID_MAX).collect() }
}

fn answer(status: u16, retry_after: Option<&ureq::http::HeaderValue>) -> Answer {
    let seconds = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Answer {
        arrived: (200..300).contains(&status),
        gone: status == 410,
        retry_after: seconds.filter(|_| matches!(status, 429 | 503)).map(Duration::from_secs),
        said: format!("it answered {status}"),
    }
}

/// CloudEvents 1.0. What a job found is not told: a match may be a secret.
fn event(id: &str, claim: &Claim) -> serde_json::Value {
    let work = &claim.work;
    let ended = jiff::Timestamp::from_millisecond(work.ended_ms.unwrap_or(claim.now_ms)).unwrap_or_default();
    json!({
        "specversion": "1.0",
        "id": id,
        "type": "dragnet.job.ended",
        "source": "/v1/jobs",
        "subject": work.id,
        "time": format!("{ended:.3}"),
        "datacontenttype": "application/json",
        "data": { "job": work.id, "tenant": work.tenant, "status": work.status, "link": format!("/v1/jobs/{}", work.id) },
    })
}

/// Resolves to addresses that may be connected to; an address in a URL comes by here as well.
#[derive(Debug)]
struct Vetted {
    network: Network,
    inner: DefaultResolver,
}

impl Resolver for Vetted {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let (network, host) = (&self.network, uri.host().unwrap_or_default());
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        if !network.may_ask(host, port) {
            return Err(refused(&format!(
                "port {port} is not among those that may be asked (`serve --allow-port`)"
            )));
        }
        let found = self.inner.resolve(uri, config, timeout)?;
        let lists = network.lists(host);
        let mut may = self.inner.empty();
        found
            .iter()
            .filter(|address| lists || network.may_reach(address.ip()))
            .for_each(|address| may.push(*address));
        if may.is_empty() {
            return Err(refused(
                "it has no public address, and is not among the hosts that may be reached (`serve --allow-host`)",
            ));
        }
        Ok(may)
    }
}

fn refused(why: &str) -> ureq::Error {
    ureq::Error::Io(std::io::Error::new(std::io::ErrorKind::PermissionDenied, why))
}
