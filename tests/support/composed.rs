//! Tensors made of others (views), drawn at random.

use super::drawn::{in_bytes, index, layout, lcm, name, noise, ours, world};
use super::pretend::{Held, Made, Pretended};
use crate::support::oracle;
use crate::support::tensors::{Tensor, Tensors};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::Strategy as Draw;
use shardloom::plan::{SourceTensor, Spread, TensorPlan};
use shardloom::store::Format;
use shardloom::tensor::dtype::Dtype;
use shardloom::tensor::shape::Shape;
use shardloom::view::{AxisMap, Piece};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How several tensors make one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    /// One after the other along a dimension.
    Concatenate(usize),
    /// In turn along a dimension.
    Interleave(usize),
    /// Along a new dimension.
    Stack(usize),
}

/// Tensors that make one, each transposed first.
#[derive(Clone, Debug)]
pub(crate) struct Composed {
    how: How,
    /// Where each dimension of a source goes.
    permutation: Vec<usize>,
    /// Shapes after the transposition.
    shapes: Vec<Vec<u64>>,
    from: Vec<oracle::Layout>,
    to: oracle::Layout,
    pub(crate) world: Pretended,
}

/// A view, and layouts for its sources and its result.
pub(crate) fn composed() -> impl Draw<Value = Composed> {
    let ranks = || prop::sample::select(vec![1u64, 2, 3, 4, 6]);
    (
        ranks(),
        ranks(),
        1usize..4,
        1usize..4,
        0usize..3,
        any::<prop::sample::Index>(),
    )
        .prop_flat_map(|(ranks_a, ranks_b, dimensions, count, kind, place)| {
            let how = match kind {
                0 => How::Concatenate(place.index(dimensions)),
                1 => How::Interleave(place.index(dimensions)),
                _ => How::Stack(place.index(dimensions + 1)),
            };
            let dimensions_made = dimensions + usize::from(matches!(how, How::Stack(_)));
            let permutation = Just((0..dimensions).collect::<Vec<_>>()).prop_shuffle();
            let units = (vec(1u64..3, dimensions), vec(1u64..3, count));
            let from = vec(layout(ranks_a, dimensions), count);
            let to = layout(ranks_b, dimensions_made);
            (permutation, units, from, to, world()).prop_map(
                move |(permutation, (units, lengths), from, to, world)| {
                    compose(
                        how,
                        permutation,
                        &units,
                        &lengths,
                        from,
                        to,
                        world,
                        ranks_a,
                        ranks_b,
                    )
                },
            )
        })
}

#[allow(clippy::too_many_arguments)]
fn compose(
    how: How,
    permutation: Vec<usize>,
    units: &[u64],
    lengths: &[u64],
    from: Vec<oracle::Layout>,
    mut to: oracle::Layout,
    world: Pretended,
    ranks_a: u64,
    ranks_b: u64,
) -> Composed {
    let unit = lcm(ranks_a, ranks_b);
    let shape = |number: usize| {
        let mut shape: Vec<u64> = units.iter().map(|size| size * unit).collect();
        if let How::Concatenate(dimension) = how {
            shape[dimension] = lengths[number] * unit;
        }
        shape
    };
    if let How::Stack(dimension) = how {
        let uneven = |to: &oracle::Layout| {
            let parts = ours(to).parts()[dimension];
            !(from.len() as u64).is_multiple_of(parts)
        };
        if uneven(&to) {
            (to.optimizer_step, to.optimizer_size) = (0, 0);
        }
        if uneven(&to) {
            to.map[dimension] = vec![-1];
        }
    }
    Composed {
        how,
        permutation,
        shapes: (0..from.len()).map(shape).collect(),
        from,
        to,
        world,
    }
}

impl Composed {
    const DTYPE: Dtype = Dtype::U16;

    pub(crate) fn ranks_a(&self) -> u32 {
        ours(&self.from[0]).ranks()
    }

    pub(crate) fn ranks_b(&self) -> u32 {
        ours(&self.to).ranks()
    }

    /// A source's own shape: before the transposition.
    fn source_shape(&self, number: usize) -> Vec<u64> {
        let to = self.permutation.iter();
        to.map(|to| self.shapes[number][*to]).collect()
    }

    fn shape(&self) -> Vec<u64> {
        let mut shape = self.shapes[0].clone();
        match self.how {
            How::Concatenate(d) => shape[d] = self.shapes.iter().map(|shape| shape[d]).sum(),
            How::Interleave(d) => shape[d] *= self.shapes.len() as u64,
            How::Stack(d) => shape.insert(d, self.shapes.len() as u64),
        }
        shape
    }

    /// Where element `at` of source `number` goes: said once more, without any axis map.
    fn goes_to(&self, number: usize, at: &[u64]) -> Vec<u64> {
        let mut place = vec![0; at.len()];
        for (index, to) in at.iter().zip(&self.permutation) {
            place[*to] = *index;
        }
        let count = self.shapes.len() as u64;
        match self.how {
            How::Concatenate(d) => {
                place[d] += self.shapes[..number].iter().map(|s| s[d]).sum::<u64>();
            }
            How::Interleave(d) => place[d] = place[d] * count + number as u64,
            How::Stack(d) => place.insert(d, number as u64),
        }
        place
    }

