//! The whole drawing with real servers: PostgreSQL, Kafka, HDFS and Hadoop, and a process for each role; and any of them
//! killed under way.

use crate::cluster::{Cluster, patiently};
use crate::harness::{Sandbox, Service, undisturbed};
use crate::kafka::Broker;
use crate::oracle::python;
use crate::servers::Postgres;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROLES: [&str; 6] = ["api", "launch", "monitor", "billing", "shutdown", "relay"];

/// All of it, running.
struct Drawing {
    processes: BTreeMap<&'static str, Service>,
    sandbox: Sandbox,
    flags: Vec<String>,
}

impl Drawing {
    fn new(store: &str, kafka: &Broker, cluster: &Cluster, root: &str) -> Drawing {
        let sandbox = Sandbox { store: Some(store.to_owned()), ..Sandbox::new() };
        let flags = [
            ("--output", format!("{root}/out")),
            ("--kafka", kafka.bootstrap.clone()),
            ("--kafka-prefix", format!("t{}", uuid::Uuid::new_v4().simple())),
            ("--hadoop-conf", cluster.conf().to_owned()),
            ("--task-life-s", "2".into()),
        ];
        let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        let mut drawing = Drawing { processes: BTreeMap::new(), sandbox, flags };
        ROLES.into_iter().for_each(|role| drawing.start(role));
        drawing
    }

    fn start(&mut self, role: &'static str) {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).chain(["--roles", role]).collect();
        self.processes.insert(role, self.sandbox.serve_with(&flags, None));
    }

    /// `kill -9`, and another takes its place.
    fn kill(&mut self, role: &'static str) {
        self.processes.remove(role).unwrap().kill();
        self.start(role);
    }

    fn api(&self) -> &Service {
        &self.processes["api"]
    }
}

/// Pages as a crawl and as files, by warcio. Hadoop's Grep takes a carriage return for the end of a line, too.
const CRAWL: &str = r"
import glob, io, os, sys
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter
pages, crawl, plain = sys.argv[1:]
archives = [WARCWriter(open(f'{crawl}/{n}.warc.gz', 'wb'), gzip=True) for n in range(4)]
names = [n for n in glob.glob(pages + '/**', recursive=True) if n.endswith(('.html', '.md')) and os.path.isfile(n)]
for n, name in enumerate(sorted(names)):
    page = open(name, 'rb').read().replace(b'\r', b'')
    kind = 'text/html; charset=UTF-8' if name.endswith('.html') else 'text/markdown'
    headers = [('Content-Type', kind), ('Content-Length', str(len(page)))]
    http = StatusAndHeaders('200 OK', headers, protocol='HTTP/1.1')
    url = 'https://pages.example/' + os.path.relpath(name, pages)
    archive = archives[n % 4]
    archive.write_record(archive.create_warc_record(url, 'response', payload=io.BytesIO(page), http_headers=http))
    open(f'{plain}/{n % 4}', 'ab').write(page + b'\n')
print(len(names))
";

/// Real web pages, and else the READMEs of the crates that this was built from.
fn pages() -> PathBuf {
    let of_crates = || {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        home.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cargo"))
            .join("registry/src")
    };
    std::env::var_os("DRAGNET_TEST_PAGES").map_or_else(of_crates, PathBuf::from)
}

/// A crawl of pages, and the same pages in a few plain files.
fn crawl(sandbox: &Sandbox, python: &str) -> (PathBuf, PathBuf) {
    let (crawl, plain) = (sandbox.path("crawl"), sandbox.path("plain"));
    [&crawl, &plain].into_iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    let made = Command::new(python).args(["-c", CRAWL]).arg(pages()).args([&crawl, &plain]).output().unwrap();
    let count = String::from_utf8_lossy(&made.stdout).trim().parse::<u32>();
    assert!(count.is_ok_and(|count| count > 40), "{}", String::from_utf8_lossy(&made.stderr));
    (crawl, plain)
}

/// What does not depend on where the objects lie.
fn answer(result: &Json) -> Json {
    json!({ "status": result["status"], "digest": result["digest"], "lines": result["lines"],
        "totals": result["coverage"]["totals"] })
}

