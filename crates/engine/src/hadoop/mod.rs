//! Hadoop as an engine: a round is a map-only Streaming job on YARN, its lines staged in HDFS.
//!
//! The id of an application is reserved and written into the run's output before anything else happens, and
//! posting it again starts nothing. So whoever comes after a crash goes on with the same application.
//! Hadoop's own verdict counts for nothing: it may lose lines silently and run tasks twice, and only commit
//! records say what was done.

mod command;
mod conf;
mod job;
mod lines;
mod polite;
mod rest;
mod split;
mod staging;
mod standing;

use crate::{Engine, Error, Observed, Round};
use async_trait::async_trait;
use conf::Conf;
use dragnet_pattern::crash;
use job::Job;
pub use polite::HostLimits;
use rest::{App, Life, Progress, Rest, down};
use staging::{Staged, Staging};
use standing::{
    Reserved, Standing, all_reserved, blocking, name_of, note_failures, reservation, standing, tag_of_run,
    tags_of,
};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The engine's name.
const NAME: &str = "hadoop";
/// How long a kill may take to show before the call is given up and made again.
const KILL_MAX: Duration = Duration::from_secs(4);
/// The first and the longest wait before a round whose application failed as a whole is submitted anew.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// Applications whose last counters are kept: another process may release them, so they are not all removed.
const SEEN_MAX: usize = 10_000;

/// How Hadoop is reached and what it runs.
#[derive(Debug, Clone)]
pub struct HadoopPolicy {
    /// The folder of a client's `*-site.xml`. All addresses come from there.
    pub conf: PathBuf,
    /// How jobs are submitted.
    pub submit: Submit,
    /// The program that is shipped; a task runs it as `./mapper map`.
    pub mapper: PathBuf,
    /// Hadoop Streaming's jar, which is shipped too; not needed for [`Submit::Rest`] where the nodes have it
    /// on their class path.
    pub streaming_jar: Option<PathBuf>,
    /// Who owns jobs and staged files; else whom the configuration names, else who runs this process.
    pub user: Option<String>,
    /// Properties that stand above the configuration's own, such as `mapreduce.job.queuename`.
    pub properties: Vec<(String, String)>,
    /// What the mapper is told beside its share of a server, such as which addresses it may connect to.
    pub mapper_flags: Vec<String>,
    /// What one server of objects may be asked for by a job.
    pub host: HostLimits,
}

/// How a job is submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submit {
    /// By the ResourceManager's REST, with our own staging: no Java stands beside this program.
    Rest,
    /// By the `hadoop` command, for clusters that ask for more than a name.
    Command {
        /// The command.
        program: PathBuf,
        /// Hadoop Streaming's jar.
        streaming: PathBuf,
    },
}

/// The engine.
pub struct Hadoop {
    policy: HadoopPolicy,
    conf: Conf,
    user: String,
    rest: Rest,
    /// Names in HDFS of local files that are shipped: they are hashed once.
    shipped: OnceLock<Shipped>,
    /// The last that was seen of a job's counters. Shown and nothing more, so a restart may forget it.
    seen: Mutex<BTreeMap<String, Progress>>,
}

#[derive(Debug, Clone)]
struct Shipped {
    mapper: String,
    streaming: Option<String>,
}

impl Hadoop {
    /// The engine over a cluster; does not call it yet.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the configuration can't be read, names no user, or has a secret that the `hadoop`
    /// command would show.
    pub fn new(policy: HadoopPolicy) -> Result<Hadoop, Error> {
        let conf = Conf::read(&policy.conf, &policy.properties)?;
        let no_user = || Error::Configuration {
            path: policy.conf.display().to_string(),
            reason: "it does not say who owns jobs, and this process has no name: name a user".into(),
        };
        let user = policy.user.clone().or_else(|| conf.web_user()).or_else(process_user);
        let user = user.ok_or_else(no_user)?;
        let by_command = matches!(policy.submit, Submit::Command { .. });
        if let Some(secret) = job::secret_for_all(&conf).filter(|_| by_command) {
            return Err(Error::Configuration {
                path: policy.conf.display().to_string(),
                reason: format!(
                    "the hadoop command would write `{secret}` into each job's job.xml, where many can read it: move it \
                     into a credential provider (`hadoop.security.credential.provider.path`), or submit by REST"
                ),
            });
        }
        let rest = Rest::new(&conf, &user)?;
        Ok(Hadoop { policy, conf, user, rest, shipped: OnceLock::new(), seen: Mutex::default() })
    }

