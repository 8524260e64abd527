//! The pieces of tensors that are made of several.

use crate::fault::{Fault, Kind, Result};
use crate::tensor::shape::Shape;
use crate::view::AxisMap;

/// A piece between the `part`-th of several tensors and the one they are put together in.
///
/// Axis maps are those of [`Piece`](crate::view::Piece).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Joint {
    /// Which of the separate tensors.
    pub part: usize,
    /// Extents of the index domain.
    pub domain: Vec<u64>,
    /// Where in the separate tensor.
    pub part_map: Vec<AxisMap>,
    /// Where in the joined one.
    pub joined_map: Vec<AxisMap>,
    /// A copy of what another piece has already.
    pub again: bool,
}

/// One of the tensors that are fused along dimension 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    /// Its rows.
    pub rows: u64,
    /// Rows that stay together.
    pub unit: u64,
    /// In the separate tensor, even rows of each group's share come first, then the odd ones.
    pub even_odd: bool,
}

impl Lane {
    /// One whose rows may be parted anywhere.
    pub(super) fn of_rows(rows: u64) -> Lane {
        Lane {
            rows,
            unit: 1,
            even_odd: false,
        }
    }
}

fn affine(offset: u64, step: u64, axis: usize) -> AxisMap {
    AxisMap::Affine { offset, step, axis }
}

/// Fuses tensors along dimension 0: for each of `groups`, the group's share of each lane in turn.
/// `inner` are the other dimensions, the same for all. Gives the rows of the fused tensor and the
/// pieces.
///
/// A lane with fewer units than groups is repeated: `groups / units` neighbours get the same unit.
///
/// Example: `[4, h]` and `[2, h]` with unit 1 in 2 groups: rows a0 a1 b0 a2 a3 b1.
///
/// # Errors
/// [`Kind::Usage`] if the groups can't be filled evenly.
pub(super) fn fuse(lanes: &[Lane], groups: u64, inner: &[u64]) -> Result<(u64, Vec<Joint>)> {
    let mut shares = Vec::with_capacity(lanes.len());
    for lane in lanes {
        let units = lane.rows / lane.unit.max(1);
        let even = units * lane.unit == lane.rows;
        if even && groups > 0 && units.is_multiple_of(groups) {
            shares.push((lane.rows / groups, 1));
        } else if even && units > 0 && groups.is_multiple_of(units) {
            shares.push((lane.unit, groups / units));
        } else {
            let message = format!(
                "{units} units of {} rows don't fill {groups} groups",
                lane.unit
            );
            return Err(Fault::new(Kind::Usage, message)
                .hint("does --tp divide the heads, or the key-value heads --tp?"));
        }
    }
    let width: u64 = shares.iter().map(|(share, _)| share).sum();
    let mut joints = Vec::new();
    let mut offset = 0;
    for (part, (lane, (share, repeats))) in lanes.iter().zip(&shares).enumerate() {
        let mut put = |rows: u64, at: (u64, u64), to: (u64, u64), again: bool| {
            let mut domain = vec![rows];
            domain.extend(inner);
            let tail = (1..domain.len()).map(|axis| affine(0, 1, axis));
            let map = |(offset, step)| {
                let mut map = vec![affine(offset, step, 0)];
                map.extend(tail.clone());
                map
            };
            joints.push(Joint {
                part,
                domain: domain.clone(),
                part_map: map(at),
                joined_map: map(to),
                again,
            });
        };
        if *share == 1 && *repeats == 1 {
            // One row of each group: a comb, not a piece a row.
            put(groups, (0, 1), (offset, width), false);
        } else {
            for group in 0..groups {
                let (at, again) = (group / repeats * share, group % repeats != 0);
                let to = group * width + offset;
                if lane.even_odd {
                    let half = share.div_ceil(2);
                    put(half, (at, 1), (to, 2), again);
                    if share - half > 0 {
                        put(share - half, (at + half, 1), (to + 1, 2), again);
                    }
                } else {
                    put(*share, (at, 1), (to, 1), again);
                }
            }
        }
        offset += share;
    }
    Ok((width * groups, joints))
}

/// Puts matrices of as many rows beside each other: `[rows, a]` and `[rows, b]` are `[rows, a + b]`. Gives that shape and
/// the pieces.
///
/// # Errors
/// [`Kind::Corrupt`] for others than matrices, and for other rows.
pub(super) fn beside(matrices: &[&Shape]) -> Result<(Shape, Vec<Joint>)> {
    let (mut height, mut width) = (None, 0u64);
    let mut joints = Vec::with_capacity(matrices.len());
    for (part, shape) in matrices.iter().enumerate() {
        let &[rows, columns] = &shape.0[..] else {
            let message = format!("{shape} is no matrix, which columns are of");
            return Err(Fault::new(Kind::Corrupt, message));
        };
        if rows != *height.get_or_insert(rows) {
            let message = format!("{shape} and {} have other rows", matrices[0]);
            return Err(Fault::new(Kind::Corrupt, message));
        }
        joints.push(Joint {
            part,
            domain: vec![rows, columns],
            part_map: vec![affine(0, 1, 0), affine(0, 1, 1)],
            joined_map: vec![affine(0, 1, 0), affine(width, 1, 1)],
            again: false,
        });
        width = width.saturating_add(columns);
    }
    Ok((Shape(vec![height.unwrap_or_default(), width]), joints))
}

