//! The ckpt format as a row of the table.

use super::{BLOCK_BYTES_MAX, crc_trailer, design, read, seal};
use crate::catalog::FileSchema;
use crate::fault::Result;
use crate::store::formats::row::{FileFormat, Start};
use crate::store::formats::seal::Seal;
use crate::store::io::ReadFile;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;

/// MindSpore's protobuf checkpoint.
pub struct Ckpt;

impl FileFormat for Ckpt {
    fn name(&self) -> &'static str {
        "ckpt"
    }

    fn about(&self) -> &'static str {
        "MindSpore's protobuf checkpoint"
    }

    fn extension(&self) -> &'static str {
        "ckpt"
    }

    /// A value, which begins with its name and goes on with its tensor.
    fn recognise(&self, start: &Start<'_>) -> bool {
        let message = |field: u8, bytes: &'_ [u8]| -> Option<(usize, usize)> {
            let rest = bytes.strip_prefix(&[field])?;
            let mut length = 0usize;
            for (index, byte) in rest.iter().take(5).enumerate() {
                length |= usize::from(byte & 0x7f) << (7 * index);
                if *byte < 0x80 {
                    return Some((index + 2, length));
                }
            }
            None
        };
        let Some((value, _)) = message(0x0a, start.bytes) else {
            return false;
        };
        let inside = &start.bytes[value..];
        let Some((name, length)) = message(0x0a, inside) else {
            return false;
        };
        let end = name.saturating_add(length);
        matches!(inside.get(end), Some(0x12 | 0x1a))
    }

    fn read(&self, file: &ReadFile) -> Result<FileSchema> {
        read(file)
    }

    fn design(
        &self,
        tensors: &[(Arc<str>, Dtype, Shape)],
        metadata: &BTreeMap<String, String>,
    ) -> Result<FileSchema> {
        let mut tensors = tensors.to_vec();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        design(&tensors, metadata, BLOCK_BYTES_MAX)
    }

    fn has_checksum(&self) -> bool {
        true
    }

    fn finish(&self, file: &ReadFile) -> Result<Vec<u8>> {
        Ok(crc_trailer(file, file.size())?.to_vec())
    }

    fn may_be_sealed(&self, _: &BTreeMap<String, String>) -> bool {
        true
    }

    fn seals(&self, file: &ReadFile) -> Result<Vec<Seal>> {
        Ok(seal(file)?.into_iter().collect())
    }
}
