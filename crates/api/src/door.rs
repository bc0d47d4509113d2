//! The door: before any handler runs it finds out who calls, and whether they may.
//!
//! A key is looked up in the store and then kept for [`KEPT`], so a request costs no query of its own and a key
//! that is revoked is worth nothing soon after. Another tenant's id is answered by the handlers as one that nobody
//! has: they ask for the caller's alone.

use crate::pace::{Paces, TooFast};
use crate::routes::Route;
use crate::trail::Trail;
use crate::{Allowance, Caller, Problem};
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dragnet_pattern::{Error, Store};
use dragnet_tenant::audit::{self, Act};
use dragnet_tenant::keys::{self, Key, Scope};
use dragnet_tenant::{DEFAULT, Presented, Secret, Settings, now_ms};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a key is taken without a look at the store: so long a revoked one may live on, and a new limit wait.
pub const KEPT: Duration = Duration::from_secs(2);
/// The most of a path that the audit log is told.
const TARGET_BYTES_MAX: usize = 200;
/// Keys that are kept before those that are stale are thrown away.
const KNOWN_MAX: usize = 10_000;

/// Who is let in.
#[derive(Debug, Clone)]
pub enum Entry {
    /// Who has a key; and anybody, as the tenant [`DEFAULT`], as long as no tenant is defined: for a service that
    /// only this machine can reach.
    Local,
    /// Who has a key.
    Keys,
    /// Who has just this key, which stands in no store, for this tenant: the process that made it.
    One {
        /// The key.
        key: Presented,
        /// For whom it speaks.
        tenant: String,
    },
}

/// The door of a service.
pub struct Door {
    entry: Entry,
    store: Arc<dyn Store>,
    known: Mutex<HashMap<Presented, Known>>,
    /// Whether a tenant is defined, and when that was last looked at.
    keyed: Mutex<Option<(bool, Instant)>>,
    paces: Paces,
    trail: Trail,
}

#[derive(Clone)]
struct Known {
    key: Arc<Key>,
    settings: Arc<Settings>,
    at: Instant,
}

impl Door {
    /// A door, and what writes the audit log for as long as there is one.
    pub fn new(entry: Entry, store: Arc<dyn Store>) -> (Door, impl Future<Output = ()> + Send + 'static) {
        let (trail, writing) = Trail::new(store.clone());
        let door = Door {
            entry,
            store,
            known: Mutex::default(),
            keyed: Mutex::default(),
            paces: Paces::default(),
            trail,
        };
        (door, writing)
    }

