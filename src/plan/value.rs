//! Source tensors whose elements are computed from what is stored: how, and which parts of which
//! other tensors a window of a destination tensor needs for it.
//!
//! A computed tensor is still one source tensor, so every view, cut and layout takes it as any other.
//! Its stored elements travel as they are; the operands (scales of blocks, low-rank matrices) travel
//! beside them, window by window, as parts of the same plan.

use crate::catalog::Catalog;
use crate::fault::{Fault, Kind, Result};
use crate::plan::cell::{Transfer, meet_region};
use crate::plan::source_tensor::SourceTensor;
use crate::plan::tensor_plan::TensorPlan;
use crate::tensor::arithmetic::{Lane, Rectangle};
use crate::tensor::region::Region;
use crate::tensor::shape::Shape;
use crate::tensor::window::boxes;
use crate::view::{AxisMap, Piece, Ranges};
use std::ops::Range;

pub use crate::plan::source_tensor::{Step, Value};

/// A step on a part of a window, and what it needs.
#[derive(Clone, Debug)]
pub struct Patch<'a> {
    /// The step.
    pub step: &'a Step,
    /// Where in the window; the lanes count from the first index that the operands cover.
    pub at: Rectangle,
    /// What it needs: the scales; or `a` and `b`.
    pub operands: Vec<Operand<'a>>,
}

/// A part of a tensor that a step needs.
#[derive(Clone, Debug)]
pub struct Operand<'a> {
    /// The tensor.
    pub tensor: &'a SourceTensor,
    /// The part of it.
    pub region: Region,
    /// Where it is put, among all operands of the window, in bytes.
    pub begin: u64,
}

impl Operand<'_> {
    /// Where its bytes are, among all operands of the window.
    #[must_use]
    pub fn bytes(&self) -> Range<u64> {
        let elements: u64 = self.region.shape.0.iter().product();
        self.begin..self.begin + elements * u64::from(self.tensor.dtype.bits() / 8)
    }
}

/// The steps that make bytes `window` (as stored) of cell `cell`: none for a plan that only copies.
/// A pure function, so that who asks for operands and who computes with them need not tell each other.
///
/// # Errors
/// [`Kind::Unsupported`] if a piece can't be seen as rows and columns.
pub fn patches<'a>(
    plan: &'a TensorPlan,
    cell: &[u64],
    window: Range<u64>,
) -> Result<Vec<Patch<'a>>> {
    let mut patches = Vec::new();
    if !plan.is_computed() {
        return Ok(patches);
    }
    let region = plan.destination.grid.region(cell);
    let [begin, end] = [window.start, window.end].map(|byte| byte / plan.element_bytes);
    let mut next = 0;
    for mut part in boxes(&region.shape.0, begin..end) {
        for (offset, first) in part.offset.iter_mut().zip(&region.offset) {
            *offset += first;
        }
        for (piece, tensor) in &plan.pieces {
            let Some(value) = &tensor.value else { continue };
            // One that is only rounded to another type need be no matrix.
            if value.steps.is_empty() {
                continue;
            }
            let Some(ranges) = Piece::cut(&piece.ranges(), &piece.destination_map, &part) else {
                continue;
            };
            for (number, ranges) in matrices(piece, ranges) {
                let mut at = piece.rectangle(&ranges, &region).ok_or_else(|| {
                    let message = format!(
                        "a part of '{}' is no rows and columns of it, so it can't be computed",
                        tensor.name
                    );
                    Fault::new(Kind::Unsupported, message).tensor(&*plan.name)
                })?;
                at.base -= begin;
                for step in &value.steps {
                    let patch = step.patch(at, number, next);
                    next = patch
                        .operands
                        .last()
                        .map_or(next, |operand| operand.bytes().end);
                    patches.push(patch);
                }
            }
        }
    }
    Ok(patches)
}

