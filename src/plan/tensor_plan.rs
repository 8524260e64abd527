//! A tensor of the destination, and what it is made of.

use crate::plan::source_tensor::SourceTensor;
use crate::plan::spread::Spread;
use crate::tensor::dtype::Dtype;
use crate::tensor::quantise::Form;
use crate::tensor::shape::Shape;
use crate::view::Piece;
use std::ops::Range;
use std::sync::Arc;

/// Parts of at least this many bytes, on average, are copied straight to their cells.
const PART_BYTES_ALONE: u64 = 4 << 10;

/// A tensor of the destination in one stage, and what it is made of.
#[derive(Clone, Debug)]
pub struct TensorPlan {
    /// Its name in the destination's files.
    pub name: Arc<str>,
    /// The element type it is built in: its sources'.
    pub dtype: Dtype,
    /// The element type it is written in.
    pub written: Dtype,
    /// What of its elements is written; where it has blocks, there is one cell, the whole matrix.
    pub form: Form,
    /// Bytes of a whole-byte element (1 for packed types).
    pub element_bytes: u64,
    /// Where its cells go.
    pub destination: Spread,
    /// What it is made of; together the pieces cover it exactly once, but for zeros.
    pub pieces: Vec<(Piece, Arc<SourceTensor>)>,
    /// The first row of those, at its end, that are zeros.
    pub zeros_from: Option<u64>,
}

impl TensorPlan {
    /// Whether what is written of its elements is computed.
    #[must_use]
    pub fn is_computed(&self) -> bool {
        let mut sources = self.pieces.iter();
        self.form != Form::Elements || sources.any(|(_, tensor)| tensor.value.is_some())
    }

    /// Whether it is made beside another of the same elements, which has them.
    #[must_use]
    pub fn is_beside(&self) -> bool {
        matches!(self.form, Form::Scales(_))
    }

    /// Whether other bytes are written than those that are read: computed ones, or of another type.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.written != self.dtype || self.is_computed()
    }

    /// The source tensor that all of its elements are made of, one by one in its order, if there is one.
    #[must_use]
    pub fn only_source(&self) -> Option<&Arc<SourceTensor>> {
        let [(piece, tensor)] = &self.pieces[..] else {
            return None;
        };
        let whole = self.destination.grid.full_shape();
        let (shape, _) = tensor.shape.in_bytes(tensor.dtype).ok()?;
        let same = shape == whole && *piece == Piece::identity(tensor.name.clone(), &whole);
        same.then_some(tensor)
    }

    /// The bytes that `bytes` built ones take when written.
    #[must_use]
    pub fn written_bytes(&self, bytes: u64) -> u64 {
        if let Form::Scales(_) = self.form {
            let band = self.band_bytes().unwrap_or(1).max(1);
            let scales = self.written_shape(&self.destination.grid.full_shape());
            let row = scales.0.last().copied().unwrap_or_default();
            return bytes.div_ceil(band) * row * u64::from(self.written.bits() / 8);
        }
        if self.written == self.dtype {
            return bytes;
        }
        bytes / self.element_bytes * u64::from(self.written.bits() / 8)
    }

    /// The shape that a part of shape `shape`, in whole-byte elements, is written in.
    #[must_use]
    pub fn written_shape(&self, shape: &Shape) -> Shape {
        self.form.shape(shape)
    }

    /// Bytes of the rows that must be built together, as they are built, if any must.
    #[must_use]
    pub fn band_bytes(&self) -> Option<u64> {
        let block = self.form.block()?;
        let columns = self.destination.grid.full_shape().0.get(1).copied()?;
        Some(block.rows * columns * self.element_bytes)
    }

    /// The bytes of `cell` that are zeros, as it is built: at its end.
    #[must_use]
    pub fn zeros(&self, cell: &[u64]) -> Range<u64> {
        let end = self.cell_bytes();
        let Some(first) = self.zeros_from else {
            return end..end;
        };
        let region = self.destination.grid.region(cell);
        let begin = region.offset.first().copied().unwrap_or_default();
        let rows = region.shape.0.first().copied().unwrap_or(1).max(1);
        first.saturating_sub(begin).min(rows) * (end / rows)..end
    }

    /// Bytes of one destination cell, as it is built.
    #[must_use]
    pub fn cell_bytes(&self) -> u64 {
        self.destination.grid.cell_shape().0.iter().product::<u64>() * self.element_bytes
    }
}

/// Whether a cell made of so many parts has tiny ones, which are copied as they are.
pub(super) fn tiny(plan: &TensorPlan, parts: u64) -> bool {
    let copied = !plan.is_computed() && plan.zeros_from.is_none();
    copied && plan.cell_bytes() < parts.saturating_mul(PART_BYTES_ALONE)
}
