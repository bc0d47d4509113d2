//! What every store must do, written against the trait: a backend is a line at the end.

use dragnet_pattern::*;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// A test for each backend and requirement.
macro_rules! suite {
    ($($name:ident)*) => {
        suite! { sqlite: $($name)* }
        #[cfg(feature = "postgres")]
        suite! { postgres: $($name)* }
    };
    ($backend:ident: $($name:ident)*) => {
        mod $backend {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let Some(opened) = crate::store::$backend() else { return };
                super::$name(&opened.store).await;
            })*
        }
    };
}

pub(crate) const MACHINES: &[Machine] = &[Machine {
    kind: "k",
    stages: &["first", "second"],
    required: &["left", "right"],
    ended: Some("ended"),
}];
pub(crate) const EFFECT: Sql = Sql {
    all: "create table effect (id text primary key, n integer not null) strict;",
    sqlite: "",
    postgres: "",
};
pub(crate) const TABLES: Tables = Tables { name: "effects", versions: &[EFFECT] };
pub(crate) const LEASE: Duration = Duration::from_secs(60);
pub(crate) const NOW: Duration = Duration::ZERO;

/// A store that lives as long as its folder.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) folder: tempfile::TempDir,
}

pub(crate) fn sqlite() -> Option<Opened> {
    let folder = tempfile::tempdir().unwrap();
    let store = dragnet_pattern::sqlite::open(&folder.path().join("store.db"), MACHINES, &[TABLES]).unwrap();
    Some(Opened { store: Arc::new(store), folder })
}

/// A schema of its own in the database that `./check` starts.
#[cfg(feature = "postgres")]
pub(crate) fn postgres() -> Option<Opened> {
    let Some(url) = schema() else {
        eprintln!("skipped: DRAGNET_TEST_POSTGRES names no database (`./check` starts one)");
        return None;
    };
    let store = dragnet_pattern::postgres::open(&url, MACHINES, &[TABLES]).unwrap();
    Some(Opened { store: Arc::new(store), folder: tempfile::tempdir().unwrap() })
}

/// The URL of a new schema.
#[cfg(feature = "postgres")]
pub(crate) fn schema() -> Option<String> {
    let url = std::env::var("DRAGNET_TEST_POSTGRES").ok().filter(|url| !url.is_empty())?;
    let schema = format!("s{}", uuid::Uuid::new_v4().simple());
    let sql = format!("create schema {schema}");
    let made = std::process::Command::new("psql").args([&url, "-qc", &sql]).status().unwrap();
    assert!(made.success());
    let mark = if url.contains('?') { '&' } else { '?' };
    Some(format!("{url}{mark}options=-csearch_path%3D{schema}"))
}

pub(crate) fn request(key: Option<(&str, &str)>) -> Accept {
    let key = key.map(|(key, fingerprint)| IdempotencyKey {
        scope: "POST /".into(),
        key: key.into(),
        fingerprint: fingerprint.into(),
    });
    Accept {
        tenant: "t".into(),
        kind: "k".into(),
        spec: json!({ "n": 1 }),
        topic: "begin".into(),
        key,
        deadline: None,
        priority: PRIORITY,
        waiting_max: None,
    }
}

pub(crate) fn by(owner: &str, lease: Duration) -> Claimant {
    Claimant { owner: owner.into(), lease, only: None, shares: Shares::default(), takes_suspects: false }
}

/// A store with the group `left`, and one accepted work.
pub(crate) async fn one_work(store: &Arc<dyn Store>) -> String {
    store.add_group("left", "begin", true).await.unwrap();
    store.accept(request(None)).await.unwrap().work.id
}

pub(crate) async fn claim_one(store: &Arc<dyn Store>, group: &str, owner: &str) -> Claim {
    let mut claims = store.claim(group, &by(owner, LEASE), 10).await.unwrap();
    assert_eq!(claims.len(), 1, "{group} for {owner}");
    claims.remove(0)
}

pub(crate) async fn none(store: &Arc<dyn Store>, group: &str) -> bool {
    store.claim(group, &by("nobody", LEASE), 10).await.unwrap().is_empty()
}

pub(crate) async fn row(store: &Arc<dyn Store>, id: &str, controller: &str) -> (Work, Row) {
    let (work, rows) = store.work("t", id).await.unwrap().unwrap();
    (work, rows.into_iter().find(|row| row.controller == controller).unwrap())
}

