//! Whose turn it is: between tenants one after the other, within one by priority.

use crate::store::{LEASE, by, claim_one, request};
use dragnet_pattern::*;
use std::sync::Arc;

async fn accepted(store: &Arc<dyn Store>, tenant: &str, priority: i64) -> String {
    let accept = Accept { tenant: tenant.into(), priority, ..request(None) };
    store.accept(accept).await.unwrap().work.id
}

/// The tenants of what is claimed, `at_once` at a time until nothing is left.
async fn tenants(store: &Arc<dyn Store>, at_once: usize) -> Vec<String> {
    let mut tenants = Vec::new();
    loop {
        let claims = store.claim("left", &by("o", LEASE), at_once).await.unwrap();
        if claims.is_empty() {
            return tenants;
        }
        tenants.extend(claims.into_iter().map(|claim| claim.work.tenant));
    }
}

async fn tenants_take_turns(store: &Arc<dyn Store>) {
    store.add_group("left", "begin", false).await.unwrap();
    for at_once in [1, 2, 3, 7, 100] {
        for (tenant, works) in [("a", 6), ("b", 3), ("c", 1)] {
            for _ in 0..works {
                accepted(store, tenant, PRIORITY).await;
            }
        }
        let tenants = tenants(store, at_once).await;
        assert_eq!(tenants.len(), 10);
        // Between two of one tenant every other that has something left has its turn, but for where a claim ends.
        let first = |tenant: &str| tenants.iter().position(|t| t == tenant).unwrap();
        assert!(["a", "b", "c"].map(first).iter().all(|place| *place < 3), "{at_once}: {tenants:?}");
        let most = tenants.chunk_by(|a, b| a == b).map(<[String]>::len).next().unwrap();
        assert_eq!(most, 1, "{at_once}: {tenants:?}");
    }
}

/// Counted in steps, and not in time: between a small job's acceptance and its claim stands one step of each other.
async fn a_small_job_waits_for_one_step_of_each_other_tenant(store: &Arc<dyn Store>) {
    store.add_group("left", "begin", false).await.unwrap();
    for _ in 0..400 {
        accepted(store, "crowd", PRIORITY_MAX).await;
    }
    for n in 0..20 {
        claim_next(store, "crowd").await;
        // With the lowest priority: it counts within a tenant alone.
        accepted(store, "small", 0).await;
        accepted(store, if n % 2 == 0 { "aaa" } else { "zzz" }, PRIORITY).await;
        let mut before = Vec::new();
        loop {
            let claim = store.claim("left", &by("o", LEASE), 1).await.unwrap().remove(0);
            if claim.work.tenant == "small" {
                break;
            }
            before.push(claim.work.tenant);
        }
        assert!(before.len() <= 2, "{before:?}");
        while tenant_of_next(store).await != "crowd" {}
    }
}

async fn tenant_of_next(store: &Arc<dyn Store>) -> String {
    store.claim("left", &by("o", LEASE), 1).await.unwrap().remove(0).work.tenant
}

async fn claim_next(store: &Arc<dyn Store>, tenant: &str) {
    assert_eq!(tenant_of_next(store).await, tenant);
}

async fn the_highest_priority_goes_first(store: &Arc<dyn Store>) {
    store.add_group("left", "begin", false).await.unwrap();
    let mut works = Vec::new();
    for priority in [5, 0, 9, 5, 9] {
        works.push(accepted(store, "t", priority).await);
    }
    let mut claimed = Vec::new();
    for _ in 0..5 {
        let claim = store.claim("left", &by("o", LEASE), 1).await.unwrap().remove(0);
        claimed.push((claim.work.priority, works.iter().position(|id| *id == claim.work.id).unwrap()));
    }
    assert_eq!(claimed, [(9, 2), (9, 4), (5, 0), (5, 3), (0, 1)]);
}

/// A lane is a tenant's name with more behind it.
async fn names_of_tenants_are_told_apart(store: &Arc<dyn Store>) {
    store.add_group("left", "begin", false).await.unwrap();
    let names = ["a", "a 5", "a 5 4", "", " 4", "ä", "a  "];
    for name in names {
        accepted(store, name, PRIORITY).await;
        accepted(store, name, 0).await;
    }
    let mut claimed = tenants(store, 1).await;
    let mut second = claimed.split_off(names.len());
    claimed.sort();
    second.sort();
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    assert_eq!(
        (claimed, second),
        (sorted.iter().map(ToString::to_string).collect(), sorted.iter().map(ToString::to_string).collect())
    );
}

async fn nobody_has_more_than_a_share(store: &Arc<dyn Store>) {
    store.add_group("left", "begin", false).await.unwrap();
    for _ in 0..9 {
        accepted(store, "a", PRIORITY).await;
    }
    let claim = async |in_hand: usize| {
        let shares = Shares { most: Some(3), in_hand: [("a".into(), in_hand)].into() };
        let claimant = Claimant { shares, ..by("o", LEASE) };
        let claims = store.claim("left", &claimant, 9).await.unwrap();
        claims.into_iter().map(|claim| claim.work.tenant).collect::<Vec<_>>()
    };
    assert_eq!(claim(1).await, ["a", "a"]);
    accepted(store, "b", PRIORITY).await;
    assert_eq!(claim(3).await, ["b"]);
    assert!(claim(7).await.is_empty());
    assert_eq!(claim(0).await, ["a"; 3]);
}

/// An older program that runs beside this one knows of no lanes.
async fn an_older_programs_messages_are_found(store: &Arc<dyn Store>) {
    store.add_group("left", "begin", false).await.unwrap();
    let id = accepted(store, "t", PRIORITY).await;
    claim_one(store, "left", "dead").await;
    store.free("dead").await.unwrap();
    let older = [
        Statement::new("update controller set suspect = 0", vec![]),
        Statement::new("delete from delivery", vec![]),
        Statement::new(
            "insert into delivery (group_name, message_id, work_id, due_ms) values ('left', 77, ?1, 1)",
            vec![id.as_str().into()],
        ),
    ];
    store.write(older.to_vec()).await.unwrap();
    assert!(store.next_due("left", None).await.unwrap().is_some_and(|due| due <= 0));
    assert_eq!(claim_one(store, "left", "o").await.work.id, id);
}

suite! {
    tenants_take_turns
    a_small_job_waits_for_one_step_of_each_other_tenant
    the_highest_priority_goes_first
    names_of_tenants_are_told_apart
    nobody_has_more_than_a_share
    an_older_programs_messages_are_found
}
