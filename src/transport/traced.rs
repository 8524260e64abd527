//! Source tensors that come in pieces: cut up, fused with others or turned. What their pieces come to is
//! what was read of them.

use crate::fault::Result;
use crate::plan::work::Slab;
use crate::plan::{SourceTensor, TensorPlan};
use crate::tensor::digest::Joiner;
use crate::tensor::gathered::contribution;
use crate::tensor::region::Region;
use crate::tensor::shape::Shape;
use crate::view::{Cover, Piece};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// What is known so far of each of the tensors, by number: bytes and their residue.
pub(crate) type Sums = BTreeMap<u32, (u64, u64)>;

/// A tensor that comes in pieces to a stage, or to a rank that gets some for itself.
#[derive(Clone)]
pub(crate) struct Whole {
    /// Its name in the source.
    pub(crate) name: Arc<str>,
    /// The first rank that its pieces go to.
    pub(crate) first_rank: u32,
    /// Its shape, in elements of whole bytes.
    pub(crate) shape: Shape,
    /// Its bytes.
    pub(crate) bytes: u64,
    /// What no piece takes of it: indices of a dimension.
    pub(crate) rest: (usize, Vec<Range<u64>>),
}

/// Which tensors are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trace {
    /// Those that come in pieces.
    InPieces,
    /// Those that come as they are, too.
    All,
}

/// The tensors whose bytes are read in pieces, so that each counts once.
#[derive(Default)]
pub(crate) struct Traced {
    /// The tensors.
    pub(crate) wholes: Vec<Whole>,
    /// Those of which it can't be said what is read of them, or too much isn't.
    pub(crate) untold: BTreeSet<Arc<str>>,
    /// Of each plan, the pieces: number of the tensor, and of the piece.
    pieces: HashMap<u32, Vec<(u32, usize)>>,
}

/// Of a piece: the number of its plan, and its own in it.
type Place = (u32, usize);

impl Traced {
    /// Those of `plans` that are `wanted`, the same at each run of a job, if of `share` of its elements at
    /// most one is left: 1 for any.
    pub(crate) fn new(
        plans: &[TensorPlan],
        trace: Trace,
        share: u64,
        wanted: impl Fn(&SourceTensor) -> bool,
    ) -> Traced {
        let mut found: BTreeMap<(&Arc<str>, u32), Vec<Place>> = BTreeMap::new();
        for (number, plan) in (0u32..).zip(plans) {
            if plan.is_beside() || (trace == Trace::InPieces && plan.only_source().is_some()) {
                continue;
            }
            for (at, (_, tensor)) in plan.pieces.iter().enumerate() {
                let key = (&tensor.name, plan.destination.first_rank);
                found.entry(key).or_default().push((number, at));
            }
        }
        let mut traced = Traced::default();
        for ((name, first_rank), places) in found {
            let piece = |(plan, at): &Place| plans.get(*plan as usize)?.pieces.get(*at);
            let all: Vec<&(Piece, Arc<SourceTensor>)> = places.iter().filter_map(piece).collect();
            let Some((_, tensor)) = all.first().filter(|(_, tensor)| wanted(tensor)) else {
                continue;
            };
            let Ok((shape, element_bytes)) = tensor.shape.in_bytes(tensor.dtype) else {
                continue;
            };
            let pieces = all.iter().map(|(piece, _)| piece).collect::<Vec<_>>();
            let cover = Cover::of(&pieces, &shape.0).filter(|cover| {
                let extent = shape.0.get(cover.rest.0).copied().unwrap_or(1);
                cover.left().saturating_mul(share) <= extent
            });
            let Some(cover) = cover else {
                traced.untold.insert(name.clone());
                continue;
            };
            let whole = Whole {
                name: name.clone(),
                first_rank,
                bytes: shape.0.iter().product::<u64>() * element_bytes,
                shape,
                rest: cover.rest,
            };
            let places = cover.pieces.iter().filter_map(|piece| places.get(*piece));
            traced.add(whole, places.copied());
        }
        traced
    }

    /// Those whose pieces are just `pieces`, each with its plan's number and its own.
    pub(crate) fn of(wholes: impl IntoIterator<Item = (Whole, Vec<Place>)>) -> Traced {
        let mut traced = Traced::default();
        for (whole, places) in wholes {
            traced.add(whole, places.into_iter());
        }
        traced
    }

    fn add(&mut self, whole: Whole, places: impl Iterator<Item = Place>) {
        let number = u32::try_from(self.wholes.len()).unwrap_or(u32::MAX);
        self.wholes.push(whole);
        for (plan, at) in places {
            self.pieces.entry(plan).or_default().push((number, at));
        }
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
            let (piece, _) = &plan.pieces[*at];
            let map = &piece.destination_map;
            let Some(ranges) = Piece::cut(&piece.ranges(), map, &region) else {
                continue;
            };
            let whole = &self.wholes[*number as usize];
            let from = Region::whole(&whole.shape);
            let copy = piece.lower(&ranges, &from, &region, plan.element_bytes);
            copy.clip(slab.begin, slab.end, &mut parts);
            for mut part in parts.drain(..) {
                part.destination -= slab.begin;
                let residue = contribution(joiner, &part, tile, whole.bytes, buffer)?;
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
