//! How a destination tensor is made of source tensors.
//!
//! A [`Piece`] is a small index domain with two axis maps, one into the source tensor, one into the
//! destination. It can be cut by a region on either side and stays a piece, and read backwards it is
//! its own inverse: rename, slice, concatenate, interleave, stack and transpose are all pieces.
//!
//! *Absent on purpose*: files, processes and clocks; what a model calls its tensors.

mod cover;
mod join;

pub use cover::Cover;

use crate::tensor::arithmetic::{Lane, Rectangle};
use crate::tensor::dtype::Dtype;
use crate::tensor::quantise::Form;
use crate::tensor::region::Region;
use crate::tensor::shape::Shape;
use crate::tensor::strided::{Loop, StridedCopy};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Where one tensor dimension's index comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AxisMap {
    /// Always this index.
    Constant(u64),
    /// `offset + step * i`, where `i` is the index along domain axis `axis`.
    Affine {
        /// Index at the beginning of the axis.
        offset: u64,
        /// Distance between neighbours, at least 1.
        step: u64,
        /// Axis of the domain.
        axis: usize,
    },
}

/// One strided part of a destination tensor and the part of a source tensor it is copied from.
///
/// Example: rows 4..6 of `kv` go to rows 0..2 of `k`: domain `[2, columns]`, source map
/// `[4 + axis 0, axis 1]`, destination map `[axis 0, axis 1]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    /// Name of the source tensor.
    pub source: Arc<str>,
    /// Extents of the index domain.
    pub domain: Vec<u64>,
    /// One entry a dimension of the source tensor.
    pub source_map: Vec<AxisMap>,
    /// One entry a dimension of the destination tensor.
    pub destination_map: Vec<AxisMap>,
}

/// How dimension 0 of a tensor may be cut for it to mean something on each rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cut {
    /// Anywhere.
    #[default]
    Anywhere,
    /// Into whole groups of so many rows.
    Groups(u64),
    /// Into pieces of just so many rows.
    Exactly(u64),
}

/// A destination tensor as parts of source tensors.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MadeOf {
    /// Its full shape, in elements.
    pub shape: Shape,
    /// What of its elements is written.
    pub form: Form,
    /// Its element type when written, unless its form has one; none means that of its sources.
    pub dtype: Option<Dtype>,
    /// How dimension 0 may be cut, beside an optimizer shard.
    pub cut: Cut,
    /// Together they cover it exactly once, up to where there are zeros. Their sources have one element
    /// type.
    pub pieces: Vec<Piece>,
    /// The first row of those, at its end, that are zeros; none: it has no such rows.
    pub zeros_from: Option<u64>,
}

impl MadeOf {
    /// A tensor of shape `shape` that `pieces` cover, in their element type, to be cut anywhere.
    #[must_use]
    pub fn new(shape: Shape, pieces: Vec<Piece>) -> Self {
        MadeOf {
            shape,
            form: Form::Elements,
            dtype: None,
            cut: Cut::Anywhere,
            pieces,
            zeros_from: None,
        }
    }
}

/// A view: each destination tensor by name, and what it is made of.
pub type Table = BTreeMap<Arc<str>, MadeOf>;

/// A part of a piece's domain: one range an axis.
pub type Ranges = Vec<Range<u64>>;

impl Piece {
    /// The whole of `source`, unchanged.
    #[must_use]
    pub fn identity(source: Arc<str>, shape: &Shape) -> Self {
        let map: Vec<AxisMap> = (0..shape.0.len())
            .map(|axis| AxisMap::Affine {
                offset: 0,
                step: 1,
                axis,
            })
            .collect();
        Piece {
            source,
            domain: shape.0.clone(),
            source_map: map.clone(),
            destination_map: map,
        }
    }

    /// The whole domain.
    #[must_use]
    pub fn ranges(&self) -> Ranges {
        self.domain.iter().map(|extent| 0..*extent).collect()
    }