fn over(spec: &Json, place: &str) -> Json {
    let mut spec = spec.clone();
    spec["dataset"] = json!([place]);
    spec["engine"] = json!("hadoop");
    spec
}

#[test]
fn the_whole_pipeline_gives_the_answer_of_one_process_and_the_counts_of_hadoops_grep() {
    let (Some(mut drawing_on), Some(kafka), Some(cluster), Some(python)) =
        (Sandbox::on_postgres(), Broker::take(), Cluster::take(), python())
    else {
        return;
    };
    let files = Sandbox::new();
    let (data, plain) = crawl(&files, &python);
    const RE: &str = "[Dd]ebian [a-z]+|[Ll]icen[cs]e[a-z]*|https?://[a-z.]+|[A-Z]{2}[0-9]+";
    let spec = json!({ "patterns": [{ "name": "n", "regex": RE }], "dataset": [data], "layers": ["body"] });
    let expected = answer(&undisturbed(&spec));
    let root = cluster.folder_with(&[("in", &data), ("plain", &plain)]);
    let store = drawing_on.store.take().unwrap();
    let drawing = Drawing::new(&store, &kafka, &cluster, &root);
    let id = drawing.api().submit(&over(&spec, &format!("{root}/in/")));
    patiently("the job's end", || drawing.api().job(&id)["ended"].is_string());
    assert_eq!(answer(&drawing.api().result(&id)), expected);

    let counted = drawing.api().get(&format!("/v1/jobs/{id}/hits?count_by=match")).json();
    let ours: BTreeMap<String, u64> = counted["counts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| (line["key"].as_str().unwrap().to_owned(), line["count"].as_u64().unwrap()))
        .collect();
    cluster.hadoop(&[
        "org.apache.hadoop.examples.Grep",
        "-D",
        "mapreduce.framework.name=local",
        &format!("{root}/plain"),
        &format!("{root}/grep"),
        RE,
    ]);
    let theirs = cluster.hadoop(&["fs", "-cat", &format!("{root}/grep/part-r-00000")]);
    let theirs: BTreeMap<String, u64> = theirs
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(count, matched)| (matched.to_owned(), count.parse().unwrap()))
        .collect();
    assert!(theirs.len() > 10, "{theirs:?}");
    assert_eq!(ours, theirs);
}

/// Each kind of process is killed while a job is on the cluster, and comes back.
#[test]
fn whatever_is_killed_the_answer_stays() {
    let (Some(postgres), Some(kafka), Some(cluster)) = (Postgres::new(), Broker::take(), Cluster::take())
    else {
        return;
    };
    let files = Sandbox::new();
    let data = files.corpus();
    let mut spec = crate::harness::spec(&data);
    spec["shard_bytes"] = json!(1024);
    let expected = answer(&undisturbed(&spec));
    let root = cluster.folder_with(&[("in", &data)]);
    let mut drawing = Drawing::new(&postgres.url, &kafka, &cluster, &root);
    let place = format!("{root}/in/");
    let victims = ROLES.into_iter().chain(["postgres", "kafka", "namenode", "datanode"]);
    let mut ids: Vec<String> = Vec::new();
    for victim in victims {
        // Each dies while a job is on the cluster; what was killed before it is back.
        let under_way =
            |id: &String| matches!(drawing.api().job(id)["stage"].as_str(), Some("launch" | "monitor"));
        if !ids.last().is_some_and(under_way) {
            ids.push(drawing.api().submit(&over(&spec, &place)));
        }
        let is_on_it = |job: &Json| job["stage"] == "monitor";
        drawing.api().job_when(ids.last().unwrap(), is_on_it);
        match victim {
            "postgres" => {
                postgres.script("kill");
                postgres.script("start");
            }
            "kafka" => {
                kafka.script("kill");
                kafka.script("start");
            }
            "namenode" | "datanode" => cluster.kill_and_start(victim),
            role => drawing.kill(role),
        }
    }
    for id in &ids {
        patiently("the job's end", || drawing.api().job(id)["ended"].is_string());
        assert_eq!(answer(&drawing.api().result(id)), expected);
    }
    let ledger = drawing.sandbox.count("select count(*) from ledger");
    assert_eq!(ledger, ids.len() as i64 * 3, "each job is billed once");
}
