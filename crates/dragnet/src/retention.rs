//! How long jobs and keys are kept: by default for ever, and with `--keep-…-days` so long after their end.
//!
//! A job's output goes first and its rows after that, so that nothing is left when the process dies in between. Its lines
//! in the ledger and in the audit log stay: they are what was paid and who did it.

use anyhow::Context;
use dragnet_job::hits;
use dragnet_job::spec::JobSpec;
use dragnet_pattern::{Error, Expired, Statement, Store, Value};
use dragnet_run::{Output, uri};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// For how long things are kept.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Retention")]
pub(crate) struct RetentionArgs {
    /// Days after its end at which a job goes: its hits, coverage, bill, events and key, not its lines in the ledger
    /// [default: never]
    #[arg(long, value_name = "DAYS")]
    keep_jobs_days: Option<f64>,
    /// Days after a job's end at which its events go, if it is kept longer [default: with the job]
    #[arg(long, hide_short_help = true, value_name = "DAYS")]
    keep_events_days: Option<f64>,
    /// Days after a job's end at which its hits go, if it is kept longer; coverage, digest and bill stay [default: with the
    /// job]
    #[arg(long, hide_short_help = true, value_name = "DAYS")]
    keep_hits_days: Option<f64>,
    /// Days after their end at which API keys that expired or were revoked are forgotten [default: never]
    #[arg(long, hide_short_help = true, value_name = "DAYS")]
    keep_keys_days: Option<f64>,
    /// Seconds between two looks at what is to go
    #[arg(long, hide_short_help = true, value_name = "S", default_value_t = 60.0)]
    retention_s: f64,
}

/// Jobs that are removed in one transaction.
const AT_ONCE: usize = 100;
/// Jobs that can't go now and are passed over in one look.
const STAY_MAX: usize = 10_000;
/// How long after a job's end an event of it is to be expected: Shutdown sweeps a second time.
const LATE_MS: i64 = 3_600_000;
/// After this all jobs are looked at again: what is plugged in may write of them for days.
const AGAIN: Duration = Duration::from_secs(86_400);

/// Up to where a housekeeper has been, in the order in which jobs ended.
#[derive(Default)]
struct Walk {
    ended_ms: i64,
    id: String,
}

/// Up to where each kind of thing has gone, since when.
struct Gone {
    since: Instant,
    events: Walk,
    hits: Walk,
}

impl Gone {
    fn nothing() -> Gone {
        Gone { since: Instant::now(), events: Walk::default(), hits: Walk::default() }
    }
}

impl RetentionArgs {
    fn flags(&self) -> [(&'static str, Option<f64>); 4] {
        [
            ("--keep-jobs-days", self.keep_jobs_days),
            ("--keep-events-days", self.keep_events_days),
            ("--keep-hits-days", self.keep_hits_days),
            ("--keep-keys-days", self.keep_keys_days),
        ]
    }

    /// Whether anything goes some day.
    pub(crate) fn is_on(&self) -> bool {
        self.flags().iter().any(|(_, days)| days.is_some())
    }

    /// Refuses what can't be meant.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for (flag, days) in self.flags() {
            if days.is_some_and(|days| !(0.0..=1e6).contains(&days)) {
                anyhow::bail!("`{flag}` takes a number of days from 0 to 1000000");
            }
        }
        Ok(())
    }

    /// Removes what is due until the process is to stop.
    pub(crate) async fn keep_house(self, store: Arc<dyn Store>, mut stop: watch::Receiver<bool>) {
        let mut gone = Gone::nothing();
        let pause = Duration::try_from_secs_f64(self.retention_s).unwrap_or(Duration::from_secs(60));
        loop {
            if gone.since.elapsed() >= AGAIN {
                gone = Gone::nothing();
            }
            if let Err(e) = self.remove_due(&*store, &mut gone, &stop).await {
                tracing::warn!(error = format!("{e:#}"), "could not remove what is too old");
            }
            tokio::select! {
                () = tokio::time::sleep(pause.max(Duration::from_millis(10))) => {}
                _ = stop.wait_for(|stopped| *stopped) => return,
            }
        }
    }

    async fn remove_due(
        &self,
        store: &dyn Store,
        gone: &mut Gone,
        stop: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        if let Some(days) = self.keep_keys_days {
            dragnet_tenant::keys::forget(store, before_ms(days)).await?;
        }
        if let Some(days) = self.keep_events_days {
            remove_events(store, before_ms(days), &mut gone.events, stop).await?;
        }
        if let Some(days) = self.keep_hits_days {
            remove_hits(store, before_ms(days), &mut gone.hits, stop).await?;
        }
        match self.keep_jobs_days {
            Some(days) => remove_jobs(store, before_ms(days), stop).await,
            None => Ok(()),
        }
    }
}

