//! Webhooks: each tenant's endpoints are told when a work of theirs has ended, as Standard Webhooks has it
//! (<https://www.standardwebhooks.com>): signed, at least once, with an id that stays over all repetitions.
//!
//! It is a controller that is plugged in: a group of its own on the topic of what has ended, tables of its own, and no line
//! in any other controller. Without this crate nothing else changes.

mod deliver;
mod endpoints;
mod key;
mod sign;

use async_trait::async_trait;
use deliver::{Answer, Client};
use dragnet_pattern::{
    Advance, Claim, Controller, Failure, Next, Sql, Statement, Store, Tables, full_jitter,
};
use futures_util::future::join_all;
use serde_json::json;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

pub use deliver::Reach;
pub use endpoints::{Endpoint, Error, add, enable, list, remove, replay, rotate};
pub use key::{Key, KeyError};

/// The controller's name, its group's and its role's.
pub const NAME: &str = "webhooks";

/// Its tables in the Status DB.
pub const TABLES: Tables =
    Tables { name: NAME, versions: &[Sql { all: include_str!("tables.sql"), sqlite: "", postgres: "" }] };

/// Seconds after the attempt before it at which each attempt is made, as the specification proposes. After the last one the
/// event is given up.
const SCHEDULE_S: [u64; 10] = [0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
/// The longest that an endpoint's `Retry-After` is kept to.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(86_400);

/// The name under which works wait for the right key, and how long at first and at most before they look again.
const KEY: &str = "webhook-key";
const KEY_AGAIN: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// So long after its end it is known what became of a delivery. An event that is replayed later is told as if it were new.
const KNOWN_MS: i64 = 30 * 86_400_000;

/// Tells endpoints of each work of a topic.
pub struct Webhooks {
    topic: &'static str,
    client: Client,
    key_file: PathBuf,
}

impl Webhooks {
    /// A controller on `topic` that connects to what `reach` allows, and signs with what the key in a file makes
    /// ([`Key::at`]).
    pub fn new(topic: &'static str, reach: Reach, key_file: PathBuf) -> Webhooks {
        Webhooks { topic, client: Client::new(reach), key_file }
    }

    /// Tells the endpoints that can be signed for. The key is read whenever it is needed, so that one that is put right is
    /// enough. Where it signs for none of them, that is no endpoint's fault: the work waits, and says for what.
    async fn tell<'a>(
        &self,
        due: &[&'a Endpoint],
        claim: &Claim,
    ) -> Result<Vec<(&'a Endpoint, Answer)>, Failure> {
        let wrong = |reason| {
            let after = full_jitter(KEY_AGAIN, u32::try_from(claim.row.tries).unwrap_or(u32::MAX));
            Failure::Down { dependency: KEY.into(), reason, after: after.max(Duration::from_secs(1)) }
        };
        let key = Key::at(&self.key_file).map_err(|e| wrong(e.to_string()))?;
        let (mut signed, mut unsigned) = (Vec::new(), None);
        for endpoint in due {
            match sign::valid(&endpoint.secrets, &key, claim.now_ms) {
                Ok(_) => signed.push(*endpoint),
                Err(why) => unsigned = unsigned.or(Some(why)),
            }
        }
        if let Some(why) = unsigned.filter(|_| signed.is_empty()) {
            return Err(wrong(why.to_string()));
        }
        let key = &key;
        let told = signed.into_iter().map(|to| async move { (to, self.client.tell(to, key, claim).await) });
        Ok(join_all(told).await)
    }
}

/// What became of an event for one endpoint.
struct Delivery {
    attempts: i64,
    next_ms: i64,
    is_done: bool,
}

#[async_trait]
impl Controller for Webhooks {
    fn name(&self) -> &'static str {
        NAME
    }

    fn topic(&self) -> &'static str {
        self.topic
    }

    /// Its steps wait for others' servers and do little besides: a slow one must not keep others from theirs.
    fn can_crash(&self) -> bool {
        false
    }

    async fn step(&self, store: &dyn Store, claim: &Claim) -> Result<Advance, Failure> {
        if !claim.work.status.is_terminal() {
            return Ok(Advance::to(Next::Idle));
        }
        let endpoints = endpoints::of_tenant(store, &claim.work.tenant).await?;
        let known = deliveries(store, &claim.work.id).await?;
        let is_open = |endpoint: &&Endpoint| {
            endpoint.disabled.is_none() && known.get(&endpoint.id).is_none_or(|delivery| !delivery.is_done)
        };
        let open: Vec<&Endpoint> = endpoints.iter().filter(is_open).collect();
        let waits = |endpoint: &Endpoint| known.get(&endpoint.id).filter(|delivery| !delivery.is_done);
        let is_due = |endpoint: &&&Endpoint| {
            known.get(&endpoint.id).is_none_or(|delivery| delivery.next_ms <= claim.now_ms)
        };
        let due: Vec<&Endpoint> = open.iter().filter(is_due).copied().collect();
        let told = if due.is_empty() { Vec::new() } else { self.tell(&due, claim).await? };

        let mut advance = Advance::to(Next::Done);
        advance.side.push(forgotten(claim.now_ms));
        let later =
            open.iter().filter(|endpoint| !is_due(endpoint)).filter_map(|endpoint| known.get(&endpoint.id));
        // Those that could not be signed for wait in a step of their own.
        let left = (told.len() < due.len()).then_some(claim.now_ms);
        let mut next: Option<i64> = later.map(|delivery| delivery.next_ms).chain(left).min();
        for (endpoint, answer) in told {
            let attempts = known.get(&endpoint.id).map_or(0, |delivery| delivery.attempts) + 1;
            let again = again_after(&answer, attempts);
            let next_ms =
                again.map(|after| claim.now_ms + i64::try_from(after.as_millis()).unwrap_or(i64::MAX / 4));
            next = [next, next_ms].into_iter().flatten().min();
            advance.side.push(noted(claim, endpoint, attempts, next_ms, &answer.said));
            advance.side.extend(answer.gone.then(|| disabled(endpoint)));
            let data = json!({ "webhook": endpoint.id, "attempt": attempts, "said": answer.said });
            advance = advance.event("webhooks.told", data);
        }
        for endpoint in &endpoints {
            let (Some(why), Some(delivery)) = (&endpoint.disabled, waits(endpoint)) else { continue };
            let said = format!("it is disabled: {why}");
            advance.side.push(noted(claim, endpoint, delivery.attempts, None, &said));
            let data = json!({ "webhook": endpoint.id, "attempts": delivery.attempts, "said": said });
            advance = advance.event("webhooks.left", data);
        }
        if let Some(next) = next {
            let wait = u64::try_from(next - claim.now_ms).unwrap_or(0).max(100);
            advance.next = Next::Again(Duration::from_millis(wait));
        }
        Ok(advance)
    }
}

