//! A client that connects to vetted addresses alone ([`crate::Network`]): in its resolver, for addresses that stand in
//! URLs, and for each redirect. No proxy of the environment comes between, as that would resolve by itself.

use crate::network::network;
use object_store::client::{HttpClient, HttpError, HttpErrorKind};
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Attempt, Policy};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Redirects that are followed at most.
const REDIRECTS_MAX: usize = 5;

/// Why something is not connected to.
#[derive(Debug, Clone, thiserror::Error)]
enum Unreachable {
    #[error(
        "status code: 403: `{0}` has no public address, and is not among the hosts that may be reached (`serve --allow-host`)"
    )]
    Address(String),
    #[error("status code: 403: port {0} is not among those that may be asked (`serve --allow-port`)")]
    Port(u16),
    #[error("status code: 403: {0}")]
    Url(String),
}

/// The client, with the same patience as the unvetted one: one for all servers, as each would load the authorities that
/// the machine trusts.
pub(super) fn client() -> Result<HttpClient, reqwest::Error> {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(HttpClient::new(client.clone()));
    }
    let client = reqwest::Client::builder()
        .dns_resolver(Arc::new(Vetted))
        .redirect(Policy::custom(redirect))
        .no_proxy()
        .connect_timeout(Duration::from_secs(5))
        .read_timeout(Duration::from_secs(20))
        .timeout(Duration::from_secs(600))
        .build()?;
    Ok(HttpClient::new(CLIENT.get_or_init(|| client).clone()))
}

/// Checks what no resolver sees: a port, and an address that stands in a URL itself, in any way of writing it.
pub(super) fn check(uri: &str) -> Result<(), HttpError> {
    let checked = Url::parse(uri).map_err(|e| Unreachable::Url(e.to_string())).and_then(|url| may_ask(&url));
    checked.map_err(|e| HttpError::new(HttpErrorKind::Request, e))
}

fn may_ask(url: &Url) -> Result<(), Unreachable> {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().unwrap_or_default();
    if !network().may_ask(bare, port) {
        return Err(Unreachable::Port(port));
    }
    match bare.parse::<IpAddr>() {
        Ok(address) if !network().may_reach(address) && !network().lists(host) => {
            Err(Unreachable::Address(host.to_owned()))
        }
        _ => Ok(()),
    }
}

fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let refused = may_ask(attempt.url()).err();
    let is_web = matches!(attempt.url().scheme(), "http" | "https");
    match refused {
        Some(e) => attempt.error(e),
        None if is_web && attempt.previous().len() <= REDIRECTS_MAX => attempt.follow(),
        None => attempt.stop(),
    }
}

/// Resolves names to addresses that may be reached.
struct Vetted;

impl Resolve for Vetted {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let lists = network().lists(&host);
            let may: Vec<SocketAddr> =
                found.filter(|found| lists || network().may_reach(found.ip())).collect();
            if may.is_empty() {
                return Err(Unreachable::Address(host).into());
            }
            Ok(Box::new(may.into_iter()) as Addrs)
        })
    }
}