/// Puts matrices of one expert beside each other into a stacked tensor, transposed: `parts` of
/// `[rows, columns]` each become columns of `[columns, rows of all]`, for expert number `expert`, in a
/// tensor of 2 (experts below each other) or 3 dimensions.
#[must_use]
pub(super) fn stack_transposed(
    rows: &[u64],
    columns: u64,
    expert: u64,
    dimensions: usize,
) -> Vec<Joint> {
    let mut first = 0;
    let mut joints = Vec::with_capacity(rows.len());
    for (part, rows) in rows.iter().enumerate() {
        let mut joined_map = match dimensions {
            2 => vec![affine(expert * columns, 1, 0)],
            _ => vec![AxisMap::Constant(expert), affine(0, 1, 0)],
        };
        joined_map.push(affine(first, 1, 1));
        joints.push(Joint {
            part,
            domain: vec![columns, *rows],
            part_map: vec![affine(0, 1, 1), affine(0, 1, 0)],
            joined_map,
            again: false,
        });
        first += rows;
    }
    joints
}

/// Puts a matrix of one expert into a stacked tensor `[experts, rows, columns]` as it is.
#[must_use]
pub(super) fn stack(rows: u64, columns: u64, expert: u64) -> Joint {
    Joint {
        part: 0,
        domain: vec![rows, columns],
        part_map: vec![affine(0, 1, 0), affine(0, 1, 1)],
        joined_map: vec![AxisMap::Constant(expert), affine(0, 1, 0), affine(0, 1, 1)],
        again: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fused rows as (part, row), by walking the pieces.
    fn rows(lanes: &[Lane], groups: u64) -> Vec<(usize, u64)> {
        let (count, joints) = fuse(lanes, groups, &[]).unwrap();
        let mut rows = vec![(9, 9); usize::try_from(count).unwrap()];
        for joint in joints {
            let [
                AxisMap::Affine {
                    offset: a, step: p, ..
                },
            ] = joint.part_map[..]
            else {
                unreachable!()
            };
            let [
                AxisMap::Affine {
                    offset: b, step: q, ..
                },
            ] = joint.joined_map[..]
            else {
                unreachable!()
            };
            for i in 0..joint.domain[0] {
                let slot = &mut rows[usize::try_from(b + q * i).unwrap()];
                assert_eq!(*slot, (9, 9), "covered twice");
                *slot = (joint.part, a + p * i);
            }
        }
        rows
    }

    fn lane(rows: u64, unit: u64) -> Lane {
        Lane {
            rows,
            unit,
            even_odd: false,
        }
    }

    // proves P110
    #[test]
    fn takes_turns_by_group() {
        let qkv = [lane(4, 1), lane(2, 1), lane(2, 1)];
        let expected = [
            (0, 0),
            (0, 1),
            (1, 0),
            (2, 0),
            (0, 2),
            (0, 3),
            (1, 1),
            (2, 1),
        ];
        assert_eq!(rows(&qkv, 2), expected);
        assert_eq!(
            rows(&[lane(3, 1), lane(3, 1)], 3),
            [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]
        );
        assert_eq!(rows(&[lane(2, 1), lane(1, 1)], 1), [(0, 0), (0, 1), (1, 0)]);
    }

    #[test]
    fn repeats_units_that_are_too_few() {
        let expected = [
            (0, 0),
            (1, 0),
            (0, 1),
            (1, 0),
            (0, 2),
            (1, 1),
            (0, 3),
            (1, 1),
        ];
        assert_eq!(rows(&[lane(4, 1), lane(2, 1)], 4), expected);
        let again = fuse(&[lane(4, 1), lane(2, 1)], 4, &[]).unwrap().1;
        assert_eq!(again.iter().filter(|joint| joint.again).count(), 2);
        assert!(fuse(&[lane(4, 1), lane(3, 1)], 2, &[]).is_err());
    }

    #[test]
    fn puts_even_rows_first() {
        let lanes = [
            lane(2, 1),
            Lane {
                rows: 8,
                unit: 4,
                even_odd: true,
            },
        ];
        let expected = [
            (0, 0),
            (1, 0),
            (1, 2),
            (1, 1),
            (1, 3),
            (0, 1),
            (1, 4),
            (1, 6),
            (1, 5),
            (1, 7),
        ];
        assert_eq!(rows(&lanes, 2), expected);
    }

    #[test]
    fn only_matrices_of_as_many_rows_lie_beside_each_other() {
        let shapes = [[3, 2], [3, 4]].map(|dims| Shape(dims.to_vec()));
        let (shape, joints) = beside(&[&shapes[0], &shapes[1]]).unwrap();
        assert_eq!(shape.0, [3, 6]);
        assert_eq!(joints[1].joined_map, [affine(0, 1, 0), affine(2, 1, 1)]);
        for other in [vec![2, 4], vec![3]] {
            assert!(beside(&[&shapes[0], &Shape(other)]).is_err());
        }
    }
}
