//! The HTTP server's loop: who is slow, or many, holds up nobody.
//!
//! A connection has to bring the head of a request in time, be it the first or the next one, its body after that
//! (the API looks after this), and to read what it is answered. There are only so many connections; whoever comes
//! then waits in the kernel's queue until one ends.

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_io_timeout::TimeoutStream;

/// The longest head of a request; a longer one is answered 431.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Files that are left for all else: the store, mappers' pipes, reads of hits.
const OTHER_FILES: u64 = 512;
/// How long connections have for the request that is under way when the service ends.
const DRAIN: Duration = Duration::from_secs(3);
/// How long the loop rests when the machine has no room for a connection.
const NO_ROOM: Duration = Duration::from_millis(200);

/// What a client may take.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ListenArgs {
    /// At most N connections at once; further ones wait
    #[arg(long, hide_short_help = true, value_name = "N", default_value_t = 12_000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    connections: usize,
    /// Seconds that a client may take for the head of a request, for its body, between two requests, or to continue reading
    /// an answer
    #[arg(long, hide_short_help = true, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    client_s: u64,
}

impl ListenArgs {
    /// As few as a process needs that only talks to itself.
    pub(crate) const EMBEDDED: ListenArgs = ListenArgs { connections: 64, client_s: 30 };

    /// How long a client may take.
    pub(crate) fn client_time(&self) -> Duration {
        Duration::from_secs(self.client_s)
    }

    /// Makes room for as many connections as are wanted, or takes as many as there is room for.
    pub(crate) fn make_room(&mut self) -> Result<()> {
        let limit = getrlimit(Resource::Nofile);
        // No limit at all is `None`.
        let most = limit.maximum.unwrap_or(u64::MAX);
        let wanted = (self.connections as u64).saturating_add(OTHER_FILES).min(most);
        if limit.current.is_some_and(|now| now < wanted) {
            let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
            setrlimit(Resource::Nofile, raised).context("raise the limit on open files")?;
        }
        let room = usize::try_from(wanted.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX).max(16);
        if room < self.connections {
            tracing::warn!(
                connections = room,
                wanted = self.connections,
                "the limit on open files lets fewer connections in: `ulimit -Hn`, or LimitNOFILE of systemd"
            );
            self.connections = room;
        }
        Ok(())
    }
}

/// Serves until it is to stop, then ends each connection after the request that is under way.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    limits: ListenArgs,
    mut stopped: watch::Receiver<bool>,
) {
    let mut http = http1::Builder::new();
    // The timer of the head runs while a connection is idle as well.
    http.timer(TokioTimer::new()).header_read_timeout(limits.client_time()).max_header_size(HEAD_BYTES_MAX);
    let slots = Arc::new(Semaphore::new(limits.connections));
    let connections = GracefulShutdown::new();
    let (cut, is_cut) = watch::channel(false);
    let app = TowerToHyperService::new(app);
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, accept(&listener).await)
        };
        let (slot, (stream, peer)) = tokio::select! {
            next = next => next,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        let app = app.clone();
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            app.call(request.map(Body::new))
        });
        let connection = http.serve_connection(TokioIo::new(patient(stream, limits.client_time())), service);
        let connection = connections.watch(connection);
        let mut is_cut = is_cut.clone();
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => if let Err(e) = ended {
                    tracing::debug!(%peer, error = %e, "a connection ended");
                },
                _ = is_cut.wait_for(|cut| *cut) => {}
            }
            drop(slot);
        });
    }
    drop((listener, app));
    // One that never began to ask, or that goes on streaming, would keep all of it up.
    if tokio::time::timeout(DRAIN, connections.shutdown()).await.is_err() {
        let _ = cut.send(true);
    }
}

/// A stream that does not wait for ever for a client that reads nothing.
fn patient(stream: TcpStream, time: Duration) -> std::pin::Pin<Box<TimeoutStream<TcpStream>>> {
    // An answer goes out at once; whether that works shows when it is written.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(time));
    Box::pin(stream)
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // The client has gone again.
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(e) => {
                tracing::warn!(error = %e, "no connection can be taken now");
                tokio::time::sleep(NO_ROOM).await;
            }
        }
    }
}
