//! How fast a tenant may submit: a bucket of tokens for each, in this process. Several API processes of one store
//! give as much each.

use crate::Allowance;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Buckets that are kept before full ones are thrown away, which are as good as new ones.
const BUCKETS_MAX: usize = 10_000;

/// The paces of all tenants.
#[derive(Debug, Default)]
pub(crate) struct Paces {
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// The tenant has to wait so long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TooFast {
    pub(crate) wait: Duration,
    pub(crate) allowance: Allowance,
}

impl Paces {
    /// Takes a token of a tenant that may have `per_s` in a second, and saves up no more than that.
    pub(crate) fn take(&self, tenant: &str, per_s: u64, now: Instant) -> Result<Allowance, TooFast> {
        let most = per_s as f64;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(tenant) {
            // A bucket fills within a second, whatever its size.
            buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at) < Duration::from_secs(1));
        }
        let bucket = buckets.entry(tenant.to_owned()).or_insert(Bucket { tokens: most, at: now });
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + since * most).min(most);
        bucket.at = now.max(bucket.at);
        let allowance = |left: f64| Allowance {
            policy: "submissions",
            quota: per_s,
            window_s: 1,
            remaining: left.max(0.0) as u64,
            reset_s: u64::from(left < most),
        };
        if bucket.tokens < 1.0 {
            let wait = match per_s {
                0 => Duration::from_secs(3600),
                _ => Duration::from_secs_f64((1.0 - bucket.tokens) / most),
            };
            return Err(TooFast { wait, allowance: allowance(bucket.tokens) });
        }
        bucket.tokens -= 1.0;
        Ok(allowance(bucket.tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_what_it_says_and_no_more() {
        let paces = Paces::default();
        let start = Instant::now();
        let taken = |tenant: &str, at_ms: u64, tries: usize| {
            let now = start + Duration::from_millis(at_ms);
            (0..tries).filter(|_| paces.take(tenant, 10, now).is_ok()).count()
        };
        let table = [
            ("a burst of a second's worth", "a", 0, 100, 10),
            ("another tenant has its own", "b", 0, 100, 10),
            ("a tenth of a second gives one", "a", 100, 100, 1),
            ("nothing more at the same time", "a", 100, 100, 0),
            ("a long rest saves up a second's worth", "a", 60_000, 100, 10),
            ("a clock that stands still gives nothing", "a", 60_000, 100, 0),
        ];
        for (name, tenant, at_ms, tries, expected) in table {
            assert_eq!(taken(tenant, at_ms, tries), expected, "{name}");
        }
        let wait = paces.take("a", 10, start + Duration::from_millis(60_050)).unwrap_err().wait;
        assert!((Duration::from_millis(45)..=Duration::from_millis(55)).contains(&wait), "{wait:?}");
        assert_eq!(paces.take("none", 0, start).unwrap_err().wait, Duration::from_secs(3600));
        let first = paces.take("c", 3, start).map(|left| (left.quota, left.remaining, left.reset_s));
        assert_eq!(first, Ok((3, 2, 1)));
    }

    #[test]
    fn buckets_do_not_pile_up() {
        let paces = Paces::default();
        let start = Instant::now();
        for n in 0..2 * BUCKETS_MAX {
            let now = start + Duration::from_millis(n as u64);
            let _ = paces.take(&n.to_string(), 1, now);
        }
        assert!(paces.buckets.lock().unwrap().len() <= BUCKETS_MAX);
    }
}
