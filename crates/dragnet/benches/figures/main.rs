//! The figures that we publish, each a ratio against the bare thing, measured side by side in one run. Without a name it
//! says which there are.

#![allow(clippy::unwrap_used, reason = "a benchmark that can't go on stops")]

mod hadoop;
mod hops;
mod http;
mod memory;
mod recovery;
mod scaling;
mod served;
mod service;
mod store;
mod submissions;
mod throughput;
mod tiny;

use dragnet_job::{MACHINES, TABLES};
use dragnet_pattern::{postgres, sqlite};
use std::path::Path;
use std::sync::Arc;

const USAGE: &str = "\
cargo bench -p dragnet --all-features --bench figures -- NAME

tiny                  a tiny job, from post to finished
submissions           durable submissions against a bare group-commit loop
postgres URL          the same on PostgreSQL, in schemas that it makes
hops [URL]            steps in a second where claims and steps are batched, against a bare loop; with URL on PostgreSQL
flat [MOST]           lists, sweeper and claims over 1,000 to 1,000,000 ended jobs
fairness              shards of a crowd of 10,000 jobs that run before another tenant's small one
http                  processor time of a submission beyond the store's; a job among 100,000
scaling URL           jobs through 1, 2 and 4 processes of Launch, behind a server that is slow
recovery              from kill -9 and restart to going on
takeover URL          from kill -9 of one machine to the other's going on
memory [CORPUS]       the service with 10,000 jobs, a mapper over a corpus
throughput CORPUS     a job against the bare mapper on the same shards
served DISK URI HTTP  a scan from a server against one from disk; bench/served.sh starts servers
hadoop DIR CORPUS     a job on Hadoop against the plain streaming command

`bench/corpus.sh ROOT` makes the corpus; CORPUS is `ROOT/corpus/warc`. URL is a PostgreSQL's, DIR a cluster's that
`services/hadoop.sh` has started.";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tiny"] => tiny::tiny(),
        ["submissions"] => submissions::submissions(),
        ["postgres", url] => submissions::postgres_submissions(url),
        ["hops"] => {
            let folder = tempfile::tempdir().unwrap();
            let store = sqlite::open(&folder.path().join("hops.db"), MACHINES, &[TABLES]).unwrap();
            hops::hops("SQLite", Arc::new(store));
            hops::bare_sqlite(&folder.path().join("bare.db"));
        }
        ["hops", url] => {
            let store = postgres::open(&service::schema(url), MACHINES, &[TABLES]).unwrap();
            hops::hops("PostgreSQL", Arc::new(store));
            hops::bare_postgres(&service::schema(url));
        }
        ["flat"] => store::flat(1_000_000),
        ["flat", most] => store::flat(most.parse().unwrap()),
        ["fairness"] => store::fairness(),
        ["http"] => http::http(),
        ["scaling", url] => scaling::scaling(url),
        ["recovery"] => recovery::recovery(),
        ["takeover", url] => recovery::takeover(url),
        ["memory", corpus @ ..] => memory::memory(corpus.first().map(Path::new)),
        ["throughput", corpus] => throughput::throughput(Path::new(corpus)),
        ["served", disk, uri, http] => served::served(Path::new(disk), uri, http),
        ["hadoop", cluster, corpus] => hadoop::hadoop(Path::new(cluster), Path::new(corpus)),
        _ => println!("{USAGE}"),
    }
}
