//! Which store serves a URI: one for each server or bucket, made when it is first named.

use super::polite::Polite;
use super::runtime;
use crate::policy::plain_authority;
use crate::{Error, Policy, uri};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// The longest that HDFS may take for one call: a listing of a large folder, or a commit record.
const HDFS_PATIENCE: Duration = Duration::from_secs(120);

/// Stores that are kept for the next object.
const KNOWN_MAX: usize = 256;

/// A server or bucket, and the store that speaks to it.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    /// `scheme://authority`.
    pub(super) name: String,
    pub(super) store: Arc<dyn ObjectStore>,
    escaped: bool,
}

/// An object's or prefix's place in its bucket.
pub(super) struct Place {
    pub(super) bucket: Bucket,
    pub(super) path: Path,
}

impl Place {
    pub(super) fn of(policy: &Policy, uri: &str) -> Result<Place, Error> {
        let (scheme, authority, key) = uri::parts(uri)?;
        crate::network::network().check(policy, uri)?;
        let bucket = Bucket::of(uri, scheme, authority)?;
        let wrong = |e: object_store::path::Error| Error::Uri(format!("`{uri}`: {e}"));
        let key = key.trim_end_matches('/');
        // Over HTTP a key is escaped as the server wants it; elsewhere it is what it says.
        let path = if bucket.escaped { Path::from_url_path(key) } else { Path::parse(key) }.map_err(wrong)?;
        Ok(Place { bucket, path })
    }
}

impl Bucket {
    fn of(uri: &str, scheme: &str, authority: &str) -> Result<Bucket, Error> {
        static KNOWN: OnceLock<Mutex<HashMap<String, Bucket>>> = OnceLock::new();
        // However it is written, it is one server, with one set of limits.
        let plain = scheme.starts_with("http").then(|| plain_authority(scheme, authority)).flatten();
        let name = format!("{scheme}://{}", plain.as_deref().unwrap_or(authority));
        let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = known.get(&name) {
            return Ok(bucket.clone());
        }
        let _inside = runtime::handle().enter();
        let store = connect(uri, scheme, authority, &name)?;
        if known.len() >= KNOWN_MAX {
            // What is in use goes on; it is made again where it is named again.
            known.clear();
        }
        let bucket = Bucket { name: name.clone(), store, escaped: scheme.starts_with("http") };
        known.insert(name, bucket.clone());
        Ok(bucket)
    }

    /// Waits for a call. HDFS's client waits without end for a NameNode that says nothing; the others have a patience of
    /// their own.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, object_store::Error>> + Send + 'static,
    ) -> Result<T, object_store::Error> {
        if !self.name.starts_with("hdfs") {
            return runtime::wait(call);
        }
        let silent = |_| object_store::Error::Generic {
            store: "HDFS",
            source: format!("no answer within {} s", HDFS_PATIENCE.as_secs()).into(),
        };
        runtime::wait(async move { tokio::time::timeout(HDFS_PATIENCE, call).await.map_err(silent)? })
    }

    pub(super) fn uri_of(&self, path: &Path) -> String {
        format!("{}/{path}", self.name)
    }

    /// What a store's error means.
    pub(super) fn failed(&self, e: object_store::Error) -> Error {
        use object_store::Error as E;
        let said = deepest(&e);
        match e {
            E::NotFound { .. } => Error::Missing,
            E::Precondition { .. } => Error::Changed("its ETag is another one".into()),
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => Error::Denied(said),
            E::NotImplemented { .. } | E::NotSupported { .. } | E::InvalidPath { .. } => Error::Other(said),
            // Whatever is left was tried again and again: a status of 429 or 5xx, a connection that can't be
            // made or breaks. Another refusal is for good.
            // HDFS's own word, which its client passes on as any other.
            _ if said.contains("AccessControlException") => Error::Denied(said),
            _ => match refusal(&said) {
                Some(404) => Error::Missing,
                Some(status) if !matches!(status, 408 | 429) => Error::Other(said),
                _ if said.contains("range") && !said.contains("status code: 5") => {
                    Error::Other(format!("its server does not serve ranges: {said}"))
                }
                _ => Error::Away { host: self.name.clone(), reason: said },
            },
        }
    }
}

/// The status of a refusal, 400 to 499, as the store's error words it.
fn refusal(said: &str) -> Option<u16> {
    let (_, rest) = said.split_once("status code: ")?;
    rest.get(..3)?.parse().ok().filter(|status| (400..500).contains(status))
}

/// The innermost sentence of an error: the outer ones only repeat where it came through.
fn deepest(e: &object_store::Error) -> String {
    let mut at: &dyn std::error::Error = e;
    let mut said = at.to_string();
    while let Some(source) = at.source() {
        at = source;
        said = at.to_string();
    }
    said.chars().take(300).collect()
}

