//! What a caller may still ask for, as draft-ietf-httpapi-ratelimit-headers has it.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// What is left of a quota. Whoever counts puts it into the extensions of the *answer*, of a refusal as of any other;
/// the headers are written from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// What the quota is called.
    pub policy: &'static str,
    /// Requests that it allows in a window.
    pub quota: u64,
    /// The window, in seconds.
    pub window_s: u64,
    /// Requests that are left.
    pub remaining: u64,
    /// Seconds until all are there again.
    pub reset_s: u64,
}

impl Allowance {
    /// Writes both headers, which are lists of RFC 9651.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let Allowance { policy, quota, window_s, remaining, reset_s } = self;
        let fields = [
            (POLICY, format!("\"{policy}\";q={quota};w={window_s}")),
            (LIMIT, format!("\"{policy}\";r={remaining};t={reset_s}")),
        ];
        for (name, value) in fields {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_the_draft_has_it() {
        let mut headers = HeaderMap::new();
        Allowance { policy: "submissions", quota: 10, window_s: 1, remaining: 3, reset_s: 1 }
            .write(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"submissions\";q=10;w=1");
        assert_eq!(headers["ratelimit"], "\"submissions\";r=3;t=1");
    }
}
