//! Objects on servers: read, written, listed; and what servers do when they are busy, broken or false.

use crate::cluster::Cluster;
use crate::harness::{Sandbox, gzip, spec, undisturbed};
use crate::servers::{self, Behind, Fault, Faulty, ask};
use serde_json::{Value as Json, json};
use std::path::Path;
use std::process::Command;

/// The names of the corpus' files, in order.
fn names(data: &Path) -> Vec<String> {
    let files =
        std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = files.collect();
    names.sort();
    names
}

/// A job's spec over another place.
fn over(spec: &Json, dataset: Json) -> Json {
    let mut spec = spec.clone();
    spec["dataset"] = json!([dataset]);
    spec
}

/// What does not depend on where the objects lie.
fn answer(result: &Json) -> Json {
    json!({ "status": result["status"], "digest": result["digest"], "lines": result["lines"],
        "totals": result["coverage"]["totals"] })
}

/// A job over a place, with its output at another.
fn answer_of(sandbox: &Sandbox, output: &str, spec: &Json) -> Json {
    let service = sandbox.serve_with(&["--output", output, "--task-life-s", "1"], None);
    let id = service.submit(spec);
    let result = service.result(&id);
    let hits = service.hits(&id).len();
    assert_eq!(result["coverage"]["totals"]["hits"], hits, "{output}");
    answer(&result)
}

#[test]
fn a_job_gives_the_same_answer_wherever_objects_and_output_lie() {
    let files = Sandbox::new();
    let data = files.corpus();
    let local = spec(&data);
    let expected = answer(&undisturbed(&local));
    let names = names(&data);

    if let Some(s3) = servers::s3() {
        for name in &names {
            let bytes = std::fs::read(data.join(name)).unwrap();
            assert_eq!(ask(&s3.address, "PUT", &format!("/crawl/in/{name}"), &bytes).0, 200);
        }
        let sandbox = Sandbox { env: servers::s3_env(&s3.address), ..Sandbox::new() };
        for place in ["s3://crawl/in/", "s3://crawl/in", "s3://crawl/*/*.gz", "s3://crawl/in/[p-z]*"] {
            let matches = |name: &String| match place {
                "s3://crawl/*/*.gz" => name.ends_with(".gz"),
                "s3://crawl/in/[p-z]*" => name.starts_with(|c| ('p'..='z').contains(&c)),
                _ => true,
            };
            let all = names.iter().all(matches);
            let given = answer_of(&sandbox, "s3://crawl/out", &over(&local, json!(place)));
            assert_eq!(given == expected, all, "{place}: {given}");
        }
    }
    if let Some(azure) = servers::azure() {
        for name in &names {
            servers::azure_put(&azure.address, &format!("in/{name}"), &data.join(name));
        }
        let sandbox = Sandbox { env: servers::azure_env(&azure.address), ..Sandbox::new() };
        assert_eq!(answer_of(&sandbox, "az://crawl/out", &over(&local, json!("az://crawl/in/"))), expected);
    }
    if let Some(cluster) = Cluster::take() {
        let root = cluster.folder_with(&[("in", &data)]);
        let place = json!(format!("{root}/in/"));
        assert_eq!(answer_of(&Sandbox::new(), &format!("{root}/out"), &over(&local, place)), expected);
    }
    let http = Faulty::new(Behind::Files(data.clone()));
    let list: String = names.iter().map(|name| format!("{name}\n")).collect();
    std::fs::write(data.join("warc.paths"), list).unwrap();
    // A crawl's list: its relative lines are relative to the host's root.
    let manifest = json!({ "manifest": format!("http://{}/warc.paths", http.address) });
    let sandbox = Sandbox::new();
    let output = sandbox.path("out").display().to_string();
    assert_eq!(answer_of(&sandbox, &output, &over(&local, manifest)), expected);
}

/// Lets everybody read all of a bucket: arguments are the server's URL and the bucket.
const EVERYBODY_READS: &str = "
import boto3, sys
client = boto3.client('s3', endpoint_url=sys.argv[1], aws_access_key_id='a', aws_secret_access_key='b', region_name='us-east-1')
for found in client.list_objects_v2(Bucket=sys.argv[2])['Contents']:
    client.put_object_acl(Bucket=sys.argv[2], Key=found['Key'], ACL='public-read')
";

