//! Checksums that a file carries of itself or of parts of it, by which it is told whether they are damaged.

use crate::fault::memory::zeroed;
use crate::fault::{Fault, Kind, Result};
use crate::store::io::ReadFile;
use std::ops::Range;

/// Bytes read at once for a checksum.
const CHUNK_BYTES: usize = 1 << 20;

/// A CRC-32 (that of zip and gzip) that a file tells of bytes of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// What it is of, one after the other.
    pub parts: Vec<Sealed>,
    /// What the file says that their CRC is.
    pub crc: u32,
    /// What the part of the file is called, where it is of one of several.
    pub name: Option<String>,
}

/// A part of what a checksum is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Bytes that count before those of the file, and don't lie there.
    pub before: Vec<u8>,
    /// Which bytes of the file.
    pub range: Range<u64>,
}

/// The CRC-32 of bytes `range` of `file`. Local: reads them.
///
/// # Errors
/// [`Kind::Io`], [`Kind::Memory`].
pub fn crc_of(file: &ReadFile, range: Range<u64>) -> Result<u32> {
    let mut sum = crc32fast::Hasher::new();
    add(&mut sum, file, range)?;
    Ok(sum.finalize())
}

fn add(sum: &mut crc32fast::Hasher, file: &ReadFile, range: Range<u64>) -> Result<()> {
    let chunk = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(CHUNK_BYTES);
    let mut buffer = zeroed(chunk.min(CHUNK_BYTES))?;
    let mut at = range.start;
    while at < range.end {
        let left = usize::try_from(range.end - at).unwrap_or(CHUNK_BYTES);
        let bytes = &mut buffer[..left.min(CHUNK_BYTES)];
        file.read_at(bytes, at)?;
        sum.update(bytes);
        at += bytes.len() as u64;
    }
    Ok(())
}

impl Seal {
    /// Whether it is of tensors' bytes: of all the file's, or of a storage, as PyTorch's archives call these.
    pub(crate) fn is_of_tensors(&self) -> bool {
        let name = self.name.as_deref();
        name.is_none_or(|name| name.rsplit('/').nth(1) == Some("data"))
    }

    /// Of bytes that lie together.
    #[must_use]
    pub fn of(range: Range<u64>, crc: u32, name: Option<String>) -> Seal {
        let before = Vec::new();
        Seal {
            parts: vec![Sealed { before, range }],
            crc,
            name,
        }
    }

    /// Bytes of the file that it is of.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let ranges = self.parts.iter().map(|part| &part.range);
        ranges
            .map(|range| range.end.saturating_sub(range.start))
            .sum()
    }

    /// Whether the bytes have the CRC. Local: reads them.
    ///
    /// # Errors
    /// As [`Seal::broken`] if they haven't, [`Kind::Io`].
    pub fn check(&self, file: &ReadFile) -> Result<()> {
        let mut sum = crc32fast::Hasher::new();
        for part in &self.parts {
            sum.update(&part.before);
            add(&mut sum, file, part.range.clone())?;
        }
        match sum.finalize() == self.crc {
            true => Ok(()),
            false => Err(self.broken(file)),
        }
    }

    /// The fault of bytes that have another CRC: [`Kind::Corrupt`], naming file and part.
    #[must_use]
    pub fn broken(&self, file: &ReadFile) -> Fault {
        let message = match &self.name {
            Some(name) => {
                format!("{name} in it is damaged: its bytes have another CRC than the file says")
            }
            None => "its bytes have another CRC than it says; the file is damaged".to_owned(),
        };
        Fault::new(Kind::Corrupt, message).file(file.path().display().to_string())
    }
}
