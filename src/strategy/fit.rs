//! Undoing what JSON does to several axes of one dimension: merging its flattened dimensions.

use super::stage_layout::StageLayout;
use crate::fault::plain::counted;
use crate::fault::{Fault, Kind, Result};
use crate::layout::Layout;
use std::ops::Range;
use std::sync::Arc;

/// More dimensions than any tensor has; bounds the search on hostile files.
const DIMENSIONS_MAX: usize = 64;

/// One dimension of a flattened layout that matters: longer than 1.
struct Flattened {
    /// Full size.
    size: u64,
    /// Size of a piece.
    slice: u64,
    /// Mesh axes that cut it, numbered from the right.
    axes: Vec<i64>,
}

impl StageLayout {
    /// The layout with as many dimensions as a tensor of full shape `full`.
    ///
    /// Example: JSON has map `[-1, 1, 0]` with shape `[48, 2, 12]`; a full shape `[48, 24]` gives
    /// the map `[[-1], [1, 0]]`. A layout whose number of dimensions fits is returned as it is.
    ///
    /// # Errors
    /// [`Kind::Shape`] if the number of dimensions can't fit, or the file tells another shape of as many;
    /// [`Kind::Strategy`] if no way or more than one way of merging flattened dimensions gives the shape.
    pub fn fit_full(&self, full: &[u64]) -> Result<Arc<Layout>> {
        self.fit(full, "shape", |_, group| {
            group.iter().try_fold(1, |n: u64, d| n.checked_mul(d.size))
        })
    }

    /// The layout with as many dimensions as a shard of shape `shard`; as [`Self::fit_full`].
    ///
    /// # Errors
    /// As [`Self::fit_full`].
    pub fn fit_shard(&self, shard: &[u64]) -> Result<Arc<Layout>> {
        let pieces = self.layout.optimizer_pieces();
        self.fit(shard, "shard shape", |dimension, group| {
            let size = group.iter().try_fold(1, |n: u64, d| n.checked_mul(d.slice));
            match dimension {
                0 => size
                    .filter(|n| n.is_multiple_of(pieces))
                    .map(|n| n / pieces),
                _ => size,
            }
        })
    }

    /// `size_of` gives the size that a group of flattened dimensions has as one dimension.
    fn fit(
        &self,
        shape: &[u64],
        what: &str,
        size_of: impl Fn(usize, &[Flattened]) -> Option<u64>,
    ) -> Result<Arc<Layout>> {
        let dimensions = self.layout.dimensions();
        if shape.len() == dimensions {
            self.tells(shape, what, size_of)?;
            return Ok(Arc::clone(&self.layout));
        }
        let map = self.layout.axis_numbers();
        let all_cut = dimensions > 1 && self.layout.map().iter().all(|axes| !axes.is_empty());
        if shape.len() == 1 && all_cut && self.expanded_shape.is_none() {
            // Protobuf: one dimension cut by several axes looks like a plain map.
            return self.remap(&[map.concat()]);
        }
        let expanded = self.expanded_shape.as_ref();
        let Some(expanded) = expanded.filter(|_| (1..dimensions).contains(&shape.len())) else {
            let message = format!(
                "the tensor has {} ({what} {shape:?}), its strategy has {dimensions}",
                counted(shape.len() as u64, "dimension")
            );
            return Err(Fault::new(Kind::Shape, message));
        };
        let bad = |problem: &str| {
            let message = format!(
                "the strategy's flattened shape {expanded:?} {problem} the tensor's {what} {shape:?}"
            );
            Fault::new(Kind::Strategy, message).hint(
                "JSON strategies flatten dimensions cut by several axes; use the protobuf form",
            )
        };
        let flattened = self
            .flattened(expanded, map)
            .ok_or_else(|| bad("can't be cut for"))?;
        let (ways, groups) = groupings(&flattened, shape.len(), |dimension, group| {
            size_of(dimension, group) == Some(shape[dimension]) && is_contiguous(group)
        });
        match ways {
            0 => Err(bad("can't be merged into")),
            1 => {
                let merged: Vec<Vec<i64>> = groups
                    .into_iter()
                    .map(|group| {
                        flattened[group]
                            .iter()
                            .flat_map(|d| d.axes.clone())
                            .collect()
                    })
                    .collect();
                self.remap(&merged)
            }
            _ => Err(bad("can be merged in several ways into")),
        }
    }

