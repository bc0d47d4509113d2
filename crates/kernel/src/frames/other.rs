//! Bzip2 and xz streams: read from their beginning, step by step.

use super::{Decode, Fault, Opening, Step, Whole};
use liblzma::stream::{Action, Stream};

/// Memory that an xz stream may ask for, in bytes: what its largest preset needs.
const XZ_MEMORY_MAX: u64 = 66 << 20;

pub(super) struct Bzip2(bzip2::Decompress);

impl Bzip2 {
    pub(super) fn new() -> Bzip2 {
        Bzip2(bzip2::Decompress::new(false))
    }
}

impl Decode for Bzip2 {
    fn open(&mut self, bytes: &[u8]) -> Opening {
        self.0 = bzip2::Decompress::new(false);
        opens(bytes, b"BZh")
    }

    fn whole(&mut self, _: &[u8], _: &mut [u8]) -> Result<(usize, usize), Whole> {
        Err(Whole::No)
    }

    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, Fault> {
        let (in0, out0) = (self.0.total_in(), self.0.total_out());
        let status = self.0.decompress(input, out).map_err(|_| Fault::Damaged)?;
        let consumed = (self.0.total_in() - in0) as usize;
        let written = (self.0.total_out() - out0) as usize;
        Ok(Step { consumed, written, ended: status == bzip2::Status::StreamEnd })
    }
}

/// `None` where liblzma gives no decoder.
pub(super) struct Xz(Option<Stream>);

impl Xz {
    pub(super) fn new() -> Xz {
        Xz(None)
    }
}

impl Decode for Xz {
    fn open(&mut self, bytes: &[u8]) -> Opening {
        self.0 = Stream::new_stream_decoder(XZ_MEMORY_MAX, 0).ok();
        opens(bytes, &[0xfd, b'7', b'z', b'X', b'Z', 0])
    }

    fn whole(&mut self, _: &[u8], _: &mut [u8]) -> Result<(usize, usize), Whole> {
        Err(Whole::No)
    }

    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, Fault> {
        let stream = self.0.as_mut().ok_or(Fault::Damaged)?;
        let (in0, out0) = (stream.total_in(), stream.total_out());
        let status = stream.process(input, out, Action::Run).map_err(|_| Fault::Damaged)?;
        let consumed = (stream.total_in() - in0) as usize;
        let written = (stream.total_out() - out0) as usize;
        Ok(Step { consumed, written, ended: status == liblzma::stream::Status::StreamEnd })
    }
}

fn opens(bytes: &[u8], magic: &[u8]) -> Opening {
    let n = bytes.len().min(magic.len());
    match (bytes[..n] == magic[..n], n == magic.len()) {
        (true, true) => Opening::Member(0),
        (true, false) => Opening::Short,
        (false, _) => Opening::Fault(Fault::Damaged),
    }
}
