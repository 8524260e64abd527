//! Neighbouring destination cells planned as one: where each is made of tiny parts of many shards.
//!
//! Of rows over n ranks and columns over m ranks there are n * m parts, each of which is copied by
//! itself if cells are planned one by one. Here the shards meet the region of many cells at once, and
//! one more copy, in memory, cuts that region into the cells: n parts and one.

use crate::catalog::{Catalog, Place};
use crate::fault::{Fault, Kind, Result};
use crate::layout::Cell;
use crate::plan::cell::{Transfer, meet_plan, share};
use crate::plan::reach::Share;
use crate::plan::tensor_plan::{TensorPlan, tiny};
use crate::tensor::digest::Runs;
use crate::tensor::region::Region;
use crate::tensor::shape::Shape;
use crate::tensor::strided::{Loop, StridedCopy};
use crate::view::Piece;
use std::ops::Range;

/// A box of neighbouring cells, built row by row as if it were one cell.
#[derive(Clone, Debug)]
pub struct Block {
    /// The transfers that fill it; offsets count from the first byte of the box.
    pub transfers: Vec<Transfer>,
    /// Which of those that need the first cell this site is.
    pub share: Option<Share>,
    /// Where the box lies in its tensor.
    pub runs: Runs,
    /// How many cells it has along each dimension.
    cells: Vec<u64>,
    /// The shape of a cell.
    cell: Shape,
    element_bytes: u64,
}

impl Block {
    /// The box that `cells` make, in row-major order, if to plan them as one saves work; they are built in
    /// windows of `window_bytes`.
    ///
    /// # Errors
    /// As [`crate::plan::cell::CellPlan::new`].
    pub(super) fn of(
        plan: &TensorPlan,
        cells: &[(Cell, Vec<Place>)],
        window_bytes: u64,
        source: &Catalog,
    ) -> Result<Option<Block>> {
        let Some((counts, region)) = bounds(plan, cells) else {
            return Ok(None);
        };
        if !by_rows(plan, &counts, window_bytes) || !pays(plan, cells, &region) {
            return Ok(None);
        }
        let mut transfers = Vec::new();
        meet_plan(plan, &region, source, &mut transfers)?;
        let covered: u64 = transfers.iter().map(|transfer| transfer.copy.bytes()).sum();
        let due = region.shape.0.iter().product::<u64>() * plan.element_bytes;
        if covered != due {
            let message =
                format!("its pieces cover {covered} of {due} bytes of {counts:?} neighbours");
            return Err(Fault::new(Kind::Internal, message).tensor(&*plan.name));
        }
        let (first, targets) = &cells[0];
        let full = plan.destination.grid.full_shape();
        Ok(Some(Block {
            transfers,
            share: share(&plan.destination, first, targets),
            runs: Runs::new(&full, plan.element_bytes, &region),
            cells: counts,
            cell: plan.destination.grid.cell_shape().clone(),
            element_bytes: plan.element_bytes,
        }))
    }

    /// The bytes of the box that make the window `bytes` of each of its cells.
    #[must_use]
    pub fn window(&self, bytes: &Range<u64>) -> Range<u64> {
        let cells = self.cells.iter().product::<u64>();
        bytes.start * cells..bytes.end * cells
    }

    /// The copy that cuts such bytes into those windows, cell after cell.
    #[must_use]
    pub fn cut(&self, bytes: &Range<u64>) -> StridedCopy {
        let window = bytes.end - bytes.start;
        let places = Shape(self.cells.clone()).strides();
        let inside = self.cell.strides();
        let sizes = self.cells.iter().zip(&self.cell.0);
        let across = Shape(sizes.map(|(cells, size)| cells * size).collect()).strides();
        let mut loops = Vec::with_capacity(2 * places.len());
        for d in 0..places.len() {
            let stride = across[d] * self.element_bytes;
            let row = inside[d] * self.element_bytes;
            let count = match d {
                0 => window / row.max(1),
                _ => self.cell.0[d],
            };
            loops.push(Loop {
                count: self.cells[d],
                source_stride: self.cell.0[d] * stride,
                destination_stride: places[d] * window,
            });
            loops.push(Loop {
                count,
                source_stride: stride,
                destination_stride: row,
            });
        }
        StridedCopy::new(0, 0, self.element_bytes, loops)
    }
}