    /// Whether the file tells the shape that the tensor has, if it tells one.
    fn tells(
        &self,
        shape: &[u64],
        what: &str,
        size_of: impl Fn(usize, &[Flattened]) -> Option<u64>,
    ) -> Result<()> {
        let Some(expanded) = &self.expanded_shape else {
            return Ok(());
        };
        let parts: Vec<u64> = self
            .layout
            .map()
            .iter()
            .map(|axes| self.parts(axes))
            .collect();
        let mut sizes = expanded.iter().zip(&parts).zip(shape).enumerate();
        let fits = sizes.all(|(dimension, ((size, parts), told))| {
            let slice = match size.is_multiple_of(*parts) {
                true => size / parts,
                false => 0,
            };
            let whole = Flattened {
                size: *size,
                slice,
                axes: Vec::new(),
            };
            let due = size_of(dimension, &[whole]);
            due == Some(*told)
                || self.padded && dimension == 0 && is_padding(*size, due.unwrap_or(*size), *told)
        });
        if fits {
            return Ok(());
        }
        let cut: Vec<String> = parts.iter().map(u64::to_string).collect();
        let message = format!(
            "its shape is {expanded:?} by the strategy, cut into {} parts, and the {what} {shape:?} doesn't fit that",
            cut.join(" x ")
        );
        Err(Fault::new(Kind::Shape, message).hint(
            "the strategy is of another model or another layout: give the one that the checkpoint was saved with, \
             or that the new job has written; `shardloom strategy recognise` says which layouts fit the files",
        ))
    }

    /// Into how many pieces `axes` of the mesh cut a dimension.
    fn parts(&self, axes: &[usize]) -> u64 {
        axes.iter().map(|axis| self.layout.mesh()[*axis]).product()
    }

    fn remap(&self, map: &[Vec<i64>]) -> Result<Arc<Layout>> {
        Layout::new(self.layout.mesh(), map, self.layout.optimizer()).map(Arc::new)
    }

    /// The dimensions longer than 1; none if one can't be cut evenly or there are too many.
    fn flattened(&self, expanded: &[u64], map: Vec<Vec<i64>>) -> Option<Vec<Flattened>> {
        let mut flattened = Vec::new();
        let cuts = self.layout.map().iter().zip(map);
        for (size, (axes, numbers)) in expanded.iter().zip(cuts) {
            let parts = self.parts(axes);
            if *size == 0 || !size.is_multiple_of(parts) {
                return None;
            }
            if *size > 1 {
                flattened.push(Flattened {
                    size: *size,
                    slice: size / parts,
                    axes: numbers.into_iter().filter(|axis| *axis >= 0).collect(),
                });
            }
        }
        (flattened.len() <= DIMENSIONS_MAX).then_some(flattened)
    }
}

/// Whether `told` rows may be the `due` ones of `size` and padding, or without: not a part of them, and not as many times
/// as many as a tensor has that is cut into fewer parts.
fn is_padding(size: u64, due: u64, told: u64) -> bool {
    let (due, told) = (due.max(1), told.max(1));
    let fewer = told.is_multiple_of(due) && (size / due).is_multiple_of(told / due);
    !due.is_multiple_of(told) && !fewer
}

/// Whether a piece of the merged dimension is one run: nothing is cut inside an uncut rest.
fn is_contiguous(group: &[Flattened]) -> bool {
    let first_open = group.iter().position(|dimension| dimension.slice > 1);
    first_open.is_none_or(|first| group[first + 1..].iter().all(|d| d.slice == d.size))
}