    fn staging(&self, user: &str) -> Result<Staging, Error> {
        Staging::open(&self.policy.conf, &self.conf.default_fs(), user)
    }

    /// What is shared by all jobs of a user.
    fn shared(&self, user: &str) -> String {
        format!("{}/.dragnet", self.conf.home(user))
    }

    /// What a run has in HDFS beside its jobs' staging.
    fn scratch(&self, user: &str, run: &str) -> String {
        format!("{}/runs/{run}", self.shared(user))
    }

    fn job_folder(&self, reserved: &Reserved) -> String {
        format!("{}/{}", self.conf.staging(&reserved.user), rest::job_id(&reserved.application))
    }

    /// Files that all jobs share lie under the name of their content: staged once, and kept by the nodes.
    async fn ship(&self, staging: &Staging) -> Result<(Staged, Option<Staged>), Error> {
        let names = match self.shipped.get() {
            Some(names) => names.clone(),
            None => {
                let (mapper, jar) = (self.policy.mapper.clone(), self.policy.streaming_jar.clone());
                let named = blocking(move || {
                    let streaming = jar.as_deref().map(staging::digest).transpose()?;
                    Ok(Shipped { mapper: staging::digest(&mapper)?, streaming })
                });
                let names = named.await?;
                self.shipped.get_or_init(|| names).clone()
            }
        };
        let folder = self.shared(&self.user);
        staging.folder(&folder, 0o700).await?;
        let mapper =
            staging.put_file(&format!("{folder}/mapper-{}", names.mapper), &self.policy.mapper).await?;
        let streaming = match (&names.streaming, &self.policy.streaming_jar) {
            (Some(name), Some(local)) => {
                Some(staging.put_file(&format!("{folder}/streaming-{name}.jar"), local).await?)
            }
            _ => None,
        };
        Ok((mapper, streaming))
    }

    /// Takes a round that was reserved to one that was submitted, from wherever an earlier attempt got.
    async fn submit(&self, round: &Round, standing: &Standing, reserved: &Reserved) -> Result<(), Error> {
        let staging = self.staging(&reserved.user)?;
        let (mapper, streaming) = self.ship(&staging).await?;
        let folder = self.job_folder(reserved);
        staging.folder(&folder, 0o700).await?;
        let lines = staging.put(&format!("{folder}/lines"), standing.text.clone()).await?;
        let splits = split::encode(&lines.uri, &standing.text, reserved.lines_per_map);
        staging.put(&format!("{folder}/job.split"), splits.split).await?;
        staging.put(&format!("{folder}/job.splitmetainfo"), splits.meta).await?;
        let job = Job {
            conf: &self.conf,
            user: &reserved.user,
            application: &reserved.application,
            name: name_of(round),
            tags: tags_of(round, standing.reserved.len()),
            folder: staging.uri(&folder),
            lines: &lines,
            maps: splits.maps,
            limits: self.policy.host.settings(reserved.maps_at_once),
            mapper_arguments: job::mapper_arguments(
                &self.policy.host.share(reserved.maps_at_once),
                &self.policy.mapper_flags,
            ),
            mapper: &mapper,
            streaming: streaming.as_ref(),
        };
        let xml = staging.put(&format!("{folder}/job.xml"), job.xml().into_bytes()).await?;
        crash::point(NAME, "staged");
        self.rest.submit(&job.submission(&xml)).await?;
        crash::point(NAME, "submitted");
        Ok(())
    }

    /// Starts the round's application number `attempt`, from 1.
    async fn start(&self, round: &Round, mut standing: Standing, attempt: usize) -> Result<(), Error> {
        let output = round.output.clone();
        let (number, text) = (round.number, standing.text.clone());
        let host = self.policy.host.clone();
        let (lines_per_map, maps_at_once) = blocking(move || {
            let plan = lines::plan(&output)?;
            Ok((lines::per_map(&plan, number, &text), host.maps_at_once(&plan)))
        })
        .await?;
        let application = match &self.policy.submit {
            Submit::Rest => self.rest.new_application().await?,
            Submit::Command { program, streaming } => {
                let tags = tags_of(round, attempt);
                let tag = tags.last().map(String::as_str).unwrap_or_default();
                match self.newest(tag).await? {
                    Some(app) => app.id,
                    None => {
                        let cut = (lines_per_map, maps_at_once);
                        self.by_command(round, &standing, &tags, cut, program, streaming).await?
                    }
                }
            }
        };
        let reserved = Reserved { application, user: self.user.clone(), lines_per_map, maps_at_once };
        // Another attempt may have been first: its application is the round's.
        let (output, name) = (round.output.clone(), reservation(round.number, attempt));
        let reserved: Reserved = blocking(move || {
            output.put_json(&name, &reserved)?;
            Ok(output.read_json(&name)?.unwrap_or(reserved))
        })
        .await?;
        crash::point(NAME, "reserved");
        standing.reserved.push(reserved.clone());
        match self.policy.submit {
            Submit::Rest => self.submit(round, &standing, &reserved).await,
            Submit::Command { .. } => Ok(()),
        }
    }