/// How many cells there are along each dimension, and the region they cover, if they make a box and come
/// in its order.
fn bounds(plan: &TensorPlan, cells: &[(Cell, Vec<Place>)]) -> Option<(Vec<u64>, Region)> {
    let (first, _) = cells.first().filter(|_| cells.len() > 1)?;
    let (last, _) = cells.last()?;
    let mut counts = Vec::with_capacity(first.len());
    for (begin, end) in first.iter().zip(last) {
        counts.push(end.checked_sub(*begin)? + 1);
    }
    // As many different cells, in order, all inside: then these are all of them.
    let inside = |cell: &Cell| {
        let mut places = cell.iter().zip(first.iter().zip(last));
        places.all(|(place, (first, last))| (first..=last).contains(&place))
    };
    let whole = counts.iter().product::<u64>() == cells.len() as u64
        && cells.iter().all(|(cell, _)| inside(cell))
        && cells.windows(2).all(|pair| pair[0].0 < pair[1].0);
    let mut region = plan.destination.grid.region(first);
    for (size, count) in region.shape.0.iter_mut().zip(&counts) {
        *size *= count;
    }
    whole.then_some((counts, region))
}

/// Whether windows of cells are made of whole rows of the box.
fn by_rows(plan: &TensorPlan, counts: &[u64], window_bytes: u64) -> bool {
    let row = match plan.destination.grid.cell_shape().0.split_first() {
        Some((_, row)) => row.iter().product::<u64>() * plan.element_bytes,
        None => return false,
    };
    let whole = window_bytes >= plan.cell_bytes();
    let rows = counts[0] == 1 && row > 0 && window_bytes >= row && window_bytes.is_multiple_of(row);
    whole || rows
}

/// Whether the shards meet the region in far fewer parts than its cells, and these are tiny.
fn pays(plan: &TensorPlan, cells: &[(Cell, Vec<Place>)], region: &Region) -> bool {
    let of_cell = parts(plan, &plan.destination.grid.region(&cells[0].0));
    let count = cells.len() as u64;
    tiny(plan, of_cell) && of_cell.saturating_mul(count) >= 2 * (parts(plan, region) + count)
}

