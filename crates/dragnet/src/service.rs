//! The service in a process: store, API, controllers and the local engine, wired together.
//!
//! `serve` runs all of it for good. Other commands run it embedded: the API alone where they only read, and
//! the controllers for one job where they are to finish it.

use crate::allocator;
use crate::client::Client;
use crate::disk::{Disk, Watched};
use crate::health::{self, Health};
use crate::listen::{self, ListenArgs};
use crate::messages::MessageArgs;
use crate::metrics::Metrics;
use crate::operations::OperationArgs;
use crate::reach::ReachArgs;
use anyhow::{Context, Result, bail, ensure};
use dragnet_api::{Api, Door, Entry, router};
use dragnet_engine::{Engine, LOCAL_TOPIC, Local, LocalPolicy, MapperCommand};
use dragnet_job::controllers::{Billing, Engines, Launch, Monitoring, Shutdown};
use dragnet_job::guard::Guard;
use dragnet_job::rates::Rates;
use dragnet_job::{MACHINES, topic};
use dragnet_pattern::{Controller, Policy, Store, Tables, Worker, sqlite};
use dragnet_run::{Output, uri};
use dragnet_tenant::Secret;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What every service runs, and the topic of each.
pub(crate) const GROUPS: [(&str, &str); 5] = [
    (dragnet_job::controllers::LAUNCH, topic::LAUNCH),
    (dragnet_job::controllers::MONITORING, topic::MONITOR),
    (dragnet_job::controllers::BILLING, topic::BILLING),
    (dragnet_job::controllers::SHUTDOWN, topic::SHUTDOWN),
    ("local", LOCAL_TOPIC),
];