    /// The part of `ranges` that `map` sends into `region`, or none if it is empty.
    #[must_use]
    pub fn cut(ranges: &Ranges, map: &[AxisMap], region: &Region) -> Option<Ranges> {
        let mut cut = ranges.clone();
        for (dimension, place) in map.iter().enumerate() {
            let begin = region.offset[dimension];
            let end = begin + region.shape.0[dimension];
            match *place {
                AxisMap::Constant(index) if (begin..end).contains(&index) => {}
                AxisMap::Constant(_) => return None,
                AxisMap::Affine { offset, step, axis } => {
                    let range = &mut cut[axis];
                    range.start = range.start.max(begin.saturating_sub(offset).div_ceil(step));
                    range.end = range.end.min(end.saturating_sub(offset).div_ceil(step));
                }
            }
        }
        cut.iter()
            .all(|range| range.start < range.end)
            .then_some(cut)
    }

    /// The smallest region that holds everything `map` sends `ranges` (not empty) to.
    #[must_use]
    pub fn image(ranges: &Ranges, map: &[AxisMap]) -> Region {
        let (offset, dims) = map
            .iter()
            .map(|place| match *place {
                AxisMap::Constant(index) => (index, 1),
                AxisMap::Affine { offset, step, axis } => {
                    let range = &ranges[axis];
                    (
                        offset + step * range.start,
                        (range.end - range.start - 1) * step + 1,
                    )
                }
            })
            .unzip();
        Region {
            offset,
            shape: Shape(dims),
        }
    }

    /// The copy that carries `ranges` (not empty, inside both regions) from a source shard covering
    /// `source` to a destination shard covering `destination`; offsets count from the shards.
    #[must_use]
    pub fn lower(
        &self,
        ranges: &Ranges,
        source: &Region,
        destination: &Region,
        element_bytes: u64,
    ) -> StridedCopy {
        let strides = source.shape.strides().into_iter();
        let strides: Vec<u64> = strides.map(|stride| stride * element_bytes).collect();
        let from = Lying {
            offset: &source.offset,
            strides: &strides,
        };
        self.lower_from(ranges, &from, destination, element_bytes)
    }

    /// The same from a shard that lies otherwise than row after row.
    #[must_use]
    pub fn lower_from(
        &self,
        ranges: &Ranges,
        source: &Lying<'_>,
        destination: &Region,
        element_bytes: u64,
    ) -> StridedCopy {
        let mut loops: Vec<Loop> = ranges
            .iter()
            .map(|range| Loop {
                count: range.end - range.start,
                source_stride: 0,
                destination_stride: 0,
            })
            .collect();
        let source = place(ranges, &self.source_map, source, |axis, stride| {
            loops[axis].source_stride += stride;
        });
        let strides = destination.shape.strides().into_iter();
        let strides: Vec<u64> = strides.map(|stride| stride * element_bytes).collect();
        let to = Lying {
            offset: &destination.offset,
            strides: &strides,
        };
        let destination = place(ranges, &self.destination_map, &to, |axis, stride| {
            loops[axis].destination_stride += stride;
        });
        StridedCopy::new(source, destination, element_bytes, loops)
    }

    /// Where `ranges` (not empty) of a source of two dimensions lie in a destination shard covering
    /// `destination`, in elements: its rows and columns, by their indices in the source.
    ///
    /// Of a source of several matrices the ranges are of one. None if they aren't, if the source is no
    /// matrix, or the piece repeats elements of it or goes askew.
    #[must_use]
    pub fn rectangle(&self, ranges: &Ranges, destination: &Region) -> Option<Rectangle> {
        let mut strides = vec![0; ranges.len()];
        let map = &self.destination_map;
        let to = Lying {
            offset: &destination.offset,
            strides: &destination.shape.strides(),
        };
        let base = place(ranges, map, &to, |axis, s| strides[axis] += s);
        let mut used = vec![false; ranges.len()];
        let mut lane = |from: &AxisMap| match *from {
            AxisMap::Constant(first) => Some(Lane {
                count: 1,
                first,
                step: 1,
                stride: 0,
            }),
            AxisMap::Affine { offset, step, axis } => {
                let range = &ranges[axis];
                let again = std::mem::replace(&mut used[axis], true);
                (!again).then_some(Lane {
                    count: range.end - range.start,
                    first: offset + step * range.start,
                    step,
                    stride: strides[axis],
                })
            }
        };
        let [.., rows, columns] = &self.source_map[..] else {
            return None;
        };
        let (rows, columns) = (lane(rows)?, lane(columns)?);
        let mut axes = ranges.iter().zip(used);
        axes.all(|(range, used)| used || range.end - range.start == 1)
            .then_some(Rectangle {
                base,
                rows,
                columns,
            })
    }