    /// Stages the lines, runs the command and finds what it started by its tag.
    async fn by_command(
        &self,
        round: &Round,
        standing: &Standing,
        tags: &[String],
        (lines_per_map, maps_at_once): (usize, Option<usize>),
        program: &Path,
        streaming: &Path,
    ) -> Result<String, Error> {
        let staging = self.staging(&self.user)?;
        let (mapper, _) = self.ship(&staging).await?;
        let scratch = self.scratch(&self.user, &round.run);
        staging.folder(&scratch, 0o700).await?;
        let tag = tags.last().map(String::as_str).unwrap_or_default();
        let lines = staging.put(&format!("{scratch}/{tag}.lines"), standing.text.clone()).await?;
        let mut settings: BTreeMap<String, String> = self.policy.properties.iter().cloned().collect();
        settings.extend(job::settings(&self.conf, self.policy.host.settings(maps_at_once)));
        let submission = command::Submission {
            conf: &self.policy.conf,
            user: &self.user,
            name: &name_of(round),
            tags,
            settings,
            lines_per_map,
            mapper_arguments: job::mapper_arguments(
                &self.policy.host.share(maps_at_once),
                &self.policy.mapper_flags,
            ),
            lines: &lines.uri,
            scratch: &staging.uri(&format!("{scratch}/{tag}.out")),
            mapper: &mapper.uri,
        };
        crash::point(NAME, "before_command");
        command::submit(program, streaming, &submission).await?;
        crash::point(NAME, "after_command");
        let lost = || down(format!("the hadoop command ended well, and no application has the tag `{tag}`"));
        Ok(self.newest(tag).await?.ok_or_else(lost)?.id)
    }

    async fn newest(&self, tag: &str) -> Result<Option<App>, Error> {
        Ok(self.rest.tagged(tag).await?.into_iter().max_by(|a, b| a.id.cmp(&b.id)))
    }

