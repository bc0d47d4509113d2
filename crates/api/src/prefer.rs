//! `Prefer` (RFC 7240): how long a client wants to wait for a job.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use std::time::Duration;

/// The longest that an answer waits, in seconds: shorter than what proxies give an answer.
const WAIT_MAX_S: u64 = 30;
const PREFER: HeaderName = HeaderName::from_static("prefer");
const APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// What is preferred. What nobody here knows is passed over, as the RFC has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Preferences {
    respond_async: bool,
    wait_s: Option<u64>,
}

impl Preferences {
    pub(crate) fn of(headers: &HeaderMap) -> Preferences {
        let mut preferences = Preferences::default();
        let values = headers.get_all(&PREFER).iter().filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| value.split(',')) {
            // Parameters follow a semicolon; ours have none.
            let preference = preference.split(';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            // The first one of a name counts (RFC 7240, 2).
            match name.trim().to_ascii_lowercase().as_str() {
                "respond-async" => preferences.respond_async = true,
                "wait" if preferences.wait_s.is_none() => {
                    let seconds = value.trim().trim_matches('"').parse::<u64>().ok();
                    preferences.wait_s = seconds.map(|seconds| seconds.min(WAIT_MAX_S));
                }
                _ => {}
            }
        }
        preferences
    }

    /// How long to wait, if at all.
    pub(crate) fn wait(self) -> Option<Duration> {
        self.wait_s.filter(|seconds| *seconds > 0).map(Duration::from_secs)
    }

    /// Says which preferences were kept, with the time that was granted.
    pub(crate) fn applied(self, response: &mut Response) {
        response.headers_mut().append(header::VARY, HeaderValue::from_static("prefer"));
        let respond_async = self.respond_async.then(|| "respond-async".to_owned());
        let kept: Vec<String> =
            respond_async.into_iter().chain(self.wait_s.map(|seconds| format!("wait={seconds}"))).collect();
        if let Ok(value) = kept.join(", ").parse()
            && !kept.is_empty()
        {
            response.headers_mut().insert(APPLIED, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_preferred() {
        let table = [
            (&["respond-async, wait=10"][..], (true, Some(10))),
            (&["wait=10", "Respond-Async"], (true, Some(10))),
            (&["wait = \"5\" ; x=1, wait=7"], (false, Some(5))),
            (&["wait=99999"], (false, Some(WAIT_MAX_S))),
            (&["wait=-1, wait=x, handling=lenient"], (false, None)),
            (&["wait=0"], (false, Some(0))),
            (&[], (false, None)),
        ];
        for (values, (respond_async, wait_s)) in table {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(PREFER, HeaderValue::from_static(value));
            }
            assert_eq!(Preferences::of(&headers), Preferences { respond_async, wait_s }, "{values:?}");
        }
    }
}