/// How a service is set up. `-h` shows what one wants on the first day, `--help` all of it.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "The service")]
pub(crate) struct ServiceArgs {
    /// Folder of the Status DB, the queues and the output [default: $DRAGNET_STATE, else
    /// $XDG_STATE_HOME/dragnet]
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// The Status DB: `sqlite:FILE` or `postgres://USER@HOST/DB` [default: dragnet.db in the state folder]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Where jobs write parts, records and manifests: a folder, or a URI such as `s3://BUCKET/PREFIX` or
    /// `hdfs://HOST:PORT/PATH` [default: output in the state folder]
    #[arg(long, value_name = "URI")]
    pub(crate) output: Option<String>,
    /// Mappers to run at once [default: one per core]
    #[arg(long, value_name = "N")]
    mappers: Option<usize>,
    /// Memory limit per mapper, in MiB; exceeding it fails that attempt
    #[arg(long, hide_short_help = true, value_name = "MIB", default_value_t = 2048)]
    mapper_memory_mib: u64,
    /// Processor time limit per shard, in seconds; exceeding it fails that attempt
    #[arg(long, hide_short_help = true, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    shard_cpu_s: u64,
    /// Seconds without progress after which a mapper is killed
    #[arg(long, hide_short_help = true, value_name = "S", default_value_t = 60)]
    mapper_silence_s: u64,
    /// Limit on concurrent requests to one object server, over all mappers (on Hadoop: of a job) [default: 32, or one for
    /// each mapper where there are more]
    #[arg(long, hide_short_help = true, value_name = "N")]
    host_connections: Option<usize>,
    /// Limit on MiB per second from one object server, over all mappers (on Hadoop: of a job)
    #[arg(long, hide_short_help = true, value_name = "MIB")]
    host_mib_s: Option<u64>,
    /// File of prices, like the one in `docs/money.md` [default: 500 millionths of a dollar per GiB]
    #[arg(long, hide_short_help = true, value_name = "FILE")]
    pub(crate) rates: Option<PathBuf>,
    /// Seconds after which a claim expires when its process hangs
    #[arg(long, hide_short_help = true, value_name = "S", default_value_t = 12)]
    lease_s: u64,
    /// Seconds between looks at the queues when nothing notifies this process of messages
    #[arg(long, hide_short_help = true, value_name = "S", default_value_t = 0.25)]
    poll_s: f64,
    /// Seconds between searches for lost messages
    #[arg(long, hide_short_help = true, value_name = "S", default_value_t = 5.0)]
    sweep_s: f64,
    /// Seconds after a job's end until its folder is cleaned a second time
    #[arg(long, hide_short_help = true, value_name = "S", default_value_t = 900)]
    task_life_s: u64,
    /// File of the key that webhook secrets are derived from, the same for all processes of a store [default: webhook.key
    /// in the state folder, made when it is first needed]
    #[cfg(feature = "webhooks")]
    #[arg(long, hide_short_help = true, value_name = "FILE")]
    webhook_key: Option<PathBuf>,
    #[cfg(feature = "hadoop")]
    #[command(flatten)]
    hadoop: Box<crate::hadoop::HadoopArgs>,
    #[command(flatten)]
    pub(crate) messages: MessageArgs,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// Whose tables are in the Status DB. The first was there before the others could be.
const MODULES: &[Tables] = &[
    dragnet_job::TABLES,
    dragnet_tenant::TABLES,
    #[cfg(feature = "webhooks")]
    dragnet_webhooks::TABLES,
];

/// The key of webhooks, in the state folder.
pub(crate) const WEBHOOK_KEY: &str = "webhook.key";

/// The role that publishes messages to Kafka.
pub(crate) const RELAY: &str = "relay";

/// Where the API is served, and to whom.
#[derive(Debug)]
pub(crate) struct Listen {
    pub(crate) at: SocketAddr,
    pub(crate) limits: ListenArgs,
    /// The one tenant that this process itself speaks for, by a key of its own; clients of a service have theirs.
    pub(crate) only: Option<String>,
}

/// A running service.
pub(crate) struct Service {
    /// `http://ADDRESS`; empty where the process serves no API.
    pub(crate) url: String,
    /// The key of this process, where it speaks to itself.
    key: Option<Secret>,
    store: Arc<dyn Store>,
    state: PathBuf,
    args: ServiceArgs,
    rates: Rates,
    guard: Guard,
    /// Whether others than its own user ask for jobs.
    strangers: bool,
    operation: OperationArgs,
    health: Arc<Health>,
    /// Tells all that works to stop.
    stop: watch::Sender<bool>,
    /// Tells listeners to end: they answer while the work comes to its end.
    close: watch::Sender<bool>,
    http: Vec<JoinHandle<()>>,
    work: Vec<JoinHandle<()>>,
    runtime: Runtime,
}

/// The folder, in the state folder, by which this machine's processes tell each other how long servers want to be left alone.
const MANNERS: &str = "manners";

/// Requests at once to one server of objects, where nothing is said.
const HOST_CONNECTIONS: usize = 32;

impl Service {
    /// Opens the store and serves the API at `listen`, if anywhere; works on nothing yet.
    pub(crate) fn start(
        args: &ServiceArgs,
        default_state: &Path,
        listen: Option<Listen>,
        operation: OperationArgs,
    ) -> Result<Service> {
        let state = args.state.clone().unwrap_or_else(|| default_state.to_owned());
        make_private(&state)?;
        let state =
            state.canonicalize().with_context(|| format!("find the state folder `{}`", state.display()))?;
        let manners = state.join(MANNERS);
        make_private(&manners)?;
        let rates = read_rates(args.rates.as_deref())?;
        dragnet_objects::set_limits(dragnet_objects::Limits {
            connections: Some(args.connections()),
            bytes_per_s: args.host_mib_s.map(|mib| mib << 20),
            manners: Some(manners),
        });
        let store = open_store(args, &state)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let is_open = listen.as_ref().is_some_and(|listen| !listen.at.ip().is_loopback());
        let strangers = is_open || runtime.block_on(dragnet_tenant::any(&*store))?;
        args.reach.set(strangers);
        let output = output_uri(args.output.as_deref(), &state)?;
        Output::at(&output)?.probe().with_context(|| format!("use `{output}` for output"))?;
        let outputs = runtime.block_on(dragnet_job::guard::note_output(&*store, &output))?;
        let guard = args.guard(&state, &outputs)?;
        let ((stop, stopped), (close, closed)) = (watch::channel(false), watch::channel(false));
        let disk = Disk::new(local_folders(&state, &output), operation.disk_low_mib);
        let metrics = Metrics::new(args.mappers(), Policy::default().at_once);
        let health = Health::new(store.clone(), output.clone(), Arc::new(metrics), Arc::new(disk), stopped);
        let health = Arc::new(health);
        let (mut url, mut http, mut key) = (String::new(), Vec::new(), None);
        if let Some(listen) = listen {
            let entry;
            (entry, key) = runtime.block_on(entry_for(&listen, &*store))?;
            let (door, trail) = Door::new(entry, store.clone());
            let bound = runtime.block_on(TcpListener::bind(listen.at));
            let listener = bound.with_context(|| format!("listen on {}", listen.at))?;
            url = format!("http://{}", listener.local_addr()?);
            let (client_time, by) = (listen.limits.client_time(), (rates.clone(), guard.clone()));
            let api = Api::new(store.clone(), output, door, client_time, by, stop.subscribe());
            let app = health::public_router(health.clone())
                .fallback_service(router(api))
                .layer(axum::middleware::from_fn_with_state(health.clone(), health::watch));
            http.push(runtime.spawn(async move {
                tokio::join!(listen::serve(listener, app, listen.limits, closed), trail);
            }));
        }
        Ok(Service {
            url,
            key,
            store,
            state,
            args: args.clone(),
            rates,
            guard,
            strangers,
            operation,
            health,
            stop,
            close,
            http,
            work: Vec::new(),
            runtime,
        })
    }

