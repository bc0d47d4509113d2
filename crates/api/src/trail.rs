//! What clients did over HTTP, on its way to the audit log: gathered and written beside the requests, so that none
//! of them waits for it.
//!
//! A line may be lost where the store is away for long or the process is killed. What a client did to a job stands
//! in the job's events as well, which are written with it.

use dragnet_pattern::{Statement, Store};
use dragnet_tenant::audit::Act;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Lines that may be on their way.
const LINES_MAX: usize = 8192;
/// Lines of one transaction.
const BATCH_MAX: usize = 256;
/// How often lines are tried before they are given up.
const TRIES: u32 = 5;

/// For so long the same refusal of the same key is one line: the log is for ever, and whoever has a key could fill the disk.
const SAME: Duration = Duration::from_secs(60);
/// Refusals that are remembered.
const SAME_MAX: usize = 10_000;

/// Where lines go in.
#[derive(Debug, Clone)]
pub(crate) struct Trail {
    lines: mpsc::Sender<Statement>,
    refused: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Trail {
    /// A trail, and what writes it for as long as there is one.
    pub(crate) fn new(store: Arc<dyn Store>) -> (Trail, impl Future<Output = ()> + Send + 'static) {
        let (lines, waiting) = mpsc::channel(LINES_MAX);
        (Trail { lines, refused: Arc::default() }, write(store, waiting))
    }

    /// Notes a refusal, unless the same was noted a moment ago.
    pub(crate) fn refuse(&self, act: &Act, tenant: &str, action: &str, target: &str, why: &str) {
        let same = format!("{} {action} {why}", act.actor);
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= SAME_MAX {
            refused.retain(|_, at| at.elapsed() < SAME);
        }
        let is_new = refused.get(&same).is_none_or(|at| at.elapsed() >= SAME);
        if is_new && refused.len() < SAME_MAX {
            refused.insert(same, Instant::now());
            self.note(act.statement(tenant, action, target, why));
        }
    }

    /// Notes a line.
    pub(crate) fn note(&self, line: Statement) {
        if self.lines.try_send(line).is_err() {
            tracing::error!("a line of the audit log is lost: too many wait to be written");
        }
    }
}

async fn write(store: Arc<dyn Store>, mut waiting: mpsc::Receiver<Statement>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let mut tries = 0;
        while let Err(e) = store.write(batch.clone()).await {
            tries += 1;
            if tries >= TRIES || !e.is_transient() {
                tracing::error!(error = %e, lines = batch.len(), "lines of the audit log are lost");
                break;
            }
            let pace = (Duration::from_millis(100), Duration::from_secs(2));
            tokio::time::sleep(dragnet_pattern::full_jitter(pace, tries)).await;
        }
        batch.clear();
    }
}