impl Walk {
    /// The next jobs that ended before a time, by tenant and id.
    async fn next(&mut self, store: &dyn Store, before_ms: i64) -> Result<Vec<Expired>, Error> {
        let sql = "select ended_ms, id, tenant from work where ended_ms < ?1 and (ended_ms, id) > (?2, ?3) \
                   order by ended_ms, id limit ?4";
        let values =
            vec![before_ms.into(), self.ended_ms.into(), self.id.as_str().into(), (AT_ONCE as i64).into()];
        let jobs = store.query(Statement::new(sql, values)).await?;
        if let Some(last) = jobs.last() {
            (self.ended_ms, self.id) = (last[0].int(), last[1].text().to_owned());
        }
        let job = |row: Vec<Value>| Expired { tenant: row[2].text().into(), work: row[1].text().into() };
        Ok(jobs.into_iter().map(job).collect())
    }
}

/// Removes events of jobs that ended before a time. Each look goes on where the last one ended, but for those jobs that may
/// have written once more.
async fn remove_events(
    store: &dyn Store,
    before_ms: i64,
    gone: &mut Walk,
    stop: &watch::Receiver<bool>,
) -> Result<(), Error> {
    let mut walk = Walk { ended_ms: gone.ended_ms - LATE_MS, id: String::new() };
    while !*stop.borrow() {
        let jobs = walk.next(store, before_ms).await?;
        if jobs.is_empty() {
            break;
        }
        let of_job = |job: &Expired| {
            Statement::new("delete from event where work_id = ?1", vec![job.work.as_str().into()])
        };
        store.write(jobs.iter().map(of_job).collect()).await?;
    }
    *gone = walk;
    Ok(())
}

/// Removes hits of jobs that ended before a time, and keeps the jobs. If some can't be removed now, the next look begins
/// with them.
async fn remove_hits(
    store: &dyn Store,
    before_ms: i64,
    gone: &mut Walk,
    stop: &watch::Receiver<bool>,
) -> Result<(), Error> {
    let mut walk = Walk { ended_ms: gone.ended_ms, id: gone.id.clone() };
    let mut failed = false;
    while !*stop.borrow() {
        let jobs = walk.next(store, before_ms).await?;
        if jobs.is_empty() {
            break;
        }
        for job in jobs {
            if let Err(e) = expire_hits(store, &job).await {
                failed = true;
                tracing::warn!(work = job.work, tenant = job.tenant, error = %e, "could not remove a job's hits");
            }
        }
        if !failed {
            *gone = Walk { ended_ms: walk.ended_ms, id: walk.id.clone() };
        }
    }
    Ok(())
}

async fn expire_hits(store: &dyn Store, job: &Expired) -> Result<(), hits::Error> {
    let sql = "select removed from hits_expired where work_id = ?1";
    let noted = store.query(Statement::new(sql, vec![job.work.as_str().into()])).await?;
    if noted.first().is_some_and(|row| row[0].int() == 1) {
        return Ok(());
    }
    match store.work(&job.tenant, &job.work).await? {
        Some((work, _)) => hits::expire(store, &work).await,
        None => Ok(()),
    }
}

/// Removes jobs that ended before a time.
async fn remove_jobs(store: &dyn Store, before_ms: i64, stop: &watch::Receiver<bool>) -> anyhow::Result<()> {
    // Those that could not go now; the others must not wait for them.
    let mut stay = HashSet::new();
    while !*stop.borrow() && stay.len() < STAY_MAX {
        let mut expired = store.expired(before_ms, AT_ONCE + stay.len()).await?;
        expired.retain(|job| !stay.contains(&job.work));
        if expired.is_empty() {
            return Ok(());
        }
        let mut removed = Vec::with_capacity(expired.len());
        for job in expired {
            let (id, tenant) = (job.work.clone(), job.tenant.clone());
            match remove_output(store, job).await {
                Ok(()) => removed.push(id),
                // It stays until its output can be removed.
                Err(e) => {
                    tracing::warn!(
                        work = id,
                        tenant,
                        error = format!("{e:#}"),
                        "could not remove a job's output"
                    );
                    stay.insert(id);
                }
            }
        }
        let purged = store.purge(removed.clone(), before_ms).await?;
        tracing::info!(jobs = purged, "removed jobs that had been kept long enough");
        // Somebody is at one of them: the next look finds it again.
        if purged < removed.len() {
            stay.extend(removed);
        }
    }
    Ok(())
}

fn before_ms(days: f64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_millis() as f64 - days * 86_400_000.0) as i64
}

/// Removes all that a job has in its output.
async fn remove_output(store: &dyn Store, job: Expired) -> anyhow::Result<()> {
    let Some((work, _)) = store.work(&job.tenant, &job.work).await? else { return Ok(()) };
    let spec: JobSpec = serde_json::from_value(work.spec).context("read the job's spec")?;
    let Some(root) = spec.output else { return Ok(()) };
    let removed = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
        let output = Output::at(&root)?.of_job(&job.tenant, &job.work);
        // On this machine folders go with their files.
        let Ok(folder) = uri::to_path(&output.uri()) else { return Ok(output.clean(|_| false).map(drop)?) };
        match std::fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("remove `{}`", folder.display()))
            }
            _ => Ok(()),
        }
    });
    removed.await??;
    Ok(())
}
