//! Steps that end at about the same time: each has the answer and the effect that it would have had alone.

use crate::store::{LEASE, by, request, row};
use dragnet_pattern::*;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// What a step of the batch is to be, and what is to come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Done,
    Idle,
    Again,
    Stay,
    /// It tells another group, and twice.
    Tells,
    /// More was asked while it ran.
    AskedMore,
    /// It settles, and is the last that has to.
    Ends,
    /// Somebody else owns its row by now.
    Fenced,
    /// A constraint is against its own statement.
    Refused,
    /// Its stage does not follow.
    Backwards,
}
use Kind::*;

const PLAIN: [Kind; 7] = [Done, Idle, Again, Stay, Tells, AskedMore, Ends];
const ALL: [Kind; 10] = [Done, Idle, Again, Stay, Tells, AskedMore, Ends, Fenced, Refused, Backwards];

fn step_of(kind: Kind, work: &str) -> Advance {
    let next = match kind {
        Idle => Next::Idle,
        Again => Next::Again(LEASE),
        Stay => Next::Stay,
        _ => Next::Done,
    };
    let mut step = Advance::to(next).event("left.one", json!({ "n": 1 })).event("left.two", json!({}));
    step.stage = Some(if kind == Backwards { "nowhere" } else { "second" });
    step.metrics = Some(json!({ "kind": format!("{kind:?}") }));
    step.settled = kind == Ends;
    if kind == Tells {
        step = step.publish("told").publish("told");
    }
    let effect = "insert into effect (id, n) values (?1, ?2)";
    step.side = vec![Statement::new(effect, vec![work.into(), 1.into()])];
    if kind == Refused {
        step.side.push(Statement::new(effect, vec![work.into(), 2.into()]));
    }
    step
}

/// Claims of new works, one of each kind and as many times.
async fn claims(store: &Arc<dyn Store>, kinds: &[Kind], times: usize) -> Vec<(Kind, Claim)> {
    for (group, topic) in [("left", "begin"), ("right", "settle"), ("told", "told")] {
        store.add_group(group, topic, false).await.unwrap();
    }
    let mut claims = Vec::new();
    for kind in kinds.iter().cycle().take(kinds.len() * times).copied() {
        let id = store.accept(request(None)).await.unwrap().work.id;
        let only = Claimant { only: Some(id.clone()), ..by("o", LEASE) };
        let mut claim = store.claim("left", &only, 1).await.unwrap().remove(0);
        match kind {
            AskedMore => store.send(&id, "begin").await.unwrap(),
            Fenced => claim.fence.attempt -= 1,
            Ends => {
                store.send(&id, "settle").await.unwrap();
                let right = store.claim("right", &only, 1).await.unwrap().remove(0);
                let settled = Advance { settled: true, ..Advance::to(Next::Done) };
                store.advance(&right.fence, settled).await.unwrap();
            }
            _ => {}
        }
        claims.push((kind, claim));
    }
    claims
}

/// Takes all the steps at once.
async fn advance_all(
    store: &Arc<dyn Store>,
    claims: &[(Kind, Claim)],
) -> HashMap<String, Result<bool, Error>> {
    let mut steps = JoinSet::new();
    for (kind, claim) in claims {
        let (store, fence, step) = (store.clone(), claim.fence.clone(), step_of(*kind, &claim.work.id));
        steps.spawn(async move { (fence.work.clone(), store.advance(&fence, step).await) });
    }
    steps.join_all().await.into_iter().collect()
}

/// Looks at one step's answer and at all that it was to leave.
async fn check(store: &Arc<dyn Store>, kind: Kind, claim: &Claim, answer: &Result<bool, Error>) {
    let id = &claim.work.id;
    let failed = match (kind, answer) {
        (Fenced, Err(Error::Fenced { .. }))
        | (Refused, Err(Error::Refused(_)))
        | (Backwards, Err(Error::Transition(_))) => true,
        (_, Ok(ended)) if *ended == (kind == Ends) => false,
        _ => panic!("{kind:?}: {answer:?}"),
    };
    let (work, own) = row(store, id, "left").await;
    let before = if kind == Ends { 1 } else { work.events.min(1) };
    let events: Vec<(i64, String)> = store
        .events(id, before, 99)
        .await
        .unwrap()
        .into_iter()
        .map(|event| (event.seq, event.kind))
        .collect();
    let mut expected = vec![(2, "left.one".into()), (3, "left.two".into())];
    if kind == Ends {
        expected.push((4, "completed".into()));
    }
    let step = match kind {
        _ if failed => {
            expected.clear();
            Step::Running
        }
        Idle => Step::Idle,
        Stay => Step::Running,
        Again | AskedMore => Step::Waiting,
        _ => Step::Done,
    };
    assert_eq!((events, own.step), (expected, step), "{kind:?}");
    assert_eq!(work.stage, if failed { "first" } else { "second" }, "{kind:?}");
    assert_eq!(own.metrics != json!({}), !failed, "{kind:?}");
    let count = |sql| {
        let statement = Statement::new(sql, vec![id.as_str().into()]);
        async { store.query(statement).await.unwrap()[0][0].int() }
    };
    assert_eq!(count("select count(*) from effect where id = ?1").await, i64::from(!failed), "{kind:?}");
    let told = count("select count(*) from delivery where work_id = ?1 and group_name = 'told'").await;
    assert_eq!(told, if kind == Tells { 2 } else { 0 }, "{kind:?}");
    let own = count("select count(*) from delivery where work_id = ?1 and group_name = 'left'").await;
    assert_eq!(own, i64::from(step == Step::Running || step == Step::Waiting), "{kind:?}");
    let messages = count("select count(*) from message where work_id = ?1").await;
    assert_eq!(messages, own + told, "{kind:?}: a message that nobody waits for is gone");
}

