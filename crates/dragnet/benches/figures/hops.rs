//! Steps of a controller in a second, where claims and completions are batched, against the barest loop that writes the same
//! rows.

use crate::submissions::accept;
use dragnet_job::{MACHINES, TABLES, topic};
use dragnet_pattern::{Advance, Claimant, Next, Shares, Statement, Store, postgres, sqlite};
use serde_json::json;
use std::path::Path;
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

/// Works of one run.
const WORKS: u64 = 20_000;
/// Works of one claim.
const CLAIMED: usize = 128;

/// Accepts the works of a run, which then wait for Launch.
async fn wait_for_launch(store: &Arc<dyn Store>, run: u64) {
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
}

/// How many a second.
fn hops_to(store: &Arc<dyn Store>, run: u64, next: &'static [&'static str]) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        wait_for_launch(store, run).await;
        let begun = Instant::now();
        let mut claimers = tokio::task::JoinSet::new();
        for n in 0..4 {
            let store = store.clone();
            let lease = Duration::from_secs(60);
            let by = Claimant { owner: format!("o{n}"), lease, only: None, shares: Shares::default(), takes_suspects: false };
            claimers.spawn(async move {
                loop {
                    let claims = store.claim("launch", &by, CLAIMED).await.unwrap();
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

/// What a claim writes, then what a step does with one next message: the claimed are the only value, or the work and the
/// message of one of them.
const BARE: [&str; 9] = [
    "update controller set step = 'running', attempt = attempt + 1, owner = 'bare', lease_ms = 1, seen = asked, started_ms = 1 \
     where work_id = ?1 and name = 'launch'",
    "update controller set step = 'done', owner = null, lease_ms = null, ended_ms = 1 \
     where work_id = ?1 and name = 'launch' and attempt = 1",
    "update work set stage = 'monitor', status = 'running', started_ms = 1, events = events + 1 where id = ?1",
    "delete from delivery where work_id = ?1 and group_name = 'launch'",
    "delete from message where id = ?2",
    "insert into controller (work_id, name, step, due_ms) values (?1, 'monitor', 'waiting', 1)",
    "insert into event (work_id, seq, at_ms, kind, data) values (?1, 2, 1, 'launch.launched', '{\"objects\":1}')",
    "insert into ledger (tenant, work_id, meter, seq, quantity, unit, per, price_micros, amount_micros, currency, rates_version, \
     at_ms) values ('default', ?1, 'hop', 1, 1, 'hop', 1, 1, 1, 'USD', 'v', 1)",
    "insert into message (topic, work_id, created_ms) values ('monitor', ?1, 1)",
];
const DUE: &str = "select work_id, message_id from delivery where group_name = 'launch' order by lane, due_ms, work_id limit ";
const NEXT: &str = "insert into delivery (work_id, group_name, message_id, lane, due_ms) values (?1, 'monitor', ?2, 'default 4', 1)";

/// One connection, as many works in a transaction as a claim has, and each statement prepared.
pub(crate) fn bare_sqlite(file: &Path) {
    let store: Arc<dyn Store> = Arc::new(sqlite::open(file, MACHINES, &[TABLES]).unwrap());
    tokio::runtime::Runtime::new().unwrap().block_on(wait_for_launch(&store, 0));
    drop(store);
    let mut db = rusqlite::Connection::open(file).unwrap();
    db.execute_batch("pragma journal_mode = wal; pragma synchronous = full").unwrap();
    let begun = Instant::now();
    loop {
        let claim = db.transaction().unwrap();
        let due: Vec<(String, i64)> = claim
            .prepare_cached(&format!("{DUE}{CLAIMED}"))
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        if due.is_empty() {
            break;
        }
        let run = |db: &rusqlite::Connection, sql: &str, (work, message): &(String, i64)| {
            let mut statement = db.prepare_cached(sql).unwrap();
            let values: [&dyn rusqlite::ToSql; 2] = [work, message];
            let takes = statement.parameter_count();
            statement.execute(&values[..takes]).unwrap();
        };
        due.iter().for_each(|one| run(&claim, BARE[0], one));
        claim.commit().unwrap();
        let step = db.transaction().unwrap();
        for one in &due {
            BARE[1..].iter().for_each(|sql| run(&step, sql, one));
            run(&step, NEXT, &(one.0.clone(), step.last_insert_rowid()));
        }
        step.commit().unwrap();
    }
    println!("bare loop on SQLite: {:.0}/s", WORKS as f64 / begun.elapsed().as_secs_f64());
}

/// One connection, and a statement for all works of a claim.
pub(crate) fn bare_postgres(url: &str) {
    let store: Arc<dyn Store> = Arc::new(postgres::open(url, MACHINES, &[TABLES]).unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(wait_for_launch(&store, 0));
    drop(store);
    let all = |sql: &str| {
        let sql =
            sql.replace("= ?1", "= any($1::text[])").replace("where id = ?2", "where id = any($2::bigint[])");
        match sql.split_once(" values (") {
            Some((into, values)) => {
                let values =
                    values.strip_suffix(')').unwrap().replace("?1", "one.work").replace("?2", "one.message");
                format!("{into} select {values} from unnest($1::text[], $2::bigint[]) as one (work, message)")
            }
            None if !sql.contains("$2") => format!("{sql} and ($2::bigint[] is not null)"),
            None => format!("{sql} and ($1::text[] is not null)"),
        }
    };
    let last = format!("with sent as ({} returning id, work_id) {}", all(BARE[8]), {
        let next = NEXT.split_once(" values (").unwrap();
        format!("{} select work_id, 'monitor', id, 'default 4', 1 from sent", next.0)
    });
    let elapsed = runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        // Without it the planner guesses, and looks through whole tables.
        client.batch_execute("analyze").await.unwrap();
        let due = client.prepare(&format!("{DUE}{CLAIMED} for update skip locked")).await.unwrap();
        let claim = client.prepare(&all(BARE[0])).await.unwrap();
        let mut steps = Vec::new();
        for sql in BARE[1..8].iter().map(|sql| all(sql)).chain([last]) {
            steps.push(client.prepare(&sql).await.unwrap());
        }
        let begun = Instant::now();
        loop {
            client.batch_execute("begin").await.unwrap();
            let rows = client.query(&due, &[]).await.unwrap();
            if rows.is_empty() {
                return begun.elapsed();
            }
            let works: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            let messages: Vec<i64> = rows.iter().map(|row| row.get(1)).collect();
            client.execute(&claim, &[&works, &messages]).await.unwrap();
            client.batch_execute("commit; begin").await.unwrap();
            for step in &steps {
                client.execute(step, &[&works, &messages]).await.unwrap();
            }
            client.batch_execute("commit").await.unwrap();
        }
    });
    println!("bare loop on PostgreSQL: {:.0}/s", WORKS as f64 / elapsed.as_secs_f64());
}
