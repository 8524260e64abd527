//! The files of a distributed checkpoint as a row of the table: none of them tells its own structure.

use super::write::design;
use crate::catalog::FileSchema;
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::row::{FileFormat, Start};
use crate::store::formats::seal::Seal;
use crate::store::formats::torch::seals_of_all;
use crate::store::io::ReadFile;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A rank's file.
pub(in crate::store::formats) struct Distcp;

/// The fault of a file that is given alone.
fn alone() -> Fault {
    let message = "is a part of a PyTorch distributed checkpoint (torch.distributed)";
    Fault::new(Kind::Unsupported, message).hint("give the directory that it is in")
}

impl FileFormat for Distcp {
    fn name(&self) -> &'static str {
        "distcp"
    }

    fn about(&self) -> &'static str {
        "a file of a PyTorch distributed checkpoint"
    }

    fn extension(&self) -> &'static str {
        "distcp"
    }

    fn recognise(&self, start: &Start<'_>) -> bool {
        start.name.ends_with(".distcp") && start.with(b"PK\x03\x04")
    }

    fn read(&self, file: &ReadFile) -> Result<FileSchema> {
        Err(alone().file(file.path().display().to_string()))
    }

    fn tells_itself(&self) -> bool {
        false
    }

    fn is_written(&self) -> bool {
        false
    }

    fn may_be_sealed(&self, _: &BTreeMap<String, String>) -> bool {
        true
    }

    fn seals(&self, file: &ReadFile) -> Result<Vec<Seal>> {
        seals_of_all(file)
    }

    fn design(
        &self,
        tensors: &[(Arc<str>, Dtype, Shape)],
        metadata: &BTreeMap<String, String>,
    ) -> Result<FileSchema> {
        design(tensors, metadata)
    }
}