    /// Who calls, if they may ask for this.
    async fn admit(
        &self,
        headers: &HeaderMap,
        scope: Option<Scope>,
        address: String,
    ) -> Result<Caller, Refusal> {
        if matches!(self.entry, Entry::Local) && !self.is_keyed().await? {
            if !is_of_this_machine(headers) {
                return Err(Refusal::plain(no_local_name()));
            }
            return Ok(Caller::without_key(DEFAULT, address));
        }
        let secret = bearer(headers).map_err(|problem| Refusal::plain(*problem))?;
        let presented = secret.presented().map_err(|e| Refusal::plain(invalid_token(e.to_string())))?;
        if let Entry::One { key, tenant } = &self.entry {
            return match presented.is_same(key) {
                true => {
                    let settings =
                        dragnet_tenant::find(&*self.store, tenant).await?.map(|found| found.settings);
                    let settings = Arc::new(settings.unwrap_or_default());
                    Ok(Caller { settings, ..Caller::without_key(tenant, address) })
                }
                false => Err(Refusal::plain(invalid_token("this is not the key of this process".into()))),
            };
        }
        let Some(Known { key, settings, .. }) = self.look_up(&presented).await? else {
            // Nobody knows whose it would be, so it is not in the audit log.
            tracing::warn!(key = presented.id, address, "an unknown API key was shown");
            return Err(Refusal::plain(invalid_token("this API key is not known here".into())));
        };
        let act = Act { actor: key.id.clone(), address: address.clone() };
        let refused = |problem: Problem, why: &'static str| Refusal {
            problem,
            noted: Some(Box::new((key.tenant.clone(), act.clone(), why))),
        };
        if let Some(how) = key.ended(now_ms()) {
            return Err(refused(invalid_token(format!("the API key `{}` is {how}", key.id)), how));
        }
        if let Some(scope) = scope.filter(|scope| !key.scopes.contains(scope)) {
            return Err(refused(insufficient_scope(&key, scope), "insufficient_scope"));
        }
        Ok(Caller {
            tenant: key.tenant.clone(),
            settings,
            key: Some(presented),
            scopes: key.scopes.clone(),
            address,
        })
    }

    /// Lets in who may come in: the [`Caller`] is in the request's extensions then.
    pub(crate) async fn enter(
        &self,
        route: &'static Route,
        request: &mut Request,
    ) -> Result<Guest, Box<Response>> {
        let Some(scope) = route.scope else { return Ok(Guest::default()) };
        let address = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let address = address.map_or_else(String::new, |ConnectInfo(peer)| peer.ip().to_string());
        // What is longer names nothing that is here, and the log is for ever.
        let path = request.uri().path();
        let path = path.get(..TARGET_BYTES_MAX).unwrap_or(path);
        let caller = match self.admit(request.headers(), Some(scope), address).await {
            Ok(caller) => caller,
            Err(Refusal { problem, noted }) => {
                if let Some((tenant, act, why)) = noted.map(|noted| *noted) {
                    self.trail.refuse(&act, &tenant, route.action.unwrap_or("read"), path, why);
                }
                return Err(Box::new(problem.into_response()));
            }
        };
        let mut allowance = None;
        if scope == Scope::Submit {
            allowance = self.pace(&caller).map_err(|e| Box::new(too_fast_response(&caller, e)))?;
        }
        let noted = route.action.zip(caller.act()).map(|(action, act)| Noted {
            tenant: caller.tenant.clone(),
            action,
            act,
            path: path.to_owned(),
            trail: self.trail.clone(),
        });
        request.extensions_mut().insert(caller);
        Ok(Guest { allowance, noted, has_begun: false })
    }

    /// Notes what somebody did who was let in.
    pub(crate) fn leave(&self, mut guest: Guest, response: &mut Response) {
        if let Some(allowance) = guest.allowance.take() {
            response.extensions_mut().insert(allowance);
        }
        let Some(Noted { tenant, action, act, path, .. }) = guest.noted.take() else { return };
        let made = response.headers().get(header::LOCATION).and_then(|at| at.to_str().ok());
        match response.status() {
            status if status.is_success() => {
                self.trail.note(act.statement(&tenant, action, made.unwrap_or(&path), audit::DONE));
            }
            status => self.trail.refuse(&act, &tenant, action, &path, status.as_str()),
        }
    }

    /// Whether a caller that was let in would be let in now: for answers that go on for long.
    pub(crate) async fn holds(&self, caller: &Caller) -> Result<bool, Error> {
        match (&caller.key, &self.entry) {
            (Some(key), _) => {
                let known = self.look_up(key).await?;
                Ok(known.is_some_and(|known| known.key.ended(now_ms()).is_none()))
            }
            (None, Entry::Local) => Ok(!self.is_keyed().await?),
            (None, _) => Ok(true),
        }
    }

    async fn look_up(&self, presented: &Presented) -> Result<Option<Known>, Error> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = known().get(presented).filter(|known| known.at.elapsed() < KEPT).cloned();
        if kept.is_some() {
            return Ok(kept);
        }
        let at = Instant::now();
        let Some((key, settings)) = keys::presented(&*self.store, presented).await? else {
            known().remove(presented);
            return Ok(None);
        };
        if key.ended(now_ms()).is_none() {
            key.used().into_iter().for_each(|noted| self.trail.note(noted));
        }
        let found = Known { key: Arc::new(key), settings: Arc::new(settings), at };
        let mut known = known();
        if known.len() >= KNOWN_MAX {
            known.retain(|_, known| known.at.elapsed() < KEPT);
        }
        if known.len() < KNOWN_MAX {
            known.insert(presented.clone(), found.clone());
        }
        Ok(Some(found))
    }

    /// Whether keys are needed, as a tenant is defined.
    async fn is_keyed(&self) -> Result<bool, Error> {
        let last = *self.keyed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((keyed, _)) = last.filter(|(_, at)| at.elapsed() < KEPT) {
            return Ok(keyed);
        }
        let at = Instant::now();
        let keyed = dragnet_tenant::any(&*self.store).await?;
        *self.keyed.lock().unwrap_or_else(PoisonError::into_inner) = Some((keyed, at));
        Ok(keyed)
    }

    /// Takes one of the tenant's submissions of this second, where they are counted.
    fn pace(&self, caller: &Caller) -> Result<Option<Allowance>, TooFast> {
        let per_s = caller.settings.submissions_per_s;
        per_s.map(|per_s| self.paces.take(&caller.tenant, per_s, Instant::now())).transpose()
    }
}

/// Somebody who was let in: what is left of the tenant's quota, and what the audit log is told at the end.
#[derive(Default)]
pub(crate) struct Guest {
    allowance: Option<Allowance>,
    noted: Option<Noted>,
    /// Whether a handler is at it.
    has_begun: bool,
}

impl Guest {
    /// A handler begins with what was asked.
    pub(crate) fn begin(&mut self) {
        self.has_begun = true;
    }
}

/// Who hangs up before the answer ends the handler with it; what it did stands all the same.
impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(Noted { tenant, action, act, path, trail }) = self.noted.take().filter(|_| self.has_begun)
        {
            trail.note(act.statement(&tenant, action, &path, audit::UNANSWERED));
        }
    }
}

struct Noted {
    tenant: String,
    action: &'static str,
    act: Act,
    path: String,
    trail: Trail,
}

