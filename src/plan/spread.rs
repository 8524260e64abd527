//! The cells of a tensor over the ranks of a stage.

use crate::fault::Result;
use crate::layout::Layout;
use crate::layout::grid::Grid;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
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
