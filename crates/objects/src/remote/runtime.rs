//! The runtime that speaks to servers, and the way from a plain call into it.
//!
//! It is a runtime of its own, so that waiting for it can't hold up what it waits for.

use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};

/// Threads that move bytes; what is done with the bytes is done elsewhere.
const THREADS: usize = 2;

/// The runtime, started when it is first needed.
pub(super) fn handle() -> &'static Handle {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            let built = Builder::new_multi_thread()
                .worker_threads(THREADS)
                .thread_name("objects")
                .enable_all()
                .build();
            match built {
                Ok(runtime) => runtime,
                Err(e) => panic!("no thread can be started to speak to servers: {e}"),
            }
        })
        .handle()
}

/// Runs a future there and waits for what it gives.
pub(super) fn wait<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let (done, result) = mpsc::sync_channel(1);
    handle().spawn(async move {
        let _ = done.send(future.await);
    });
    receive(&result)
}

/// Waits on a channel; a worker of somebody's runtime lets its other tasks go on meanwhile.
pub(super) fn receive<T>(result: &mpsc::Receiver<T>) -> T {
    let in_pool = Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
    if in_pool { tokio::task::block_in_place(|| patiently(result)) } else { patiently(result) }
}

/// How long somebody waits before the waiting is told.
const PATIENCE: Duration = Duration::from_secs(10);

static WAITING: OnceLock<fn()> = OnceLock::new();

/// Sets what is called every ten seconds while an answer is waited for, so that nobody takes it for death. Once for a
/// process.
pub fn on_waiting(tell: fn()) {
    let _ = WAITING.set(tell);
}

fn patiently<T>(result: &mpsc::Receiver<T>) -> T {
    loop {
        match result.recv_timeout(PATIENCE) {
            Ok(value) => return value,
            Err(RecvTimeoutError::Timeout) => WAITING.get().into_iter().for_each(|tell| tell()),
            // The task can only have panicked, and that is passed on.
            Err(RecvTimeoutError::Disconnected) => panic!("a request to a server panicked"),
        }
    }
}