async fn the_same_key_is_the_same_work(store: &Arc<dyn Store>) {
    store.add_group("left", "begin", false).await.unwrap();
    let first = store.accept(request(Some(("a", "1")))).await.unwrap();
    let again = store.accept(request(Some(("a", "1")))).await.unwrap();
    assert_eq!((first.work.id, first.replayed, again.replayed), (again.work.id, false, true));
    assert!(matches!(store.accept(request(Some(("a", "2")))).await, Err(Error::KeyReused)));
    let other = Accept { tenant: "u".into(), ..request(Some(("a", "2"))) };
    assert!(!store.accept(other).await.unwrap().replayed, "a key is its tenant's");
}

async fn a_request_that_nobody_waits_for_is_refused(store: &Arc<dyn Store>) {
    assert!(matches!(store.accept(request(None)).await, Err(Error::Unregistered(_))));
    assert!(store.works("t", Filter::default(), Page { limit: 9, after: None }).await.unwrap().is_empty());
}

/// What gathers behind a commit is accepted together where it can be, and each is told what it would have been alone.
async fn requests_at_once_are_answered_as_one_by_one(store: &Arc<dyn Store>) {
    store.add_group("left", "begin", false).await.unwrap();
    store.add_group("right", "begin", false).await.unwrap();
    store.accept(request(Some(("old", "1")))).await.unwrap();
    let plain = || (0..20).map(|_| request(None));
    let keyed =
        |from: usize| (from..from + 20).map(|n| request(Some((Box::leak(n.to_string().into()), "1"))));
    type IsRight = fn(&Result<Accepted, Error>) -> bool;
    let odd: [(Accept, IsRight); 3] = [
        (request(Some(("old", "1"))), |answer| answer.as_ref().is_ok_and(|accepted| accepted.replayed)),
        (request(Some(("old", "2"))), |answer| matches!(answer, Err(Error::KeyReused))),
        (Accept { topic: "nobody's".into(), ..request(None) }, |answer| {
            matches!(answer, Err(Error::Unregistered(_)))
        }),
    ];
    let mut expected = 1;
    for (n, odd) in std::iter::once(None).chain(odd.into_iter().map(Some)).enumerate() {
        let mut asked = JoinSet::new();
        for accept in plain().chain(keyed(100 * n)).chain(keyed(100 * n)) {
            let store = store.clone();
            asked.spawn(async move { store.accept(accept).await.unwrap().work.id });
        }
        if let Some((accept, is_right)) = odd {
            let answer = store.accept(accept).await;
            assert!(is_right(&answer), "{answer:?}");
        }
        let ids: std::collections::BTreeSet<String> = asked.join_all().await.into_iter().collect();
        assert_eq!(ids.len(), 40, "a key makes one work");
        expected += 40;
    }
    for group in store.groups().await.unwrap() {
        assert_eq!(group.waiting, expected, "{}", group.name);
    }
    let page = Page { limit: 1000, after: None };
    let works = store.works("t", Filter::default(), page).await.unwrap();
    assert_eq!(works.len() as i64, expected);
    for work in works {
        assert_eq!(store.events(&work.id, 0, 9).await.unwrap().len(), 1);
        assert_eq!(store.work("t", &work.id).await.unwrap().unwrap().1.len(), 2, "a row for each group");
    }
}

async fn a_step_on_the_way_forgets_no_failure(store: &Arc<dyn Store>) {
    let id = one_work(store).await;
    for failures in 1..=2 {
        let claim = claim_one(store, "left", "o").await;
        store.advance(&claim.fence, Advance::to(Next::Stay)).await.unwrap();
        let failed = Release::Failed { reason: "broken".into(), after: NOW, failures_max: 9 };
        store.release(&claim.fence, failed).await.unwrap();
        assert_eq!(row(store, &id, "left").await.1.failures, failures);
    }
    let claim = claim_one(store, "left", "o").await;
    store.advance(&claim.fence, Advance::to(Next::Idle)).await.unwrap();
    assert_eq!(row(store, &id, "left").await.1.failures, 0, "a step forward does");
}

async fn a_watcher_is_never_suspect(store: &Arc<dyn Store>) {
    one_work(store).await;
    for _ in 0..9 {
        let watcher = Claimant { takes_suspects: true, ..by("dead", LEASE) };
        assert_eq!(store.claim("left", &watcher, 1).await.unwrap().len(), 1);
        store.free("dead").await.unwrap();
    }
}

