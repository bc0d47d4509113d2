//! Output that waits for its turn: in memory while it is small, else in a file that has no name.

use std::fs::File;
use std::io::{Read, Seek, Write};

/// Bytes that are kept in memory.
const MEMORY_BYTES: usize = 8 << 20;

/// What a shard found, as it is written.
#[derive(Default)]
pub(super) struct Found {
    bytes: Vec<u8>,
    spilled: Option<File>,
    /// The pieces that were spilled, each of whole lines.
    pieces: Vec<usize>,
}

impl Found {
    /// Has `write` append a line or more.
    pub(super) fn append(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        write(&mut self.bytes)?;
        if self.bytes.len() < MEMORY_BYTES {
            return Ok(());
        }
        if self.spilled.is_none() {
            self.spilled = Some(tempfile::tempfile()?);
        }
        if let Some(file) = &mut self.spilled {
            file.write_all(&self.bytes)?;
            self.pieces.push(self.bytes.len());
            self.bytes.clear();
        }
        Ok(())
    }

    pub(super) fn len(&self) -> u64 {
        (self.bytes.len() + self.pieces.iter().sum::<usize>()) as u64
    }

    /// Gives it all to `take`, piece by piece, each of whole lines.
    pub(super) fn give<E: From<crate::Error>>(
        mut self,
        take: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let spilled = |e| E::from(crate::Error::Spilled(e));
        if let Some(mut file) = self.spilled.take() {
            file.rewind().map_err(spilled)?;
            for len in self.pieces {
                let mut piece = vec![0; len];
                file.read_exact(&mut piece).map_err(spilled)?;
                take(&piece)?;
            }
        }
        take(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_memory_comes_back_in_order() {
        let line = |n: usize| format!("{n} {}\n", "x".repeat(10_000));
        for lines in [0, 1, 800, 3000] {
            let mut found = Found::default();
            for n in 0..lines {
                found.append(|out| out.write_all(line(n).as_bytes())).unwrap();
            }
            assert_eq!(found.spilled.is_some(), lines > 1000);
            let mut back = Vec::new();
            let given = found.give::<crate::Error>(&mut |piece| {
                back.extend_from_slice(piece);
                Ok(())
            });
            given.unwrap();
            assert_eq!(back, (0..lines).map(line).collect::<String>().into_bytes(), "{lines}");
        }
    }
}