/// Common Crawl's `warc.paths.gz`: gzipped, its lines relative to the bucket or host that it lies in, or to a base; and
/// without credentials, as the data are everybody's.
#[test]
fn lists_of_a_crawl_are_read_as_they_are() {
    let Some(s3) = servers::s3() else { return };
    let files = Sandbox::new();
    let data = files.corpus();
    let local = spec(&data);
    let expected = answer(&undisturbed(&local));
    let put =
        |key: &str, bytes: &[u8]| assert_eq!(ask(&s3.address, "PUT", &format!("/crawl/{key}"), bytes).0, 200);
    let mut list = String::new();
    for name in names(&data) {
        let key = format!("crawl-data/CC-MAIN/{name}");
        put(&key, &std::fs::read(data.join(name)).unwrap());
        list += &(key + "\n");
    }
    let list = gzip(list.as_bytes(), 6);
    put("crawl-data/warc.paths.gz", &list);
    let url = format!("http://{}", s3.address);
    let python = servers::needed("DRAGNET_TEST_PYTHON").unwrap();
    assert!(Command::new(python).args(["-c", EVERYBODY_READS, &url, "crawl"]).status().unwrap().success());
    let mut env = servers::s3_env(&s3.address);
    env.retain(|(name, _)| !name.contains("KEY"));
    let sandbox = Sandbox { env, ..Sandbox::new() };
    let (here, root) = (sandbox.write("warc.paths.gz", &list), format!("{url}/crawl"));
    let output = sandbox.path("out").display().to_string();
    for manifest in [
        json!({ "manifest": "s3://crawl/crawl-data/warc.paths.gz" }),
        json!({ "manifest": here, "base": "s3://crawl/" }),
        json!({ "manifest": here, "base": root }),
        json!({ "manifest": format!("{root}/crawl-data/warc.paths.gz"), "base": format!("{root}/") }),
    ] {
        assert_eq!(answer_of(&sandbox, &output, &over(&local, manifest.clone())), expected, "{manifest}");
    }
}

/// A certificate that nobody vouches for ends in a gap; one that is vouched for is as good as plain HTTP.
#[test]
fn a_server_that_speaks_tls_is_believed_by_its_certificate() {
    let files = Sandbox::new();
    let data = files.corpus();
    let local = spec(&data);
    let expected = answer(&undisturbed(&local));
    let behind = Faulty::new(Behind::Files(data.clone()));
    let Some((server, pem)) = servers::tls(&behind.address, &files.path("")) else { return };
    let list: String = names(&data).iter().map(|name| format!("{name}\n")).collect();
    std::fs::write(data.join("warc.paths"), list).unwrap();
    let url = format!("https://{}/pages.warc.gz", server.address);
    let stranger = Sandbox::new().run(&["scan", "-c", "needle", &url]);
    let said = String::from_utf8_lossy(&stranger.stderr).into_owned();
    assert!(!stranger.status.success() && said.to_lowercase().contains("certificate"), "{said}");
    let sandbox = Sandbox { env: vec![("SSL_CERT_FILE", pem)], ..Sandbox::new() };
    let manifest = json!({ "manifest": format!("https://{}/warc.paths", server.address) });
    let output = sandbox.path("out").display().to_string();
    assert_eq!(answer_of(&sandbox, &output, &over(&local, manifest)), expected);
}

/// S3 answers 409 and stores nothing; an answer gets lost; and neither may change what a job gives.
#[test]
fn a_put_whose_answer_can_t_be_trusted_is_looked_up() {
    let Some(s3) = servers::s3() else { return };
    let files = Sandbox::new();
    let local = spec(&files.corpus());
    let expected = answer(&undisturbed(&local));
    let busy = Fault::Status(503, None);
    let conflict = Fault::Status(409, None);
    let table: [&[Fault]; 4] = [
        &[conflict, conflict, conflict],
        &[Fault::Silent, Fault::Silent],
        &[busy, busy],
        &[Fault::Half, conflict],
    ];
    for (n, faults) in table.into_iter().enumerate() {
        let proxy = Faulty::new(Behind::Server(s3.address.clone()));
        let sandbox = Sandbox { env: servers::s3_env(&proxy.address), ..Sandbox::new() };
        let output = format!("s3://crawl/faults-{n}");
        let service = sandbox.serve_with(&["--output", &output], None);
        proxy.fail("PUT", faults);
        let id = service.submit(&local);
        assert_eq!(answer(&service.result(&id)), expected, "{faults:?}");
    }
}

#[test]
fn a_store_that_ignores_the_condition_of_a_put_takes_no_output() {
    let Some(s3) = servers::s3() else { return };
    let proxy = Faulty::new(Behind::Unconditional(s3.address.clone()));
    let sandbox = Sandbox { env: servers::s3_env(&proxy.address), ..Sandbox::new() };
    let out = sandbox.run(&["serve", "--listen", "127.0.0.1:0", "--output", "s3://crawl/false"]);
    assert!(!out.status.success());
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("a second put-if-absent was not refused"), "{said}");
}

