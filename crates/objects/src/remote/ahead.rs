//! An object on a server, read ahead: while one piece is scanned, the next ones are on their way.
//!
//! A read somewhere else begins small, as it may be a guess (where is the next member?), and grows while it goes on
//! in order. Nothing is fetched ahead past `until`, where the reader's range ends; what it needs of the record that
//! runs over it, it asks for.

use super::bucket::{Bucket, Place};
use super::{Head, TIMED, runtime, vetted};
use crate::{Error, Policy};
use dragnet_kernel::ReadAt;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::AbortHandle;

/// The first piece of a read in order.
const FIRST_BYTES: u64 = 128 << 10;
/// The largest piece: each is a request.
const PIECE_BYTES: u64 = 8 << 20;
/// Pieces that are on their way at once.
const AHEAD: usize = 3;

/// Buffers that wait for their next piece: the kernel would clear each page of a new one first. As many as two readers
/// need at once.
static BUFFERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
const BUFFERS_MAX: usize = 2 * (AHEAD + 2);

/// An object on a server, of one version.
#[derive(Debug)]
pub struct Remote {
    policy: Arc<Policy>,
    bucket: Bucket,
    path: Path,
    head: Head,
    until: u64,
    pieces: Mutex<Pieces>,
}

#[derive(Debug, Default)]
struct Pieces {
    /// In order and without holes between them.
    queue: VecDeque<Piece>,
    /// How long the next one is.
    next_bytes: u64,
}

#[derive(Debug)]
struct Piece {
    range: Range<u64>,
    state: Fetch,
}

#[derive(Debug)]
enum Fetch {
    UnderWay(Receiver<Result<Vec<u8>, Error>>, AbortHandle),
    There(Vec<u8>),
}

impl Drop for Piece {
    fn drop(&mut self) {
        match &mut self.state {
            Fetch::UnderWay(_, task) => task.abort(),
            Fetch::There(bytes) => give_back(std::mem::take(bytes)),
        }
    }
}

fn buffer(bytes: usize) -> Vec<u8> {
    let kept = BUFFERS.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut buffer = kept.unwrap_or_default();
    buffer.clear();
    buffer.reserve_exact(bytes);
    buffer
}

fn give_back(buffer: Vec<u8>) {
    let mut kept = BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
    // A small one would only have to grow.
    if buffer.capacity() as u64 >= PIECE_BYTES && kept.len() < BUFFERS_MAX {
        kept.push(buffer);
    }
}

impl Remote {
    /// An object that the policy allows and that has this size and version, or is not read. Up to `until` it is read
    /// ahead. Asks nothing of the server yet.
    ///
    /// # Errors
    /// [`Error::Uri`], [`Error::Denied`].
    pub fn open(policy: &Policy, head: &Head, until: u64) -> Result<Remote, Error> {
        policy.check(&head.uri)?;
        let Place { bucket, path } = Place::of(policy, &head.uri)?;
        let (policy, head) = (Arc::new(policy.clone()), head.clone());
        Ok(Remote { policy, bucket, path, head, until, pieces: Mutex::default() })
    }

    /// Checks that the object is still this version. One with a strong ETag was read on that condition.
    ///
    /// # Errors
    /// [`Error::Changed`], or what the server says.
    pub fn check(&self) -> Result<(), Error> {
        if self.condition().is_some() {
            return Ok(());
        }
        let now = super::head(&self.policy, &self.head.uri)?;
        if now.version == self.head.version {
            return Ok(());
        }
        Err(Error::Changed(format!("it was `{}` and is `{}`", self.head.version, now.version)))
    }

    /// The ETag that a read is conditional on; a weak one does not do (RFC 9110, 13.1.1).
    fn condition(&self) -> Option<String> {
        let version = &self.head.version;
        (!version.starts_with("W/") && !version.starts_with(TIMED)).then(|| version.clone())
    }

    fn fetch(&self, range: Range<u64>) -> Piece {
        let (done, result) = sync_channel(1);
        let (bucket, path) = (self.bucket.clone(), self.path.clone());
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            if_match: self.condition(),
            ..GetOptions::default()
        };
        let wanted = (range.end - range.start) as usize;
        let task = runtime::handle().spawn(vetted::shown(vetted::under(self.policy.clone(), async move {
            let got = async {
                let mut stream = bucket.store.get_opts(&path, options).await?.into_stream();
                let mut bytes = buffer(wanted);
                while let Some(some) = stream.try_next().await? {
                    bytes.extend_from_slice(&some);
                }
                Ok(bytes)
            };
            let got = got.await.map_err(|e| bucket.failed(e)).and_then(|bytes| {
                let short = || Error::Changed(format!("a range of {wanted} bytes came with {}", bytes.len()));
                if bytes.len() == wanted { Ok(bytes) } else { Err(short()) }
            });
            let _ = done.send(got);
        })));
        Piece { range, state: Fetch::UnderWay(result, task.abort_handle()) }
    }

    /// The piece that holds a byte, and the next ones on their way.
    fn piece<'a>(&self, pieces: &'a mut Pieces, offset: u64) -> Result<(u64, &'a [u8]), Error> {
        let Pieces { queue, next_bytes } = pieces;
        let known = queue.front().map(|p| p.range.start)..queue.back().map(|p| p.range.end);
        let goes_on =
            known.start.is_some_and(|start| start <= offset) && known.end.is_some_and(|end| offset <= end);
        if !goes_on {
            queue.clear();
            *next_bytes = FIRST_BYTES;
        }
        // One piece behind the reader is kept: what is read again is close.
        while queue.len() > 1 && queue[1].range.end <= offset {
            queue.pop_front();
        }
        let mut end = queue.back().map_or(offset, |piece| piece.range.end);
        while end < self.head.size
            && (end <= offset || goes_on && end < self.until && queue.len() <= AHEAD + 1)
        {
            let mut stop = (end + *next_bytes).min(self.head.size);
            if end < self.until {
                stop = stop.min(self.until.max(end + FIRST_BYTES)).min(self.head.size);
            } else {
                stop = stop.min(end + FIRST_BYTES);
            }
            queue.push_back(self.fetch(end..stop));
            *next_bytes = (*next_bytes * 4).min(PIECE_BYTES);
            end = stop;
        }
        let at = queue.iter().position(|piece| piece.range.contains(&offset));
        let missing = || Error::Other("it was read past its end".into());
        let at = at.ok_or_else(missing)?;
        if let Fetch::UnderWay(result, _) = &queue[at].state {
            match runtime::receive(result) {
                Ok(bytes) => queue[at].state = Fetch::There(bytes),
                Err(e) => {
                    queue.clear();
                    return Err(e);
                }
            }
        }
        match &queue[at] {
            Piece { range, state: Fetch::There(bytes) } => Ok((range.start, bytes)),
            Piece { .. } => Err(missing()),
        }
    }
}

impl ReadAt for Remote {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if offset >= self.head.size || buf.is_empty() {
            return Ok(0);
        }
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, bytes) = self.piece(&mut pieces, offset)?;
        let rest = bytes.get((offset - start) as usize..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
}