    /// Serves the operator's address, if there is one. Returns its URL.
    pub(crate) fn admin(&mut self, limits: ListenArgs) -> Result<Option<String>> {
        let Some(at) = self.operation.admin_listen else { return Ok(None) };
        let bound = self.runtime.block_on(TcpListener::bind(at));
        let listener = bound.with_context(|| format!("listen on {at} for the operator"))?;
        let url = format!("http://{}", listener.local_addr()?);
        let app = health::admin_router(self.health.clone());
        self.http.push(self.runtime.spawn(listen::serve(listener, app, limits, self.close.subscribe())));
        Ok(Some(url))
    }

    /// The controller of webhooks, with what it may reach and the key that it signs by.
    #[cfg(feature = "webhooks")]
    fn webhooks(&self) -> dragnet_webhooks::Webhooks {
        let key_file = self.args.webhook_key.clone().unwrap_or_else(|| self.state.join(WEBHOOK_KEY));
        dragnet_webhooks::Webhooks::new(topic::ENDED, self.args.reach.webhooks(self.strangers), key_file)
    }

    /// A client of this service's own API.
    pub(crate) fn client(&self) -> Result<Client> {
        Client::new(&self.url, self.key.clone())
    }

    /// Starts the controllers whose names `takes` takes, for one job or for all.
    /// `relay` is taken like a controller.
    pub(crate) fn work(&mut self, only: Option<&str>, takes: &dyn Fn(&str) -> bool) -> Result<()> {
        let stopped = self.stop.subscribe();
        let mappers = self.args.mappers();
        ensure!(
            !takes("local") || self.args.connections() >= mappers,
            "`--host-connections {}` is less than one for each of the {mappers} mappers: lower `--mappers` too",
            self.args.connections()
        );
        let policy = LocalPolicy {
            mapper: self.mapper_command(mappers)?,
            mappers,
            attempts_max: 4,
            silence_max: Duration::from_secs(self.args.mapper_silence_s.max(1)),
            ended_topic: topic::MONITOR,
        };
        let (local, driver) = Local::new(self.store.clone(), policy, stopped.clone());
        let engines: Engines = [Arc::new(local) as Arc<dyn Engine>]
            .into_iter()
            .chain(self.args.hadoop(self.args.reach.mapper_flags(self.strangers))?)
            .collect();
        let _ = self.health.engines.set(engines.clone());
        let controllers: Vec<Arc<dyn Controller>> = vec![
            Arc::new(Launch {
                engines: engines.clone(),
                rates: self.rates.clone(),
                guard: self.guard.clone(),
            }),
            Arc::new(Monitoring::new(engines.clone())),
            Arc::new(Billing { rates: self.rates.clone() }),
            Arc::new(Shutdown { engines, task_life: Duration::from_secs(self.args.task_life_s) }),
            Arc::new(driver),
            #[cfg(feature = "webhooks")]
            Arc::new(self.webhooks()),
        ];
        let mut controllers: Vec<_> = controllers.into_iter().filter(|c| takes(c.name())).collect();
        controllers.extend(self.args.messages.beyond());
        let watched = |inner| -> Arc<dyn Controller> {
            let (metrics, disk) = (self.health.metrics.clone(), self.health.disk.clone());
            Arc::new(Watched { inner, metrics, disk })
        };
        let controllers: Vec<_> = controllers.into_iter().map(watched).collect();
        if takes(dragnet_job::controllers::SHUTDOWN) && self.operation.retention.is_on() {
            let retention = self.operation.retention.clone();
            self.work.push(self.runtime.spawn(retention.keep_house(self.store.clone(), stopped.clone())));
        }
        self.work.extend(self.args.messages.start(
            self.runtime.handle(),
            &self.store,
            &controllers,
            takes(RELAY),
            &stopped,
        ));
        let seconds = |s: f64| Duration::try_from_secs_f64(s).unwrap_or(Duration::from_secs(1));
        let policy = Policy {
            lease: Duration::from_secs(self.args.lease_s.max(1)),
            poll: seconds(self.args.poll_s).max(Duration::from_millis(5)),
            sweep: seconds(self.args.sweep_s).max(Duration::from_millis(5)),
            ..Policy::default()
        };
        let locks = self.state.join("owners");
        let worker = Arc::new(Worker::new(self.store.clone(), policy, &locks, only.map(str::to_owned))?);
        let _ = self.health.worker.set(worker.clone());
        self.work.push(self.runtime.spawn(async move {
            if let Err(e) = dragnet_pattern::run(worker, controllers, stopped).await {
                tracing::error!(error = %e, "the controllers could not be started");
            }
        }));
        Ok(())
    }

