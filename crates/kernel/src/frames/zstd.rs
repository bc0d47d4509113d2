//! Zstandard frames (RFC 8878), with the dictionary that a `.warc.zst` carries in its first frame.
//!
//! That dictionary stands in a skippable frame of magic 0x184D2A5D, as it is or compressed by zstd itself
//! ("Zstandard Compression for WARC files 1.0", IIPC). A shard that starts in the middle needs it too, so
//! it is read from the object's beginning whatever is decoded.

use super::{Decode, Fault, Opening, Step, Whole};
use crate::http;
use crate::object::{ReadAt, read_full};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

/// A frame's magic number.
pub(super) const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The skippable frame that holds a dictionary.
const DICTIONARY_MAGIC: [u8; 4] = [0x5d, 0x2a, 0x4d, 0x18];
/// The largest dictionary that is loaded, in bytes.
const DICTIONARY_BYTES_MAX: usize = 64 << 20;
/// The largest window that a frame may ask for, as a power of two: zstd's own default, 128 MiB.
const WINDOW_LOG_MAX: u32 = 27;
/// The longest frame header (RFC 8878, 3.1.1.1), magic included.
const HEADER_BYTES_MAX: usize = 18;

pub(super) struct Zstd {
    context: DCtx<'static>,
}

impl Zstd {
    pub(super) fn new(object: &dyn ReadAt) -> Zstd {
        let mut context = DCtx::create();
        // A parameter or dictionary that zstd refuses shows as damage in the first frame that needs it.
        let _ = context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX));
        if let Some(dictionary) = dictionary(object) {
            let _ = context.load_dictionary(&dictionary);
        }
        Zstd { context }
    }
}

impl Decode for Zstd {
    fn open(&mut self, bytes: &[u8]) -> Opening {
        match bytes {
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, a, b, c, d, ..] => {
                Opening::PassOver(8 + u64::from(u32::from_le_bytes([*a, *b, *c, *d])))
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let _ = self.context.reset(ResetDirective::SessionOnly);
                Opening::Member(0)
            }
            _ if bytes.len() >= 8 => Opening::Fault(Fault::Damaged),
            _ => {
                let n = bytes.len().min(4);
                let skippable = matches!(bytes[0], 0x50..=0x5f) && bytes[1..n] == DICTIONARY_MAGIC[1..n];
                if bytes[..n] == MAGIC[..n] || skippable {
                    Opening::Short
                } else {
                    Opening::Fault(Fault::Damaged)
                }
            }
        }
    }

    fn whole(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), Whole> {
        if input.len() < HEADER_BYTES_MAX {
            return Err(Whole::MoreInput);
        }
        let content = match zstd_safe::get_frame_content_size(input) {
            Ok(Some(size)) if size <= super::WHOLE_OUT_BYTES_MAX as u64 => size as usize,
            _ => return Err(Whole::No),
        };
        // Walks the blocks' headers and decodes nothing.
        let Ok(stored) = zstd_safe::find_frame_compressed_size(input) else { return Err(Whole::MoreInput) };
        if out.len() < content {
            return Err(Whole::MoreOutput);
        }
        match self.context.decompress(&mut *out, &input[..stored]) {
            Ok(written) => Ok((stored, written)),
            Err(_) => {
                let _ = self.context.reset(ResetDirective::SessionOnly);
                Err(Whole::No)
            }
        }
    }

    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, Fault> {
        let mut input = InBuffer::around(input);
        let mut out = OutBuffer::around(out);
        match self.context.decompress_stream(&mut out, &mut input) {
            Ok(hint) => Ok(Step { consumed: input.pos(), written: out.pos(), ended: hint == 0 }),
            Err(_) => Err(Fault::Damaged),
        }
    }
}

/// The dictionary of an object, where it begins with one.
fn dictionary(object: &dyn ReadAt) -> Option<Vec<u8>> {
    let mut head = [0; 8];
    // A read that fails here fails again, and is reported, where the frames are read.
    if read_full(object, 0, &mut head).ok()? < head.len() || head[..4] != DICTIONARY_MAGIC {
        return None;
    }
    let size = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    if size > DICTIONARY_BYTES_MAX {
        return None;
    }
    // What is claimed is not allocated before it has been seen.
    let mut stored = Vec::new();
    while stored.len() < size {
        let at = stored.len();
        stored.resize((at + (1 << 20)).min(size), 0);
        let n = read_full(object, 8 + at as u64, &mut stored[at..]).ok()?;
        if n < stored.len() - at {
            return None;
        }
    }
    if !stored.starts_with(&MAGIC) {
        return Some(stored);
    }
    http::zstd(&stored, DICTIONARY_BYTES_MAX).ok()
}
