//! What `.metadata` says of one file.

use super::flat::Run;
use crate::catalog::{Entry, Part};
use crate::tensor::dtype::Dtype;
use crate::tensor::region::Region;
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::ops::Range;

/// What a file has: chunks, and values with their bytes.
#[derive(Clone, Debug, Default)]
pub struct Content {
    pub(super) entries: Vec<Entry>,
    pub(super) parts: BTreeMap<u32, Part>,
    /// Of entries that aren't all that an archive has, which of its elements they are.
    pub(super) runs: BTreeMap<u32, Run>,
    pub(super) values: Vec<(String, Range<u64>)>,
    /// What the file itself calls each entry, where that is something else.
    pub(super) keys: Vec<String>,
}

impl Content {
    /// Its values that are no tensors: the name of each, and its bytes in the file.
    #[must_use]
    pub fn values(&self) -> &[(String, Range<u64>)] {
        &self.values
    }
}

impl Content {
    /// The names of its tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let entries = (0u32..).zip(&self.entries);
        entries.map(|(number, entry)| {
            let part = self.parts.get(&number);
            part.map_or(&*entry.name, |part| &*part.of)
        })
    }

    /// Its chunks: the name of each one's tensor, the type and full shape of that, and which part it is.
    pub fn chunks(&self) -> impl Iterator<Item = (&str, Dtype, Shape, Region)> {
        (0u32..).zip(&self.entries).map(|(number, entry)| {
            let shape = entry.shape.clone();
            match self.parts.get(&number) {
                Some(part) => {
                    let offset = part.offset.clone();
                    let region = Region { offset, shape };
                    (&*part.of, entry.dtype, part.full.clone(), region)
                }
                None => (
                    &*entry.name,
                    entry.dtype,
                    shape.clone(),
                    Region::whole(&shape),
                ),
            }
        })
    }
}
