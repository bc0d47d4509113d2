//! Clients that connect to nothing that a policy does not allow. For strangers that is public addresses alone
//! ([`crate::Network`]), vetted in the resolver that the connection is made with, for addresses that stand in URLs, and for
//! each redirect; no proxy of the environment comes between, as that would resolve by itself. For all, a redirect of a web
//! server leads nowhere that the dataset could not have named.

use crate::network::network;
use crate::{Network, Policy};
use object_store::client::{HttpClient, HttpError, HttpErrorKind};
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Action, Attempt, Policy as Redirects};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Redirects that are followed at most.
const REDIRECTS_MAX: usize = 5;

tokio::task_local! {
    /// For whom the requests of this task are made: a client is shared by all, and object stores hand nothing through.
    static POLICY: Arc<Policy>;
    /// They are for an object that its server has shown before, to this process or to the one that made the plan.
    static SHOWN: ();
}

/// Makes the requests of a future on behalf of a policy.
pub(super) fn under<F: Future>(policy: Arc<Policy>, future: F) -> impl Future<Output = F::Output> {
    POLICY.scope(policy, future)
}

/// Makes the requests of a future for an object that its server has shown before.
pub(super) fn shown<F: Future>(future: F) -> impl Future<Output = F::Output> {
    SHOWN.scope((), future)
}

/// Whether this task's requests are for an object that its server has shown before.
pub(super) fn is_shown() -> bool {
    SHOWN.try_with(|()| ()).is_ok()
}

/// Whether this task's requests may go to public addresses alone.
pub(super) fn is_public_only() -> bool {
    network().public_only || POLICY.try_with(|policy| policy.public).unwrap_or(false)
}

/// What strangers may reach.
fn strangers() -> &'static Network {
    static STRANGERS: OnceLock<Network> = OnceLock::new();
    STRANGERS.get_or_init(|| network().for_strangers())
}

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
    #[error("status code: 403: it leads to `{0}`, which may not be read: {1}")]
    Redirect(String, String),
}

/// The client for public addresses alone: one for all servers, as each would load the authorities that the machine trusts.
pub(super) fn public_client() -> Result<HttpClient, reqwest::Error> {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(HttpClient::new(client.clone()));
    }
    let client = builder(true).dns_resolver(Arc::new(Vetted)).no_proxy().build()?;
    Ok(HttpClient::new(CLIENT.get_or_init(|| client).clone()))
}

/// The client for any address, with the same patience. Where nothing is encrypted, a machine need not know any authority.
pub(super) fn client(is_plain: bool) -> Result<HttpClient, reqwest::Error> {
    let builder = builder(false);
    Ok(HttpClient::new(if is_plain { builder.tls_certs_only([]) } else { builder }.build()?))
}

fn builder(vetted: bool) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .redirect(Redirects::custom(move |attempt| redirect(attempt, vetted)))
        .connect_timeout(Duration::from_secs(5))
        // A slow answer is an answer as long as something comes.
        .read_timeout(Duration::from_secs(20))
        .timeout(Duration::from_secs(600))
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
    if !strangers().may_ask(bare, port) {
        return Err(Unreachable::Port(port));
    }
    match bare.parse::<IpAddr>() {
        Ok(address) if !strangers().may_reach(address) && !strangers().lists(host) => {
            Err(Unreachable::Address(host.to_owned()))
        }
        _ => Ok(()),
    }
}

/// What a dataset named may only redirect to what it could have named. Redirects of object stores, whose URLs no dataset
/// names, are between the service and its store.
fn redirect(attempt: Attempt<'_>, vetted: bool) -> Action {
    let to = attempt.url();
    let is_web = matches!(to.scheme(), "http" | "https");
    let allowed = POLICY.try_with(|policy| {
        let named = attempt.previous().first().is_some_and(|from| policy.check(from.as_str()).is_ok());
        if named { policy.check(to.as_str()) } else { Ok(()) }
    });
    let allowed = allowed.unwrap_or(Ok(()));
    let refused = allowed
        .map_err(|e| Unreachable::Redirect(to.to_string(), e.to_string()))
        .and_then(|()| if vetted { may_ask(to) } else { Ok(()) });
    match refused {
        Err(e) => attempt.error(e),
        Ok(()) if is_web && attempt.previous().len() <= REDIRECTS_MAX => attempt.follow(),
        Ok(()) => attempt.stop(),
    }
}

/// Resolves names to addresses that may be reached.
struct Vetted;

impl Resolve for Vetted {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let lists = strangers().lists(&host);
            let may: Vec<SocketAddr> =
                found.filter(|found| lists || strangers().may_reach(found.ip())).collect();
            if may.is_empty() {
                return Err(Unreachable::Address(host).into());
            }
            Ok(Box::new(may.into_iter()) as Addrs)
        })
    }
}