    /// What is to be shown of an application; what is not known now is what was last seen.
    async fn progress(&self, application: &str, life: Option<Life>) -> Progress {
        let known = self.seen().get(application).copied();
        let now = match life {
            Some(Life::Pending) => None,
            Some(Life::Running) => self.rest.live(application).await,
            // Of what has ended nothing changes any more.
            None if known.is_some() => None,
            Some(Life::Succeeded | Life::Failed) | None => self.rest.ended(application).await,
        };
        let before = known.unwrap_or_default();
        let now = now.map_or(Progress { running: 0, ..before }, |now| Progress {
            // Counters of attempts that were lost are taken back by Hadoop, but not by us.
            bytes_read: now.bytes_read.max(before.bytes_read),
            attempts_failed: now.attempts_failed.max(before.attempts_failed),
            running: now.running,
        });
        let mut seen = self.seen();
        if seen.len() >= SEEN_MAX {
            seen.clear();
        }
        seen.insert(application.to_owned(), now);
        now
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Progress>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An application that failed as a whole, or was killed by somebody else, is the cluster's trouble and
    /// not the shards': after a while the round is submitted anew.
    async fn again(&self, round: &Round, standing: Standing, app: &App) -> Result<(), Error> {
        let failed = standing.reserved.len();
        let wait = AGAIN.0.saturating_mul(1 << (failed - 1).min(8)).min(AGAIN.1);
        let ended = SystemTime::UNIX_EPOCH + Duration::from_millis(app.finished_ms);
        // Where the clocks differ the wait is shorter, never longer than it should be.
        let left =
            SystemTime::now().duration_since(ended).map_or(Duration::ZERO, |gone| wait.saturating_sub(gone));
        if left > Duration::ZERO {
            let said: String = app.diagnostics.lines().next().unwrap_or_default().chars().take(300).collect();
            let status = if app.final_status.is_empty() { &app.state } else { &app.final_status };
            return Err(down(format!(
                "`{}` ended as {status}; it is submitted anew in {} s: {said}",
                app.id,
                left.as_secs() + 1
            )));
        }
        self.start(round, standing, failed + 1).await
    }

    /// Kills an application and waits until it shows.
    async fn kill(&self, application: &str) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            match self.rest.app(application).await? {
                Some(app) if !app.has_ended() => {}
                _ => return Ok(()),
            }
            self.rest.kill(application).await?;
            if begun.elapsed() > KILL_MAX {
                return Err(down(format!("`{application}` does not end although it was killed")));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[async_trait]
impl Engine for Hadoop {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn reach(&self) -> Result<(), Error> {
        self.rest.active().await?;
        // The NameNode has to answer, not to know the folder.
        self.staging(&self.user)?.find(&self.conf.home(&self.user)).await.map(drop)
    }

    async fn launch(&self, round: &Round) -> Result<(), Error> {
        let standing = standing(round).await?;
        if standing.over || standing.text.is_empty() {
            return Ok(());
        }
        let Some(last) = standing.reserved.last().cloned() else {
            return self.start(round, standing, 1).await;
        };
        // What was submitted has its staging; what only was reserved may not have it yet.
        let known = self.rest.app(&last.application).await?;
        if known.is_some() || self.policy.submit != Submit::Rest {
            return Ok(());
        }
        self.submit(round, &standing, &last).await
    }

    async fn observe(&self, _tenant: &str, round: &Round) -> Result<Observed, Error> {
        let standing = standing(round).await?;
        let mut observed = Observed { ended: true, ..Observed::default() };
        for application in &standing.earlier {
            let progress = self.progress(application, None).await;
            observed.bytes_read += progress.bytes_read;
            observed.attempts_failed += progress.attempts_failed;
        }
        let Some(last) = standing.reserved.last() else { return Ok(observed) };
        let app = self.rest.app(&last.application).await?;
        // An application that nobody remembers is over: what it has not committed goes to another round.
        let life = app.as_ref().map(App::life);
        let progress = self.progress(&last.application, life).await;
        observed.bytes_read += progress.bytes_read;
        observed.attempts_failed += progress.attempts_failed;
        match (life, app) {
            (Some(Life::Pending | Life::Running), _) => {
                observed.ended = false;
                observed.running = progress.running;
            }
            (Some(Life::Succeeded), _) => {
                let (output, text, last) = (round.output.clone(), standing.text, last.clone());
                let number = round.number;
                blocking(move || note_failures(&output, number, &text, &last)).await?;
            }
            (Some(Life::Failed), Some(app)) if !standing.over => {
                self.again(round, standing, &app).await?;
                observed.ended = false;
            }
            _ => {}
        }
        Ok(observed)
    }

    async fn stop(&self, round: &Round) -> Result<(), Error> {
        let (output, mark) = (round.output.clone(), round.stop_mark());
        blocking(move || Ok(output.put(&mark, b"")?)).await?;
        for reserved in standing(round).await?.reserved {
            if self.rest.app(&reserved.application).await?.is_some_and(|app| !app.has_ended()) {
                self.rest.kill(&reserved.application).await?;
            }
        }
        Ok(())
    }

    async fn release(&self, round: &Round) -> Result<(), Error> {
        let output = round.output.clone();
        let reserved = blocking(move || {
            output.close()?;
            all_reserved(&output)
        })
        .await?;
        // By the tag too: what was started and never written down.
        let tag = tag_of_run(&round.run);
        let mut applications: BTreeSet<(String, String)> =
            reserved.into_iter().map(|r| (r.application, r.user)).collect();
        let tagged = self.rest.tagged(&tag).await?;
        applications.extend(tagged.into_iter().map(|app| (app.id, self.user.clone())));
        let mut users = BTreeSet::from([self.user.clone()]);
        for (application, user) in applications {
            self.kill(&application).await?;
            let folder = format!("{}/{}", self.conf.staging(&user), rest::job_id(&application));
            self.staging(&user)?.remove(&folder).await?;
            self.seen().remove(&application);
            users.insert(user);
        }
        for user in users {
            self.staging(&user)?.remove(&self.scratch(&user, &round.run)).await?;
        }
        crash::point(NAME, "released");
        Ok(())
    }
}

/// Whoever runs this process, by the system's list of users.
fn process_user() -> Option<String> {
    let id = std::fs::metadata("/proc/self").ok()?.uid().to_string();
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|line| line.get(2) == Some(&&*id))?;
    Some(line[0].to_owned())
}