#[test]
fn a_busy_server_costs_time_and_no_gap() {
    let files = Sandbox::new();
    let data = files.corpus();
    let local = spec(&data);
    let expected = answer(&undisturbed(&local));
    let urls = |server: &Faulty| -> Vec<String> {
        names(&data).iter().map(|name| format!("http://{}/{name}", server.address)).collect()
    };
    let table: [&[Fault]; 5] = [
        &[Fault::Status(429, Some("1")), Fault::Status(429, None)],
        &[Fault::Status(503, None), Fault::Status(500, None), Fault::Status(502, None)],
        &[Fault::Half, Fault::Silent, Fault::Half],
        // More than the requests themselves try again: the job waits, and goes on by itself.
        &[Fault::Status(503, None); 12],
        &[Fault::Status(429, Some("11"))],
    ];
    for faults in table {
        let server = Faulty::new(Behind::Files(data.clone()));
        let sandbox = Sandbox::new();
        let service = sandbox.serve();
        let mut spec = local.clone();
        spec["dataset"] = json!(urls(&server));
        server.fail("GET", faults);
        let id = service.submit(&spec);
        assert_eq!(answer(&service.result(&id)), expected, "{faults:?}");
    }
    // One that has served and now says 403 is asked again, later.
    let server = Faulty::new(Behind::Files(data.clone()));
    let sandbox = Sandbox::new();
    let service = sandbox.serve();
    let mut spec = local.clone();
    spec["dataset"] = json!(urls(&server));
    server.fail("HEAD", &[Fault::Status(503, None)]);
    server.fail("GET", &[Fault::Half, Fault::Status(403, None)]);
    let id = service.submit(&spec);
    assert_eq!(answer(&service.result(&id)), expected, "403");
}

#[test]
fn a_server_that_is_away_is_waited_for() {
    let files = Sandbox::new();
    let data = files.corpus();
    let local = spec(&data);
    let expected = answer(&undisturbed(&local));
    let server = Faulty::new(Behind::Files(data.clone()));
    let sandbox = Sandbox::new();
    let service = sandbox.serve();
    let mut spec = local.clone();
    spec["dataset"] =
        json!(names(&data).iter().map(|n| format!("http://{}/{n}", server.address)).collect::<Vec<_>>());
    server.fail("HEAD", &[Fault::Status(503, None); 1000]);
    let id = service.submit(&spec);
    let waits = |job: &Json| job.to_string().contains(&format!("http://{}", server.address));
    let job = service.job_when(&id, waits);
    assert_eq!(job["stage"], "launch", "{job}");
    server.forgive();
    assert_eq!(answer(&service.result(&id)), expected);
}

#[test]
fn what_a_server_does_not_have_is_a_named_gap() {
    let files = Sandbox::new();
    let data = files.corpus();
    let server = Faulty::new(Behind::Files(data.clone()));
    let sandbox = Sandbox::new();
    let at = |name: &str| format!("http://{}/{name}", server.address);
    std::fs::write(data.join("list"), "pages.warc.gz\nnone.warc.gz\n").unwrap();
    let out = sandbox.run(&["scan", "-c", "needle-[0-9]+", "--files-from", &at("list")]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(3), "{said}");
    assert!(said.contains("none.warc.gz: it does not exist"), "{said}");
    let local = sandbox.run(&["scan", "-c", "needle-[0-9]+", data.join("pages.warc.gz").to_str().unwrap()]);
    let count = |out: &std::process::Output| {
        String::from_utf8_lossy(&out.stdout).lines().next().unwrap().rsplit(':').next().unwrap().to_owned()
    };
    assert_eq!(count(&out), count(&local));
    let table = [
        (vec!["scan", "x", "http://127.0.0.1:1/none"], "does not serve now"),
        (vec!["scan", "x", "s3://"], "names no server or bucket"),
        (vec!["scan", "x", "http://u:p@h/x"], "credentials come from the environment"),
        (vec!["scan", "x", "ftp://h/x"], "only paths and"),
    ];
    for (arguments, part) in table {
        let out = sandbox.run(&arguments);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains(part) && !out.status.success(), "{arguments:?}: {said}");
    }
    let folder = format!("http://{}/", server.address);
    let said = String::from_utf8_lossy(&sandbox.run(&["scan", "x", &folder]).stderr).into_owned();
    assert!(said.contains("an HTTP server has no listing"), "{said}");
}

/// A hit on a server is replayed by one read of its range, and a sample is the same whenever it is taken.
#[test]
fn hits_are_replayed_and_samples_taken_from_a_server() {
    let files = Sandbox::new();
    let data = files.corpus();
    let server = Faulty::new(Behind::Files(data.clone()));
    let sandbox = Sandbox::new();
    let url = format!("http://{}/pages.warc.gz", server.address);
    let out = sandbox.run(&["scan", "--json", "-m", "1", "needle-[0-9]+", &url]);
    let hits = sandbox.write("hits.jsonl", &out.stdout);
    let before = *server.requests.lock().unwrap();
    let shown = sandbox.run(&["replay", hits.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(">>>needle-"), "{shown:?}");
    // What is there, and its range.
    assert!(*server.requests.lock().unwrap() - before <= 3);

    for n in 0..20 {
        std::fs::write(data.join(format!("{n:02}.txt")), "x").unwrap();
    }
    let glob = format!("{}/*.txt", data.display());
    let sample = || {
        let out = sandbox.run(&["scan", "-c", "--sample", "5", "x", &glob]);
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert_eq!(sample(), sample());
    assert_eq!(sample().lines().count(), 5);
}