    /// The same piece read backwards: a part of the source made from the destination.
    #[must_use]
    pub fn invert(&self, destination: Arc<str>) -> Piece {
        Piece {
            source: destination,
            domain: self.domain.clone(),
            source_map: self.destination_map.clone(),
            destination_map: self.source_map.clone(),
        }
    }
}

/// How a shard lies: where it begins in its tensor, and the bytes between neighbours.
#[derive(Clone, Copy, Debug)]
pub struct Lying<'a> {
    /// Its first element, one index a dimension.
    pub offset: &'a [u64],
    /// Bytes between neighbours along each dimension.
    pub strides: &'a [u64],
}

/// Byte offset of the first element of `ranges` in a shard that lies so; tells `stride` the bytes between
/// neighbours along each domain axis.
fn place(
    ranges: &Ranges,
    map: &[AxisMap],
    shard: &Lying<'_>,
    mut stride: impl FnMut(usize, u64),
) -> u64 {
    let mut first = 0;
    for (dimension, from) in map.iter().enumerate() {
        let bytes = shard.strides[dimension];
        let index = match *from {
            AxisMap::Constant(index) => index,
            AxisMap::Affine { offset, step, axis } => {
                stride(axis, step * bytes);
                offset + step * ranges[axis].start
            }
        };
        first += (index - shard.offset[dimension]) * bytes;
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_and_lowers_every_second_row() {
        let piece = Piece {
            source: "kv".into(),
            domain: vec![3, 4],
            source_map: vec![
                AxisMap::Affine {
                    offset: 1,
                    step: 2,
                    axis: 0,
                },
                AxisMap::Affine {
                    offset: 0,
                    step: 1,
                    axis: 1,
                },
            ],
            destination_map: vec![
                AxisMap::Affine {
                    offset: 0,
                    step: 1,
                    axis: 0,
                },
                AxisMap::Affine {
                    offset: 0,
                    step: 1,
                    axis: 1,
                },
            ],
        };
        // Source rows 1, 3, 5; the source shard has rows 3.. and columns 2..4.
        let shard = Region {
            offset: vec![3, 2],
            shape: Shape(vec![3, 2]),
        };
        let ranges = Piece::cut(&piece.ranges(), &piece.source_map, &shard).unwrap();
        assert_eq!(ranges, [1..3, 2..4]);
        let whole = Region::whole(&Shape(vec![3, 4]));
        let copy = piece.lower(&ranges, &shard, &whole, 1);
        assert_eq!((copy.source, copy.destination, copy.run_bytes), (0, 6, 2));
        assert_eq!(
            copy.loops,
            [Loop {
                count: 2,
                source_stride: 4,
                destination_stride: 4
            }]
        );
    }

    #[test]
    fn a_scalar_is_one_run() {
        let shape = Shape(vec![]);
        let piece = Piece::identity("step".into(), &shape);
        let whole = Region::whole(&shape);
        let ranges = Piece::cut(&piece.ranges(), &piece.source_map, &whole).unwrap();
        assert_eq!(
            piece.lower(&ranges, &whole, &whole, 8),
            StridedCopy::new(0, 0, 8, vec![])
        );
    }
}
