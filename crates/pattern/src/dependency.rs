//! A dependency that may be down or slow: a time-out on every call, a circuit breaker, a budget for
//! retries, and delays that don't come in step.
//!
//! Nothing here waits: a call that may not be made now says when it may, and the work that wanted it is
//! released until then.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How a dependency is treated.
#[derive(Debug, Clone, Copy)]
pub struct DependencyPolicy {
    /// The longest that a call may take.
    pub timeout: Duration,
    /// Failures in a row that open the breaker.
    pub failures_to_open: u32,
    /// How long it stays open before one probe is let through.
    pub open_for: Duration,
    /// Retries per first call, as a share: 0.1 lets one call in ten be a retry when all goes wrong.
    pub retry_share: f64,
    /// The first and the longest delay of [`full_jitter`].
    pub backoff: (Duration, Duration),
}

impl Default for DependencyPolicy {
    fn default() -> DependencyPolicy {
        DependencyPolicy {
            timeout: Duration::from_secs(5),
            failures_to_open: 5,
            open_for: Duration::from_secs(2),
            retry_share: 0.1,
            backoff: (Duration::from_millis(100), Duration::from_secs(30)),
        }
    }
}

/// One dependency, shared by all that call it.
#[derive(Debug)]
pub struct Dependency {
    name: &'static str,
    policy: DependencyPolicy,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    failures: u32,
    open_until: Option<Instant>,
    probing: bool,
    /// Retries that may be made now.
    budget: f64,
}

/// The most retries that are saved up.
const BUDGET_MAX: f64 = 10.0;

/// Why a call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// The dependency's name.
    pub name: &'static str,
    /// What is wrong, for a person.
    pub reason: String,
    /// When to look again.
    pub retry_after: Duration,
}

impl Dependency {
    /// A dependency that is believed to be up.
    pub fn new(name: &'static str, policy: DependencyPolicy) -> Dependency {
        let state = State { failures: 0, open_until: None, probing: false, budget: BUDGET_MAX };
        Dependency { name, policy, state: Mutex::new(state) }
    }

    /// The dependency's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Makes a call, if one may be made now. `tries` counts this work's calls before this one.
    ///
    /// # Errors
    /// [`Down`] when the breaker is open, the budget for retries is spent, the call fails or takes longer
    /// than the policy's time-out. Whether a call that timed out had its effect is unknown.
    pub async fn call<T, E: std::fmt::Display>(
        &self,
        tries: u32,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Down> {
        self.admit(tries)?;
        let mut unanswered = Unanswered(Some(self));
        let reason = match tokio::time::timeout(self.policy.timeout, call).await {
            Ok(Ok(answer)) => {
                unanswered.0 = None;
                self.succeeded();
                return Ok(answer);
            }
            Ok(Err(e)) => e.to_string(),
            Err(_) => format!("no answer in {} ms", self.policy.timeout.as_millis()),
        };
        drop(unanswered);
        Err(self.down(reason, full_jitter(self.policy.backoff, tries)))
    }

    fn admit(&self, tries: u32) -> Result<(), Down> {
        let mut state = self.lock();
        if let Some(until) = state.open_until {
            let now = Instant::now();
            if now < until || state.probing {
                let wait = until.saturating_duration_since(now).max(self.policy.backoff.0);
                return Err(self.down("its circuit breaker is open".into(), wait));
            }
            state.probing = true;
            return Ok(());
        }
        if tries == 0 {
            state.budget = (state.budget + self.policy.retry_share).min(BUDGET_MAX);
        } else if state.budget < 1.0 {
            // Time gives a little back, so that the last work's retry is not shut out for ever.
            state.budget += self.policy.retry_share;
            return Err(
                self.down("its budget for retries is spent".into(), full_jitter(self.policy.backoff, tries))
            );
        } else {
            state.budget -= 1.0;
        }
        Ok(())
    }

    fn succeeded(&self) {
        let mut state = self.lock();
        state.failures = 0;
        state.open_until = None;
        state.probing = false;
    }

    fn failed(&self) {
        let mut state = self.lock();
        state.failures += 1;
        if state.probing || state.failures >= self.policy.failures_to_open {
            state.open_until = Some(Instant::now() + self.policy.open_for);
            state.probing = false;
        }
    }

    /// Whether calls are let through.
    pub fn is_closed(&self) -> bool {
        self.lock().open_until.is_none()
    }

    fn down(&self, reason: String, retry_after: Duration) -> Down {
        Down { name: self.name, reason, retry_after }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A call that has not succeeded: a failure when it is dropped, however that comes, so that a probe that
/// panics does not hold the breaker open for ever.
struct Unanswered<'a>(Option<&'a Dependency>);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(dependency) = self.0 {
            dependency.failed();
        }
    }
}

/// A delay drawn evenly from 0 to `first · 2^tries`, at most `longest`: clients that failed together don't
/// come back together (the "full jitter" of the AWS Architecture Blog, 2015).
pub fn full_jitter((first, longest): (Duration, Duration), tries: u32) -> Duration {
    let most = first.saturating_mul(1 << tries.min(20)).min(longest);
    let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
    most.mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> DependencyPolicy {
        DependencyPolicy {
            failures_to_open: 2,
            open_for: Duration::from_secs(60),
            ..DependencyPolicy::default()
        }
    }

    async fn call(dependency: &Dependency, tries: u32, answer: Result<u8, &str>) -> Result<u8, String> {
        dependency.call(tries, async { answer }).await.map_err(|down| down.reason)
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_failures_and_closes_after_a_probe() {
        let mut dependency = Dependency::new("d", policy());
        assert_eq!(call(&dependency, 0, Err("no")).await, Err("no".into()));
        assert_eq!(call(&dependency, 0, Err("no")).await, Err("no".into()));
        assert_eq!(call(&dependency, 0, Ok(1)).await, Err("its circuit breaker is open".into()));
        dependency.policy.open_for = Duration::ZERO;
        dependency.lock().open_until = Some(Instant::now());
        assert_eq!(call(&dependency, 0, Ok(1)).await, Ok(1), "the probe");
        assert!(dependency.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_with_its_time_out() {
        let dependency = Dependency::new("d", policy());
        let down = dependency.call(0, std::future::pending::<Result<u8, String>>()).await.unwrap_err();
        assert_eq!(down.reason, "no answer in 5000 ms");
    }

    #[tokio::test]
    async fn retries_have_a_budget() {
        let dependency = Dependency::new("d", DependencyPolicy { failures_to_open: 1000, ..policy() });
        let mut made = 0;
        for _ in 0..100 {
            made += u32::from(call(&dependency, 1, Err("no")).await == Err("no".into()));
        }
        assert!((10..=20).contains(&made), "{made} retries of 100 were made");
    }
}
