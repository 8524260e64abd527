//! A file as a manifest tells of it.

use crate::fault::Result;
use crate::fault::memory::zeroed;
use crate::store::hex::Hex;
use crate::store::io::{ReadFile, Stamp};
use crate::tensor::digest;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Bytes of a file that are read at a time.
const PART_BYTES: usize = 1 << 20;

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Path inside the directory.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// CRC-64/NVME of all its bytes.
    pub crc64: Hex,
    /// Which of the structures it has; none for a file without tensors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structure: Option<usize>,
    /// CRC of each tensor of the structure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<Hex>,
}

/// All of a [`FileRecord`], as one process tells another: the record itself leaves out what is empty.
pub type FileParts = (String, u64, u64, Option<usize>, Vec<u64>);

impl FileRecord {
    /// Whether the file, of `size` bytes now, is in `directory` as it was written: neither written nor changed in any
    /// other way since the `own` of its manifest, or with the bytes of which this tells the CRC.
    pub(super) fn stands_since(
        &self,
        own: &Stamp,
        directory: &Path,
        size: Option<u64>,
    ) -> Result<bool> {
        let path = directory.join(&self.path);
        Ok(size == Some(self.bytes)
            && (Stamp::of(&path)?.is_some_and(|stamp| stamp.is_no_later_than(own))
                || crc(&path)? == self.crc64))
    }
}

impl From<FileRecord> for FileParts {
    fn from(file: FileRecord) -> FileParts {
        let shards = file.shards.into_iter().map(|Hex(crc)| crc);
        (
            file.path,
            file.bytes,
            file.crc64.0,
            file.structure,
            shards.collect(),
        )
    }
}

impl From<FileParts> for FileRecord {
    fn from((path, bytes, crc64, structure, shards): FileParts) -> FileRecord {
        FileRecord {
            path,
            bytes,
            crc64: Hex(crc64),
            structure,
            shards: shards.into_iter().map(Hex).collect(),
        }
    }
}

/// The CRC of all bytes of a file.
pub(super) fn crc(path: &Path) -> Result<Hex> {
    let file = ReadFile::open(path)?;
    let (mut whole, mut offset) = (0, 0);
    let mut bytes = zeroed(PART_BYTES)?;
    while offset < file.size() {
        let left = usize::try_from(file.size() - offset).unwrap_or(PART_BYTES);
        let part = &mut bytes[..left.min(PART_BYTES)];
        file.read_at(part, offset)?;
        whole = digest::shift(whole, part.len() as u64) ^ digest::residue(part);
        offset += part.len() as u64;
    }
    Ok(Hex(digest::finish(whole, file.size())))
}
