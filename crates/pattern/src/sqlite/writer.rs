//! The one writer of a process: requests queue up, and what has gathered while the last commit was on its
//! way to the disk goes into the next one. A client is answered after the commit that holds its request.
//!
//! Each request has a savepoint, so that its own error takes back nothing of the others'. A full disk or an
//! I/O error is another matter: SQLite may already have rolled back, so the whole batch fails.

use super::Tx;
use crate::Error;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};
use tokio::sync::oneshot;

/// The most requests in one commit.
const BATCH_MAX: usize = 512;

/// A request in the queue: run in its savepoint, then told how the commit went.
trait Request: Send {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Error>;
    fn answer(self: Box<Self>, committed: Result<(), Error>);
}

struct Job<F, T> {
    work: Option<F>,
    result: Option<Result<T, Error>>,
    reply: oneshot::Sender<Result<T, Error>>,
}

impl<F, T> Request for Job<F, T>
where
    F: FnOnce(&mut Tx<'_>) -> Result<T, Error> + Send,
    T: Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Error> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let result = work(tx);
        let failed = result.as_ref().err().cloned();
        self.result = Some(result);
        failed.map_or(Ok(()), Err)
    }

    fn answer(self: Box<Self>, committed: Result<(), Error>) {
        let not_run = || Err(Error::Unavailable("the transaction was given up before this request".into()));
        let result = match (committed, self.result) {
            // What the request itself was refused for is the better answer than why the batch failed.
            (Err(e), Some(Ok(_)) | None) => Err(e),
            (_, result) => result.unwrap_or_else(not_run),
        };
        // Nobody waits any more where the client has gone.
        let _ = self.reply.send(result);
    }
}

/// A handle on the writer's thread; the thread ends with the last handle.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Request>>,
}

/// Called after a commit with the groups whose messages it made due.
pub(super) type OnCommit = Arc<dyn Fn(&BTreeSet<String>) + Send + Sync>;

impl Writer {
    pub(super) fn start(connection: Connection, on_commit: OnCommit) -> std::io::Result<Writer> {
        let (queue, requests) = mpsc::channel();
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || write_all(connection, &requests, &on_commit))?;
        Ok(Writer { queue })
    }

    /// Runs `work` in a transaction and answers after its commit.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let gone = || Error::Unavailable("its writer has ended".into());
        let (reply, answer) = oneshot::channel();
        let job = Job { work: Some(work), result: None, reply };
        self.queue.send(Box::new(job)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn write_all(mut connection: Connection, requests: &mpsc::Receiver<Box<dyn Request>>, on_commit: &OnCommit) {
    while let Ok(first) = requests.recv() {
        let mut batch = vec![first];
        batch.extend(requests.try_iter().take(BATCH_MAX - 1));
        let mut woken = BTreeSet::new();
        let committed = commit(&mut connection, &mut batch, &mut woken);
        if let Err(e) = &committed {
            tracing::warn!(error = %e, requests = batch.len(), "a commit failed");
        } else {
            on_commit(&woken);
        }
        for request in batch {
            request.answer(committed.clone());
        }
    }
}

fn commit(
    connection: &mut Connection,
    batch: &mut [Box<dyn Request>],
    woken: &mut BTreeSet<String>,
) -> Result<(), Error> {
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(super::error)?;
    let now = super::now_ms(&transaction)?;
    for request in batch {
        // By cached statements: rusqlite's own savepoints are compiled anew each time, and that is a tenth
        // of a submission.
        let run = |sql| transaction.prepare_cached(sql).and_then(|mut s| s.execute([])).map_err(super::error);
        run("savepoint request")?;
        let mut tx = Tx { connection: &transaction, now, woken: BTreeSet::new() };
        match request.run(&mut tx) {
            Ok(()) => woken.append(&mut tx.woken),
            Err(Error::Unavailable(reason)) => return Err(Error::Unavailable(reason)),
            // This request is taken back, and the others stay.
            Err(_) => drop(run("rollback to request")?),
        }
        run("release request")?;
    }
    transaction.commit().map_err(super::error)
}

/// What another attempt may mend: a lock that is held, a full disk, an I/O error, no memory.
pub(super) fn is_transient(code: ErrorCode) -> bool {
    use ErrorCode::{CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory, SystemIoFailure};
    matches!(code, DatabaseBusy | DatabaseLocked | DiskFull | SystemIoFailure | OutOfMemory | CannotOpen)
}
