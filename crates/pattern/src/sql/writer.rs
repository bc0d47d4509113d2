//! Writers of a process: requests queue up, and what has gathered while the last commit was on its way to
//! the disk goes into the next one. A client is answered after the commit that holds its request.
//!
//! In a batch each request's own error takes back nothing of the others': it comes before the request has changed
//! anything, or the batch is run again with a savepoint for each. A full disk, an I/O error or a lost connection is
//! another matter: the whole batch fails.

use super::steps::{self, Stepping};
use super::{Access, Connect, Db, Tx, accept, together};
use crate::Error;
use crate::store::{Accept, Accepted, Work};
use std::collections::{BTreeSet, HashSet};
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

/// A request in the queue: run in its transaction, then told how the commit went.
///
/// It may be run more than once, as what it ran in may be taken back for another's fault.
trait Request: Send {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Error>;
    fn answer(self: Box<Self>, committed: Result<(), Error>);

    /// What is to be accepted, where the request is no more than that.
    fn asked(&self) -> Option<&Asked> {
        None
    }

    /// Takes note that it was accepted together with others, when the transaction began at `now`.
    fn accepted(&mut self, _now: i64) {}

    /// The step that is to be taken, where the request is no more than that.
    fn stepping(&self) -> Option<&Stepping> {
        None
    }

    /// Takes note that its step was taken together with others.
    fn stepped(&mut self, _ended: bool) {}
}

/// A request to be accepted, with its work as it begins.
pub(super) struct Asked {
    pub(super) work: Work,
    pub(super) spec: String,
    pub(super) accept: Accept,
}

struct Acceptance {
    asked: Asked,
    /// When it was run, and the work that the same request had made before.
    result: Option<Result<(i64, Option<Work>), Error>>,
    reply: oneshot::Sender<Result<Accepted, Error>>,
}

impl Request for Acceptance {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Error> {
        let now = tx.now;
        run_into(&mut self.result, accept::accept(tx, &self.asked).map(|before| (now, before)))
    }

    fn answer(self: Box<Self>, committed: Result<(), Error>) {
        let Asked { work, accept, .. } = self.asked;
        let accepted = |(now, before): (i64, Option<Work>)| match before {
            Some(work) => Accepted { work, replayed: true },
            None => {
                let deadline_ms = accept::deadline(&accept, now);
                Accepted { work: Work { created_ms: now, deadline_ms, ..work }, replayed: false }
            }
        };
        reply(self.reply, self.result.map(|result| result.map(accepted)), committed);
    }

    fn asked(&self) -> Option<&Asked> {
        Some(&self.asked)
    }

    fn accepted(&mut self, now: i64) {
        self.result = Some(Ok((now, None)));
    }
}

struct StepRequest {
    stepping: Stepping,
    result: Option<Result<bool, Error>>,
    reply: oneshot::Sender<Result<bool, Error>>,
}

impl Request for StepRequest {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Error> {
        run_into(&mut self.result, steps::advance(tx, &self.stepping))
    }

    fn answer(self: Box<Self>, committed: Result<(), Error>) {
        reply(self.reply, self.result, committed);
    }

    fn stepping(&self) -> Option<&Stepping> {
        Some(&self.stepping)
    }

    fn stepped(&mut self, ended: bool) {
        self.result = Some(Ok(ended));
    }
}

struct Job<F, T> {
    work: F,
    result: Option<Result<T, Error>>,
    reply: oneshot::Sender<Result<T, Error>>,
}

impl<F, T> Request for Job<F, T>
where
    F: Fn(&mut Tx<'_>) -> Result<T, Error> + Send,
    T: Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Error> {
        run_into(&mut self.result, (self.work)(tx))
    }

    fn answer(self: Box<Self>, committed: Result<(), Error>) {
        reply(self.reply, self.result, committed);
    }
}

