//! The most memory that the service and a mapper take.

use crate::service::{Service, peak_mib};
use crate::submissions::accept;
use crate::throughput::{BareMapper, plan};
use dragnet_job::{MACHINES, TABLES, topic};
use dragnet_pattern::{Accept, Store, sqlite};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn memory(corpus: Option<&Path>) {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    std::fs::create_dir_all(&state).unwrap();
    let store: Arc<dyn Store> =
        Arc::new(sqlite::open(&state.join("dragnet.db"), MACHINES, &[TABLES]).unwrap());
    let file = folder.path().join("a.txt");
    std::fs::write(&file, "a needle\n").unwrap();
    let output = format!("file://{}", state.join("output").display());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        store.add_group("launch", topic::LAUNCH, true).await.unwrap();
        for n in 0..10_000 {
            let spec = json!({ "patterns": [{ "name": "m", "regex": "needle" }], "dataset": [file], "output": output });
            store.accept(Accept { spec, ..accept(n) }).await.unwrap();
        }
    });
    let service = Service::start(&state);
    std::thread::sleep(Duration::from_secs(20));
    println!(
        "service with 10,000 jobs in the store, at work on them: {:.0} MiB at most",
        peak_mib(service.child.id())
    );
    drop(service);
    if let Some(corpus) = corpus {
        let (output, shards) = plan(folder.path(), corpus, 1);
        let mut mapper = BareMapper::start();
        for shard in 0..shards.min(8) {
            mapper.run(&output, shard);
        }
        println!(
            "a mapper over {} shards of the corpus: {:.0} MiB at most",
            shards.min(8),
            peak_mib(mapper.child.id())
        );
    }
}
