//! Steps of a controller in a second, where claims and completions are batched.

use crate::submissions::accept;
use dragnet_job::topic;
use dragnet_pattern::{Advance, Claimant, Next, Shares, Statement, Store};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Steps of Launch and nothing around them: claims in batches, and each with fence, stage, a ledger's row, the next
/// message and an event; then with both messages that Launch sends.
pub(crate) fn hops(name: &str, store: Arc<dyn Store>) {
    for (run, next) in [&[topic::MONITOR][..], &[topic::MONITOR, topic::BILLING]].into_iter().enumerate() {
        println!(
            "hops on {name}, messages of each {}: {:.0}/s",
            next.len(),
            hops_to(&store, run as u64, next)
        );
    }
}

/// How many a second.
fn hops_to(store: &Arc<dyn Store>, run: u64, next: &'static [&'static str]) -> f64 {
    const WORKS: u64 = 20_000;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let groups = [("launch", topic::LAUNCH), ("monitor", topic::MONITOR), ("billing", topic::BILLING)];
        for (group, topic) in groups {
            store.add_group(group, topic, true).await.unwrap();
        }
        let mut asked = tokio::task::JoinSet::new();
        for n in run * WORKS..(run + 1) * WORKS {
            let store = store.clone();
            asked.spawn(async move { drop(store.accept(accept(n)).await.unwrap()) });
        }
        asked.join_all().await;
        let begun = Instant::now();
        let mut claimers = tokio::task::JoinSet::new();
        for n in 0..4 {
            let store = store.clone();
            let lease = Duration::from_secs(60);
            let by = Claimant { owner: format!("o{n}"), lease, only: None, shares: Shares::default(), takes_suspects: false };
            claimers.spawn(async move {
                loop {
                    let claims = store.claim("launch", &by, 128).await.unwrap();
                    if claims.is_empty() {
                        return;
                    }
                    let mut steps = tokio::task::JoinSet::new();
                    for claim in claims {
                        let store = store.clone();
                        steps.spawn(async move {
                            let sql = "insert into ledger (tenant, work_id, meter, seq, quantity, unit, per, price_micros, amount_micros, \
                                       currency, rates_version, at_ms) values ('default', ?1, 'hop', 1, 1, 'hop', 1, 1, 1, 'USD', 'v', 1)";
                            let to = Advance::to(Next::Done);
                            let mut advance = next.iter().fold(to, |advance, topic| advance.publish(topic));
                            advance.stage = Some("monitor");
                            advance.side.push(Statement::new(sql, vec![claim.work.id.as_str().into()]));
                            let advance = advance.event("launch.launched", json!({ "objects": 1 }));
                            store.advance(&claim.fence, advance).await.unwrap();
                        });
                    }
                    steps.join_all().await;
                }
            });
        }
        claimers.join_all().await;
        WORKS as f64 / begun.elapsed().as_secs_f64()
    })
}