async fn twins_are_one(store: &Arc<dyn Store>) {
    store.add_group("left", "begin", false).await.unwrap();
    let mut posts = JoinSet::new();
    for _ in 0..32 {
        let store = store.clone();
        posts.spawn(async move { store.accept(request(Some(("twin", "1")))).await.unwrap().work.id });
    }
    let mut ids = posts.join_all().await;
    ids.dedup();
    assert_eq!(ids.len(), 1);
}

async fn every_group_gets_every_message_once(store: &Arc<dyn Store>) {
    store.add_group("left", "begin", false).await.unwrap();
    store.add_group("right", "begin", false).await.unwrap();
    let id = store.accept(request(None)).await.unwrap().work.id;
    for group in ["left", "right"] {
        let claim = claim_one(store, group, "o").await;
        assert_eq!(claim.work.id, id);
        assert!(none(store, group).await, "a claimed message is out of sight");
        store.advance(&claim.fence, Advance::to(Next::Done)).await.unwrap();
        assert!(none(store, group).await, "a consumed message is gone");
    }
    assert!(store.groups().await.unwrap().iter().all(|group| group.waiting == 0));
}

async fn a_group_begins_where_it_is_told(store: &Arc<dyn Store>) {
    store.add_group("left", "begin", false).await.unwrap();
    let id = store.accept(request(None)).await.unwrap().work.id;
    store.add_group("now", "begin", false).await.unwrap();
    store.add_group("right", "begin", true).await.unwrap();
    store.add_group("later", "begin", true).await.unwrap();
    assert!(none(store, "now").await);
    assert!(!none(store, "right").await);
    store.add_group("parked", "begin", true).await.unwrap();
    let parked = claim_one(store, "parked", "o").await;
    store.release(&parked.fence, Release::Park { reason: "x".into() }).await.unwrap();
    // What one of them has in hand, another has not looked at and the third has parked is over with them.
    for group in ["right", "later", "parked"] {
        store.remove_group(group).await.unwrap();
        assert_eq!(row(store, &id, group).await.1.step, Step::Done);
    }
    assert_eq!(store.sweep().await.unwrap(), 0, "nothing is sent to who is gone");
    let names: Vec<String> = store.groups().await.unwrap().into_iter().map(|group| group.name).collect();
    assert_eq!(names, ["left", "now"]);
}

async fn a_newer_attempt_fences_the_older(store: &Arc<dyn Store>) {
    let id = one_work(store).await;
    let slow = store.claim("left", &by("slow", NOW), 1).await.unwrap().remove(0);
    assert!(none(store, "left").await, "what was in hand is left to be tried alone");
    let quick = store.claim_alone(&["left".into()], &by("quick", LEASE)).await.unwrap().unwrap();
    assert!(quick.fence.attempt > slow.fence.attempt);
    let writes = [
        store.advance(&slow.fence, Advance::to(Next::Done)).await.map(drop),
        store.advance(&slow.fence, Advance::to(Next::Stay)).await.map(drop),
        store.release(&slow.fence, Release::Yield).await,
        store.release(&slow.fence, Release::Park { reason: "x".into() }).await,
    ];
    for write in writes {
        assert!(matches!(write, Err(Error::Fenced { .. })), "{write:?}");
    }
    assert_eq!(
        store.renew(vec![slow.fence.clone(), quick.fence.clone()], LEASE).await.unwrap(),
        [slow.fence]
    );
    store.advance(&quick.fence, Advance::to(Next::Done)).await.unwrap();
    assert_eq!(row(store, &id, "left").await.1.step, Step::Done);
}

async fn a_step_is_written_whole_or_not_at_all(store: &Arc<dyn Store>) {
    let id = one_work(store).await;
    store.add_group("right", "next", false).await.unwrap();
    let claim = claim_one(store, "left", "o").await;
    let effect =
        |n: i64| Statement::new("insert into effect (id, n) values (?1, ?2)", vec!["e".into(), n.into()]);
    let mut step = Advance::to(Next::Done).publish("next").event("done", json!({}));
    step.stage = Some("second");
    step.side = vec![effect(1), effect(2)];
    assert!(matches!(store.advance(&claim.fence, step.clone()).await, Err(Error::Refused(_))));
    let (work, before) = row(store, &id, "left").await;
    assert_eq!((work.stage.as_str(), work.events, before.step), ("first", 1, Step::Running));
    assert!(none(store, "right").await);
    assert!(store.query(Statement::new("select * from effect", vec![])).await.unwrap().is_empty());
    step.side = vec![effect(1)];
    store.advance(&claim.fence, step).await.unwrap();
    let (work, after) = row(store, &id, "left").await;
    assert_eq!((work.stage.as_str(), work.events, after.step), ("second", 2, Step::Done));
    assert!(!none(store, "right").await);
}

