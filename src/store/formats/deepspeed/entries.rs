//! The entries of a file in the making: tensors that are whole, and runs of a tensor's elements.

use crate::catalog::{Entry, FileSchema, Held, Part};
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::torch::StoredTensor;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use crate::tensor::window::boxes;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What stands between a tensor's name and the number of a part of it.
const PART: char = '\u{1f}';

/// A tensor that is meant: its name, type and shape.
#[derive(Clone, Debug)]
pub(super) struct Meant {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Shape,
}

/// What a file has, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Entries {
    entries: Vec<Entry>,
    held: Held,
}

impl Entries {
    /// Takes a tensor that is bytes `window` of the file.
    pub(super) fn whole(&mut self, name: &str, tensor: StoredTensor, window: Range<u64>) {
        let name: Arc<str> = name.into();
        if let Some(strides) = tensor.strides {
            let part = Part::whole(name.clone(), tensor.shape.clone(), strides);
            self.held.parts.insert(self.next(), part);
        }
        self.entries.push(Entry {
            name,
            dtype: tensor.dtype,
            shape: tensor.shape,
            segments: vec![window],
        });
    }

    /// Takes the elements `run` of a tensor, counted row by row, which lie from byte `begin` of the file on.
    ///
    /// # Errors
    /// [`Kind::Shape`].
    pub(super) fn run(&mut self, meant: &Meant, run: Range<u64>, begin: u64) -> Result<()> {
        let width = u64::from(meant.dtype.bits() / 8);
        let strides = meant.shape.strides();
        let due = meant.shape.elements()?;
        let large = || Fault::new(Kind::Shape, "is too large").tensor(meant.name.as_str());
        if run == (0..due) {
            let end = due
                .checked_mul(width)
                .and_then(|length| begin.checked_add(length));
            self.entries.push(Entry {
                name: meant.name.as_str().into(),
                dtype: meant.dtype,
                shape: meant.shape.clone(),
                segments: std::iter::once(begin..end.ok_or_else(large)?).collect(),
            });
            return Ok(());
        }
        for region in boxes(&meant.shape.0, run.clone()) {
            let offsets = region.offset.iter().zip(&strides);
            let first: u64 = offsets.map(|(offset, stride)| offset * stride).sum();
            let inside = (first - run.start).checked_mul(width);
            let from = inside.and_then(|inside| begin.checked_add(inside));
            let from = from.ok_or_else(large)?;
            let length = region.shape.bytes(meant.dtype)?;
            let number = self.next();
            let own = region.shape.strides();
            let part = Part {
                of: meant.name.as_str().into(),
                full: meant.shape.clone(),
                offset: region.offset,
                strides: own.iter().map(|stride| stride * width).collect(),
            };
            self.held.parts.insert(number, part);
            self.entries.push(Entry {
                name: format!("{}{PART}{number}", meant.name).into(),
                dtype: meant.dtype,
                shape: region.shape,
                segments: std::iter::once(from..from.checked_add(length).ok_or_else(large)?)
                    .collect(),
            });
        }
        Ok(())
    }

    /// Takes what is no tensor, to be shown.
    pub(super) fn value(&mut self, name: String, text: String) {
        self.held.values.insert(name, text);
    }

    /// Takes what all files that tell it must tell alike.
    pub(super) fn agree(&mut self, what: impl Into<String>, says: String) {
        self.held.agreed.insert(what.into(), says);
    }

    /// The structure of a file of `size` bytes with these.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for two of one name.
    pub(super) fn schema(self, size: u64) -> Result<FileSchema> {
        let schema = FileSchema::new(self.entries, BTreeMap::new(), Vec::new(), size)?;
        schema.holding(self.held)
    }

    fn next(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }
}
