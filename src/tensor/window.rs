//! A run of elements of a row-major tensor, as boxes.

use crate::tensor::region::Region;
use crate::tensor::shape::Shape;
use std::ops::Range;

/// The boxes that the elements `window` of a row-major tensor of this shape make: whole rows, and the parts of rows
/// before and after. Each is a run of elements itself.
#[must_use]
pub fn boxes(dims: &[u64], window: Range<u64>) -> Vec<Region> {
    let mut boxes = Vec::new();
    cut_boxes(dims, window, &mut Vec::new(), &mut boxes);
    boxes
}

/// The same; `outer` are the indices of the dimensions before `dims`.
fn cut_boxes(dims: &[u64], window: Range<u64>, outer: &mut Vec<u64>, boxes: &mut Vec<Region>) {
    if window.is_empty() {
        return;
    }
    let mut put = |outer: &[u64], begin: u64, count: u64, inner: &[u64]| {
        let dims = vec![1; outer.len()].into_iter().chain([count]);
        let offset = outer.iter().copied().chain([begin]);
        boxes.push(Region {
            offset: offset.chain(inner.iter().map(|_| 0)).collect(),
            shape: Shape(dims.chain(inner.iter().copied()).collect()),
        });
    };
    let Some((_, inner)) = dims.split_first() else {
        boxes.push(Region {
            offset: outer.clone(),
            shape: Shape(vec![1; outer.len()]),
        });
        return;
    };
    let row = inner.iter().product::<u64>().max(1);
    let (first, last) = (window.start / row, window.end / row);
    let full = window.start.div_ceil(row);
    if full < last {
        put(outer, full, last - full, inner);
    }
    let mut part = |index: u64, range: Range<u64>| {
        outer.push(index);
        cut_boxes(inner, range, outer, boxes);
        outer.pop();
    };
    if first < full {
        let end = window.end.min(full * row) - first * row;
        part(first, window.start - first * row..end);
    }
    if last >= full {
        part(last, 0..window.end - last * row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_cover_a_window_once() {
        let dims = [3u64, 4, 5];
        for begin in 0..60u64 {
            for end in begin..=60 {
                let boxes = boxes(&dims, begin..end);
                let mut seen = [0; 60];
                for part in &boxes {
                    for i in 0..part.shape.0[0] {
                        for j in 0..part.shape.0[1] {
                            for k in 0..part.shape.0[2] {
                                let [a, b, c] = [0, 1, 2].map(|d| part.offset[d]);
                                let at = (a + i) * 20 + (b + j) * 5 + c + k;
                                seen[usize::try_from(at).unwrap()] += 1;
                            }
                        }
                    }
                }
                for (at, count) in (0..).zip(seen) {
                    assert_eq!(count, i32::from((begin..end).contains(&at)));
                }
                assert!(boxes.len() <= 5, "{boxes:?}");
            }
        }
    }
}
