//! The scan kernel: bytes in, hits and coverage out.
//!
//! It reads an object through [`ReadAt`], finds the records in a byte range of it, decodes the layers that
//! a [`Search`] asks for and reports each match as a [`Hit`]. It knows no network, no database and no
//! async runtime, so that the same code runs as a map task on Hadoop, as a child process on a laptop and
//! under a test's table.
//!
//! Two rules shape it:
//!
//! * **Damage is data, a failed read is not.** Bytes that are broken become a [`coverage::Skip`] with their
//!   offset, and the scan goes on. A read that fails is an [`Error`]: whoever called may try again.
//! * **Seams decide, not looks.** A scan that starts in the middle of an object guesses where its first
//!   record begins, and reports the guess and where the next range must begin as [`Seam`]s. Whoever puts
//!   ranges together believes them only where they agree, from byte 0 on.

mod buffer;
mod charset;
pub mod coverage;
mod digest;
mod document;
mod error;
mod filter;
mod frames;
mod hit;
mod html;
mod http;
mod json_lines;
mod kind;
mod layer;
mod object;
#[cfg(feature = "parquet")]
mod parquet;
mod records;
mod replay;
mod scan;
mod search;
mod verify;
mod wacz;

pub use buffer::aligned;
pub use digest::Digest;
pub use error::Error;
pub use filter::{FilterSpec, Status};
pub use hit::{Hit, Stored};
pub use kind::{Codec, Format, Kind};
pub use layer::Layer;
pub use object::ReadAt;
pub use replay::{Copied, Replayed, record_of, replay};
pub use scan::{Entry, Range, Scanned, Sink, scan};
pub use search::{Pattern, Search, SearchSpec};
pub use verify::Stated;

use serde::{Deserialize, Serialize};

/// The largest record, in decoded bytes, that is searched whole. What a record holds past it is skipped and
/// named in the coverage as `record_cap`.
pub const RECORD_BYTES_MAX: usize = 256 << 20;

/// A place between two records: the stored offset of the member (or, in a plain file, of the byte) in which
/// a record begins, and how many decoded bytes of that member come before it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seam {
    /// Stored bytes from the start of the object.
    pub offset: u64,
    /// Decoded bytes from the start of the member at `offset`; 0 where a member holds one record.
    pub skip: u64,
}

impl Seam {
    /// The seam at the start of a member, or of a record in a plain file.
    pub const fn at(offset: u64) -> Seam {
        Seam { offset, skip: 0 }
    }
}

impl std::fmt::Display for Seam {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.skip == 0 { write!(f, "{}", self.offset) } else { write!(f, "{}+{}", self.offset, self.skip) }
    }
}
