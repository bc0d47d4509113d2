//! What a run is made of: the frozen plan and its shards, the commit record of each shard, the chain of
//! seams that says which records count, the seal, and the mapper that does the work.
//!
//! Nothing here knows a database or a socket: the same code runs in the service, in a child process of it
//! and in a map task of a cluster. What they share is a folder of the output:
//!
//! ```text
//! plan.json                    written once, before anything runs
//! tasks/ROUND.jsonl            the mapper's lines of one round
//! parts/SHARD-RANDOM.jsonl     hits of a shard, where they are too many for its record
//! records/SHARD/FIRST.json     the commit record of a shard: put-if-absent, the first one wins
//! failed/SHARD-RANDOM.json     why an attempt could not get its bytes
//! closed                       from here on nobody starts or commits anything
//! coverage.json                what was covered, by object
//! manifest.json                the seal: what it does not name never was
//! ```

mod chain;
mod error;
mod mapper;
mod object;
mod output;
mod plan;
mod record;
mod seal;
mod sweep;

pub use chain::{Anchored, Chain, Summary, follow};
pub use dragnet_objects::{Put, is_remote, uri, version_of};
pub use error::Error;
pub use mapper::{Done, Mapper, Outcome};
pub use object::{Opened, open};
pub use output::{Lines, Output};
pub use plan::{Object, Plan, Shard, Task};
pub use record::{CommitRecord, FailureNote, INLINE_BYTES_MAX, ObjectCoverage, Totals};
pub use seal::{Gap, Manifest, ObjectReport, Report, ReportTotals, Sealed};
pub use sweep::{Source, Stream, Sweep, Swept, Take, Writer};
