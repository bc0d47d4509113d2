//! What clients did over HTTP, on its way to the audit log: gathered and written beside the requests, so that none
//! of them waits for it.
//!
//! A line may be lost where the store is away for long or the process is killed. What a client did to a job stands
//! in the job's events as well, which are written with it.

use dragnet_pattern::{Statement, Store};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Lines that may be on their way.
const LINES_MAX: usize = 8192;
/// Lines of one transaction.
const BATCH_MAX: usize = 256;
/// How often lines are tried before they are given up.
const TRIES: u32 = 5;

/// Where lines go in.
#[derive(Debug, Clone)]
pub(crate) struct Trail {
    lines: mpsc::Sender<Statement>,
}

impl Trail {
    /// A trail, and what writes it for as long as there is one.
    pub(crate) fn new(store: Arc<dyn Store>) -> (Trail, impl Future<Output = ()> + Send + 'static) {
        let (lines, waiting) = mpsc::channel(LINES_MAX);
        (Trail { lines }, write(store, waiting))
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