    /// The mapper is this program; each of them gets its share of what a server of objects is asked for.
    fn mapper_command(&self, mappers: usize) -> Result<MapperCommand> {
        let program = std::env::current_exe().context("find this program, which is also the mapper")?;
        let mut arguments = vec!["map".to_owned(), "--lifeline".to_owned()];
        let mut say = |flag: &str, value: u64| arguments.extend([flag.to_owned(), value.to_string()]);
        say("--memory-mib", self.args.mapper_memory_mib);
        say("--cpu-s", self.args.shard_cpu_s);
        say("--host-connections", (self.args.connections() / mappers).max(1) as u64);
        if let Some(mib) = self.args.host_mib_s {
            say("--host-bytes-s", (mib << 20) / mappers as u64);
        }
        arguments.extend(["--manners".into(), self.state.join(MANNERS).display().to_string()]);
        arguments.extend(self.args.reach.mapper_flags(self.strangers));
        Ok(MapperCommand { program, arguments, variables: vec![allocator::BY_NEED] })
    }

    /// Registers the groups, so that a job that is posted before anybody works finds its queue.
    pub(crate) fn register(&self) -> Result<()> {
        let known = self.runtime.block_on(self.store.groups())?;
        for (name, topic) in
            GROUPS.into_iter().filter(|(name, _)| known.iter().all(|group| group.name != *name))
        {
            self.runtime.block_on(self.store.add_group(name, topic, true))?;
        }
        Ok(())
    }

    /// Waits for SIGINT or SIGTERM, then drains.
    pub(crate) fn wait(self) -> Result<()> {
        self.runtime.block_on(stop_signal())?;
        tracing::info!("stopping: what is under way goes on after the next start");
        self.end();
        Ok(())
    }

