//! `dragnet serve --check`: whether a service would start with this configuration, and reach all that it needs.
//!
//! A row for each thing, so that whoever sets a service up sees all that is wrong at once. The store is opened as at a
//! start: one of an earlier version is brought to this one.

use crate::disk::Disk;
use crate::operations::OperationArgs;
use crate::service::{ServiceArgs, make_private};
use crate::settings::Settings;
use crate::{exit, health, service};
use anyhow::{Context, Result, bail};
use dragnet_run::Output;
use std::io::Write;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The longest that a server may take to be reached.
const REACH: Duration = Duration::from_secs(5);

/// What was looked at, and what came of it.
type Row = (&'static str, Result<String>);

pub(crate) fn run(args: &ServiceArgs, operation: &OperationArgs, settings: &Settings) -> Result<ExitCode> {
    let rows = rows(args, operation, settings)?;
    let mut out = std::io::stdout().lock();
    for (what, found) in &rows {
        match found {
            Ok(said) => writeln!(out, "ok      {what:<8} {said}")?,
            Err(e) => writeln!(out, "failed  {what:<8} {e:#}")?,
        }
    }
    let is_fine = rows.iter().all(|(_, found)| found.is_ok());
    Ok(if is_fine { exit::HITS.into() } else { exit::ERROR.into() })
}

fn rows(args: &ServiceArgs, operation: &OperationArgs, settings: &Settings) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let state = args.state.clone().unwrap_or_else(|| settings.state.clone());
    let mut rows: Vec<Row> = vec![("state", make_private(&state).map(|()| state.display().to_string()))];
    let mut strangers = false;
    let store = service::open_store(args, &state).and_then(|store| {
        strangers = runtime.block_on(dragnet_tenant::any(&*store))?;
        match runtime.block_on(health::store_wrong(&*store)) {
            None => Ok("it can be written".to_owned()),
            Some(wrong) => bail!(wrong),
        }
    });
    rows.push(("store", store));
    // As `serve` does: an output that may not be connected to is none.
    args.reach.set(strangers);
    let output = service::output_uri(args.output.as_deref(), &state);
    let probed = output.as_ref().map_err(|e| anyhow::anyhow!("{e:#}")).and_then(|uri| {
        let probed = Output::at(uri).and_then(|output| output.probe());
        probed.map(|()| uri.clone()).with_context(|| format!("use `{uri}` for output"))
    });
    rows.push(("output", probed));
    let disk =
        Disk::new(service::local_folders(&state, output.as_deref().unwrap_or("")), operation.disk_low_mib);
    rows.push((
        "disk",
        disk.is_low().map_or(Ok("there is room".to_owned()), |low| Err(anyhow::anyhow!(low))),
    ));
    match args.guard(&state, output.as_ref().ok().map_or(&[], std::slice::from_ref)) {
        Ok(guard) if guard.roots.is_empty() => {}
        Ok(guard) => rows.push(("data", Ok(format!("files beneath {:?}", guard.roots)))),
        Err(e) => rows.push(("data", Err(e))),
    }
    let rates = service::read_rates(args.rates.as_deref());
    let rates_said =
        args.rates.as_ref().map_or("those built in".to_owned(), |file: &PathBuf| file.display().to_string());
    rows.push(("rates", rates.map(|_| rates_said)));
    if let Some(brokers) = args.messages.brokers() {
        rows.push(("kafka", reach_one(brokers)));
    }
    match args.hadoop(Vec::new()) {
        Ok(None) => {}
        Ok(Some(hadoop)) => {
            let reached = runtime.block_on(async { tokio::time::timeout(REACH * 6, hadoop.reach()).await });
            let reached = reached.context("no answer").and_then(|reached| Ok(reached?));
            rows.push(("hadoop", reached.map(|()| "ResourceManager and NameNode answer".to_owned())));
        }
        Err(e) => rows.push(("hadoop", Err(e))),
    }
    runtime.shutdown_background();
    Ok(rows)
}

/// One of the brokers is enough to find the others.
fn reach_one(brokers: &str) -> Result<String> {
    let mut last = anyhow::anyhow!("`{brokers}` names no broker: `HOST:PORT`");
    for broker in brokers.split(',').map(str::trim).filter(|broker| !broker.is_empty()) {
        let reach = || -> Result<()> {
            let address = broker.to_socket_addrs()?.next().context("it has no address")?;
            TcpStream::connect_timeout(&address, REACH).map(drop)?;
            Ok(())
        };
        match reach().with_context(|| format!("connect to `{broker}`")) {
            Ok(()) => return Ok(format!("`{broker}` takes connections")),
            Err(e) => last = e,
        }
    }
    Err(last)
}
