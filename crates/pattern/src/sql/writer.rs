//! Writers of a process: requests queue up, and what has gathered while the last commit was on its way to
//! the disk goes into the next one. A client is answered after the commit that holds its request.
//!
//! In a batch each request has a savepoint, so that its own error takes back nothing of the others'. A full
//! disk, an I/O error or a lost connection is another matter: the whole batch fails.

use super::{Access, Connect, Db, Tx, together, verbs};
use crate::Error;
use crate::store::{Accept, Accepted, Work};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use tokio::sync::oneshot;

/// How requests are committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batches {
    /// Connections that write at once.
    pub(crate) writers: usize,
    /// The most requests in one commit.
    pub(crate) most: usize,
}

/// A request in the queue: run in its savepoint, then told how the commit went.
trait Request: Send {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Error>;
    fn answer(self: Box<Self>, committed: Result<(), Error>);

    /// What is to be accepted, where the request is no more than that and was not run yet.
    fn asked(&self) -> Option<&Asked> {
        None
    }

    /// Takes note that it was accepted together with others, when the transaction began at `now`.
    fn accepted(&mut self, _now: i64) {}
}

/// A request to be accepted, with its work as it begins.
pub(super) struct Asked {
    pub(super) work: Work,
    pub(super) spec: String,
    pub(super) accept: Accept,
}

struct Acceptance {
    asked: Option<Asked>,
    result: Option<Result<Accepted, Error>>,
    reply: oneshot::Sender<Result<Accepted, Error>>,
}

impl Request for Acceptance {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Error> {
        let Some(Asked { work, spec, accept }) = self.asked.take() else { return Ok(()) };
        let result = verbs::accept(tx, work, &spec, accept);
        let failed = result.as_ref().err().cloned();
        self.result = Some(result);
        failed.map_or(Ok(()), Err)
    }

    fn answer(self: Box<Self>, committed: Result<(), Error>) {
        reply(self.reply, self.result, committed);
    }

    fn asked(&self) -> Option<&Asked> {
        self.asked.as_ref()
    }

    fn accepted(&mut self, now: i64) {
        let Some(Asked { work, accept, .. }) = self.asked.take() else { return };
        let deadline_ms = verbs::deadline(&accept, now);
        let work = Work { created_ms: now, deadline_ms, ..work };
        self.result = Some(Ok(Accepted { work, replayed: false }));
    }
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
        reply(self.reply, self.result, committed);
    }
}

/// Tells who asked how it went.
fn reply<T>(
    to: oneshot::Sender<Result<T, Error>>,
    result: Option<Result<T, Error>>,
    committed: Result<(), Error>,
) {
    let not_run = || Err(Error::Unavailable("the transaction was given up before this request".into()));
    let result = match (committed, result) {
        // What the request itself was refused for is the better answer than why the batch failed.
        (Err(e), Some(Ok(_)) | None) => Err(e),
        (_, result) => result.unwrap_or_else(not_run),
    };
    // Nobody waits any more where the client has gone.
    let _ = to.send(result);
}

/// A handle on the writer's thread; the thread ends with the last handle.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Request>>,
}

/// Called after a commit with the groups whose messages it made due.
pub(crate) type OnCommit = Arc<dyn Fn(&BTreeSet<String>) + Send + Sync>;

impl Writer {
    pub(super) fn start(batches: Batches, connect: Connect, on_commit: OnCommit) -> std::io::Result<Writer> {
        let (queue, requests) = mpsc::channel();
        let requests = Arc::new(Mutex::new(requests));
        for _ in 0..batches.writers {
            let (requests, connect, on_commit) = (requests.clone(), connect.clone(), on_commit.clone());
            std::thread::Builder::new()
                .name("store-writer".into())
                .spawn(move || write_all(&connect, &requests, batches.most, &on_commit))?;
        }
        Ok(Writer { queue })
    }

