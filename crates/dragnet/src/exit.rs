//! Exit codes: grep's, with one more for an answer that has gaps.

use std::process::ExitCode;

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit(u8);

/// There are hits, and the answer is complete.
pub(crate) const HITS: Exit = Exit(0);
/// There is none, and that is the complete answer.
pub(crate) const NO_HIT: Exit = Exit(1);
/// The command failed.
pub(crate) const ERROR: Exit = Exit(2);
/// The answer is not complete: the coverage says what is missing.
pub(crate) const GAPS: Exit = Exit(3);
/// Ctrl-C.
pub(crate) const INTERRUPTED: i32 = 130;

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.0)
    }
}

/// Whether an error only says that the reader of our output has gone, as `head` does.
pub(crate) fn is_closed_pipe(e: &anyhow::Error) -> bool {
    // Our own writes fail bare; an error of the network comes wrapped in what was being done.
    e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
