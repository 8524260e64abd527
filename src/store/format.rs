//! The file formats for tensors: one front for their readers and designers.

use crate::catalog::FileSchema;
use crate::fault::Result;
use crate::store::io::ReadFile;
use crate::store::{ckpt, safetensors};
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A file format for tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Format {
    /// safetensors.
    #[default]
    Safetensors,
    /// MindSpore's protobuf checkpoint.
    Ckpt,
}

impl Format {
    /// The format of a file of this name, if it is one of ours.
    #[must_use]
    pub fn of(path: &str) -> Option<Format> {
        match path.rsplit_once('.')?.1 {
            "safetensors" => Some(Format::Safetensors),
            "ckpt" => Some(Format::Ckpt),
            _ => None,
        }
    }

    /// The extension of its files.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Format::Safetensors => "safetensors",
            Format::Ckpt => "ckpt",
        }
    }

    /// Reads the structure of an open file.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Corrupt`] and others, as the format's own reader.
    pub fn read(self, file: &ReadFile) -> Result<FileSchema> {
        match self {
            Format::Safetensors => safetensors::read(file),
            Format::Ckpt => ckpt::read(file),
        }
    }

    /// The bytes of an open file that, with its size, determine its structure; none where they don't
    /// lie together.
    ///
    /// # Errors
    /// As [`Format::read`].
    pub fn header(self, file: &ReadFile) -> Result<Option<Vec<u8>>> {
        match self {
            Format::Safetensors => safetensors::header(file).map(Some),
            Format::Ckpt => Ok(None),
        }
    }

    /// Lays out a file for `tensors`.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Dtype`] for a type that the format doesn't know.
    pub fn design(
        self,
        tensors: &[(Arc<str>, Dtype, Shape)],
        metadata: &BTreeMap<String, String>,
    ) -> Result<FileSchema> {
        match self {
            Format::Safetensors => safetensors::design(tensors, metadata),
            Format::Ckpt => {
                let mut tensors = tensors.to_vec();
                tensors.sort_by(|a, b| a.0.cmp(&b.0));
                ckpt::design(&tensors, metadata, ckpt::BLOCK_BYTES_MAX)
            }
        }
    }
}