async fn one_request_of_a_batch_fails_alone(store: &Arc<dyn Store>) {
    one_work(store).await;
    let claim = claim_one(store, "left", "o").await;
    let broken = Advance { side: vec![Statement::new("nonsense", vec![])], ..Advance::to(Next::Stay) };
    let mut all = JoinSet::new();
    for n in 0..40 {
        let (store, fence, broken) = (store.clone(), claim.fence.clone(), broken.clone());
        all.spawn(async move {
            match n % 2 {
                0 => store.accept(request(None)).await.map(drop),
                _ => store.advance(&fence, broken).await.map(drop),
            }
        });
    }
    let failed = all.join_all().await.into_iter().filter(Result::is_err).count();
    assert_eq!(failed, 20);
    assert_eq!(
        store.works("t", Filter::default(), Page { limit: 100, after: None }).await.unwrap().len(),
        21
    );
}

async fn the_last_to_settle_ends_the_work(store: &Arc<dyn Store>) {
    store.add_group("right", "begin", false).await.unwrap();
    for order in [["left", "right"], ["right", "left"]] {
        let id = one_work(store).await;
        for (n, group) in order.into_iter().enumerate() {
            let claim = claim_one(store, group, "o").await;
            let mut settled = Advance::to(Next::Done);
            settled.settled = true;
            settled.outcome = (n == 0).then_some(Status::CompletedWithGaps);
            assert_eq!(store.advance(&claim.fence, settled).await.unwrap(), n == 1);
        }
        let (work, _) = row(store, &id, "left").await;
        assert_eq!(work.status, Status::CompletedWithGaps);
        assert!(work.ended_ms.is_some());
    }
}

async fn a_stage_only_advances(store: &Arc<dyn Store>) {
    one_work(store).await;
    let claim = claim_one(store, "left", "o").await;
    let to = |stage| Advance { stage: Some(stage), ..Advance::to(Next::Stay) };
    store.advance(&claim.fence, to("second")).await.unwrap();
    for stage in ["first", "third"] {
        assert!(matches!(store.advance(&claim.fence, to(stage)).await, Err(Error::Transition(_))), "{stage}");
    }
}

async fn what_comes_while_a_row_runs_is_not_lost(store: &Arc<dyn Store>) {
    let id = one_work(store).await;
    for next in [Next::Idle, Next::Done, Next::Again(LEASE)] {
        let claim = claim_one(store, "left", "o").await;
        store.send(&id, "begin").await.unwrap();
        store.advance(&claim.fence, Advance::to(next)).await.unwrap();
        assert_eq!(row(store, &id, "left").await.1.step, Step::Waiting, "{next:?}");
    }
    let claim = claim_one(store, "left", "o").await;
    store.advance(&claim.fence, Advance::to(Next::Idle)).await.unwrap();
    assert!(none(store, "left").await);
    store.nudge(&id, "left").await.unwrap();
    assert!(none(store, "left").await, "a nudge wakes what waits, not what is idle");
    store.send(&id, "begin").await.unwrap();
    assert!(!none(store, "left").await);
}

async fn failures_park_and_a_redrive_goes_on(store: &Arc<dyn Store>) {
    let id = one_work(store).await;
    let failed = || Release::Failed { reason: "broken".into(), after: NOW, failures_max: 3 };
    for failures in 1..=3 {
        let claim = claim_one(store, "left", "o").await;
        store.release(&claim.fence, failed()).await.unwrap();
        assert_eq!(row(store, &id, "left").await.1.failures, failures);
    }
    let (work, parked) = row(store, &id, "left").await;
    assert_eq!(
        (work.status, parked.step, parked.error.as_deref()),
        (Status::Parked, Step::Parked, Some("broken"))
    );
    assert_eq!(store.sweep().await.unwrap(), 0, "the sweeper leaves it alone");
    store.send(&id, "begin").await.unwrap();
    assert!(none(store, "left").await, "and so do messages");
    let redriven = store.redrive("t", &id).await.unwrap();
    assert_eq!((redriven.status, redriven.stage.as_str()), (Status::Running, "first"));
    assert_eq!(claim_one(store, "left", "o").await.row.failures, 0);
}

