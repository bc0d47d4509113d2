//! Who calls: found out once, by the [door](crate::door), before any handler runs.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use dragnet_tenant::audit::Act;
use dragnet_tenant::keys::Scope;
use dragnet_tenant::{Presented, Settings};
use std::convert::Infallible;
use std::sync::Arc;

/// The caller of a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The tenant for whom it speaks. Every query has it.
    pub tenant: String,
    /// What the tenant may use.
    pub settings: Arc<Settings>,
    /// Its key; none where none is needed.
    pub key: Option<Presented>,
    /// What it may ask for.
    pub scopes: Vec<Scope>,
    /// From where it calls, as the network has it: of a proxy's clients the proxy's address.
    pub address: String,
}

impl Caller {
    /// One that may do everything for a tenant and shows no key.
    pub(crate) fn without_key(tenant: &str, address: String) -> Caller {
        let settings = Arc::default();
        Caller { tenant: tenant.into(), settings, key: None, scopes: Scope::ALL.to_vec(), address }
    }

    /// Who this is in the audit log; nobody where no key says so.
    pub(crate) fn act(&self) -> Option<Act> {
        self.key.as_ref().map(|key| Act { actor: key.id.clone(), address: self.address.clone() })
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Caller, Infallible> {
        let known = parts.extensions.get::<Caller>().cloned();
        // The door lets nothing else through to a handler that asks.
        Ok(known.unwrap_or_else(|| Caller { scopes: Vec::new(), ..Caller::without_key("", String::new()) }))
    }
}
