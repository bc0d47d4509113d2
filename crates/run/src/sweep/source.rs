//! Where an object's bytes come from: a file, a server, or a stream that is read to its end and kept.

use crate::uri;
use dragnet_kernel::coverage::{Reason, Skip};
use dragnet_kernel::{ReadAt, Stated};
use dragnet_objects::{Head, Policy, Remote};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tempfile::{SpooledTempFile, spooled_tempfile};

/// Objects up to this many stored bytes are read at once.
pub(super) const SMALL_BYTES: u64 = 1 << 20;
/// Of a stream, how many bytes are kept in memory; a longer one is kept in a file that has no name.
const STREAM_BYTES: usize = 64 << 20;

/// How much of a stream is read at once.
const PIECE_BYTES: usize = 256 << 10;

/// Where an object's bytes are.
#[derive(Debug, Clone)]
pub enum Source {
    /// In a file, of which a manifest may state something.
    File(PathBuf, Option<Box<Stated>>),
    /// On a server: what a listing said of it, or only its URI; and what a manifest states of it.
    Served {
        /// Its URI.
        uri: String,
        /// What is known of it already.
        head: Option<Head>,
        /// What a manifest states of it.
        stated: Option<Box<Stated>>,
    },
    /// In a stream, which can be read once.
    Stream(Arc<Stream>),
}

/// Standard input or a FIFO. It is read to its end before it is searched, as only then it can be split, and
/// parts of it searched again; what memory does not keep of it goes where `TMPDIR` says.
#[derive(Debug)]
pub struct Stream {
    /// `None` is standard input.
    path: Option<PathBuf>,
    kept: OnceLock<Result<Kept, String>>,
}

#[derive(Debug)]
enum Kept {
    Memory(Vec<u8>),
    File(File, u64),
}

