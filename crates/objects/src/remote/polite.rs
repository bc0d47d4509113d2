//! Politeness: what one process asks of one server at a time, and how it slows down when it is asked to.
//!
//! A server that answers 429 or 503, or 403 for what it has served before to whom it does not know by a signature (which
//! is how some say "too fast"), is left alone by all processes that share a folder for it, for as long as its `Retry-After`
//! says (RFC 9110, 10.2.3), else a little longer each time. When that is longer than a request can wait, it fails, and the
//! job waits instead.

use super::vetted;
use async_trait::async_trait;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, RANGE, RETRY_AFTER};
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What one process may ask of one server.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Requests under way at once.
    pub connections: Option<usize>,
    /// Bytes per second.
    pub bytes_per_s: Option<u64>,
    /// A folder by which the processes of a machine tell each other how long a server wants to be left alone: a file for
    /// each, whose time of change is the end of its rest.
    pub manners: Option<PathBuf>,
}

/// Requests under way to one server where nothing else is said.
const CONNECTIONS: usize = 16;
/// The longest that a request waits for its server's patience.
const PATIENCE: Duration = Duration::from_secs(10);
/// Servers that are remembered before those are forgotten that nobody speaks to.
const HOSTS_MAX: usize = 1000;
/// Paths that are remembered as served.
const SERVED_MAX: usize = 200_000;
/// The most that is read of what a server says where it refuses.
const REFUSAL_BYTES_MAX: u64 = 64 << 10;
/// The pause after a first refusal without `Retry-After`; it doubles with each that follows.
const PAUSE: Duration = Duration::from_millis(200);

static LIMITS: OnceLock<Limits> = OnceLock::new();

/// Sets the limits of this process, before it first speaks to a server; later calls change nothing.
pub fn set_limits(limits: Limits) {
    let _ = LIMITS.set(limits);
}

/// What this process knows of a server.
#[derive(Debug)]
pub(super) struct Host {
    slots: Arc<Semaphore>,
    bytes_per_s: Option<u64>,
    /// Where other processes say when its rest ends.
    told: Option<PathBuf>,
    manners: Mutex<Manners>,
}

#[derive(Debug, Default)]
struct Manners {
    /// Hashes of paths that it has served: a 403 for one of them is a plea for slowness.
    served: HashSet<u64>,
    /// Until when nothing is asked of it.
    rest_until: Option<Instant>,
    /// When the bytes that were asked for have been paid for in time.
    paid_until: Option<Instant>,
    refusals: u32,
}

/// Makes clients that keep a server's manners.
#[derive(Debug)]
pub(super) struct Polite(Arc<Host>);

impl Polite {
    pub(super) fn of(name: &str) -> Polite {
        static HOSTS: OnceLock<Mutex<HashMap<String, Arc<Host>>>> = OnceLock::new();
        let mut hosts = HOSTS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= HOSTS_MAX {
            hosts.retain(|_, host| Arc::strong_count(host) > 1 || host.is_resting());
        }
        let host = hosts.entry(name.to_owned()).or_insert_with(|| {
            let limits = LIMITS.get().cloned().unwrap_or_default();
            Arc::new(Host::new(name, limits))
        });
        Polite(host.clone())
    }
}

impl HttpConnector for Polite {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let is_plain = options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|v| v == "true");
        Ok(HttpClient::new(Service { host: self.0.clone(), is_plain, any: OnceLock::new() }))
    }
}

#[derive(Debug)]
struct Service {
    host: Arc<Host>,
    /// Whether nothing is encrypted there.
    is_plain: bool,
    /// The client for those who may reach any address.
    any: OnceLock<HttpClient>,
}

