//! A job on Hadoop against the plain streaming command with the same mapper.

use crate::service::{DRAGNET, Service, median};
use crate::throughput::{bare_folder, copies, spec};
use serde_json::{Value as Json, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A job by the engine, from post to end, against the plain `hadoop-streaming` command with the same mapper,
/// the same lines and as many of them in a map task.
pub(crate) fn hadoop(cluster: &Path, corpus: &Path) {
    let text = std::fs::read_to_string(cluster.join("ports.env")).unwrap();
    let addresses: std::collections::BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once('=')).collect();
    let folder = tempfile::tempdir().unwrap();
    let mut spec = spec(&copies(folder.path(), corpus, 1));
    spec["engine"] = json!("hadoop");
    let state = folder.path().join("state");
    let (mut engines, mut plains) = (Vec::new(), Vec::new());
    for round in 1..=3 {
        let service = Service::with(&state, &["--hadoop-conf", addresses["HADOOP_CONF_DIR"]]);
        let begun = Instant::now();
        let id = service.submit(&spec);
        let output = state.join("output/default").join(&id);
        let reserved = output.join("tasks/001.hadoop.json");
        while !reserved.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let reserved: Json = serde_json::from_slice(&std::fs::read(reserved).unwrap()).unwrap();
        let lines = std::fs::read_to_string(output.join("tasks/001.jsonl")).unwrap();
        let (bare, _) = bare_folder(folder.path(), &output.join("plan.json"));
        let job = service.end_of(&id, Duration::from_millis(50));
        let engine = begun.elapsed().as_secs_f64();
        assert_eq!(job["status"], "completed", "{job}");
        drop(service);
        let lines = lines.replace(&format!("file://{}", output.display()), &bare);
        let plain = plain_streaming(&addresses, folder.path(), &lines, &reserved["lines_per_map"]);
        println!("round {round}: engine {engine:.2} s, plain command {plain:.2} s");
        engines.push(engine);
        plains.push(plain);
    }
    let (engine, plain) = (median(engines), median(plains));
    println!("engine {engine:.2} s, plain command {plain:.2} s: overhead {:.2} s", engine - plain);
}

/// Seconds of the command, with its input in HDFS already.
fn plain_streaming(
    addresses: &std::collections::BTreeMap<&str, &str>,
    folder: &Path,
    lines: &str,
    lines_per_map: &Json,
) -> f64 {
    let name = format!("/tmp/plain-{}", uuid::Uuid::new_v4());
    let local = folder.join("lines");
    std::fs::write(&local, lines).unwrap();
    let run = |arguments: &[&str]| {
        let ended = Command::new(addresses["HADOOP_COMMAND"]).args(arguments).output().unwrap();
        assert!(ended.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
    };
    run(&["fs", "-put", local.to_str().unwrap(), &name]);
    let begun = Instant::now();
    run(&[
        "jar",
        addresses["HADOOP_STREAMING_JAR"],
        "-D",
        "mapreduce.job.reduces=0",
        "-D",
        "stream.map.input.ignoreKey=true",
        "-D",
        &format!("mapreduce.input.lineinputformat.linespermap={lines_per_map}"),
        "-files",
        &format!("{DRAGNET}#mapper"),
        "-input",
        &name,
        "-inputformat",
        "org.apache.hadoop.mapred.lib.NLineInputFormat",
        "-output",
        &format!("{name}.out"),
        "-mapper",
        "./mapper map",
    ]);
    begun.elapsed().as_secs_f64()
}
