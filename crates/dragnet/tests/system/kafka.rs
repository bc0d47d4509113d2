//! Messages by a real Kafka: jobs that end through it alone, and that end without it; and a controller of
//! another language beyond it, which has one effect per job whatever is lost.

use crate::harness::{Sandbox, Service, until};
use crate::servers::needed;
use serde_json::{Value as Json, json};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

const ROLES: [&str; 7] = ["api", "launch", "monitor", "billing", "shutdown", "local", "relay"];

/// A sandbox on PostgreSQL, the broker, and names in it that no other test uses.
struct Setup {
    sandbox: Sandbox,
    broker: Broker,
    prefix: String,
    python: PathBuf,
}

fn setup() -> Option<Setup> {
    let python = needed("DRAGNET_TEST_PYTHON")?.into();
    let (broker, sandbox) = (Broker::take()?, Sandbox::on_postgres()?);
    let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
    Some(Setup { sandbox, broker, prefix, python })
}

/// The broker of `services/kafka.sh`. Tests take turns, as some of them stop it.
pub(crate) struct Broker {
    folder: PathBuf,
    pub(crate) bootstrap: String,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Broker {
    pub(crate) fn take() -> Option<Broker> {
        let folder = PathBuf::from(needed("DRAGNET_TEST_KAFKA")?);
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut broker = Broker { folder, bootstrap: String::new(), _turn: turn };
        broker.script("start");
        let ports = std::fs::read_to_string(broker.folder.join("ports.env")).unwrap();
        let bootstrap = ports.lines().find_map(|line| line.strip_prefix("KAFKA_BOOTSTRAP="));
        broker.bootstrap = bootstrap.unwrap().to_owned();
        Some(broker)
    }

    /// `services/kafka.sh`.
    pub(crate) fn script(&self, verb: &str) {
        let program = root().join("services/kafka.sh");
        let output = Command::new(program).arg(verb).arg(&self.folder).output().unwrap();
        assert!(output.status.success(), "kafka.sh {verb}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The broker is up again when a test ends, however it ends.
impl Drop for Broker {
    fn drop(&mut self) {
        let program = root().join("services/kafka.sh");
        let _ = Command::new(program).arg("start").arg(&self.folder).output();
    }
}

impl Setup {
    fn serve(&self, more: &[&str]) -> Service {
        let kafka = ["--kafka", &self.broker.bootstrap, "--kafka-prefix", &self.prefix];
        self.sandbox.serve_with(&[&kafka, more].concat(), None)
    }

    /// A process for each role; the API's is the first, the relay's the last.
    fn one_each(&self, more: &[&str]) -> Vec<Service> {
        ROLES.iter().map(|role| self.serve(&[&["--roles", role], more].concat())).collect()
    }

    fn small(&self) -> Json {
        let text = self.sandbox.write("data/a.txt", b"one needle-1 here");
        json!({ "patterns": [{ "name": "n", "regex": "needle-[0-9]" }], "dataset": [text] })
    }

    fn completed(&self) -> i64 {
        self.sandbox.count("select count(*) from work where status = 'completed'")
    }

    fn python(&self, code: &str) -> Output {
        let output = Command::new(&self.python)
            .args(["-c", code, &self.broker.bootstrap, &self.prefix])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output
    }
}

/// Jobs that are under way at once: a hop is measured, not how long a queue is.
const UNDER_WAY: usize = 8;

/// Without polling and sweeping, one kind of hint alone moves works from process to process. DRAGNET_TEST_HOPS
/// says how many jobs each.
#[test]
fn each_hint_alone_takes_jobs_through_all_roles() {
    let jobs = std::env::var("DRAGNET_TEST_HOPS").map_or(1000, |jobs| jobs.parse().unwrap());
    for hint in ["kafka", "notify"] {
        let Some(setup) = setup() else { return };
        let spec = setup.small();
        let flags = ["--poll-s", "3600", "--sweep-s", "3600", "--hints", hint];
        let processes = setup.one_each(&flags);
        let begun = Instant::now();
        let mut under_way = VecDeque::new();
        for n in 0..jobs + UNDER_WAY {
            if n < jobs {
                under_way.push_back(processes[0].submit(&spec));
            }
            if n >= UNDER_WAY {
                let id = under_way.pop_front().unwrap();
                assert_eq!(processes[0].end_of(&id)["status"], "completed");
            }
        }
        let p99 = setup.sandbox.count(HOPS_P99);
        eprintln!("{hint}: {jobs} jobs in {:.1} s, p99 of a hop {p99} ms", begun.elapsed().as_secs_f64());
    }
}

/// From the commit that sent a message to the first claim of its controller, for the hops between processes.
const HOPS_P99: &str = "select cast(percentile_disc(0.99) within group (order by ms) as bigint) from (
    select c.started_ms - w.created_ms as ms from work w join controller c on c.work_id = w.id and c.name = 'launch'
    union all
    select c.started_ms - e.at_ms from event e join controller c on c.work_id = e.work_id and c.name = 'monitor'
      where e.kind = 'launch.launched'
    union all
    select c.started_ms - e.at_ms from event e join controller c on c.work_id = e.work_id and c.name = 'shutdown'
      where e.kind = 'monitor.sealed') as hop";

#[test]
fn without_kafka_work_is_accepted_and_ends() {
    let Some(setup) = setup() else { return };
    let spec = setup.small();
    let processes = setup.one_each(&["--hints", "kafka", "--poll-s", "3600", "--sweep-s", "0.5"]);
    processes[0].end_of(&processes[0].submit(&spec));
    setup.broker.script("kill");
    let ids: Vec<String> = (0..5).map(|_| processes[0].submit(&spec)).collect();
    for id in &ids {
        assert_eq!(processes[0].end_of(id)["status"], "completed");
    }
    setup.broker.script("start");
    let relay = processes.last().unwrap();
    processes[0].submit(&spec);
    until("the relay to go on", || {
        processes[0].submit(&spec);
        relay.said().contains("relayed to Kafka again")
    });
    assert_eq!(
        relay.said().matches("can't be relayed").count(),
        1,
        "an outage is logged once: {}",
        relay.said()
    );
}

#[test]
fn another_relay_takes_over() {
    let Some(setup) = setup() else { return };
    let spec = setup.small();
    let flags = ["--hints", "kafka", "--poll-s", "3600", "--sweep-s", "3600"];
    let mut processes = setup.one_each(&flags);
    processes[0].end_of(&processes[0].submit(&spec));
    processes.pop().unwrap().kill();
    let ids: Vec<String> = (0..20).map(|_| processes[0].submit(&spec)).collect();
    assert_eq!(setup.completed(), 1, "nobody tells of them");
    processes.push(setup.serve(&[&["--roles", "relay"], &flags[..]].concat()));
    for id in &ids {
        assert_eq!(processes[0].end_of(id)["status"], "completed");
    }
}

/// Whatever is in the topics: twice, late, in any order, of unknown works, or no message at all.
#[test]
fn what_is_in_a_topic_is_not_believed() {
    let Some(setup) = setup() else { return };
    let spec = setup.small();
    let processes = setup.one_each(&["--hints", "kafka", "--poll-s", "3600", "--sweep-s", "3600"]);
    let submit = || -> Vec<String> { (0..10).map(|_| processes[0].submit(&spec)).collect() };
    let mut ids = submit();
    for _ in 0..2 {
        setup.python(DISTURB);
        ids.extend(submit());
    }
    for id in &ids {
        assert_eq!(processes[0].end_of(id)["status"], "completed");
    }
    assert_eq!(setup.sandbox.count("select count(distinct work_id) from ledger"), 30);
    assert_eq!(setup.sandbox.count("select count(*) from event where kind = 'monitor.sealed'"), 30);
}

/// Publishes all that stands in the topics a second time, backwards, and rubbish between.
const DISTURB: &str = r#"
import sys, time
from confluent_kafka import Consumer, Producer
bootstrap, prefix = sys.argv[1:]
topics = [prefix + "." + name for name in ["launch", "monitor", "billing", "shutdown", "run.local"]]
consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": prefix + ".disturb", "auto.offset.reset": "earliest"})
consumer.subscribe(topics)
found, end = [], time.time() + 20
while time.time() < end and len(found) < 20:
    message = consumer.poll(0.2)
    if message and not message.error():
        found.append((message.topic(), message.key(), message.value()))
consumer.close()
assert len(found) >= 20, len(found)
producer = Producer({"bootstrap.servers": bootstrap})
rubbish = [b"", b"\xff\x00", b"{", b'{"data": {"message": 999999999}}', b'{"data": {"message": "x"}}', None]
for topic, key, value in reversed(found):
    producer.produce(topic, value, key)
    for value in rubbish:
        producer.produce(topic, value, b"nobody")
assert producer.flush(20) == 0
"#;

/// The example's controller, in Python.
struct Audit {
    child: Child,
}

impl Audit {
    fn start(setup: &Setup, api: &str) -> Audit {
        let log = std::fs::File::create(setup.sandbox.path("audit.log")).unwrap();
        let child = Command::new(&setup.python)
            .arg(root().join("examples/kafka-controller/controller.py"))
            .args(["--kafka", &setup.broker.bootstrap, "--prefix", &setup.prefix, "--name", "audit"])
            .args(["--server", api, "--ledger"])
            .arg(setup.sandbox.path("audit.db"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Audit { child }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Kafka loses all that it holds while jobs run, and the controller beyond it is killed, too.
#[test]
fn a_controller_beyond_kafka_has_one_effect_per_job_whatever_is_lost() {
    let Some(setup) = setup() else { return };
    let spec = setup.small();
    let plug = ["--beyond", "audit=job.ended", "--confirm-s", "2", "--sweep-s", "1"];
    let service = setup.serve(&plug);
    let audit = Audit::start(&setup, &service.url);
    let mut ids: Vec<String> = (0..20).map(|_| service.submit(&spec)).collect();
    until("the first confirmation", || setup.sandbox.count("select count(*) from confirmation") > 0);
    drop(audit);
    ids.extend((0..20).map(|_| service.submit(&spec)));
    setup.broker.script("wipe");
    ids.extend((0..10).map(|_| service.submit(&spec)));
    for id in &ids {
        assert_eq!(service.end_of(id)["status"], "completed");
    }
    setup.broker.script("start");
    let audit = Audit::start(&setup, &service.url);
    until("all confirmations", || setup.sandbox.count("select count(*) from confirmation") == 50);
    until("all rows to be done", || {
        setup.sandbox.count("select count(*) from controller where name = 'audit' and step = 'done'") == 50
    });
    drop(audit);
    let ledger = rusqlite::Connection::open(setup.sandbox.path("audit.db")).unwrap();
    let effects = ledger
        .prepare("select id from effect order by id")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<Vec<String>, _>>()
        .unwrap();
    let mut expected: Vec<String> = ids.iter().map(|id| format!("{id}/audit")).collect();
    expected.sort();
    assert_eq!(effects, expected);
    let table =
        [(format!("{}/audit", ids[0]), 204), (format!("{}/nobody", ids[0]), 404), ("w/audit".into(), 404)];
    for (id, status) in table {
        let answer = service.post("/v1/groups/audit/confirmations", &json!({ "id": id }).to_string());
        assert_eq!(answer.status, status, "{id}: {}", answer.body);
    }
    assert_eq!(service.post("/v1/groups/audit/confirmations", "rubbish").status, 400);
    // A group is told of all tenants' works: the operator's own key confirms them all, a tenant's key its own.
    let store = setup.sandbox.store.as_ref().unwrap();
    for (tenant, status) in [("acme", 404), ("default", 204)] {
        assert!(setup.sandbox.run(&["tenant", "add", tenant, "--store", store]).status.success());
        let made = setup.sandbox.run(&["key", "add", tenant, "--scopes", "admin", "--store", store]);
        let key = String::from_utf8(made.stdout).unwrap();
        until("a service that asks for keys", || service.get("/v1/audit").status == 401);
        let confirmation = json!({ "id": format!("{}/audit", ids[0]) }).to_string();
        let answer = service.post_as(key.trim(), "/v1/groups/audit/confirmations", &confirmation);
        assert_eq!(answer.status, status, "{tenant}: {}", answer.body);
    }
}