/// Keeps the result for the answer, and tells the writer of an error.
fn run_into<T>(kept: &mut Option<Result<T, Error>>, result: Result<T, Error>) -> Result<(), Error> {
    let failed = result.as_ref().err().cloned();
    *kept = Some(result);
    failed.map_or(Ok(()), Err)
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
        work: impl Fn(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Box::new(Job { work, result: None, reply }), answer).await
    }

    /// Takes a step, and answers after the commit that holds it.
    pub(super) async fn step(&self, stepping: Stepping) -> Result<bool, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Box::new(StepRequest { stepping, result: None, reply }), answer).await
    }

    /// Accepts a request, and answers after the commit that holds it.
    pub(super) async fn accept(&self, asked: Asked) -> Result<Accepted, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(Box::new(Acceptance { asked, result: None, reply }), answer).await
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
    while let Some(batch) = gather(requests, most) {
        let all = batch.len();
        let mut left = serve(&mut kept, connect, batch, on_commit);
        // Whoever was at some of their works has mostly gone. Where all are left over, one of them is wrong.
        if (2..all).contains(&left.len()) {
            left = serve(&mut kept, connect, left, on_commit);
        }
        for request in left {
            serve(&mut kept, connect, vec![request], on_commit);
        }
    }
}

/// Runs and commits a batch and answers its requests, but for those that it gives back: they must go by themselves.
fn serve(
    kept: &mut Option<Box<dyn Db>>,
    connect: &Connect,
    mut batch: Vec<Box<dyn Request>>,
    on_commit: &OnCommit,
) -> Vec<Box<dyn Request>> {
    let mut woken = BTreeSet::new();
    let committed = super::begun(kept.take(), connect, Access::Write).and_then(|mut db| {
        let committed = commit(&mut *db, &mut batch, &mut woken);
        *kept = Some(db);
        committed
    });
    match &committed {
        Ok(_) => on_commit(&woken),
        Err(e) => tracing::warn!(error = %e, requests = batch.len(), "a commit failed"),
    }
    let told = committed.is_ok();
    let (committed, left) = match committed {
        Ok(left) => (Ok(()), left),
        Err(e) => (Err(e), HashSet::new()),
    };
    let mut alone = Vec::new();
    for (place, request) in batch.into_iter().enumerate() {
        match left.contains(&place) {
            true => alone.push(request),
            false => request.answer(committed.clone()),
        }
    }
    if let Some(db) = kept.as_mut().filter(|_| told && !woken.is_empty()) {
        db.tell(&woken);
    }
    alone
}

/// What waits; `None` when nothing will come any more.
fn gather(requests: &Mutex<Requests>, most: usize) -> Option<Vec<Box<dyn Request>>> {
    let requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
    let mut batch = vec![requests.recv().ok()?];
    batch.extend(requests.try_iter().take(most - 1));
    Some(batch)
}

/// What became of a batch that was run.
enum Ran {
    /// It is to be committed, but for the requests at these places, of which nothing was done.
    But(HashSet<usize>),
    /// The request, which was alone, is taken back with its transaction.
    Nothing,
    /// A request failed on its way: what others did must not be lost with it, so each is to have a savepoint.
    Spoiled,
}

/// Runs a batch in the transaction that has begun, and ends it. Returns the places of what was left out.
fn commit(
    db: &mut dyn Db,
    batch: &mut [Box<dyn Request>],
    woken: &mut BTreeSet<String>,
) -> Result<HashSet<usize>, Error> {
    // A savepoint costs a copy of every page that is changed behind it, and is rarely needed.
    let savepoints = db.is_shared();
    let mut ran = run_all(db, batch, woken, savepoints);
    if let Ok(Ran::Spoiled) = ran {
        woken.clear();
        db.execute("rollback", &[])?;
        db.begin(Access::Write)?;
        ran = run_all(db, batch, woken, true);
    }
    match ran {
        Ok(Ran::But(left)) => db.execute("commit", &[]).map(|_| left),
        Ok(Ran::Nothing | Ran::Spoiled) => db.execute("rollback", &[]).map(|_| HashSet::new()),
        Err(e) => {
            // The connection may be gone, or SQLite have rolled back by itself.
            let _ = db.execute("rollback", &[]);
            Err(e)
        }
    }
}