/// What names another endpoint than AWS's own, as its own tools read it.
const S3_ENDPOINT: [&str; 3] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];

/// The server behind a bucket: what it may be asked for is shared by all of its buckets. AWS has one for each.
fn server_of(scheme: &str, name: &str) -> String {
    let endpoint = |names: &[&str]| names.iter().find_map(|name| std::env::var(name).ok());
    match scheme {
        "s3" => endpoint(&S3_ENDPOINT).unwrap_or_else(|| name.to_owned()),
        "gs" | "az" => format!("{scheme}:"),
        _ => name.to_owned(),
    }
}

fn connect(uri: &str, scheme: &str, authority: &str, name: &str) -> Result<Arc<dyn ObjectStore>, Error> {
    // The only one in the process; another part of it may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let wrong = |e: object_store::Error| Error::Uri(format!("`{name}`: {}", deepest(&e)));
    let polite = Polite::of(&server_of(scheme, name));
    let is_plain = |names: &[&str]| {
        names.iter().any(|name| std::env::var(name).is_ok_and(|endpoint| endpoint.starts_with("http://")))
    };
    let is_set = |names: &[&str]| names.iter().any(|name| std::env::var_os(name).is_some());
    Ok(match scheme {
        "s3" => {
            let known = [
                "AWS_ACCESS_KEY_ID",
                "AWS_WEB_IDENTITY_TOKEN_FILE",
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                "DRAGNET_S3_INSTANCE_ROLE",
            ];
            let builder = AmazonS3Builder::from_env().with_bucket_name(authority);
            let builder = if is_set(&known) { builder } else { builder.with_skip_signature(true) };
            let plain = is_plain(&S3_ENDPOINT);
            let builder = builder.with_client_options(options(plain)).with_retry(retries());
            Arc::new(builder.with_http_connector(polite).build().map_err(wrong)?)
        }
        "gs" => {
            let known = [
                "GOOGLE_SERVICE_ACCOUNT",
                "GOOGLE_SERVICE_ACCOUNT_PATH",
                "GOOGLE_SERVICE_ACCOUNT_KEY",
                "GOOGLE_APPLICATION_CREDENTIALS",
            ];
            let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(authority);
            let builder = if is_set(&known) { builder } else { builder.with_skip_signature(true) };
            let plain = is_plain(&["GOOGLE_BASE_URL"]);
            let builder = builder.with_client_options(options(plain)).with_retry(retries());
            Arc::new(builder.with_http_connector(polite).build().map_err(wrong)?)
        }
        "az" => {
            let known = [
                "AZURE_STORAGE_ACCOUNT_KEY",
                "AZURE_STORAGE_ACCESS_KEY",
                "AZURE_STORAGE_SAS_TOKEN",
                "AZURE_STORAGE_SAS_KEY",
                "AZURE_CLIENT_ID",
                "AZURE_STORAGE_USE_EMULATOR",
            ];
            let builder = MicrosoftAzureBuilder::from_env().with_container_name(authority);
            let builder = if is_set(&known) { builder } else { builder.with_skip_signature(true) };
            let plain = is_set(&["AZURE_STORAGE_USE_EMULATOR"]);
            let builder = builder.with_client_options(options(plain)).with_retry(retries());
            Arc::new(builder.with_http_connector(polite).build().map_err(wrong)?)
        }
        "http" | "https" => {
            let builder = HttpBuilder::new().with_url(name).with_client_options(options(scheme == "http"));
            Arc::new(builder.with_retry(retries()).with_http_connector(polite).build().map_err(wrong)?)
        }
        #[cfg(feature = "hdfs")]
        "hdfs" => {
            let builder = hdfs_native_object_store::HdfsObjectStoreBuilder::new().with_url(name);
            Arc::new(builder.with_io_runtime(runtime::handle().clone()).build().map_err(wrong)?)
        }
        _ => return Err(uri::unknown_scheme(uri)),
    })
}

fn options(plain: bool) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(plain)
        // Where nothing is encrypted, a machine need not know any authority.
        .with_no_system_certificates(plain)
        .with_connect_timeout(Duration::from_secs(5))
        // A slow answer is an answer as long as something comes.
        .with_timeout(Duration::from_secs(600))
        .with_read_timeout(Duration::from_secs(20))
}

/// 429, 5xx and broken connections are tried again here for some seconds; after that the job waits, and holds
/// nothing meanwhile.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(3),
            base: 2.0,
        },
        max_retries: 6,
        retry_timeout: Duration::from_secs(60),
    }
}
