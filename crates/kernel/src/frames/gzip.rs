//! Gzip members (RFC 1952): libdeflate for those of ordinary size, zlib-rs step by step for the others.

use super::{Decode, Fault, Opening, Step, Whole};
use dragnet_libdeflate as libdeflate;
use flate2::{Decompress, FlushDecompress, Status};

/// The longest header that is read: the name and comment have no limit in RFC 1952.
const HEADER_BYTES_MAX: usize = 64 << 10;

pub(super) struct Gzip {
    whole: libdeflate::Decoder,
    stream: Decompress,
    crc: crc32fast::Hasher,
}

impl Gzip {
    pub(super) fn new() -> Gzip {
        Gzip {
            whole: libdeflate::Decoder::new(),
            stream: Decompress::new(false),
            crc: crc32fast::Hasher::new(),
        }
    }
}

impl Decode for Gzip {
    fn open(&mut self, bytes: &[u8]) -> Opening {
        match header_len(bytes) {
            Ok(Some(n)) => {
                self.stream.reset(false);
                self.crc.reset();
                Opening::Member(n)
            }
            Ok(None) => Opening::Short,
            Err(fault) => Opening::Fault(fault),
        }
    }

    fn whole(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), Whole> {
        match self.whole.decode(libdeflate::Format::Gzip, input, out) {
            Ok(decoded) => Ok((decoded.consumed, decoded.written)),
            Err(libdeflate::Error::OutputTooSmall) => Err(Whole::MoreOutput),
            // Broken or cut off by what is at hand: libdeflate does not tell.
            Err(libdeflate::Error::BadData) => Err(Whole::MoreInput),
        }
    }

    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, Fault> {
        let (in0, out0) = (self.stream.total_in(), self.stream.total_out());
        let status = self.stream.decompress(input, out, FlushDecompress::None);
        let written = (self.stream.total_out() - out0) as usize;
        let consumed = (self.stream.total_in() - in0) as usize;
        self.crc.update(&out[..written]);
        match status {
            Ok(status) => Ok(Step { consumed, written, ended: status == Status::StreamEnd }),
            Err(_) => Err(Fault::Damaged),
        }
    }

    fn trailer_len(&self) -> usize {
        8
    }

    /// CRC-32 and ISIZE (RFC 1952, 2.3.1).
    fn check(&mut self, trailer: &[u8]) -> Result<(), Fault> {
        let [a, b, c, d, e, f, g, h] = *trailer else { return Err(Fault::Truncated) };
        let crc = u32::from_le_bytes([a, b, c, d]);
        let size = u32::from_le_bytes([e, f, g, h]);
        let right = crc == self.crc.clone().finalize() && size == self.stream.total_out() as u32;
        if right { Ok(()) } else { Err(Fault::Damaged) }
    }
}

/// The length of the header that the bytes begin with; `None` where it goes on past them.
fn header_len(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    if bytes.len() < 4 {
        return if [0x1f, 0x8b, 8].starts_with(&bytes[..bytes.len().min(3)]) {
            Ok(None)
        } else {
            Err(Fault::Damaged)
        };
    }
    // Magic, deflate, no reserved flag (RFC 1952, 2.3.1).
    if !matches!(bytes, [0x1f, 0x8b, 8, flags, ..] if flags & 0xe0 == 0) {
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
