//! How the cells of a tensor are put together to be built, and cut into windows.

use crate::layout::Cell;
use crate::plan::tensor_plan::TensorPlan;
use std::ops::Range;

/// Bytes of all cells of a slab together, about: what fits the second-level cache.
pub(super) const SLAB_BYTES: u64 = 1 << 20;

/// Least bytes of one cell in a slab, so that writes are not too small.
const WINDOW_BYTES_MIN: u64 = 64 << 10;

/// Most cells that are built together.
const CELLS_MAX: u64 = 64;

/// How the cells of a tensor are put together to be built: those next to each other in a row of cells
/// that need the same source rows are one unit. The same on every process.
pub(super) struct Group<'a> {
    parts: &'a [u64],
    /// Cells of one row of cells: those with the same place in dimension 0.
    row: u64,
    /// Most cells of a unit.
    size: u64,
    pub(super) cell_bytes: u64,
    pub(super) window_bytes: u64,
    pub(super) windows: u64,
}

impl<'a> Group<'a> {
    pub(super) fn of(plan: &'a TensorPlan) -> Self {
        let row = |parts: &[u64]| parts.iter().skip(1).product::<u64>();
        let parts = plan.destination.grid.parts();
        let spreads = plan.pieces.iter().filter_map(|(_, t)| t.spreads.first());
        let source = spreads.map(|spread| row(spread.grid.parts())).max();
        let size = row(parts)
            .div_ceil(source.unwrap_or(1).max(1))
            .clamp(1, CELLS_MAX);
        let cell_bytes = plan.cell_bytes();
        let window_bytes = window_bytes(plan, size);
        Group {
            parts,
            row: row(parts),
            size,
            cell_bytes,
            window_bytes,
            windows: cell_bytes.div_ceil(window_bytes).max(1),
        }
    }

    /// The unit that `cell` is in.
    pub(super) fn unit_of(&self, cell: &[u64]) -> u64 {
        let number = cell
            .iter()
            .zip(self.parts)
            .fold(0, |number, (place, parts)| number * parts + place);
        number / self.row * self.row.div_ceil(self.size) + number % self.row / self.size
    }

    /// The bytes of each cell that window `number` is.
    pub(super) fn window(&self, number: u64) -> Range<u64> {
        let begin = number * self.window_bytes;
        begin..(begin + self.window_bytes).min(self.cell_bytes)
    }

    /// The cells of a unit, in row-major order.
    pub(super) fn cells(&self, unit: u64) -> impl Iterator<Item = Cell> + '_ {
        let units = self.row.div_ceil(self.size);
        let (row, first) = (unit / units, unit % units * self.size);
        (first..(first + self.size).min(self.row)).map(move |place| {
            let mut number = row * self.row + place;
            let mut cell = vec![0; self.parts.len()];
            for (place, parts) in cell.iter_mut().zip(self.parts).rev() {
                *place = number % parts;
                number /= parts;
            }
            cell
        })
    }
}

/// The window of a cell that makes a slab: whole rows of some inner dimensions where they fit.
fn window_bytes(plan: &TensorPlan, cells: u64) -> u64 {
    // What is computed is four bytes an element meanwhile.
    let slab = match plan.is_computed() {
        true => SLAB_BYTES * plan.element_bytes / 4,
        false => SLAB_BYTES,
    };
    let target = (slab / cells).max(WINDOW_BYTES_MIN);
    if let Some(band) = plan.band_bytes() {
        return (target / band.max(1)).max(1) * band.max(1);
    }
    let mut unit = plan.element_bytes;
    for dim in plan.destination.grid.cell_shape().0.iter().rev() {
        if unit * dim > target {
            break;
        }
        unit *= dim;
    }
    (target / unit.max(1) * unit).max(plan.element_bytes)
}