async fn waiting_for_a_dependency_is_no_failure(store: &Arc<dyn Store>) {
    let id = one_work(store).await;
    for tries in 1..=20 {
        let claim = claim_one(store, "left", "o").await;
        let wait = Release::Wait { dependency: "d".into(), reason: "refused".into(), after: NOW };
        store.release(&claim.fence, wait).await.unwrap();
        let (_, row) = row(store, &id, "left").await;
        assert_eq!(
            (row.tries, row.failures, row.waiting_for.as_deref(), row.step),
            (tries, 0, Some("d"), Step::Waiting)
        );
    }
    let claim = claim_one(store, "left", "o").await;
    assert!(claim.waiting_since_ms.is_some());
    let wait = Release::Wait { dependency: "d".into(), reason: "refused".into(), after: LEASE };
    store.release(&claim.fence, wait).await.unwrap();
    assert!(none(store, "left").await);
    store.wake("d").await.unwrap();
    assert_eq!(claim_one(store, "left", "o").await.work.id, id, "it is back, and all that waited is due");
}

async fn a_cancel_is_seen_by_whoever_owns(store: &Arc<dyn Store>) {
    let id = one_work(store).await;
    let claim = claim_one(store, "left", "o").await;
    store.release(&claim.fence, Release::Park { reason: "stuck".into() }).await.unwrap();
    let work = store.cancel("t", &id).await.unwrap();
    assert!(work.cancel && work.status == Status::Running);
    assert!(claim_one(store, "left", "o").await.work.cancel);
    assert!(matches!(store.cancel("u", &id).await, Err(Error::NoSuchWork(_))), "another tenant's");
}

async fn a_lost_message_is_sent_again(store: &Arc<dyn Store>) {
    let id = one_work(store).await;
    let other = store.accept(request(None)).await.unwrap().work.id;
    let claims = store.claim("left", &by("o", LEASE), 1).await.unwrap();
    let lose = vec![Statement::new("delete from delivery", vec![])];
    store.advance(&claims[0].fence, Advance { side: lose, ..Advance::to(Next::Stay) }).await.unwrap();
    assert!(none(store, "left").await);
    assert_eq!(store.sweep().await.unwrap(), 1, "what is claimed is in hand");
    let found = claim_one(store, "left", "o").await.work.id;
    assert!([id, other].contains(&found) && found != claims[0].work.id);
}

async fn a_dead_process_frees_what_it_held(store: &Arc<dyn Store>) {
    let id = one_work(store).await;
    claim_one(store, "left", "dead").await;
    assert_eq!(store.free("dead").await.unwrap(), 1);
    assert_eq!(store.free("dead").await.unwrap(), 0);
    assert!(none(store, "left").await, "it may have been what killed the process");
    for crashes in 0..4 {
        let alone = store.claim_alone(&["left".into()], &by("dead", LEASE)).await.unwrap().unwrap();
        assert_eq!((alone.work.id.as_str(), alone.row.failures), (id.as_str(), crashes));
        store.free("dead").await.unwrap();
    }
    store.claim_alone(&["left".into()], &by("dead", LEASE)).await.unwrap().unwrap();
    store.free("dead").await.unwrap();
    assert_eq!(row(store, &id, "left").await.0.status, Status::Parked, "each time alone: it is poison");
}

async fn a_claimant_of_one_work_leaves_others(store: &Arc<dyn Store>) {
    let first = one_work(store).await;
    let second = store.accept(request(None)).await.unwrap().work.id;
    let only = Claimant { only: Some(second.clone()), ..by("o", LEASE) };
    let claims = store.claim("left", &only, 10).await.unwrap();
    assert_eq!(claims.iter().map(|claim| claim.work.id.as_str()).collect::<Vec<_>>(), [second.as_str()]);
    assert_eq!(claim_one(store, "left", "o").await.work.id, first);
}

async fn works_are_listed_newest_first(store: &Arc<dyn Store>) {
    store.add_group("left", "begin", false).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(store.accept(request(None)).await.unwrap().work.id);
    }
    ids.reverse();
    let page = store.works("t", Filter::default(), Page { limit: 2, after: Some(&ids[1]) }).await.unwrap();
    assert_eq!(page.iter().map(|work| &work.id).collect::<Vec<_>>(), [&ids[2], &ids[3]]);
    let none = store
        .works(
            "t",
            Filter { status: Some(Status::Parked), ..Filter::default() },
            Page { limit: 9, after: None },
        )
        .await
        .unwrap();
    assert!(none.is_empty());
    assert!(store.works("u", Filter::default(), Page { limit: 9, after: None }).await.unwrap().is_empty());
}

