//! What one process has to do: a pure function of layouts, catalogs and who sees what.
//!
//! No I/O, no MPI, no clock and no randomness here. A process plans only its own part, written from
//! the receiver's side: what it must send it learns from the receivers' requests, so both sides can
//! never disagree.
//!
//! The unit of work is a [`slab`](work::Slab): the same byte window of all destination cells that
//! share a range of dimension 0. Its cells are packed once, however many replicas are written, and
//! neighbouring cells read the same source rows, which are then read once.

pub mod arrange;
pub mod build;
pub mod cell;
pub mod copies;
mod deal;
pub mod dequantise;
pub mod inventory;
pub mod iteration;
pub mod lora;
pub mod machine;
mod made;
pub mod names;
pub mod reach;
mod select;
pub mod simulate;
mod strangers;
pub mod survey;
pub mod turns;
mod unmatched;
pub mod value;
pub mod work;

use crate::fault::Result;
use crate::layout::Layout;
use crate::layout::grid::Grid;
use crate::plan::value::Value;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use crate::view::Piece;
use std::sync::Arc;

/// The cells of one tensor in one stage.
#[derive(Clone, Debug)]
pub struct Spread {
    /// Rank that local rank 0 of the layout is.
    pub first_rank: u32,
    /// Rank ↔ cell.
    pub layout: Arc<Layout>,
    /// Cell ↔ region, in whole-byte elements.
    pub grid: Grid,
}

impl Spread {
    /// Spreads a tensor of full shape `shape` by `layout` over the ranks from `first_rank` on.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Shape`] if the layout doesn't fit the shape.
    pub fn new(first_rank: u32, layout: Arc<Layout>, shape: &Shape, dtype: Dtype) -> Result<Self> {
        let (bytes, _) = shape.in_bytes(dtype)?;
        // Cells of a packed type must fill whole bytes as the tensor does.
        let elements = Grid::new(shape, &layout.parts())?;
        elements.cell_shape().in_bytes(dtype)?;
        let grid = Grid::new(&bytes, &layout.parts())?;
        Ok(Spread {
            first_rank,
            layout,
            grid,
        })
    }

    /// The ranks that hold `cell`, ascending.
    pub fn holders(&self, cell: &[u64]) -> impl Iterator<Item = u32> + '_ {
        self.layout
            .holders(cell)
            .map(|local| self.first_rank + local)
    }

    /// The ranks of the stage.
    #[must_use]
    pub fn ranks(&self) -> std::ops::Range<u32> {
        self.first_rank..self.first_rank + self.layout.ranks()
    }
}

/// A tensor of the source: its full shape, and where its cells are.
#[derive(Clone, Debug)]
pub struct SourceTensor {
    /// Its name in the source's files.
    pub name: Arc<str>,
    /// Its element type.
    pub dtype: Dtype,
    /// Its full shape, in elements.
    pub shape: Shape,
    /// One spread a stage that has it; any of them can be read.
    pub spreads: Vec<Spread>,
    /// What its elements are computed to; none: they are what is stored.
    pub value: Option<Arc<Value>>,
}

impl SourceTensor {
    /// The type of its elements, once computed.
    #[must_use]
    pub fn value_dtype(&self) -> Dtype {
        self.value.as_ref().map_or(self.dtype, |value| value.dtype)
    }
}

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
    /// What it is made of; together the pieces cover it exactly once.
    pub pieces: Vec<(Piece, Arc<SourceTensor>)>,
}

impl TensorPlan {
    /// Whether any of its sources' elements are computed.
    #[must_use]
    pub fn is_computed(&self) -> bool {
        self.pieces.iter().any(|(_, tensor)| tensor.value.is_some())
    }

    /// The bytes that `bytes` built ones take when written.
    #[must_use]
    pub fn written_bytes(&self, bytes: u64) -> u64 {
        if self.written == self.dtype {
            return bytes;
        }
        bytes / self.element_bytes * u64::from(self.written.bits() / 8)
    }

    /// Bytes of one destination cell, as it is built.
    #[must_use]
    pub fn cell_bytes(&self) -> u64 {
        self.destination.grid.cell_shape().0.iter().product::<u64>() * self.element_bytes
    }
}