/// The ways (0, 1, or 2 for more) to cut `flattened` into `count` consecutive groups that are all
/// accepted, and one of them.
fn groupings(
    flattened: &[Flattened],
    count: usize,
    accepts: impl Fn(usize, &[Flattened]) -> bool,
) -> (u8, Vec<Range<usize>>) {
    let end = flattened.len();
    // For the groups from `dimension` on: by start, how many ways and where the first group ends.
    let mut ways = vec![(0u8, end); end + 1];
    ways[end].0 = 1;
    let mut steps = Vec::with_capacity(count);
    for dimension in (0..count).rev() {
        let mut before = vec![(0u8, end); end + 1];
        for start in 0..=end {
            for stop in start..=end {
                if ways[stop].0 > 0 && accepts(dimension, &flattened[start..stop]) {
                    before[start] = ((before[start].0 + ways[stop].0).min(2), stop);
                }
            }
        }
        ways = before.clone();
        steps.push(before);
    }
    let mut start = 0;
    let groups = steps.iter().rev().map(|step| {
        let stop = step[start].1;
        let group = start..stop;
        start = stop;
        group
    });
    let groups = groups.collect();
    (ways[0].0, groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(mesh: &[u64], map: &[i64], shape: &[u64]) -> StageLayout {
        let map: Vec<Vec<i64>> = map.iter().map(|axis| vec![*axis]).collect();
        StageLayout {
            stage: 0,
            layout: Arc::new(Layout::new(mesh, &map, None).unwrap()),
            expanded_shape: Some(shape.to_vec()),
            padded: false,
        }
    }

    #[test]
    fn merges_flattened_rows_and_columns() {
        let columns = flat(&[2, 2, 2], &[-1, 1, 0], &[48, 2, 12]);
        let expected = Layout::new(&[2, 2, 2], &[vec![-1], vec![1, 0]], None).unwrap();
        assert_eq!(*columns.fit_full(&[48, 24]).unwrap(), expected);
        assert_eq!(*columns.fit_shard(&[48, 6]).unwrap(), expected);
        let rows = flat(&[2, 2, 2], &[1, 0, -1], &[2, 12, 48]);
        let expected = Layout::new(&[2, 2, 2], &[vec![1, 0], vec![-1]], None).unwrap();
        assert_eq!(*rows.fit_full(&[24, 48]).unwrap(), expected);
        assert_eq!(*rows.fit_shard(&[6, 48]).unwrap(), expected);
    }

    #[test]
    fn a_fitting_layout_is_the_same_arc() {
        let columns = flat(&[2, 2, 2], &[-1, 1, 0], &[48, 2, 12]);
        let same = columns.fit_full(&[48, 2, 12]).unwrap();
        assert!(Arc::ptr_eq(&same, &columns.layout));
    }

    #[test]
    fn refuses_another_shape_of_as_many_dimensions() {
        let rows = flat(&[2, 2], &[1, -1], &[48, 24]);
        assert_eq!(rows.fit_shard(&[24, 24]).unwrap().parts(), [2, 1]);
        for shard in [[48, 24], [12, 24], [24, 12]] {
            assert_eq!(rows.fit_shard(&shard).unwrap_err().kind, Kind::Shape);
        }
        assert_eq!(rows.fit_full(&[24, 24]).unwrap_err().kind, Kind::Shape);
        let odd = flat(&[2, 2], &[1, -1], &[47, 24]);
        assert_eq!(odd.fit_shard(&[23, 24]).unwrap_err().kind, Kind::Shape);
    }

    #[test]
    fn dimensions_of_one_element_go_anywhere() {
        let layout = flat(&[2, 2], &[-1, 1, 0, -1], &[1, 2, 12, 1]);
        let expected = Layout::new(&[2, 2], &[vec![-1], vec![1, 0]], None).unwrap();
        assert_eq!(*layout.fit_full(&[1, 24]).unwrap(), expected);
        // The shard could be of [2, 12] as well.
        assert!(layout.fit_shard(&[1, 6]).is_err());
        let layout = flat(&[2, 2], &[-1, 1, 0, -1], &[3, 2, 12, 1]);
        assert_eq!(*layout.fit_shard(&[3, 6]).unwrap(), expected);
    }

    #[test]
    fn the_optimizer_shard_cuts_the_merged_dimension() {
        let optimizer = crate::layout::OptimizerShard { step: 4, size: 2 };
        let map = [vec![1], vec![0], vec![-1]];
        let layout = StageLayout {
            stage: 0,
            layout: Arc::new(Layout::new(&[2, 2, 2], &map, Some(optimizer)).unwrap()),
            expanded_shape: Some(vec![2, 12, 48]),
            padded: false,
        };
        assert_eq!(layout.fit_full(&[24, 48]).unwrap().parts(), [8, 1]);
        assert_eq!(layout.fit_shard(&[3, 48]).unwrap().parts(), [8, 1]);
    }

    #[test]
    fn refuses_what_is_impossible_or_ambiguous() {
        let layout = flat(&[2, 2, 2], &[2, 1, 0], &[2, 2, 12]);
        let fault = layout.fit_shard(&[1, 6]).unwrap_err();
        assert_eq!(fault.kind, Kind::Strategy);
        assert!(fault.message.contains("several ways"), "{fault}");
        assert_eq!(layout.fit_full(&[4, 12]).unwrap().parts(), [4, 2]);
        assert_eq!(layout.fit_full(&[5, 12]).unwrap_err().kind, Kind::Strategy);
        let inner = flat(&[2, 2], &[-1, 0], &[4, 12]);
        assert_eq!(inner.fit_full(&[48]).unwrap_err().kind, Kind::Strategy);
        assert_eq!(inner.fit_full(&[4, 4, 3]).unwrap_err().kind, Kind::Shape);
    }

    #[test]
    fn a_plain_map_of_a_vector_means_several_axes() {
        let mut layout = flat(&[2, 2], &[1, 0], &[]);
        layout.expanded_shape = None;
        assert_eq!(layout.fit_full(&[48]).unwrap().parts(), [4]);
    }
}
