//! How the cells of a tensor are put together to be built, and cut into windows.

use crate::layout::Cell;
use crate::plan::source_tensor::SourceTensor;
use crate::plan::tensor_plan::{TensorPlan, tiny};
use crate::view::{AxisMap, Piece};
use std::ops::Range;
use std::sync::Arc;

/// Bytes of all cells of a slab together, about: what fits the second-level cache.
pub(super) const SLAB_BYTES: u64 = 1 << 20;

/// Least bytes of one cell in a slab, so that writes are not too small.
const WINDOW_BYTES_MIN: u64 = 64 << 10;

/// Bytes of source rows that neighbouring cells share in a slab, at most: what a worker keeps of a file.
const SHARED_BYTES: u64 = 2 << 20;

/// Most cells that are built together, and most of small ones or of small windows.
const CELLS_MAX: u64 = 64;
const CELLS_SMALL_MAX: u64 = 256;

/// How the cells of a tensor are put together to be built: those next to each other in a row of cells
/// that need the same source rows are one unit, and of small ones also those below each other that need
/// the same columns. The same on every process.
pub(super) struct Group<'a> {
    parts: &'a [u64],
    /// Cells of one row of cells: those with the same place in dimension 0.
    row: u64,
    /// Most cells of a unit in a row of them.
    size: u64,
    /// Most rows of cells that it has.
    rows: u64,
    pub(super) cell_bytes: u64,
    pub(super) window_bytes: u64,
    pub(super) windows: u64,
}

impl<'a> Group<'a> {
    /// Of `plan`, with at most `windows_max` windows a cell.
    pub(super) fn of(plan: &'a TensorPlan, windows_max: u64) -> Self {
        let row = |parts: &[u64]| parts.iter().skip(1).product::<u64>();
        let parts = plan.destination.grid.parts();
        let cell_bytes = plan.cell_bytes();
        let small = (SLAB_BYTES / cell_bytes.max(1)).clamp(1, CELLS_SMALL_MAX);
        let (across, below) = neighbours(plan, parts);
        let across = across.min(row(parts)).max(1);
        // The more cells share rows, the fewer rows are built at once.
        let shared = SHARED_BYTES / across;
        let short = (SLAB_BYTES / shared.max(1)).min(CELLS_SMALL_MAX);
        let size = across.min(small.max(short).max(CELLS_MAX));
        let rows = below.clamp(1, (small / size).max(1));
        let least = window_bytes(plan, size, shared);
        let windows = cell_bytes.div_ceil(least);
        let window_bytes = least * windows.div_ceil(windows_max).max(1);
        Group {
            parts,
            row: row(parts),
            size,
            rows,
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
        let (row, place) = (number / self.row, number % self.row);
        row / self.rows * self.row.div_ceil(self.size) + place / self.size
    }

    /// The bytes of each cell that window `number` is.
    pub(super) fn window(&self, number: u64) -> Range<u64> {
        let begin = number * self.window_bytes;
        begin..(begin + self.window_bytes).min(self.cell_bytes)
    }

    /// The cells of a unit, in row-major order.
    pub(super) fn cells(&self, unit: u64) -> impl Iterator<Item = Cell> + '_ {
        let units = self.row.div_ceil(self.size);
        let (top, first) = (unit / units * self.rows, unit % units * self.size);
        let bottom = (top + self.rows).min(self.parts.first().copied().unwrap_or(1));
        let places = first..(first + self.size).min(self.row);
        let numbers = (top..bottom).flat_map(move |row| {
            let places = places.clone();
            places.map(move |place| row * self.row + place)
        });
        numbers.map(|mut number| {
            let mut cell = vec![0; self.parts.len()];
            for (place, parts) in cell.iter_mut().zip(self.parts).rev() {
                *place = number % parts;
                number /= parts;
            }
            cell
        })
    }
}

/// How many cells next to each other in a row of them need the same shards, and how many below each other:
/// where the shards are cut less often than the cells, and elsewhere more often than these.
fn neighbours(plan: &TensorPlan, parts: &[u64]) -> (u64, u64) {
    let of = |(piece, tensor): &(Piece, Arc<SourceTensor>)| {
        let source = tensor.spreads.first()?.grid.parts();
        // In how many parts the shards cut each of the cells' dimensions.
        let along = |map: &AxisMap| match map {
            AxisMap::Constant(_) => 1,
            AxisMap::Affine { axis: own, .. } => {
                let same = |(map, _): &(&AxisMap, &u64)| matches!(map, AxisMap::Affine { axis, .. } if axis == own);
                let mut maps = piece.source_map.iter().zip(source);
                maps.find(same).map_or(1, |(_, parts)| *parts)
            }
        };
        let source: Vec<u64> = piece.destination_map.iter().map(along).collect();
        let pairs = || parts.iter().zip(&source);
        let across = pairs().skip(1).map(|(own, source)| own.div_ceil(*source));
        let cut = pairs().skip(1).any(|(own, source)| source > own);
        let below = pairs().take(1).map(|(own, source)| own.div_ceil(*source));
        let met = pairs().map(|(own, source)| source.div_ceil(*own)).product();
        let below = below.filter(|_| cut && tiny(plan, met)).product::<u64>();
        Some((across.product::<u64>(), below))
    };
    let row = parts.iter().skip(1).product::<u64>();
    let found = plan.pieces.iter().filter_map(of);
    let found = found.reduce(|(across, below), (a, b)| (across.min(a), below.min(b)));
    found.unwrap_or((row, 1))
}

/// Bytes of a cell that lie side by side in its tensor.
fn run_bytes(plan: &TensorPlan) -> u64 {
    let grid = &plan.destination.grid;
    let mut run = plan.element_bytes;
    for (dim, parts) in grid.cell_shape().0.iter().zip(grid.parts()).rev() {
        run *= dim;
        if *parts > 1 {
            break;
        }
    }
    run
}

/// The window of a cell that makes a slab, of `most` bytes or a run: whole rows of some inner dimensions where they
/// fit.
fn window_bytes(plan: &TensorPlan, cells: u64, most: u64) -> u64 {
    // What is computed is four bytes an element meanwhile.
    let slab = match plan.is_computed() {
        true => SLAB_BYTES * plan.element_bytes / 4,
        false => SLAB_BYTES,
    };
    let target = (slab / cells)
        .max(WINDOW_BYTES_MIN)
        .min(most.max(run_bytes(plan)));
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