/// An object that is open.
pub(super) enum Opened<'a> {
    File(File, u64),
    Kept(&'a File, u64),
    Served(Box<Remote>, u64),
    Memory(&'a [u8]),
}

impl<'a> Opened<'a> {
    pub(super) fn size(&self) -> u64 {
        match self {
            Opened::File(_, size) | Opened::Kept(_, size) | Opened::Served(_, size) => *size,
            Opened::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Whether it is still what was opened; only a server can say otherwise.
    pub(super) fn check(&self) -> Result<(), dragnet_objects::Error> {
        if let Opened::Served(remote, _) = self { remote.check() } else { Ok(()) }
    }

    pub(super) fn object(&self) -> &(dyn ReadAt + 'a) {
        match self {
            Opened::File(file, _) => file,
            Opened::Kept(file, _) => *file,
            Opened::Served(remote, _) => &**remote,
            Opened::Memory(bytes) => bytes,
        }
    }
}

impl Source {
    /// Standard input.
    pub fn stdin() -> Source {
        Source::Stream(Arc::new(Stream { path: None, kept: OnceLock::new() }))
    }

    /// What is at a path that a person named: a FIFO, such as a shell's `<(…)`, is a stream.
    pub fn named(path: &Path) -> Option<Source> {
        let is_fifo = std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
        let stream = || Stream { path: Some(path.to_owned()), kept: OnceLock::new() };
        is_fifo.then(|| Source::Stream(Arc::new(stream())))
    }

    /// The object's URI; of standard input `-`.
    pub fn uri(&self) -> String {
        let path = match self {
            Source::File(path, _) => path,
            Source::Served { uri, .. } => return uri.clone(),
            Source::Stream(stream) => match &stream.path {
                Some(path) => path,
                None => return "-".into(),
            },
        };
        match path.is_absolute() {
            true => uri::of_path(path),
            false => uri::of_path(&std::path::absolute(path).unwrap_or_else(|_| path.clone())),
        }
    }

    /// Asks what is not known yet of an object on a server.
    pub(super) fn find(&mut self) -> Result<(), Skip> {
        if let Source::Served { uri, head: head @ None, .. } = self {
            *head = Some(dragnet_objects::head(&Policy::default(), uri).map_err(|e| unserved(0, &e))?);
        }
        Ok(())
    }

    pub(super) fn stated(&self) -> Option<&Stated> {
        match self {
            Source::File(_, stated) | Source::Served { stated, .. } => stated.as_deref(),
            Source::Stream(_) => None,
        }
    }

    /// Opens the object; a small file is read into `bytes`. The gap that says why it can't be had is as long
    /// as the object is known to be. What a server has is read ahead up to `until`.
    pub(super) fn open<'a>(
        &'a self,
        bytes: &'a mut Vec<u8>,
        until: u64,
        ended: &AtomicBool,
    ) -> Result<Opened<'a>, Skip> {
        match self {
            Source::File(path, _) => open(path, bytes),
            Source::Served { uri, head, .. } => serve(uri, head.as_ref(), until),
            Source::Stream(stream) => match stream.kept(ended) {
                Ok(Kept::Memory(bytes)) => Ok(Opened::Memory(bytes)),
                Ok(Kept::File(file, size)) => Ok(Opened::Kept(file, *size)),
                Err(why) => Err(Skip::new(0, 0, Reason::Unreadable).because(why.clone())),
            },
        }
    }
}

impl Stream {
    fn kept(&self, ended: &AtomicBool) -> &Result<Kept, String> {
        self.kept.get_or_init(|| self.read(ended).map_err(|e| e.to_string()))
    }

    fn read(&self, ended: &AtomicBool) -> std::io::Result<Kept> {
        let mut stream: Box<dyn Read> = match &self.path {
            Some(path) => Box::new(File::open(path)?),
            None => Box::new(std::io::stdin().lock()),
        };
        let (mut spool, mut piece) = (spooled_tempfile(STREAM_BYTES), vec![0; PIECE_BYTES]);
        // A stream may have no end, and nobody be there any more to see what is in it.
        while !ended.load(Ordering::Relaxed) {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => spool.write_all(&piece[..n])?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Kept::of(spool)
    }
}

impl Kept {
    fn of(spool: SpooledTempFile) -> std::io::Result<Kept> {
        Ok(match spool.into_inner() {
            tempfile::SpooledData::InMemory(bytes) => Kept::Memory(bytes.into_inner()),
            tempfile::SpooledData::OnDisk(file) => {
                let size = file.metadata()?.len();
                Kept::File(file, size)
            }
        })
    }
}

fn serve(uri: &str, head: Option<&Head>, until: u64) -> Result<Opened<'static>, Skip> {
    let head = head
        .cloned()
        .map_or_else(|| dragnet_objects::head(&Policy::default(), uri), Ok)
        .map_err(|e| unserved(0, &e))?;
    let remote = Remote::open(&Policy::default(), &head, until).map_err(|e| unserved(head.size, &e))?;
    Ok(Opened::Served(Box::new(remote), head.size))
}

fn unserved(size: u64, e: &dragnet_objects::Error) -> Skip {
    Skip::new(0, size, Reason::Unreadable).because(e.to_string())
}

fn open<'a>(path: &Path, bytes: &'a mut Vec<u8>) -> Result<Opened<'a>, Skip> {
    let unreadable = |e: std::io::Error| {
        let detail = match e.kind() {
            ErrorKind::NotFound => "it does not exist".into(),
            ErrorKind::PermissionDenied => "it may not be read".into(),
            _ => e.to_string(),
        };
        Skip::new(0, 0, Reason::Unreadable).because(detail)
    };
    let mut file = crate::object::open_file(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        let why = match metadata.file_type().is_fifo() {
            true => "it is a FIFO: name it by itself to read it",
            false => "it is a socket or a device",
        };
        return Err(Skip::new(0, 0, Reason::NotADocument).because(why));
    }
    let size = metadata.len();
    if size > SMALL_BYTES {
        return Ok(Opened::File(file, size));
    }
    let bytes = dragnet_kernel::aligned(bytes, size as usize);
    match file.read_exact(bytes) {
        Ok(()) => Ok(Opened::Memory(bytes)),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
            Err(Skip::new(0, size, Reason::Changed).because("it has shrunk while it was read"))
        }
        Err(e) => Err(Skip { length: size, ..unreadable(e) }),
    }
}