async fn a_list_has_a_range_of_time(store: &Arc<dyn Store>) {
    store.add_group("left", "begin", false).await.unwrap();
    let mut works = Vec::new();
    for _ in 0..3 {
        works.push(store.accept(request(None)).await.unwrap().work);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let times: Vec<i64> = works.iter().map(|work| work.created_ms).collect();
    // From, to, and which of the three that are.
    let table: [(Option<usize>, Option<usize>, &[usize]); 5] = [
        (None, None, &[2, 1, 0]),
        (Some(1), None, &[2, 1]),
        (None, Some(1), &[0]),
        (Some(1), Some(2), &[1]),
        (Some(2), Some(1), &[]),
    ];
    for (from, to, expected) in table {
        for status in [None, Some(Status::Accepted)] {
            let filter = Filter {
                status,
                created_after_ms: from.map(|n| times[n]),
                created_before_ms: to.map(|n| times[n]),
            };
            let found = store.works("t", filter, Page { limit: 9, after: None }).await.unwrap();
            let found: Vec<&str> = found.iter().map(|work| work.id.as_str()).collect();
            let expected: Vec<&str> = expected.iter().map(|n| works[*n].id.as_str()).collect();
            assert_eq!(found, expected, "{from:?} {to:?}");
        }
    }
}

/// At once, and one by one.
async fn a_tenant_has_no_more_than_its_quota(store: &Arc<dyn Store>) {
    store.add_group("left", "begin", false).await.unwrap();
    let asks = |key| Accept { waiting_max: Some(5), ..request(key) };
    let kept = store.accept(asks(Some(("kept", "1")))).await.unwrap().work;
    let mut asked = JoinSet::new();
    for _ in 0..20 {
        let (store, accept) = (store.clone(), asks(None));
        asked.spawn(async move { store.accept(accept).await });
    }
    let (accepted, refused): (Vec<_>, Vec<_>) = asked.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((accepted.len(), refused.len()), (4, 16));
    assert!(refused.iter().all(|e| matches!(e, Err(Error::Quota { tenant, limit: 5 }) if tenant == "t")));
    assert!(store.accept(asks(Some(("kept", "1")))).await.unwrap().replayed, "what was accepted stays so");
    assert!(matches!(store.accept(asks(Some(("new", "1")))).await, Err(Error::Quota { .. })));
    let other = Accept { tenant: "u".into(), ..asks(None) };
    store.accept(other).await.unwrap();
    end(store, &kept.id).await;
    store.accept(asks(Some(("new", "1")))).await.unwrap();
    assert!(store.accept(asks(None)).await.is_err());
    store.accept(request(None)).await.unwrap();
}

/// Takes a work of the group `left` to its end, where `right` has nothing to do but settle.
pub(crate) async fn end(store: &Arc<dyn Store>, id: &str) {
    store.add_group("right", "settle", false).await.unwrap();
    let settled = || Advance { settled: true, ..Advance::to(Next::Done) };
    let only = Claimant { only: Some(id.into()), ..by("o", LEASE) };
    let left = store.claim("left", &only, 1).await.unwrap().remove(0);
    store.advance(&left.fence, settled().publish("settle")).await.unwrap();
    let right = store.claim("right", &only, 1).await.unwrap().remove(0);
    assert!(store.advance(&right.fence, settled()).await.unwrap(), "it ended");
}

/// All that there is of works, in tables of the pattern.
async fn rows_of_works(store: &Arc<dyn Store>) -> Vec<i64> {
    let mut rows = Vec::new();
    for sql in [
        "select count(*) from work",
        "select count(*) from controller",
        "select count(*) from event",
        "select count(*) from idempotency_key",
        "select count(*) from message",
        "select count(*) from delivery",
        "select count(*) from confirmation",
    ] {
        rows.push(store.query(Statement::new(sql, vec![])).await.unwrap()[0][0].int());
    }
    rows
}

async fn what_ended_long_ago_is_forgotten(store: &Arc<dyn Store>) {
    const LATER: i64 = 1 << 50;
    store.add_group("left", "begin", false).await.unwrap();
    let open = store.accept(request(None)).await.unwrap().work.id;
    let before = rows_of_works(store).await;
    let plain = store.accept(request(None)).await.unwrap().work.id;
    let keyed = store.accept(request(Some(("k", "1")))).await.unwrap().work.id;
    let busy = store.accept(request(None)).await.unwrap().work.id;
    let expired = async |before_ms| {
        let found = store.expired(before_ms, 9).await.unwrap();
        found.into_iter().map(|expired| expired.work).collect::<Vec<_>>()
    };
    assert!(expired(LATER).await.is_empty(), "nothing has ended");
    for id in [&keyed, &plain, &busy] {
        end(store, id).await;
    }
    store.confirm(Some("t"), &plain, "left").await.unwrap();
    store.send(&busy, "begin").await.unwrap();
    assert_eq!(
        expired(LATER).await,
        [plain.as_str()],
        "a young key holds its work, and so does a controller"
    );
    let ended_ms = store.work("t", &plain).await.unwrap().unwrap().0.ended_ms.unwrap();
    assert!(expired(ended_ms).await.is_empty(), "it ended then, and not before");
    let all = || vec![open.clone(), plain.clone(), keyed.clone(), busy.clone(), "nothing".into()];
    assert_eq!(store.purge(all(), ended_ms).await.unwrap(), 0);
    assert_eq!(store.purge(all(), LATER).await.unwrap(), 1);
    assert!(store.work("t", &plain).await.unwrap().is_none());
    assert!(store.accept(request(Some(("k", "1")))).await.unwrap().replayed);
    // A day later.
    let age = Statement::new("update work set created_ms = created_ms - ?1", vec![(25 * 3_600_000).into()]);
    store.write(vec![age]).await.unwrap();
    assert_eq!(expired(LATER).await, [keyed.as_str()]);
    assert_eq!(store.purge(all(), LATER).await.unwrap(), 1, "its key is old enough");
    for claim in store.claim("left", &by("o", LEASE), 9).await.unwrap() {
        if claim.work.id == busy {
            store.advance(&claim.fence, Advance::to(Next::Done)).await.unwrap();
        } else {
            store.release(&claim.fence, Release::Yield).await.unwrap();
        }
    }
    assert_eq!(store.purge(all(), LATER).await.unwrap(), 1, "nothing is to be done for it any more");
    assert_eq!(rows_of_works(store).await, before, "what has not ended stays, and nothing else");
    assert!(!store.accept(request(Some(("k", "1")))).await.unwrap().replayed, "the key is free again");
}

async fn what_points_to_a_work_keeps_it(store: &Arc<dyn Store>) {
    let id = one_work(store).await;
    end(store, &id).await;
    let table = "create table pointer (work_id text not null references work (id))";
    store.write(vec![Statement::new(table, vec![])]).await.unwrap();
    let point = Statement::new("insert into pointer (work_id) values (?1)", vec![id.as_str().into()]);
    store.write(vec![point]).await.unwrap();
    assert!(matches!(store.purge(vec![id.clone()], 1 << 50).await, Err(Error::Refused(_))));
    assert_eq!(store.events(&id, 0, 9).await.unwrap().len(), 2, "nothing of it is gone");
    store.write(vec![Statement::new("delete from pointer", vec![])]).await.unwrap();
    assert_eq!(store.purge(vec![id], 1 << 50).await.unwrap(), 1);
    assert_eq!(rows_of_works(store).await, [0; 7]);
}

async fn a_message_is_relayed_until_it_is_noted_or_consumed(store: &Arc<dyn Store>) {
    let id = one_work(store).await;
    let other = store.accept(request(None)).await.unwrap().work.id;
    let found = store.unrelayed(10).await.unwrap();
    let seen: Vec<_> = found.iter().map(|m| (m.topic.as_str(), m.work.as_str())).collect();
    assert_eq!(seen, [("begin", id.as_str()), ("begin", other.as_str())]);
    let (first, last) = (found[0].id, found[1].id);
    store.relayed(vec![first]).await.unwrap();
    assert_eq!(store.unrelayed(10).await.unwrap().len(), 1);
    store.relayed(vec![first, last, 1 << 40]).await.unwrap();
    assert!(store.unrelayed(10).await.unwrap().is_empty());
    assert_eq!(store.unconsumed("left", (first, last)).await.unwrap(), [first, last]);
    store.nudge(&id, "left").await.unwrap();
    assert_eq!(
        store.unrelayed(10).await.unwrap()[0].work,
        id,
        "what is to be looked at again is carried again"
    );
    for claim in store.claim("left", &by("o", LEASE), 10).await.unwrap() {
        store.advance(&claim.fence, Advance::to(Next::Done)).await.unwrap();
    }
    assert!(store.unconsumed("left", (first, last)).await.unwrap().is_empty());
    assert!(store.unrelayed(10).await.unwrap().is_empty());
}

async fn an_end_is_told_to_who_registered(store: &Arc<dyn Store>) {
    store.add_group("right", "begin", false).await.unwrap();
    store.add_group("beyond", "ended", false).await.unwrap();
    let id = one_work(store).await;
    for group in ["left", "right"] {
        assert!(none(store, "beyond").await);
        let claim = claim_one(store, group, "o").await;
        store.advance(&claim.fence, Advance { settled: true, ..Advance::to(Next::Done) }).await.unwrap();
    }
    let claim = claim_one(store, "beyond", "o").await;
    assert_eq!((claim.work.id, claim.work.status), (id, Status::Completed));
}

async fn a_confirmation_is_kept_and_its_row_looks(store: &Arc<dyn Store>) {
    let id = one_work(store).await;
    for (tenant, work, name) in
        [("t", "nothing", "left"), ("t", id.as_str(), "nobody"), ("u", id.as_str(), "left")]
    {
        let refused = store.confirm(Some(tenant), work, name).await;
        assert!(matches!(refused, Err(Error::NoSuchWork(_))), "{tenant} {work} {name}");
    }
    let claim = claim_one(store, "left", "o").await;
    store.advance(&claim.fence, Advance::to(Next::Again(LEASE))).await.unwrap();
    assert!(!store.confirmed(&id, "left").await.unwrap() && none(store, "left").await);
    for _ in 0..2 {
        store.confirm(Some("t"), &id, "left").await.unwrap();
    }
    assert!(store.confirmed(&id, "left").await.unwrap());
    claim_one(store, "left", "o").await;
}

/// The CHECKs of the tables say what the machine says, for every status with and without an end.
async fn the_tables_know_the_machine(store: &Arc<dyn Store>) {
    one_work(store).await;
    let claim = claim_one(store, "left", "o").await;
    let names =
        Status::ALL.map(|status| (status.name(), Some(status))).into_iter().chain([("nonsense", None)]);
    for (name, status) in names {
        for ended in [None, Some(1)] {
            let sql = "update work set status = ?1, ended_ms = ?2, outcome = case when cast(?2 as bigint) is not null then ?1 end";
            let undo =
                Statement::new("update work set status = 'running', outcome = null, ended_ms = null", vec![]);
            let side = vec![Statement::new(sql, vec![name.into(), ended.into()]), undo];
            let allowed =
                store.advance(&claim.fence, Advance { side, ..Advance::to(Next::Stay) }).await.is_ok();
            let declared = status.is_some_and(|status| status.is_terminal() == ended.is_some());
            assert_eq!(allowed, declared, "{name}, ended {ended:?}");
        }
    }
}

suite! {
    the_same_key_is_the_same_work
    a_request_that_nobody_waits_for_is_refused
    requests_at_once_are_answered_as_one_by_one
    a_step_on_the_way_forgets_no_failure
    a_watcher_is_never_suspect
    twins_are_one
    every_group_gets_every_message_once
    a_group_begins_where_it_is_told
    a_newer_attempt_fences_the_older
    a_step_is_written_whole_or_not_at_all
    one_request_of_a_batch_fails_alone
    the_last_to_settle_ends_the_work
    a_stage_only_advances
    what_comes_while_a_row_runs_is_not_lost
    failures_park_and_a_redrive_goes_on
    waiting_for_a_dependency_is_no_failure
    a_cancel_is_seen_by_whoever_owns
    a_lost_message_is_sent_again
    a_dead_process_frees_what_it_held
    a_claimant_of_one_work_leaves_others
    works_are_listed_newest_first
    the_tables_know_the_machine
    a_message_is_relayed_until_it_is_noted_or_consumed
    an_end_is_told_to_who_registered
    a_confirmation_is_kept_and_its_row_looks
    a_list_has_a_range_of_time
    a_tenant_has_no_more_than_its_quota
    what_ended_long_ago_is_forgotten
    what_points_to_a_work_keeps_it
}

/// Rows of one statement have their transaction and their command's number in common.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_requests_at_once_go_in_one_statement() {
    let Some(opened) = postgres() else { return };
    opened.store.add_group("left", "begin", false).await.unwrap();
    let mut asked = JoinSet::new();
    for _ in 0..300 {
        let store = opened.store.clone();
        asked.spawn(async move { store.accept(request(None)).await.unwrap() });
    }
    asked.join_all().await;
    let sql = "select max(n) from (select count(*) as n from work group by cast(xmin as text), cast(cmin as text)) as statements";
    let most = opened.store.query(Statement::new(sql, vec![])).await.unwrap()[0][0].int();
    assert!(most > 10, "{most} at once");
}