    /// Runs `then` when Ctrl-C is pressed.
    pub(crate) fn on_interrupt(&self, then: impl FnOnce() + Send + 'static) {
        self.runtime.spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                then();
            }
        });
    }

    /// Claims nothing more, gives back what is in hand, and answers as not ready until that is done: in less than
    /// five seconds.
    pub(crate) fn end(self) {
        let _ = self.stop.send(true);
        self.runtime.block_on(async {
            // What has not ended by then is freed by the lock that goes with the process.
            let _ = tokio::time::timeout(WORK_ENDS, ended(self.work)).await;
            let _ = self.close.send(true);
            let _ = tokio::time::timeout(ANSWERS_END, ended(self.http)).await;
        });
        self.runtime.shutdown_timeout(Duration::from_millis(200));
    }
}

/// How long all that works may take to stop, a step's grace and its last write.
const WORK_ENDS: Duration = Duration::from_millis(3300);
/// How long an answer that is under way may take after that.
const ANSWERS_END: Duration = Duration::from_secs(1);

async fn ended(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        let _ = task.await;
    }
}

/// The folders of this machine that a service fills.
pub(crate) fn local_folders(state: &Path, output: &str) -> Vec<(&'static str, PathBuf)> {
    let output = uri::to_path(output).ok().map(|path| ("the output", path));
    [("the state", state.to_owned())].into_iter().chain(output).collect()
}

/// Who is let in, and the key of this process where it speaks to itself alone.
async fn entry_for(listen: &Listen, store: &dyn Store) -> Result<(Entry, Option<Secret>)> {
    if let Some(tenant) = &listen.only {
        if dragnet_tenant::find(store, tenant).await?.is_none() {
            bail!("there is no tenant `{tenant}`: `dragnet tenant list` shows them");
        }
        let (secret, key) = Secret::random().context("make a key for this process")?;
        return Ok((Entry::One { key, tenant: tenant.clone() }, Some(secret)));
    }
    let has_tenants = dragnet_tenant::any(store).await?;
    if listen.at.ip().is_loopback() {
        if !has_tenants {
            say!("no tenant is defined: whoever is on this machine needs no key (`dragnet tenant add`)");
        }
        return Ok((Entry::Local, None));
    }
    if !dragnet_tenant::keys::any(store).await? {
        let first = if has_tenants { "" } else { "`dragnet tenant add NAME`, then " };
        bail!(
            "`--listen {}` is open to other machines, and there is no API key: make one ({first}`dragnet key add \
             NAME`), or listen on 127.0.0.1",
            listen.at
        );
    }
    Ok((Entry::Keys, None))
}

async fn stop_signal() -> Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        _ = terminate.recv() => Ok(()),
    }
}

pub(crate) fn read_rates(file: Option<&Path>) -> Result<Rates> {
    let Some(file) = file else { return Ok(Rates::default()) };
    let text =
        std::fs::read_to_string(file).with_context(|| format!("read the rates `{}`", file.display()))?;
    Rates::parse(&text)
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("read the rates `{}`", file.display()))
}

pub(crate) fn open_store(args: &ServiceArgs, state: &Path) -> Result<Arc<dyn Store>> {
    store_at(args.store.as_deref(), state, args.messages.has_notices())
}

/// The Status DB that `--store` names, else the one in the state folder.
pub(crate) fn store_at(url: Option<&str>, state: &Path, has_notices: bool) -> Result<Arc<dyn Store>> {
    const POSTGRES: [&str; 2] = ["postgres", "postgresql"];
    // The rest of it may hold a password, and is not said.
    if let Some((scheme, _)) =
        url.and_then(|url| url.split_once("://")).filter(|(s, _)| !POSTGRES.contains(s))
    {
        bail!("`--store` has the scheme `{scheme}://`: use `sqlite:FILE` or `postgres://USER@HOST/DB`");
    }
    match store_file(url, state) {
        Some(file) => Ok(Arc::new(sqlite::open(&file, MACHINES, MODULES)?)),
        None => open_postgres(url.unwrap_or_default(), has_notices),
    }
}

