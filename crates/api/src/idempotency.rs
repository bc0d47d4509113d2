//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a client's name for a request, so that it can repeat
//! it without knowing whether it arrived.
//!
//! What the key stands for is in the store, written with the job in one transaction. Here is what goes before: the
//! key's syntax, and that a twin of a request which is under way in this process waits for it. A twin in another
//! process waits in the database.

use crate::Problem;
use axum::http::{HeaderMap, StatusCode};
use dragnet_kernel::Digest;
use dragnet_pattern::IdempotencyKey;
use serde_json::Value as Json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;

const HEADER: &str = "idempotency-key";
/// The longest key.
const KEY_BYTES_MAX: usize = 255;
/// How long a twin waits: less than what a store takes to give up, so that the twins of a request that fails are told
/// to come back and don't fail one behind the other.
const WAIT: Duration = Duration::from_millis(1500);

/// The client's key: a string of RFC 9651, or the same without quotes. Requests are compared as parsed, so that
/// spaces and the order of members don't matter.
pub(crate) fn key_of(headers: &HeaderMap, body: &[u8]) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let wrong = |detail: String| {
        Problem::new(StatusCode::BAD_REQUEST, "idempotency-key", "The idempotency key is not valid", detail)
    };
    if values.next().is_some() {
        return Err(wrong("there is more than one: send one".into()));
    }
    let text = value.to_str().map_err(|_| wrong("it holds characters other than visible ASCII".into()))?;
    let key = parse(text.trim()).ok_or_else(|| {
        wrong(format!("it is `{text}`: send a string in double quotes, such as \"8e03978e-40d5-43dd\""))
    })?;
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(wrong(format!("it has {} bytes: 1 to {KEY_BYTES_MAX} are taken", key.len())));
    }
    let posted: Json =
        serde_json::from_slice(body).map_err(|e| Problem::invalid(format!("the body is no JSON: {e}")))?;
    let fingerprint = Digest::of_file(&serde_json::to_vec(&posted).unwrap_or_default());
    Ok(Some(IdempotencyKey { scope: "POST /v1/jobs".into(), key, fingerprint }))
}

/// The string without its quotes and escapes (RFC 9651, 3.3.3).
fn parse(text: &str) -> Option<String> {
    let Some(quoted) = text.strip_prefix('"') else {
        let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
        return text.chars().all(is_plain).then(|| text.to_owned());
    };
    let (mut key, mut rest) = (String::new(), quoted.chars());
    loop {
        match rest.next()? {
            '"' => return rest.next().is_none().then_some(key),
            '\\' => key.push(rest.next().filter(|c| matches!(c, '"' | '\\'))?),
            c @ ' '..='~' => key.push(c),
            _ => return None,
        }
    }
}

/// The keyed requests that are under way in this process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Twins {
    under_way: Arc<Mutex<HashMap<Named, Arc<tokio::sync::Mutex<()>>>>>,
}

/// Tenant and key.
type Named = (String, String);

impl Twins {
    /// Waits until no other request of this name is under way, and is that request then.
    pub(crate) async fn enter(
        &self,
        tenant: &str,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<Turn>, Problem> {
        let Some(key) = key else { return Ok(None) };
        let named = (tenant.to_owned(), key.key.clone());
        let lock = self.under_way().entry(named.clone()).or_default().clone();
        // Made before it is waited for: whoever gives up clears away as well.
        let mut turn = Turn { twins: self.clone(), named, held: None };
        match tokio::time::timeout(WAIT, lock.lock_owned()).await {
            Ok(held) => turn.held = Some(held),
            Err(_) => {
                let detail = format!("a request with the key `{}` is still under way", key.key);
                let title = "The first request is still under way";
                return Err(Problem::new(StatusCode::CONFLICT, "idempotency-key-in-use", title, detail)
                    .retry_after(1));
            }
        }
        Ok(Some(turn))
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, HashMap<Named, Arc<tokio::sync::Mutex<()>>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to be the one request of its name.
#[derive(Debug)]
pub(crate) struct Turn {
    twins: Twins,
    named: Named,
    held: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.held = None;
        let mut under_way = self.twins.under_way();
        // Whoever waits has the lock too, and clears it away in its turn.
        if under_way.get(&self.named).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            under_way.remove(&self.named);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

    use super::*;

    #[test]
    fn reads_keys() {
        let table = [
            ("\"k\"", Some("k")),
            ("k", Some("k")),
            (r#""a \"b\" \\""#, Some(r#"a "b" \"#)),
            (r#""a"#, None),
            (r#"a"b"#, None),
            ("a b", None),
            (r#""a\b""#, None),
            (r#""a";x=1"#, None),
            // A field's value may have tabs, a string has none.
            ("a\tb", None),
            ("\"a\tb\"", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text).as_deref(), expected, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_twin_waits_and_gives_up() {
        let key = IdempotencyKey { scope: String::new(), key: "k".into(), fingerprint: String::new() };
        let twins = Twins::default();
        let first = twins.enter("t", Some(&key)).await.unwrap();
        assert!(twins.enter("other", Some(&key)).await.is_ok(), "keys are a tenant's own");
        assert!(twins.enter("t", Some(&key)).await.is_err(), "the first stays under way");
        let (second, ()) = tokio::join!(twins.enter("t", Some(&key)), async {
            tokio::time::sleep(WAIT / 2).await;
            drop(first);
        });
        drop(second.unwrap());
        assert!(twins.under_way().is_empty(), "nothing is left behind");
    }
}
