//! Where tensors lie, and how they are committed.
//!
//! A format turns bytes into a [`crate::catalog::FileSchema`] (found) or lays one out (designed); all
//! reading and writing of tensor bytes is the engine's, by the schema's byte ranges. Every system
//! call that touches a file goes through [`io`].

pub mod checkpoint2;
pub mod ckpt;
pub mod commit;
pub mod full_dir;
mod gate;
pub mod io;
pub mod journal;
pub mod manifest;
pub mod mapped;
pub mod rank_dir;
pub mod safetensors;

use crate::catalog::FileSchema;
use crate::fault::Result;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A file format for tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
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
    pub fn read(self, file: &io::ReadFile) -> Result<FileSchema> {
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
    pub fn header(self, file: &io::ReadFile) -> Result<Option<Vec<u8>>> {
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
