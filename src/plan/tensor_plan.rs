//! A tensor of the destination, and what it is made of.

use crate::plan::source_tensor::SourceTensor;
use crate::plan::spread::Spread;
use crate::tensor::dtype::Dtype;
use crate::view::Piece;
use std::ops::Range;
use std::sync::Arc;

/// A tensor of the destination in one stage, and what it is made of.
#[derive(Clone, Debug)]
pub struct TensorPlan {
    /// Its name in the destination's files.
    pub name: Arc<str>,
    /// The element type it is built in: its sources'.
    pub dtype: Dtype,
    /// The element type it is written in.
    pub written: Dtype,
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
    /// Whether any of its sources' elements are computed.
    #[must_use]
    pub fn is_computed(&self) -> bool {
        self.pieces.iter().any(|(_, tensor)| tensor.value.is_some())
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
        if self.written == self.dtype {
            return bytes;
        }
        bytes / self.element_bytes * u64::from(self.written.bits() / 8)
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