impl Service {
    /// The client that may make a request of this task.
    fn client(&self, request: &HttpRequest) -> Result<HttpClient, HttpError> {
        let failed = |e| HttpError::new(HttpErrorKind::Unknown, e);
        if vetted::is_public_only() {
            vetted::check(&request.uri().to_string())?;
            return vetted::public_client().map_err(failed);
        }
        if let Some(client) = self.any.get() {
            return Ok(client.clone());
        }
        let client = vetted::client(self.is_plain).map_err(failed)?;
        Ok(self.any.get_or_init(|| client).clone())
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let client = self.client(&request)?;
        self.host.rest().await?;
        let slot = self.host.slots.clone().acquire_owned().await.ok();
        // Whoever was ahead in the queue may have been refused meanwhile.
        self.host.rest().await?;
        let is_head = request.method() == "HEAD";
        let (path, asked) = (path_of(&request), request.headers().get(RANGE).and_then(range_bytes));
        let mut response = client.execute(request).await?;
        if self.host.refuses(response.status(), response.headers(), path) {
            // The store tries this status again, and not 403.
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        let length = response.headers().get(CONTENT_LENGTH).and_then(|n| n.to_str().ok()?.parse().ok());
        // A HEAD states the length of what it does not send.
        self.host.pay(length.filter(|_| !is_head).unwrap_or(0)).await;
        let left = match response.status() {
            StatusCode::PARTIAL_CONTENT => asked.unwrap_or(u64::MAX),
            status if status.is_success() => u64::MAX,
            _ => REFUSAL_BYTES_MAX,
        };
        // A connection is in use until its body has been read.
        Ok(response.map(|body| HttpResponseBody::new(Held { body, left: Some(left), _slot: slot })))
    }
}

/// A body that keeps its connection's slot, and ends soon after so many bytes: its length is the server's to say, and
/// whoever reads it keeps all of it.
struct Held {
    body: HttpResponseBody,
    left: Option<u64>,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Body for Held {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let Some(left) = self.left else { return Poll::Ready(None) };
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.left = left.checked_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Host {
    fn new(name: &str, limits: Limits) -> Host {
        Host {
            told: limits.manners.map(|folder| folder.join(hash(name))),
            slots: Arc::new(Semaphore::new(limits.connections.unwrap_or(CONNECTIONS).max(1))),
            bytes_per_s: limits.bytes_per_s.filter(|n| *n > 0),
            manners: Mutex::default(),
        }
    }

    fn manners(&self) -> std::sync::MutexGuard<'_, Manners> {
        self.manners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_resting(&self) -> bool {
        self.manners().rest_until.is_some_and(|until| until > Instant::now())
    }

    /// Waits until the server has had its rest; fails, and asks it nothing, where that is longer than a request can
    /// wait.
    async fn rest(&self) -> Result<(), HttpError> {
        let patience = Instant::now() + PATIENCE;
        loop {
            let until = self.manners().rest_until.max(self.told_until());
            let Some(until) = until.filter(|until| *until > Instant::now()) else { return Ok(()) };
            if until > patience {
                let rest = until.saturating_duration_since(Instant::now()).as_secs();
                return Err(HttpError::new(HttpErrorKind::Unknown, Resting(rest)));
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// Until when others were asked to leave it alone.
    fn told_until(&self) -> Option<Instant> {
        let until = std::fs::metadata(self.told.as_ref()?).ok()?.modified().ok()?;
        Some(Instant::now() + until.duration_since(SystemTime::now()).ok()?)
    }

    /// Tells others to leave it alone for so long. What can't be told they will hear from the server itself.
    fn tell(&self, pause: Duration) {
        let Some(file) = &self.told else { return };
        let told = std::fs::File::create(file).and_then(|file| file.set_modified(SystemTime::now() + pause));
        if let Err(e) = told {
            tracing::debug!(error = %e, "other processes were not told of a server's rest");
        }
    }

    /// Takes note of how the server answered; returns whether it asks for patience.
    fn refuses(&self, status: StatusCode, headers: &HeaderMap, path: Option<u64>) -> bool {
        let mut manners = self.manners();
        if status.is_success() {
            manners.refusals = 0;
            if manners.served.len() >= SERVED_MAX {
                manners.served.clear();
            }
            manners.served.extend(path);
            return false;
        }
        let busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let served = path.is_some_and(|path| vetted::is_shown() || manners.served.contains(&path));
        let is_plea = status == StatusCode::FORBIDDEN && served;
        if !(busy || is_plea) {
            return false;
        }
        let said = headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?));
        let pause = said.unwrap_or_else(|| PAUSE.saturating_mul(1 << manners.refusals.min(7)));
        manners.refusals += 1;
        let pause = pause.min(Duration::from_secs(24 * 3600));
        let until = Instant::now() + pause;
        manners.rest_until = manners.rest_until.max(Some(until));
        if self.told_until().is_none_or(|told| told < until) {
            self.tell(pause);
        }
        true
    }

    /// Waits as long as so many bytes take at the rate that is allowed.
    async fn pay(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_s else { return };
        let until = {
            let mut manners = self.manners();
            let from = manners.paid_until.map_or_else(Instant::now, |until| until.max(Instant::now()));
            let until = from + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *manners.paid_until.insert(until)
        };
        tokio::time::sleep_until(until.into()).await;
    }
}

/// A hash of what a request reads, if it reads, and asks without a signature: who signs is told honestly what is
/// forbidden.
fn path_of(request: &HttpRequest) -> Option<u64> {
    let reads = matches!(request.method().as_str(), "GET" | "HEAD");
    if !reads || request.headers().contains_key(AUTHORIZATION) {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    request.uri().path().hash(&mut hasher);
    Some(hasher.finish())
}

/// A server's name as that of a file, the same in all processes of one program.
fn hash(name: &str) -> String {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// How many bytes a `Range` of one part asks for (RFC 9110, 14.1.2).
fn range_bytes(value: &HeaderValue) -> Option<u64> {
    let (first, last) = value.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    last.parse::<u64>().ok()?.checked_sub(first.parse().ok()?)?.checked_add(1)
}

/// A server that wants to be left alone for longer than a request can wait.
#[derive(Debug, thiserror::Error)]
#[error("it asks for {0} s of rest")]
struct Resting(u64);

/// A `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value.trim()).ok()?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_a_plea_for_patience() {
        let table: [(&[u16], bool); 5] = [
            (&[200], false),
            (&[429], true),
            (&[503], true),
            // Of what it never served it means it.
            (&[403], false),
            (&[200, 403], true),
        ];
        for (statuses, expected) in table {
            let host = Host::new("a", Limits::default());
            let mut last = false;
            for status in statuses {
                last = host.refuses(StatusCode::from_u16(*status).unwrap(), &HeaderMap::new(), Some(1));
            }
            assert_eq!(last, expected, "{statuses:?}");
            assert_eq!(host.manners().rest_until.is_some(), expected, "{statuses:?}");
        }
    }

    #[test]
    fn what_was_shown_before_is_not_forbidden() {
        let refuses = |host: &Host| host.refuses(StatusCode::FORBIDDEN, &HeaderMap::new(), Some(1));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let host = Host::new("a", Limits::default());
        assert!(runtime.block_on(vetted::shown(async { refuses(&host) })), "another process has seen it");
        assert!(!refuses(&Host::new("a", Limits::default())));
    }

    #[test]
    fn one_process_is_told_and_all_rest() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits { manners: Some(folder.path().to_owned()), ..Limits::default() };
        let (one, another, elsewhere) =
            (Host::new("a", limits.clone()), Host::new("a", limits.clone()), Host::new("b", limits));
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("30"))]);
        assert!(one.refuses(StatusCode::TOO_MANY_REQUESTS, &headers, None));
        assert!(one.refuses(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), None), "it takes nothing back");
        let rest = another.told_until().unwrap() - Instant::now();
        assert!(rest > Duration::from_secs(25), "{rest:?}");
        assert_eq!(elsewhere.told_until(), None);
    }

    #[test]
    fn obeys_retry_after() {
        let host = Host::new("a", Limits::default());
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("30"))]);
        assert!(host.refuses(StatusCode::TOO_MANY_REQUESTS, &headers, None));
        let rest = host.manners().rest_until.unwrap() - Instant::now();
        assert!(rest > Duration::from_secs(25), "{rest:?}");
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("soon"), None);
    }
}