/// When an event is sent again, if it is.
fn again_after(answer: &Answer, attempts: i64) -> Option<Duration> {
    if answer.arrived || answer.gone {
        return None;
    }
    let wait = Duration::from_secs(*SCHEDULE_S.get(usize::try_from(attempts).ok()?)?);
    // A tenth of it by chance, so that what failed together does not come together again.
    let wait = wait + full_jitter((wait / 10, wait / 10), 0);
    Some(answer.retry_after.map_or(wait, |asked| asked.min(RETRY_AFTER_MAX).max(wait)))
}

async fn deliveries(store: &dyn Store, work: &str) -> Result<HashMap<String, Delivery>, Failure> {
    let sql =
        "select webhook_id, attempts, next_ms, done_ms is not null from webhook_delivery where work_id = ?1";
    let rows = store.query(Statement::new(sql, vec![work.into()])).await?;
    let delivery = |row: Vec<dragnet_pattern::Value>| {
        let delivery = Delivery { attempts: row[1].int(), next_ms: row[2].int(), is_done: row[3].int() != 0 };
        (row[0].text().to_owned(), delivery)
    };
    Ok(rows.into_iter().map(delivery).collect())
}

/// Forgets a few old deliveries, so that no step has many to forget.
fn forgotten(now_ms: i64) -> Statement {
    let sql = "delete from webhook_delivery where (work_id, webhook_id) in (select work_id, webhook_id from \
               webhook_delivery where done_ms < ?1 order by done_ms limit 100)";
    Statement::new(sql, vec![(now_ms - KNOWN_MS).into()])
}

/// What is written of an attempt, in the step's own transaction. Without a next one it was the last.
fn noted(claim: &Claim, endpoint: &Endpoint, attempts: i64, next_ms: Option<i64>, said: &str) -> Statement {
    let sql = "insert into webhook_delivery (work_id, webhook_id, attempts, next_ms, done_ms, said) \
               values (?1, ?2, ?3, ?4, ?5, ?6) on conflict (work_id, webhook_id) \
               do update set attempts = ?3, next_ms = ?4, done_ms = ?5, said = ?6";
    let done_ms = next_ms.is_none().then_some(claim.now_ms);
    let values = vec![
        claim.work.id.as_str().into(),
        endpoint.id.as_str().into(),
        attempts.into(),
        next_ms.unwrap_or(claim.now_ms).into(),
        done_ms.into(),
        said.into(),
    ];
    Statement::new(sql, values)
}

fn disabled(endpoint: &Endpoint) -> Statement {
    let sql = "update webhook set disabled = ?2 where id = ?1";
    Statement::new(sql, vec![endpoint.id.as_str().into(), "it answered 410 Gone".into()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_spread_over_days() {
        let failed = |retry_after| Answer { arrived: false, gone: false, retry_after, said: String::new() };
        let seconds = |answer: &Answer, attempts| again_after(answer, attempts).map(|wait| wait.as_secs());
        for (attempts, (least, most)) in [(1, (5, 5)), (2, (300, 330)), (9, (86_400, 95_040))] {
            let wait = seconds(&failed(None), attempts).expect("another attempt");
            assert!((least..=most).contains(&wait), "{attempts}: {wait}");
        }
        assert_eq!(seconds(&failed(None), 10), None, "it is given up");
        assert_eq!(seconds(&failed(Some(Duration::from_secs(60))), 1), Some(60));
        assert!(seconds(&failed(Some(Duration::from_secs(1))), 2) >= Some(300));
        let gone = Answer { gone: true, ..failed(None) };
        assert_eq!(seconds(&gone, 1), None);
    }
}