/// The file of a Status DB that is one.
pub(crate) fn store_file(url: Option<&str>, state: &Path) -> Option<PathBuf> {
    match url {
        None => Some(state.join("dragnet.db")),
        Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => None,
        Some(url) => Some(PathBuf::from(url.strip_prefix("sqlite:").unwrap_or(url))),
    }
}

#[cfg(feature = "postgres")]
fn open_postgres(url: &str, has_notices: bool) -> Result<Arc<dyn Store>> {
    use dragnet_pattern::postgres::{Notices, open_with};
    let notices = if has_notices { Notices::On } else { Notices::Off };
    let opened = open_with(url, MACHINES, MODULES, notices);
    // The URL may hold a password, and is not said.
    Ok(Arc::new(opened.context("open the store in PostgreSQL, as `--store` names it")?))
}

#[cfg(not(feature = "postgres"))]
fn open_postgres(_url: &str, _has_notices: bool) -> Result<Arc<dyn Store>> {
    anyhow::bail!(
        "`--store postgres…`: PostgreSQL needs the feature `postgres`, which this build does not have"
    )
}

pub(crate) fn output_uri(output: Option<&str>, state: &Path) -> Result<String> {
    let uri_of = |path: &Path| -> Result<String> {
        make_private(path)?;
        Ok(uri::of_path(&path.canonicalize()?))
    };
    match output {
        None => uri_of(&state.join("output")),
        Some(text) if dragnet_run::is_remote(text) => Ok(text.trim_end_matches('/').to_owned()),
        Some(text) if uri::scheme(text).is_some() => uri_of(&uri::to_path(text)?),
        Some(path) => uri_of(Path::new(path)),
    }
}

/// A folder that only its owner can look into.
pub(crate) fn make_private(folder: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("make the folder `{}`", folder.display()))
}

impl ServiceArgs {
    /// What tenants may read, beside this service's own.
    pub(crate) fn guard(&self, state: &Path, outputs: &[String]) -> Result<Guard> {
        self.reach.guard(state, store_file(self.store.as_deref(), state).as_deref(), outputs)
    }

    /// The engine of a Hadoop cluster, if the service has one.
    #[cfg(feature = "hadoop")]
    pub(crate) fn hadoop(&self, mapper_flags: Vec<String>) -> Result<Option<Arc<dyn Engine>>> {
        let bytes_per_s = self.host_mib_s.map(|mib| mib << 20);
        let cpu = ["--cpu-s".to_owned(), self.shard_cpu_s.to_string()];
        let flags = mapper_flags.into_iter().chain(cpu).collect();
        self.hadoop.engine(self.connections(), bytes_per_s, flags)
    }

    /// The engine of a Hadoop cluster: not in this build.
    #[cfg(not(feature = "hadoop"))]
    pub(crate) fn hadoop(&self, _mapper_flags: Vec<String>) -> Result<Option<Arc<dyn Engine>>> {
        Ok(None)
    }

    /// Requests at once to one server of objects: at least one for each mapper, as they share them.
    fn connections(&self) -> usize {
        self.host_connections.unwrap_or_else(|| HOST_CONNECTIONS.max(self.mappers())).max(1)
    }

    /// Mappers at once.
    fn mappers(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.mappers.unwrap_or_else(cores).max(1)
    }

    /// The defaults over a state folder, for commands that have no flags of their own for it.
    pub(crate) fn of_state(state: Option<PathBuf>) -> ServiceArgs {
        ServiceArgs {
            state,
            store: None,
            output: None,
            mappers: None,
            mapper_memory_mib: 2048,
            shard_cpu_s: 600,
            mapper_silence_s: 60,
            host_connections: None,
            host_mib_s: None,
            rates: None,
            lease_s: 12,
            poll_s: 0.25,
            sweep_s: 5.0,
            task_life_s: 900,
            #[cfg(feature = "webhooks")]
            webhook_key: None,
            #[cfg(feature = "hadoop")]
            hadoop: Box::default(),
            messages: MessageArgs::default(),
            reach: ReachArgs::default(),
        }
    }
}