async fn steps_at_once_are_taken_as_one_by_one(store: &Arc<dyn Store>) {
    let claims = claims(store, &PLAIN, 12).await;
    let answers = advance_all(store, &claims).await;
    for (kind, claim) in &claims {
        check(store, *kind, claim, &answers[&claim.work.id]).await;
    }
}

async fn a_step_that_fails_spoils_no_other(store: &Arc<dyn Store>) {
    let claims = claims(store, &ALL, 8).await;
    let answers = advance_all(store, &claims).await;
    for (kind, claim) in &claims {
        check(store, *kind, claim, &answers[&claim.work.id]).await;
    }
}

/// Two controllers of one work end at once, over and over: the events have no gap, and the later one ends the work.
async fn both_rows_of_a_work_may_step_at_once(store: &Arc<dyn Store>) {
    for group in ["left", "right"] {
        store.add_group(group, "begin", false).await.unwrap();
    }
    let mut claims = Vec::new();
    for _ in 0..40 {
        store.accept(request(None)).await.unwrap();
    }
    for group in ["left", "right"] {
        claims.extend(store.claim(group, &by("o", LEASE), 40).await.unwrap());
    }
    assert_eq!(claims.len(), 80);
    let mut steps = JoinSet::new();
    for claim in claims {
        let store = store.clone();
        let step = Advance { settled: true, ..Advance::to(Next::Done) }.event("e", json!({}));
        steps.spawn(async move { (claim.work.id, store.advance(&claim.fence, step).await.unwrap()) });
    }
    let mut ends: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for (id, ended) in steps.join_all().await {
        ends.entry(id).or_default().push(ended);
    }
    for (id, mut ended) in ends {
        ended.sort_unstable();
        assert_eq!(ended, [false, true]);
        let seqs: Vec<i64> =
            store.events(&id, 0, 99).await.unwrap().into_iter().map(|event| event.seq).collect();
        assert_eq!(seqs, [1, 2, 3, 4]);
    }
}

suite! {
    steps_at_once_are_taken_as_one_by_one
    a_step_that_fails_spoils_no_other
    both_rows_of_a_work_may_step_at_once
}

/// Rows of one statement have their transaction and their command's number in common.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_steps_at_once_go_in_one_statement() {
    let Some(opened) = crate::store::postgres() else { return };
    let store = &opened.store;
    let claims = claims(store, &[Done], 100).await;
    assert!(advance_all(store, &claims).await.values().all(Result::is_ok));
    let sql = "select max(n) from (select count(*) as n from event where kind = 'left.one' \
               group by cast(xmin as text), cast(cmin as text)) as statements";
    let most = store.query(Statement::new(sql, vec![])).await.unwrap()[0][0].int();
    assert!(most > 10, "{most} at once");
}

/// Two processes take steps of the same works, each with statements that change two rows which all have in common, in
/// opposite order. Whoever is refused for that tries again, and all is done once.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_batches_that_cross_all_end() {
    let Some(url) = crate::store::schema() else { return };
    let open = || -> Arc<dyn Store> {
        let tables = [crate::store::TABLES];
        Arc::new(dragnet_pattern::postgres::open(&url, crate::store::MACHINES, &tables).unwrap())
    };
    let stores = [open(), open()];
    for group in ["left", "right"] {
        stores[0].add_group(group, "begin", false).await.unwrap();
    }
    let rows = Statement::new("insert into effect (id, n) values ('a', 0), ('b', 0)", vec![]);
    stores[0].write(vec![rows]).await.unwrap();
    for _ in 0..60 {
        stores[0].accept(request(None)).await.unwrap();
    }
    let mut claims = Vec::new();
    for (group, store) in ["left", "right"].into_iter().zip(&stores) {
        claims.push((group, store, store.claim(group, &by("o", LEASE), 60).await.unwrap()));
    }
    let mut steps = JoinSet::new();
    for (group, store, claims) in claims {
        for claim in claims {
            let store = store.clone();
            let mut step = Advance { settled: true, ..Advance::to(Next::Done) };
            let mut order = ["a", "b"];
            if group == "right" {
                order.reverse();
            }
            for id in order {
                let sql = "update effect set n = n + 1 where id = ?1";
                step.side.push(Statement::new(sql, vec![id.into()]));
            }
            steps.spawn(async move {
                loop {
                    match store.advance(&claim.fence, step.clone()).await {
                        Err(e) if e.is_transient() => tokio::time::sleep(Duration::from_millis(10)).await,
                        answer => return answer.unwrap(),
                    }
                }
            });
        }
    }
    let ended = steps.join_all().await;
    assert_eq!((ended.len(), ended.into_iter().filter(|ended| *ended).count()), (120, 60));
    let counts = stores[0].query(Statement::new("select n from effect", vec![])).await.unwrap();
    assert_eq!(counts, [[Value::Int(120)], [Value::Int(120)]]);
}