/// Runs the requests, each in a savepoint of its own or all without.
fn run_all(
    db: &mut dyn Db,
    batch: &mut [Box<dyn Request>],
    woken: &mut BTreeSet<String>,
    savepoints: bool,
) -> Result<Ran, Error> {
    let now = db.now_ms()?;
    let alone = batch.len() == 1;
    if db.is_shared() {
        // In one order, so that no two processes wait for each other's keys in a circle.
        batch.sort_by(|a, b| key_of(&**a).cmp(&key_of(&**b)));
        // What is counted must not grow before it is committed.
        let asked = batch.iter().filter_map(|request| request.asked());
        let limited = asked.filter(|asked| asked.accept.waiting_max.is_some());
        let tenants: BTreeSet<&str> = limited.map(|asked| &*asked.accept.tenant).collect();
        if !tenants.is_empty() {
            db.hold(&tenants)?;
        }
    }
    if !alone && db.is_shared() {
        if let Some(left) = step_together(db, batch, now, woken)? {
            return Ok(Ran::But(left));
        }
        if accept_together(db, batch, now, woken)? {
            return Ok(Ran::But(HashSet::new()));
        }
    }
    let mut groups = None;
    for request in batch {
        if !alone && savepoints {
            db.execute("savepoint request", &[])?;
        }
        let mut tx = Tx { db: &mut *db, now, woken: BTreeSet::new(), groups: &mut groups, wrote: false };
        let result = request.run(&mut tx);
        let Tx { woken: mut told, wrote, .. } = tx;
        match result {
            Ok(()) => woken.append(&mut told),
            Err(Error::Unavailable(reason)) => return Err(Error::Unavailable(reason)),
            Err(_) if alone => return Ok(Ran::Nothing),
            // This request is taken back, and the others stay.
            Err(_) if savepoints => {
                groups = None;
                db.execute("rollback to request", &[])?;
            }
            Err(_) if wrote => return Ok(Ran::Spoiled),
            // It was refused before it changed anything.
            Err(_) => {}
        }
        if !alone && savepoints {
            db.execute("release request", &[])?;
        }
    }
    Ok(Ran::But(HashSet::new()))
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
    let mut groups = None;
    let mut tx = Tx { db: &mut *db, now, woken: BTreeSet::new(), groups: &mut groups, wrote: false };
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

/// Where each statement is a journey to a server, steps go there together. Says which are left over, or nothing where
/// the batch is not all steps.
fn step_together(
    db: &mut dyn Db,
    batch: &mut [Box<dyn Request>],
    now: i64,
    woken: &mut BTreeSet<String>,
) -> Result<Option<HashSet<usize>>, Error> {
    let Some(stepping) = batch.iter().map(|request| request.stepping()).collect::<Option<Vec<&Stepping>>>()
    else {
        return Ok(None);
    };
    db.execute("savepoint together", &[])?;
    let mut groups = None;
    let mut tx = Tx { db: &mut *db, now, woken: BTreeSet::new(), groups: &mut groups, wrote: false };
    let ended = match steps::advance_together(&mut tx, &stepping) {
        Ok(ended) => {
            woken.append(&mut tx.woken);
            ended
        }
        Err(e) if db.is_broken() => return Err(e),
        Err(e) => {
            // One step's own statement is wrong, or waited too long for somebody else's row: whose, is told one by one.
            tracing::debug!(error = %e, steps = batch.len(), "steps could not be taken together");
            db.execute("rollback to together", &[])?;
            vec![None; batch.len()]
        }
    };
    let mut left = HashSet::new();
    for (place, (request, ended)) in batch.iter_mut().zip(ended).enumerate() {
        match ended {
            Some(ended) => request.stepped(ended),
            None => drop(left.insert(place)),
        }
    }
    Ok(Some(left))
}
