//! Gzip members (RFC 1952), decoded piece by piece so that memory does not grow with a member.

use flate2::{Crc, Decompress, FlushDecompress, Status};

/// Why a member could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The bytes are not a gzip member, or break inside it.
    Damaged,
    /// The object ends inside the member.
    Truncated,
}

/// The longest header that is read: the name and comment have no limit in RFC 1952.
pub(crate) const HEADER_BYTES_MAX: usize = 64 << 10;

/// Whether the bytes begin as a member does: magic, deflate, no reserved flag (RFC 1952, 2.3.1).
pub(crate) fn looks_like_member(bytes: &[u8]) -> bool {
    matches!(bytes, [0x1f, 0x8b, 8, flags, ..] if flags & 0xe0 == 0)
}

/// The length of the header that the bytes begin with; `None` where it goes on past them.
pub(crate) fn header_len(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    if bytes.len() < 4 {
        return if [0x1f, 0x8b, 8].starts_with(&bytes[..bytes.len().min(3)]) {
            Ok(None)
        } else {
            Err(Fault::Damaged)
        };
    }
    if !looks_like_member(bytes) {
        return Err(Fault::Damaged);
    }
    let flags = bytes[3];
    let mut at = 10;
    if flags & 4 != 0 {
        let Some(len) = bytes.get(at..at + 2) else { return Ok(None) };
        at += 2 + usize::from(u16::from_le_bytes([len[0], len[1]]));
    }
    for flag in [8, 16] {
        if flags & flag != 0 {
            let Some(end) = bytes.get(at..).and_then(|rest| memchr::memchr(0, rest)) else {
                return if bytes.len() > HEADER_BYTES_MAX { Err(Fault::Damaged) } else { Ok(None) };
            };
            at += end + 1;
        }
    }
    if flags & 2 != 0 {
        at += 2;
    }
    Ok((bytes.len() >= at).then_some(at))
}

/// One member's deflate stream and its check sums.
pub(crate) struct Inflate {
    stream: Decompress,
    crc: Crc,
}

/// What one call of [`Inflate::step`] did.
pub(crate) struct Step {
    pub(crate) consumed: usize,
    pub(crate) ended: bool,
}

/// Decoded bytes per step: fixed, so that a member is cut the same way wherever reading began.
pub(crate) const OUT_BYTES: usize = 128 << 10;

impl Inflate {
    pub(crate) fn new() -> Inflate {
        Inflate { stream: Decompress::new(false), crc: Crc::new() }
    }

    pub(crate) fn reset(&mut self) {
        self.stream.reset(false);
        self.crc.reset();
    }

    /// Decodes from `input` and appends at most [`OUT_BYTES`] to `out`.
    pub(crate) fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Step, Fault> {
        let old = out.len();
        out.resize(old + OUT_BYTES, 0);
        let (in0, out0) = (self.stream.total_in(), self.stream.total_out());
        let status = self.stream.decompress(input, &mut out[old..], FlushDecompress::None);
        let written = (self.stream.total_out() - out0) as usize;
        out.truncate(old + written);
        self.crc.update(&out[old..]);
        let consumed = (self.stream.total_in() - in0) as usize;
        match status {
            Ok(Status::StreamEnd) => Ok(Step { consumed, ended: true }),
            Ok(_) => Ok(Step { consumed, ended: false }),
            Err(_) => Err(Fault::Damaged),
        }
    }

    /// Checks the trailer's CRC-32 and ISIZE (RFC 1952, 2.3.1).
    pub(crate) fn check(&self, trailer: &[u8; 8]) -> Result<(), Fault> {
        let crc = u32::from_le_bytes([trailer[0], trailer[1], trailer[2], trailer[3]]);
        let size = u32::from_le_bytes([trailer[4], trailer[5], trailer[6], trailer[7]]);
        let right = crc == self.crc.sum() && size == self.stream.total_out() as u32;
        if right { Ok(()) } else { Err(Fault::Damaged) }
    }
}

/// What the first member decodes to, as far as `bytes` reach; empty where they are not gzip.
pub(crate) fn first_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if let Ok(Some(header)) = header_len(bytes) {
        // An error leaves what came before it, which is what is asked for.
        let _ = Inflate::new().step(&bytes[header..], &mut out);
    }
    out
}
