//! HTTP to services of others' choosing: which URLs this build speaks to, and whom it believes.
//!
//! TLS is a feature, as one machine by itself needs none. Who is believed is the machine's to say (`SSL_CERT_FILE` names
//! others than its own authorities).

use anyhow::{Result, bail};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Refuses a URL that this build does not speak to.
pub(crate) fn check(url: &str) -> Result<()> {
    match url.split_once("://") {
        Some(("http", _)) => Ok(()),
        Some(("https", _)) if cfg!(feature = "tls") => Ok(()),
        Some(("https", _)) => bail!(
            "`{url}`: this build speaks no TLS: build it with `--features tls`, or use `http:` through a tunnel where the \
             network is not yours"
        ),
        _ => bail!("`{url}` is no URL of a service: use one like http://127.0.0.1:7070"),
    }
}

/// Whether a URL is of this machine, by its name.
pub(crate) fn is_local(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost"
        || name == "[::1]"
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// A client for which any status is an answer, and that follows no redirect: a key is shown to nobody else. It gives up
/// after `answer_max`.
pub(crate) fn agent(answer_max: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections_per_host(1)
        .timeout_global(Some(answer_max));
    #[cfg(feature = "tls")]
    let config = config.tls_config(
        ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build(),
    );
    config.build().into()
}
