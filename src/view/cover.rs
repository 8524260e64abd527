//! What pieces take of one tensor: which of them take each element once, and what none takes.

use crate::view::{AxisMap, Piece};
use std::cmp::Reverse;
use std::ops::Range;

/// Ranges of a rest of more than so many are not told.
const RANGES_MAX: usize = 1024;
/// Longer dimensions are not looked at index by index.
const EXTENT_MAX: u64 = 1 << 24;

/// What pieces take of a tensor of so many elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cover {
    /// Numbers of pieces that take no element twice; those of the others they take, too.
    pub pieces: Vec<usize>,
    /// The dimension along which elements are left, and which indices of it.
    pub rest: (usize, Vec<Range<u64>>),
}

impl Cover {
    /// What of a source of `shape` its `pieces` take. None if that can't be said in ranges of one
    /// dimension, or some elements are taken by such pieces only as take others twice.
    ///
    /// Example: of 10 rows, rows 0..6 to one tensor and 4..6 once more to another: piece 0, rest 6..10.
    #[must_use]
    pub fn of(pieces: &[&Piece], shape: &[u64]) -> Option<Cover> {
        let mut chosen: Vec<usize> = Vec::new();
        let mut numbers: Vec<usize> = (0..pieces.len()).collect();
        let volume = |number: &usize| pieces[*number].domain.iter().product::<u64>();
        numbers.sort_by_key(|number| Reverse(volume(number)));
        for number in numbers {
            let piece = pieces[number];
            let beside = |other: &usize| apart(piece, pieces[*other]);
            if repeats_nothing(piece) && chosen.iter().all(beside) {
                chosen.push(number);
            } else if !chosen.iter().any(|other| within(piece, pieces[*other])) {
                return None;
            }
        }
        chosen.sort_unstable();
        let taken: Vec<&Piece> = chosen.iter().map(|number| pieces[*number]).collect();
        let elements = taken
            .iter()
            .map(|piece| piece.domain.iter().product::<u64>());
        let rest = match elements.sum::<u64>() == shape.iter().product::<u64>() {
            true => (0, Vec::new()),
            false => rest(&taken, shape)?,
        };
        Some(Cover {
            pieces: chosen,
            rest,
        })
    }

    /// Indices that are left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.rest
            .1
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }
}

/// The indices of one dimension that none of `pieces` takes, if each takes all of the other dimensions.
fn rest(pieces: &[&Piece], shape: &[u64]) -> Option<(usize, Vec<Range<u64>>)> {
    let whole = |dimension: usize, extent: u64| {
        let mut maps = pieces.iter().map(|p| indices(p, dimension));
        maps.all(|at| at == Some((0, 1, extent)) || extent == 1)
    };
    let mut parted = shape.iter().enumerate();
    let mut parted = parted.by_ref().filter(|(d, extent)| !whole(*d, **extent));
    let (dimension, extent) = parted.next()?;
    if parted.next().is_some() || *extent > EXTENT_MAX {
        return None;
    }
    let mut taken = vec![false; usize::try_from(*extent).ok()?];
    for piece in pieces {
        let (first, step, count) = indices(piece, dimension)?;
        for number in 0..count {
            let at = usize::try_from(first + step * number).ok()?;
            *taken.get_mut(at)? = true;
        }
    }
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (at, _) in (0u64..).zip(&taken).filter(|(_, taken)| !**taken) {
        match ranges.last_mut() {
            Some(range) if range.end == at => range.end += 1,
            _ => ranges.push(at..at + 1),
        }
    }
    (ranges.len() <= RANGES_MAX).then_some((dimension, ranges))
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

/// First index, step and count along a dimension of the source.
fn indices(piece: &Piece, dimension: usize) -> Option<(u64, u64, u64)> {
    Some(match *piece.source_map.get(dimension)? {
        AxisMap::Constant(index) => (index, 1, 1),
        AxisMap::Affine { offset, step, axis } => {
            (offset, step, piece.domain.get(axis).copied().unwrap_or(1))
        }
    })
}

/// Whether no element is taken by both.
fn apart(one: &Piece, other: &Piece) -> bool {
    (0..one.source_map.len()).any(|dimension| {
        match (indices(one, dimension), indices(other, dimension)) {
            (Some(one), Some(other)) => disjoint(one, other),
            _ => false,
        }
    })
}

/// Whether every element that `inner` takes `outer` takes, too; no is said of some that are.
fn within(inner: &Piece, outer: &Piece) -> bool {
    (0..outer.source_map.len()).all(|dimension| {
        let both = (indices(inner, dimension), indices(outer, dimension));
        let (Some((first, step, count)), Some((begin, stride, extent))) = both else {
            return false;
        };
        let stride = stride.max(1);
        let last = first + step * count.saturating_sub(1);
        let end = begin + stride * extent.saturating_sub(1);
        let aligned = (count <= 1 || step % stride == 0) && first.abs_diff(begin) % stride == 0;
        first >= begin && last <= end && aligned
    })
}

fn disjoint(one: (u64, u64, u64), other: (u64, u64, u64)) -> bool {
    let end = |(first, step, count): (u64, u64, u64)| first + step * count.saturating_sub(1);
    if one.2 == 0 || other.2 == 0 || end(one) < other.0 || end(other) < one.0 {
        return true;
    }
    one.1 == other.1 && one.0 % one.1 != other.0 % one.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Rows `first`, `first + step`, … of a tensor of three columns.
    fn rows(first: u64, step: u64, count: u64) -> Piece {
        let columns = AxisMap::Affine {
            offset: 0,
            step: 1,
            axis: 1,
        };
        let rows = |offset, step| AxisMap::Affine {
            offset,
            step,
            axis: 0,
        };
        Piece {
            source: Arc::from("x"),
            domain: vec![count, 3],
            source_map: vec![rows(first, step), columns],
            destination_map: vec![rows(0, 1), columns],
        }
    }

    fn cover(pieces: &[Piece]) -> Option<(Vec<usize>, Vec<Range<u64>>)> {
        let pieces: Vec<&Piece> = pieces.iter().collect();
        Cover::of(&pieces, &[10, 3]).map(|cover| (cover.pieces, cover.rest.1))
    }

    #[test]
    fn says_what_is_taken_once_and_what_is_left() {
        let halves = [rows(0, 2, 5), rows(1, 2, 5)];
        assert_eq!(cover(&halves), Some((vec![0, 1], vec![])));
        let cut = [rows(0, 1, 7)];
        assert_eq!(
            cover(&cut),
            Some((vec![0], std::iter::once(7..10).collect()))
        );
        let holes = [rows(1, 1, 3), rows(6, 1, 2)];
        assert_eq!(cover(&holes), Some((vec![0, 1], vec![0..1, 4..6, 8..10])));
        let twice = [rows(0, 1, 10), rows(4, 1, 2), rows(3, 2, 3)];
        assert_eq!(cover(&twice), Some((vec![0], vec![])));
        let overlap = [rows(0, 1, 6), rows(4, 1, 6)];
        assert_eq!(cover(&overlap), None);
    }

    #[test]
    fn parts_of_two_dimensions_have_no_rest_of_one() {
        let mut corner = rows(0, 1, 7);
        corner.domain[1] = 2;
        assert_eq!(cover(&[corner]), None);
    }
}