    /// Runs `work` in a transaction and answers after its commit.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Box::new(Job { work: Some(work), result: None, reply }), answer).await
    }

    /// Accepts a request, and answers after the commit that holds it.
    pub(super) async fn accept(&self, asked: Asked) -> Result<Accepted, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Box::new(Acceptance { asked: Some(asked), result: None, reply }), answer).await
    }

    async fn ask<T>(
        &self,
        request: Box<dyn Request>,
        answer: oneshot::Receiver<Result<T, Error>>,
    ) -> Result<T, Error> {
        let gone = || Error::Unavailable("its writer has ended".into());
        self.queue.send(request).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

type Requests = mpsc::Receiver<Box<dyn Request>>;

fn write_all(connect: &Connect, requests: &Mutex<Requests>, most: usize, on_commit: &OnCommit) {
    let mut kept: Option<Box<dyn Db>> = None;
    while let Some(mut batch) = gather(requests, most) {
        let mut woken = BTreeSet::new();
        let committed = super::begun(kept.take(), connect, Access::Write).and_then(|mut db| {
            let committed = commit(&mut *db, &mut batch, &mut woken);
            kept = Some(db);
            committed
        });
        if let Err(e) = &committed {
            tracing::warn!(error = %e, requests = batch.len(), "a commit failed");
        } else {
            on_commit(&woken);
        }
        let told = committed.is_ok();
        for request in batch {
            request.answer(committed.clone());
        }
        if let Some(db) = kept.as_mut().filter(|_| told && !woken.is_empty()) {
            db.tell(&woken);
        }
    }
}

/// What waits; `None` when nothing will come any more.
fn gather(requests: &Mutex<Requests>, most: usize) -> Option<Vec<Box<dyn Request>>> {
    let requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
    let mut batch = vec![requests.recv().ok()?];
    batch.extend(requests.try_iter().take(most - 1));
    Some(batch)
}

fn commit(
    db: &mut dyn Db,
    batch: &mut [Box<dyn Request>],
    woken: &mut BTreeSet<String>,
) -> Result<(), Error> {
    match run_all(db, batch, woken) {
        Ok(true) => db.execute("commit", &[]).map(drop),
        // A request that was alone is taken back with its transaction.
        Ok(false) => db.execute("rollback", &[]).map(drop),
        Err(e) => {
            // The connection may be gone, or SQLite have rolled back by itself.
            let _ = db.execute("rollback", &[]);
            Err(e)
        }
    }
}

/// Runs the requests; says whether there is something to commit.
fn run_all(
    db: &mut dyn Db,
    batch: &mut [Box<dyn Request>],
    woken: &mut BTreeSet<String>,
) -> Result<bool, Error> {
    let now = db.now_ms()?;
    let alone = batch.len() == 1;
    if db.is_shared() {
        // In one order, so that no two processes wait for each other's keys in a circle.
        batch.sort_by(|a, b| key_of(&**a).cmp(&key_of(&**b)));
    }
    if !alone && db.is_shared() && accept_together(db, batch, now, woken)? {
        return Ok(true);
    }
    for request in batch {
        if !alone {
            db.execute("savepoint request", &[])?;
        }
        let mut tx = Tx { db: &mut *db, now, woken: BTreeSet::new() };
        match request.run(&mut tx) {
            Ok(()) => woken.append(&mut tx.woken),
            Err(Error::Unavailable(reason)) => return Err(Error::Unavailable(reason)),
            Err(_) if alone => return Ok(false),
            // This request is taken back, and the others stay.
            Err(_) => drop(db.execute("rollback to request", &[])?),
        }
        if !alone {
            db.execute("release request", &[])?;
        }
    }
    Ok(true)
}

/// The idempotency key of a request that is to be accepted, made unique by tenant and scope.
fn key_of(request: &dyn Request) -> Option<(&str, &str, &str)> {
    let accept = &request.asked()?.accept;
    accept.key.as_ref().map(|key| (&*accept.tenant, &*key.scope, &*key.key))
}

/// Where each statement is a journey to a server, requests that are all to be accepted go there together. Says no,
/// and leaves nothing, where one of them is not as simple as that: then each goes by itself.
fn accept_together(
    db: &mut dyn Db,
    batch: &mut [Box<dyn Request>],
    now: i64,
    woken: &mut BTreeSet<String>,
) -> Result<bool, Error> {
    let Some(asked) = batch.iter().map(|request| request.asked()).collect::<Option<Vec<&Asked>>>() else {
        return Ok(false);
    };
    db.execute("savepoint together", &[])?;
    let mut tx = Tx { db: &mut *db, now, woken: BTreeSet::new() };
    match together::accept(&mut tx, &asked) {
        Ok(true) => woken.append(&mut tx.woken),
        Err(Error::Unavailable(reason)) => return Err(Error::Unavailable(reason)),
        answer => {
            if let Err(e) = answer {
                tracing::warn!(error = %e, "requests could not be accepted together");
            }
            db.execute("rollback to together", &[])?;
            return Ok(false);
        }
    }
    batch.iter_mut().for_each(|request| request.accepted(now));
    Ok(true)
}