/// Why somebody is not let in, and what of it the audit log is told: tenant, who, and the outcome.
struct Refusal {
    problem: Problem,
    noted: Option<Box<(String, Act, &'static str)>>,
}

impl Refusal {
    fn plain(problem: Problem) -> Refusal {
        Refusal { problem, noted: None }
    }
}

impl From<Error> for Refusal {
    fn from(e: Error) -> Refusal {
        Refusal::plain(e.into())
    }
}

/// The key of a request (RFC 6750, 2.1). Only a header carries one: what stands in a URL ends up in logs.
fn bearer(headers: &HeaderMap) -> Result<Secret, Box<Problem>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        let detail = "send an API key: `Authorization: Bearer dnk_…` (from DRAGNET_API_KEY, where a `dragnet` command asks); \
                      `dragnet key add` makes one";
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "no-key", "An API key is needed", detail);
        return Err(Box::new(problem.challenge("Bearer realm=\"dragnet\"".into())));
    };
    if values.next().is_some() {
        return Err(Box::new(Problem::invalid("there is more than one `Authorization`: send one")));
    }
    let text = value.to_str().unwrap_or_default();
    let (scheme, key) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        let detail = "`Authorization` has another scheme than `Bearer`: send `Authorization: Bearer dnk_…`";
        return Err(Box::new(invalid_token(detail.into())));
    }
    Ok(Secret::new(key.trim()))
}

fn invalid_token(detail: String) -> Problem {
    let challenge = format!(
        "Bearer realm=\"dragnet\", error=\"invalid_token\", error_description=\"{}\"",
        quotable(&detail)
    );
    Problem::new(StatusCode::UNAUTHORIZED, "invalid-key", "The API key is not taken", detail)
        .challenge(challenge)
}

fn insufficient_scope(key: &Key, scope: Scope) -> Problem {
    let has: Vec<&str> = key.scopes.iter().map(|scope| scope.name()).collect();
    let detail = format!("the API key `{}` may {}; this needs `{}`", key.id, has.join(", "), scope.name());
    let challenge =
        format!("Bearer realm=\"dragnet\", error=\"insufficient_scope\", scope=\"{}\"", scope.name());
    Problem::new(StatusCode::FORBIDDEN, "insufficient-scope", "The API key may not do this", detail)
        .challenge(challenge)
}

/// As RFC 6750 (3) lets a description be: printable ASCII without quotes and backslashes.
fn quotable(text: &str) -> String {
    text.chars().filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\')).collect()
}

fn no_local_name() -> Problem {
    let detail = "no tenant is defined here, so only this machine is served: ask for it as 127.0.0.1 or localhost, \
                  and from no other site's page";
    Problem::new(StatusCode::FORBIDDEN, "not-local", "Only this machine is served", detail)
}

fn too_fast_response(caller: &Caller, TooFast { wait, allowance }: TooFast) -> Response {
    let detail = format!("the tenant `{}` may submit {} times a second", caller.tenant, allowance.quota);
    let seconds = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1);
    let problem =
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "quota-submissions", "Too many submissions", detail);
    let mut response = problem.retry_after(seconds).into_response();
    response.extensions_mut().insert(allowance);
    response
}

/// Whether a request means this machine: a page of another site can make a browser ask 127.0.0.1, by a name that
/// resolves to it now and to the site a moment ago (DNS rebinding), or straight on. Then `Host` or `Origin` says so.
fn is_of_this_machine(headers: &HeaderMap) -> bool {
    let is_local = |name: &HeaderName, authority: fn(&str) -> Option<&str>| {
        headers.get_all(name).iter().all(|value: &HeaderValue| {
            value.to_str().ok().and_then(authority).is_some_and(|authority| is_loopback(host(authority)))
        })
    };
    let of_origin: fn(&str) -> Option<&str> = |origin| origin.split_once("://").map(|(_, rest)| rest);
    is_local(&header::HOST, |authority| Some(authority)) && is_local(&header::ORIGIN, of_origin)
}

/// The host of `HOST:PORT`.
fn host(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        let table: [(&[(HeaderName, &str)], bool); 16] = [
            (&[], true),
            (&[(header::HOST, "127.0.0.1:7070")], true),
            (&[(header::HOST, "127.8.9.1")], true),
            (&[(header::HOST, "LocalHost:1")], true),
            (&[(header::HOST, "[::1]:7070")], true),
            (&[(header::HOST, "")], false),
            (&[(header::HOST, "evil.example:7070")], false),
            (&[(header::HOST, "localhost.evil.example")], false),
            (&[(header::HOST, "127.0.0.1.evil.example")], false),
            (&[(header::HOST, "127.0.0.1@evil.example")], false),
            (&[(header::HOST, "10.0.0.1:7070")], false),
            (&[(header::HOST, "localhost"), (header::HOST, "evil.example")], false),
            (&[(header::HOST, "localhost"), (header::ORIGIN, "http://localhost:7070")], true),
            (&[(header::HOST, "localhost"), (header::ORIGIN, "https://evil.example")], false),
            (&[(header::HOST, "localhost"), (header::ORIGIN, "null")], false),
            (&[(header::HOST, "localhost"), (header::ORIGIN, "http://localhost.evil.example")], false),
        ];
        for (headers, expected) in table {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(name, HeaderValue::from_static(value));
            }
            assert_eq!(is_of_this_machine(&map), expected, "{headers:?}");
        }
    }
}