    fn whole_source(&self, number: usize) -> Tensor {
        let shape = Shape(self.source_shape(number));
        let bytes = index(shape.bytes(Self::DTYPE).expect("a small tensor"));
        in_bytes(Self::DTYPE, &shape, noise(number, bytes))
    }

    pub(crate) fn source(&self) -> Held {
        let mut ranks: BTreeMap<u32, Vec<Made>> = BTreeMap::new();
        for (number, layout) in self.from.iter().enumerate() {
            let whole = self.whole_source(number);
            for rank in 0..self.ranks_a() {
                let region = layout.region(&whole.shape, rank as usize).expect("it fits");
                let shard = oracle::crop(&whole, &region);
                ranks.entry(rank).or_default().push(Made {
                    name: name(number).into(),
                    dtype: Self::DTYPE,
                    shape: Shape(shard.shape.iter().map(|size| *size as u64).collect()),
                    data: shard.data,
                });
            }
        }
        Held::of(Format::SAFETENSORS, &ranks)
    }

    /// What each rank of the destination must have.
    pub(crate) fn expected(&self) -> BTreeMap<u32, Tensors> {
        let shape = Shape(self.shape());
        let bytes = index(shape.bytes(Self::DTYPE).expect("a small tensor"));
        let mut made = in_bytes(Self::DTYPE, &shape, vec![0; bytes]);
        for number in 0..self.shapes.len() {
            let source = self.whole_source(number);
            for element in 0..source.elements() {
                let (mut at, mut rest) = (vec![0; source.shape.len()], element);
                for (index, size) in at.iter_mut().zip(&source.shape).rev() {
                    *index = (rest % size) as u64;
                    rest /= size;
                }
                let place = self.goes_to(number, &at);
                let to = place
                    .iter()
                    .zip(&shape.0)
                    .fold(0, |to, (i, size)| to * size + i);
                let (from, to) = (element * 2, index(to) * 2);
                made.data[to..to + 2].copy_from_slice(&source.data[from..from + 2]);
            }
        }
        let cut = |rank: u32| {
            let region = self.to.region(&made.shape, rank as usize).expect("it fits");
            let shard = oracle::crop(&made, &region);
            (rank, Tensors::from([("made".to_owned(), shard)]))
        };
        (0..self.ranks_b()).map(cut).collect()
    }

    fn piece(&self, number: usize) -> Piece {
        let affine = |axis: usize, offset: u64, step: u64| AxisMap::Affine { offset, step, axis };
        let shape = self.source_shape(number);
        let identity: Vec<AxisMap> = (0..shape.len()).map(|axis| affine(axis, 0, 1)).collect();
        let mut map = identity.clone();
        for (axis, to) in self.permutation.iter().enumerate() {
            map[*to] = affine(axis, 0, 1);
        }
        let count = self.shapes.len() as u64;
        let before = |d: usize| self.shapes[..number].iter().map(|s| s[d]).sum();
        let change = |place: &mut AxisMap, offset: u64, step: u64| {
            if let AxisMap::Affine { axis, .. } = *place {
                *place = affine(axis, offset, step);
            }
        };
        match self.how {
            How::Concatenate(d) => change(&mut map[d], before(d), 1),
            How::Interleave(d) => change(&mut map[d], number as u64, count),
            How::Stack(d) => map.insert(d, AxisMap::Constant(number as u64)),
        }
        Piece {
            source: name(number).into(),
            domain: shape,
            source_map: identity,
            destination_map: map,
        }
    }

    fn tensor(name: &str, shape: Vec<u64>, layout: &oracle::Layout) -> (Arc<SourceTensor>, Spread) {
        let shape = Shape(shape);
        let spread = Spread::new(0, Arc::new(ours(layout)), &shape, Self::DTYPE).expect("it fits");
        let tensor = SourceTensor {
            name: name.into(),
            dtype: Self::DTYPE,
            shape,
            spreads: vec![spread.clone()],
            patches: None,
            value: None,
        };
        (Arc::new(tensor), spread)
    }

    /// The plan that makes the one of the many.
    pub(crate) fn plan(&self) -> TensorPlan {
        let pieces = self.from.iter().enumerate().map(|(number, layout)| {
            let (tensor, _) = Self::tensor(&name(number), self.source_shape(number), layout);
            (self.piece(number), tensor)
        });
        TensorPlan {
            form: shardloom::tensor::quantise::Form::Elements,
            name: "made".into(),
            dtype: Self::DTYPE,
            written: Self::DTYPE,
            element_bytes: 2,
            destination: Self::tensor("made", self.shape(), &self.to).1,
            pieces: pieces.collect(),
            zeros_from: None,
        }
    }

    /// The plans that make the many of the one again.
    pub(crate) fn inverse_plans(&self) -> Vec<TensorPlan> {
        let (made, _) = Self::tensor("made", self.shape(), &self.to);
        let plans = self
            .from
            .iter()
            .enumerate()
            .map(|(number, layout)| TensorPlan {
                form: shardloom::tensor::quantise::Form::Elements,
                name: name(number).into(),
                dtype: Self::DTYPE,
                written: Self::DTYPE,
                element_bytes: 2,
                destination: Self::tensor("", self.source_shape(number), layout).1,
                pieces: vec![(self.piece(number).invert("made".into()), made.clone())],
                zeros_from: None,
            });
        plans.collect()
    }
}
