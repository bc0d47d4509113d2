//! libdeflate's whole-buffer decoding, with the number of bytes that it consumed.
//!
//! A crawl's archive is a row of gzip members, so a reader must learn where each one ends. libdeflate can
//! tell (its `_ex` calls), and is 1.3 times as fast as the streaming decoders; the safe binding to it,
//! `libdeflater`, leaves that number out. So these few lines call the C library directly. They are a crate
//! of their own so that all others can forbid `unsafe`.

use std::ptr::NonNull;

/// A decoder, to be kept and used again: it holds its tables.
#[derive(Debug)]
pub struct Decoder(NonNull<libdeflate_sys::libdeflate_decompressor>);

// SAFETY: the C object has no thread of its own and is only reached through `&mut`.
unsafe impl Send for Decoder {}

/// How much a call took and gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input.
    pub consumed: usize,
    /// Bytes of the output.
    pub written: usize,
}

/// Why nothing was decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The input is broken, or ends too early: libdeflate does not tell one from the other.
    BadData,
    /// The output is too small.
    OutputTooSmall,
}

/// What the input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A gzip member (RFC 1952); its CRC-32 and ISIZE are checked.
    Gzip,
    /// A zlib stream (RFC 1950); its Adler-32 is checked.
    Zlib,
    /// A bare deflate stream (RFC 1951).
    Deflate,
}

impl Decoder {
    /// A new decoder.
    ///
    /// # Panics
    /// When there is no memory for its tables, about 12 KiB.
    #[expect(clippy::new_without_default, reason = "it allocates from C and can fail")]
    #[expect(clippy::expect_used, reason = "as Rust's own allocations do")]
    pub fn new() -> Decoder {
        // SAFETY: takes nothing, and gives an object that is ours to free, or null.
        let decoder = unsafe { libdeflate_sys::libdeflate_alloc_decompressor() };
        Decoder(NonNull::new(decoder).expect("no memory for a decoder"))
    }

    /// Decodes the one stream or member that `input` begins with into `output`.
    ///
    /// # Errors
    /// [`Error`]; `output` may hold anything then.
    pub fn decode(&mut self, format: Format, input: &[u8], output: &mut [u8]) -> Result<Decoded, Error> {
        let call = match format {
            Format::Gzip => libdeflate_sys::libdeflate_gzip_decompress_ex,
            Format::Zlib => libdeflate_sys::libdeflate_zlib_decompress_ex,
            Format::Deflate => libdeflate_sys::libdeflate_deflate_decompress_ex,
        };
        let (mut consumed, mut written) = (0, 0);
        // SAFETY: the decoder is alive, both buffers are valid for their lengths and do not overlap, and the
        // two counters outlive the call, which is all that libdeflate.h asks for.
        let result = unsafe {
            call(
                self.0.as_ptr(),
                input.as_ptr().cast(),
                input.len(),
                output.as_mut_ptr().cast(),
                output.len(),
                &mut consumed,
                &mut written,
            )
        };
        match result {
            libdeflate_sys::libdeflate_result_LIBDEFLATE_SUCCESS => Ok(Decoded { consumed, written }),
            libdeflate_sys::libdeflate_result_LIBDEFLATE_INSUFFICIENT_SPACE => Err(Error::OutputTooSmall),
            _ => Err(Error::BadData),
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`, and freed once.
        unsafe { libdeflate_sys::libdeflate_free_decompressor(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "abc" and nothing else, by gzip, zlib and raw deflate.
    const ROWS: [(Format, &[u8]); 3] = [
        (Format::Gzip, b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x4b\x4c\x4a\x06\0\xc2\x41\x24\x35\x03\0\0\0"),
        (Format::Zlib, b"\x78\x9c\x4b\x4c\x4a\x06\x00\x02\x4d\x01\x27"),
        (Format::Deflate, b"\x4b\x4c\x4a\x06\x00"),
    ];

    #[test]
    fn says_what_it_took_and_gave() {
        let mut decoder = Decoder::new();
        for (format, stored) in ROWS {
            let mut followed = stored.to_vec();
            followed.extend_from_slice(b"and more");
            let mut out = [0; 16];
            let decoded = decoder.decode(format, &followed, &mut out);
            assert_eq!(decoded, Ok(Decoded { consumed: stored.len(), written: 3 }), "{format:?}");
            assert_eq!(&out[..3], b"abc", "{format:?}");
            assert_eq!(
                decoder.decode(format, stored, &mut out[..2]),
                Err(Error::OutputTooSmall),
                "{format:?}"
            );
            assert_eq!(decoder.decode(format, &stored[..3], &mut out), Err(Error::BadData), "{format:?}");
        }
    }

    /// Buffers of just the size that is said, so that a sanitizer sees the byte behind them:
    /// `RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CFLAGS=-fsanitize=address cargo test
    /// -p dragnet-libdeflate --target x86_64-unknown-linux-gnu`.
    #[test]
    fn stays_in_its_buffers_whatever_the_bytes_are() {
        let mut decoder = Decoder::new();
        for (format, stored) in ROWS {
            for cut in 0..=stored.len() {
                for bit in 0..cut * 8 {
                    let mut input = stored[..cut].to_vec();
                    input[bit / 8] ^= 1 << (bit % 8);
                    for size in [0, 1, 3, 300] {
                        let mut output = vec![0; size];
                        if let Ok(decoded) = decoder.decode(format, &input, &mut output) {
                            assert!(decoded.consumed <= cut && decoded.written <= size, "{format:?} {bit}");
                        }
                    }
                }
            }
        }
    }
}