/// In how many parts the first stage's shards meet `region`.
fn parts(plan: &TensorPlan, region: &Region) -> u64 {
    let pieces = plan.pieces.iter().filter_map(|(piece, tensor)| {
        let ranges = Piece::cut(&piece.ranges(), &piece.destination_map, region)?;
        let image = Piece::image(&ranges, &piece.source_map);
        Some(tensor.spreads.first()?.grid.count_meeting(&image))
    });
    pieces.fold(0, u64::saturating_add)
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::catalog::{Entry, FileSchema, ShardFile};
    use crate::layout::Layout;
    use crate::plan::cell::CellPlan;
    use crate::plan::group::Group;
    use crate::plan::{SourceTensor, Spread};
    use crate::tensor::copy;
    use crate::tensor::dtype::Dtype;
    use crate::tensor::quantise::Form;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    const BYTES: u64 = 4;

    /// A tensor of `shape` cut into `parts` along its dimensions, one rank a cell.
    fn spread(shape: &Shape, parts: &[u64]) -> Spread {
        let map: Vec<Vec<i64>> = (0..parts.len() as i64).rev().map(|d| vec![d]).collect();
        let layout = Layout::new(parts, &map, None).unwrap();
        Spread::new(0, Arc::new(layout), shape, Dtype::F32).unwrap()
    }

    /// A tensor cut into `from` that becomes one cut into `to`: as it is, or with its first two dimensions
    /// exchanged. Beside it each source rank's shard.
    fn planned(
        shape: &[u64],
        from: &[u64],
        to: &[u64],
        turned: bool,
    ) -> (TensorPlan, Catalog, BTreeMap<u32, Vec<u8>>) {
        let (name, shape): (Arc<str>, _) = ("w".into(), Shape(shape.to_vec()));
        let source = spread(&shape, from);
        let mut piece = Piece::identity(name.clone(), &shape);
        let mut full = shape.clone();
        if turned {
            piece.destination_map.swap(0, 1);
            full.0.swap(0, 1);
        }
        let (cell, strides) = (source.grid.cell_shape().clone(), shape.strides());
        let bytes = cell.0.iter().product::<u64>() * BYTES;
        let mut shards = BTreeMap::new();
        let mut ranks = BTreeMap::new();
        for rank in source.ranks() {
            let region = source.grid.region(&source.layout.cell(rank));
            let inside = cell.strides();
            let number = |at: u64| {
                let place = |d: usize| region.offset[d] + at / inside[d] % cell.0[d];
                (0..cell.0.len()).map(|d| place(d) * strides[d]).sum()
            };
            let numbers = (0..bytes / BYTES).map(number);
            let shard = numbers.flat_map(|number: u64| (number as u32).to_le_bytes());
            shards.insert(rank, shard.collect());
            let entry = Entry {
                name: name.clone(),
                dtype: Dtype::F32,
                shape: cell.clone(),
                segments: std::iter::once(0..bytes).collect(),
            };
            let schema = FileSchema::new(vec![entry], BTreeMap::new(), Vec::new(), bytes);
            let path = format!("rank_{rank}");
            let schema = Arc::new(schema.unwrap());
            ranks.insert(rank, vec![ShardFile { path, schema }]);
        }
        let tensor = SourceTensor {
            name: name.clone(),
            dtype: Dtype::F32,
            shape,
            spreads: vec![source],
            value: None,
            patches: None,
        };
        let plan = TensorPlan {
            name,
            dtype: Dtype::F32,
            written: Dtype::F32,
            form: Form::Elements,
            element_bytes: BYTES,
            destination: spread(&full, to),
            pieces: vec![(piece, Arc::new(tensor))],
            zeros_from: None,
        };
        (plan, Catalog::of(ranks), shards)
    }

    /// What `transfers` bring of bytes `window`.
    fn fill(
        transfers: &[Transfer],
        window: &Range<u64>,
        shards: &BTreeMap<u32, Vec<u8>>,
    ) -> Vec<u8> {
        let mut bytes = vec![0xff; (window.end - window.start) as usize];
        for transfer in transfers {
            let mut parts = Vec::new();
            transfer.copy.clip(window.start, window.end, &mut parts);
            for mut part in parts {
                part.destination -= window.start;
                let shard = &shards[&transfer.candidates[0].rank];
                assert!(copy::run(&part, shard, &mut bytes));
            }
        }
        bytes
    }

    /// Builds every window of every unit both ways; gives the transfers of both.
    fn both(shape: &[u64], from: &[u64], to: &[u64], turned: bool) -> (usize, usize) {
        let (plan, catalog, shards) = planned(shape, from, to, turned);
        let group = Group::of(&plan, u64::MAX);
        let cells: u64 = to.iter().product();
        let ranks = 0..cells as u32;
        let units = ranks.map(|rank| group.unit_of(&plan.destination.layout.cell(rank)));
        let units: std::collections::BTreeSet<u64> = units.collect();
        let (mut seen, mut alone, mut together) = (0, 0, 0);
        for unit in units {
            let cells: Vec<(Cell, Vec<Place>)> =
                group.cells(unit).map(|cell| (cell, vec![])).collect();
            seen += cells.len() as u64;
            assert!(cells.iter().all(|(cell, _)| group.unit_of(cell) == unit));
            let plans = cells
                .iter()
                .map(|(cell, _)| CellPlan::new(&plan, cell.clone(), Vec::new(), &catalog).unwrap());
            let plans: Vec<CellPlan> = plans.collect();
            let transfers: usize = plans.iter().map(|cell| cell.transfers.len()).sum();
            alone += transfers;
            let block = Block::of(&plan, &cells, group.window_bytes, &catalog).unwrap();
            let Some(block) = block else {
                together += transfers;
                continue;
            };
            together += block.transfers.len() + 1;
            for window in (0..group.windows).map(|number| group.window(number)) {
                let bytes = fill(&block.transfers, &block.window(&window), &shards);
                let mut cut = vec![0; bytes.len()];
                assert!(copy::run(&block.cut(&window), &bytes, &mut cut));
                let one_by_one = plans
                    .iter()
                    .flat_map(|cell| fill(&cell.transfers, &window, &shards));
                assert!(one_by_one.eq(cut), "{shape:?} {from:?} {to:?} {turned}");
            }
        }
        assert_eq!(seen, cells);
        (alone, together)
    }

    #[test]
    fn rows_to_columns_are_a_few_copies_for_each_shard() {
        let few = |(alone, together): (usize, usize), most| {
            assert!(together <= most, "{together} copies where {alone} were");
        };
        few(both(&[128, 128], &[128, 1], &[1, 128], false), 129);
        few(both(&[128, 128], &[1, 128], &[128, 1], false), 129);
        few(both(&[128, 128], &[128, 1], &[128, 1], true), 129);
        few(both(&[2, 64, 64], &[1, 64, 1], &[1, 1, 64], false), 65);
        few(both(&[64, 2, 64], &[1, 2, 64], &[64, 2, 1], false), 129 * 2);
        // In windows of whole rows.
        few(both(&[1024, 2048], &[64, 1], &[1, 64], false), 65);
        // Few parts, or large ones, are left alone.
        let alone = both(&[64, 64], &[64, 1], &[32, 1], false);
        assert_eq!(alone, (64, 64));
    }

    proptest! {
        #[test]
        fn cells_cut_out_of_a_block_are_those_made_alone(
            dims in proptest::collection::vec((1u64..5, 1u64..7, 1u64..7), 1..4), turned in any::<bool>()
        ) {
            let shape: Vec<u64> = dims.iter().map(|(size, from, to)| size * from * to).collect();
            let from: Vec<u64> = dims.iter().map(|(_, from, _)| *from).collect();
            let mut to: Vec<u64> = dims.iter().map(|(_, _, to)| *to).collect();
            let turned = turned && dims.len() > 1;
            if turned {
                to.swap(0, 1);
            }
            both(&shape, &from, &to, turned);
        }
    }
}