/// The matrices that ranges of a piece are of, by number in the source, where that has several.
fn matrices(piece: &Piece, ranges: Ranges) -> Vec<(u64, Ranges)> {
    let [outer, _, _] = &piece.source_map[..] else {
        return vec![(0, ranges)];
    };
    match *outer {
        AxisMap::Constant(number) => vec![(number, ranges)],
        AxisMap::Affine { offset, step, axis } => {
            let each = ranges.get(axis).cloned().unwrap_or_default();
            let one = |index: u64| {
                let mut ranges = ranges.clone();
                if let Some(range) = ranges.get_mut(axis) {
                    *range = index..index + 1;
                }
                (offset + step * index, ranges)
            };
            each.map(one).collect()
        }
    }
}

/// The copies that bring the operands of `patches` together.
///
/// # Errors
/// [`Kind::MissingShard`] if no rank has a shard that is needed.
pub fn operand_transfers(patches: &[Patch<'_>], source: &Catalog) -> Result<Vec<Transfer>> {
    let mut transfers = Vec::new();
    for operand in patches.iter().flat_map(|patch| &patch.operands) {
        let before = transfers.len();
        meet_region(operand.tensor, &operand.region, source, &mut transfers)?;
        for transfer in &mut transfers[before..] {
            transfer.copy.destination += operand.begin;
        }
    }
    Ok(transfers)
}

impl Step {
    /// The tensors that it takes beside those that it changes.
    #[must_use]
    pub fn operands(&self) -> Vec<&SourceTensor> {
        match self {
            Step::Scale { scales, .. } => vec![scales],
            Step::Add { a, b, .. } => vec![a, b],
            Step::AddEach { pairs, .. } => {
                let both = pairs.iter().flat_map(|(a, b)| [&**a, &**b]);
                both.collect()
            }
        }
    }

    /// The step on the part `at` of matrix `number`; its operands lie from byte `begin` on.
    fn patch(&self, mut at: Rectangle, number: u64, begin: u64) -> Patch<'_> {
        let operands = match self {
            Step::Scale { scales, block } => {
                let blocks = |lane: &mut Lane, block: u64| {
                    let reach = lane.reach();
                    let blocks = reach.start / block..reach.end.div_ceil(block);
                    lane.first -= blocks.start * block;
                    blocks
                };
                let parts = [
                    blocks(&mut at.rows, block[0]),
                    blocks(&mut at.columns, block[1]),
                ];
                vec![operand(scales, parts, begin)]
            }
            Step::Add {
                a, b, transposed, ..
            } => added(&mut at, [a, b], *transposed, begin),
            Step::AddEach {
                pairs, transposed, ..
            } => {
                let number = usize::try_from(number).unwrap_or(usize::MAX);
                let pair = pairs.get(number);
                pair.map_or_else(Vec::new, |(a, b)| {
                    added(&mut at, [a, b], *transposed, begin)
                })
            }
        };
        Patch {
            step: self,
            at,
            operands,
        }
    }
}

/// A and B of the part `at`, whose lanes are made to begin where these do.
fn added<'a>(
    at: &mut Rectangle,
    [a, b]: [&'a SourceTensor; 2],
    transposed: bool,
    begin: u64,
) -> Vec<Operand<'a>> {
    let (mut rows, mut columns) = (at.rows.reach(), at.columns.reach());
    if transposed {
        (rows, columns) = (columns, rows);
    }
    (at.rows.first, at.columns.first) = (0, 0);
    let rank = a.shape.0.first().copied().unwrap_or_default();
    let a = operand(a, [0..rank, columns], begin);
    let b = operand(b, [rows, 0..rank], a.bytes().end);
    vec![a, b]
}

fn operand(tensor: &SourceTensor, dimensions: [Range<u64>; 2], begin: u64) -> Operand<'_> {
    Operand {
        tensor,
        region: region(dimensions),
        begin,
    }
}

fn region(dimensions: [Range<u64>; 2]) -> Region {
    let (offset, dims) = dimensions
        .into_iter()
        .map(|range| (range.start, range.end - range.start))
        .unzip();
    Region {
        offset,
        shape: Shape(dims),
    }
}
