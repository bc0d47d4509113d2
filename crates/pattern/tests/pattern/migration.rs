//! A store that an older version made is brought up to date, with what it holds; a newer one's is refused.

use crate::store::{EFFECT, MACHINES, TABLES};
use dragnet_pattern::*;
use std::sync::Arc;
use std::time::Duration;

const V1: &str = include_str!("schema_v1.sql");
/// A work that waits for its first controller.
const DATA: &str = "
  insert into work (id, tenant, kind, spec, stage, status, created_ms, events)
    values ('w', 't', 'k', '{}', 'first', 'accepted', 1, 1);
  insert into event (work_id, seq, at_ms, kind, data) values ('w', 1, 1, 'accepted', '{}');
  insert into consumer_group (name, topic, created_ms) values ('left', 'begin', 1);
  insert into message (topic, work_id, created_ms) values ('begin', 'w', 1);
  insert into delivery (group_name, message_id, work_id, due_ms) values ('left', 1, 'w', 1);
  insert into controller (work_id, name, step, due_ms) values ('w', 'left', 'waiting', 1);";

/// A second version of the module's tables, and another module.
const GROWN: [Tables; 2] = [
    Tables {
        name: "effects",
        versions: &[
            EFFECT,
            Sql { all: "alter table effect add column more text;", sqlite: "", postgres: "" },
        ],
    },
    Tables {
        name: "plugged",
        versions: &[Sql {
            all: "create table plugged (id integer primary key) strict;",
            sqlite: "",
            postgres: "",
        }],
    },
];

/// A module's new version adds to what is there, whichever process comes first; then the older one is refused.
async fn modules_grow(open: impl Fn(&[Tables]) -> Result<SqlStore, Error>) {
    for _ in 0..2 {
        let store = open(&GROWN).unwrap();
        let more = Statement::new(
            "insert into effect (id, n, more) values (?1, 1, 'm') on conflict do nothing",
            vec!["e".into()],
        );
        let other = Statement::new("insert into plugged (id) values (1) on conflict do nothing", vec![]);
        store.write(vec![more, other]).await.unwrap();
        let wrong = Statement::new("insert into effect (id, n) values ('other', null)", vec![]);
        let right = Statement::new("insert into plugged (id) values (2)", vec![]);
        assert!(matches!(store.write(vec![right, wrong]).await, Err(Error::Refused(_))));
        let count = Statement::new("select count(*) from plugged", vec![]);
        assert_eq!(store.query(count).await.unwrap(), [[Value::Int(1)]]);
    }
    let refused =
        matches!(open(&[TABLES]), Err(Error::Open(why)) if why.contains("`effects` have version 2"));
    assert!(refused);
}

/// All that the older version knew is there, and what is new works.
async fn goes_on(store: Arc<dyn Store>) {
    let outbox = store.unrelayed(9).await.unwrap();
    assert_eq!(
        outbox.iter().map(|m| (m.id, m.topic.as_str(), m.work.as_str())).collect::<Vec<_>>(),
        [(1, "begin", "w")]
    );
    let by = Claimant {
        owner: "o".into(),
        lease: Duration::from_secs(60),
        only: None,
        shares: Shares::default(),
        takes_suspects: false,
    };
    let claim = store.claim("left", &by, 9).await.unwrap().remove(0);
    store
        .advance(&claim.fence, Advance::to(Next::Stay).event("left.seen", serde_json::json!({})))
        .await
        .unwrap();
    let kinds: Vec<String> =
        store.events("w", 0, 9).await.unwrap().into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["accepted", "left.seen"]);
    store.confirm(None, "w", "left").await.unwrap();
}

fn is_refused<T>(opened: Result<T, Error>) -> bool {
    matches!(opened, Err(Error::Open(why)) if why.contains("version 5") && why.contains("knows 4"))
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_goes_from_version_1_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    let db = rusqlite::Connection::open(&file).unwrap();
    db.execute_batch(&format!("{V1} {} {DATA} pragma user_version = 1;", EFFECT.all)).unwrap();
    let version = || db.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).unwrap();
    for _ in 0..2 {
        drop(sqlite::open(&file, MACHINES, &[TABLES]).unwrap());
        assert_eq!(version(), 4);
    }
    goes_on(Arc::new(sqlite::open(&file, MACHINES, &[TABLES]).unwrap())).await;
    modules_grow(|modules| sqlite::open(&file, MACHINES, modules)).await;
    db.pragma_update(None, "user_version", 5).unwrap();
    assert!(is_refused(sqlite::open(&file, MACHINES, &[TABLES])));
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn postgres_goes_from_version_1_on() {
    let Some(url) = crate::store::schema() else {
        eprintln!("skipped: DRAGNET_TEST_POSTGRES names no database (`./check` starts one)");
        return;
    };
    let psql = |sql: &str| {
        let output = std::process::Command::new("psql").args([&url, "-qAtc", sql]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    // As that version wrote SQLite's words for PostgreSQL.
    let tables = format!("{V1} {}", EFFECT.all)
        .replace(") strict, without rowid;", ");")
        .replace(") strict;", ");")
        .replace("integer primary key", "bigint generated by default as identity primary key")
        .replace(" integer", " bigint")
        .replace(" text", " text collate \"C\"");
    psql(&format!(
        "{tables} {DATA} create table dragnet_version (version bigint not null); insert into dragnet_version values (1)"
    ));
    // Two processes of the newer version begin at once.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| drop(postgres::open(&url, MACHINES, &[TABLES]).unwrap()));
        }
    });
    assert_eq!(psql("select max(version), count(*) from dragnet_version"), "4|2");
    goes_on(Arc::new(postgres::open(&url, MACHINES, &[TABLES]).unwrap())).await;
    modules_grow(|modules| postgres::open(&url, MACHINES, modules)).await;
    psql("insert into dragnet_version values (5)");
    assert!(is_refused(postgres::open(&url, MACHINES, &[TABLES])));
}
