//! Source tensors that come in pieces: cut up, fused with others or turned. What their pieces come to is
//! what was read of them.

use crate::fault::Result;
use crate::plan::work::Slab;
use crate::plan::{SourceTensor, TensorPlan};
use crate::tensor::digest::Joiner;
use crate::tensor::gathered::contribution;
use crate::tensor::region::Region;
use crate::view::{AxisMap, Piece};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What is known so far of each of the tensors, by number: bytes and their residue.
pub(crate) type Sums = BTreeMap<u32, (u64, u64)>;

/// A tensor that comes in pieces to a stage, or to a rank that gets some for itself.
pub(crate) struct Whole {
    /// Its name in the source.
    pub(crate) name: Arc<str>,
    /// The first rank that its pieces go to.
    pub(crate) first_rank: u32,
    /// Its bytes.
    pub(crate) bytes: u64,
}

/// The tensors all of whose bytes are read once, in pieces.
#[derive(Default)]
pub(crate) struct Traced {
    /// The tensors.
    pub(crate) wholes: Vec<Whole>,
    /// Of each plan, the pieces: number of the tensor, and of the piece.
    pieces: HashMap<u32, Vec<(u32, usize)>>,
}

/// Of a piece: the number of its plan, and its own in it.
type Place = (u32, usize);

impl Traced {
    /// Those of `plans` that are `wanted`: the same at each run of a job.
    pub(crate) fn new(plans: &[TensorPlan], wanted: impl Fn(&SourceTensor) -> bool) -> Traced {
        let mut found: BTreeMap<(&Arc<str>, u32), Vec<Place>> = BTreeMap::new();
        for (number, plan) in (0u32..).zip(plans) {
            if plan.only_source().is_some() || plan.is_beside() {
                continue;
            }
            for (at, (_, tensor)) in plan.pieces.iter().enumerate() {
                let key = (&tensor.name, plan.destination.first_rank);
                found.entry(key).or_default().push((number, at));
            }
        }
        let mut traced = Traced::default();
        for ((name, first_rank), pieces) in found {
            let piece = |(plan, at): &Place| plans.get(*plan as usize)?.pieces.get(*at);
            let all: Vec<&(Piece, Arc<SourceTensor>)> = pieces.iter().filter_map(piece).collect();
            let Some((_, tensor)) = all.first().filter(|(_, tensor)| wanted(tensor)) else {
                continue;
            };
            let extents = all.iter().map(|(piece, _)| piece).collect::<Vec<_>>();
            if !once(&extents, tensor.shape.0.iter().product()) {
                continue;
            }
            let Ok((shape, element_bytes)) = tensor.shape.in_bytes(tensor.dtype) else {
                continue;
            };
            let tensor = u32::try_from(traced.wholes.len()).unwrap_or(u32::MAX);
            traced.wholes.push(Whole {
                name: name.clone(),
                first_rank,
                bytes: shape.0.iter().product::<u64>() * element_bytes,
            });
            for (plan, at) in pieces {
                traced.pieces.entry(plan).or_default().push((tensor, at));
            }
        }
        traced
    }

    /// Adds to `sums` what the window `tile`, as it was read, of cell number `cell` of `slab` has of them.
    ///
    /// # Errors
    /// As [`contribution`].
    pub(super) fn note(
        &self,
        slab: &Slab<'_>,
        cell: usize,
        tile: &[u8],
        (joiner, buffer): (&mut Joiner, &mut Vec<u8>),
        sums: &mut Sums,
    ) -> Result<()> {
        let Some(pieces) = self.pieces.get(&slab.id.tensor) else {
            return Ok(());
        };
        let plan = slab.plan;
        let region = plan.destination.grid.region(&slab.cells[cell].cell);
        let mut parts = Vec::new();
        for (number, at) in pieces {
            let (piece, tensor) = &plan.pieces[*at];
            let map = &piece.destination_map;
            let Some(ranges) = Piece::cut(&piece.ranges(), map, &region) else {
                continue;
            };
            let from = Region::whole(&tensor.shape);
            let copy = piece.lower(&ranges, &from, &region, plan.element_bytes);
            copy.clip(slab.begin, slab.end, &mut parts);
            for mut part in parts.drain(..) {
                part.destination -= slab.begin;
                let bytes = self.wholes[*number as usize].bytes;
                let residue = contribution(joiner, &part, tile, bytes, buffer)?;
                let sum = sums.entry(*number).or_default();
                *sum = (sum.0 + part.bytes(), sum.1 ^ residue);
            }
        }
        Ok(())
    }
}

/// Adds `other` to `sums`.
pub(super) fn add(sums: &mut Sums, other: &Sums) {
    for (number, (bytes, residue)) in other {
        let sum = sums.entry(*number).or_default();
        *sum = (sum.0 + bytes, sum.1 ^ residue);
    }
}

/// Whether `pieces` take each of so many elements of their source exactly once.
fn once(pieces: &[&Piece], elements: u64) -> bool {
    let volume = |piece: &&Piece| piece.domain.iter().product::<u64>();
    let apart = |one: &Piece, other: &Piece| {
        let mut maps = one.source_map.iter().zip(&other.source_map);
        maps.any(|(a, b)| disjoint(indices(one, a), indices(other, b)))
    };
    let pairs = || {
        let later = |at: usize| &pieces[at + 1..];
        pieces
            .iter()
            .enumerate()
            .flat_map(move |(at, one)| later(at).iter().map(move |b| (one, b)))
    };
    pieces.iter().map(volume).sum::<u64>() == elements
        && pieces.iter().all(|piece| repeats_nothing(piece))
        && pairs().all(|(one, other)| apart(one, other))
}

/// Whether each axis of a piece leads along one dimension of its source.
fn repeats_nothing(piece: &Piece) -> bool {
    let uses = |axis: usize| {
        let along =
            |map: &&AxisMap| matches!(map, AxisMap::Affine { axis: along, .. } if *along == axis);
        piece.source_map.iter().filter(along).count()
    };
    let mut axes = piece.domain.iter().enumerate();
    axes.all(|(axis, extent)| *extent == 1 || uses(axis) == 1)
}

/// First index, step and count along a dimension.
fn indices(piece: &Piece, map: &AxisMap) -> (u64, u64, u64) {
    match *map {
        AxisMap::Constant(index) => (index, 1, 1),
        AxisMap::Affine { offset, step, axis } => {
            (offset, step, piece.domain.get(axis).copied().unwrap_or(1))
        }
    }
}

fn disjoint(one: (u64, u64, u64), other: (u64, u64, u64)) -> bool {
    let end = |(first, step, count): (u64, u64, u64)| first + step * count.saturating_sub(1);
    if one.2 == 0 || other.2 == 0 || end(one) < other.0 || end(other) < one.0 {
        return true;
    }
    one.1 == other.1 && one.0 % one.1 != other.0 % one.1
}
