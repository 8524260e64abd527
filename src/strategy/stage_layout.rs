//! The layout of a tensor in a pipeline stage.

use crate::fault::{Fault, Kind, Result};
use crate::layout::Layout;
use std::sync::Arc;

/// Layout of one tensor in one pipeline stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageLayout {
    /// Pipeline stage, from 0.
    pub stage: u32,
    /// The layout; its ranks are local to the stage.
    pub layout: Arc<Layout>,
    /// Full sizes of the layout's dimensions, where the file tells them (JSON). They may be more
    /// than the tensor has: ask [`StageLayout::fit_full`] or [`StageLayout::fit_shard`].
    pub expanded_shape: Option<Vec<u64>>,
    /// Whether the tensor may have other rows than `expanded_shape` says: those of a vocabulary that was padded.
    pub padded: bool,
}

impl StageLayout {
    /// `layout` in `stage`, with as many dimensions as the tensor.
    #[must_use]
    pub fn new(stage: u32, layout: Layout) -> Self {
        StageLayout {
            stage,
            layout: Arc::new(layout),
            expanded_shape: None,
            padded: false,
        }
    }

    /// `layout` in `stage` of a tensor of shape `full`, as JSON can hold it: a dimension that several axes cut
    /// is one dimension for each of them.
    ///
    /// Example: the map `[[-1], [1, 0]]` of a tensor `[48, 24]` on a mesh `[2, 4]` gives `[-1, 1, 0]` with the
    /// shape `[48, 2, 12]`.
    ///
    /// # Errors
    /// [`Kind::Strategy`] if the layout can't be told from that again.
    pub fn expanded(stage: u32, layout: &Arc<Layout>, full: &[u64]) -> Result<Self> {
        let numbers = layout.axis_numbers();
        if numbers.iter().all(|axes| axes.len() == 1) {
            return Ok(StageLayout {
                stage,
                layout: Arc::clone(layout),
                expanded_shape: None,
                padded: false,
            });
        }
        let (mut map, mut shape) = (Vec::new(), Vec::new());
        for ((axes, numbers), size) in layout.map().iter().zip(&numbers).zip(full) {
            let mut rest = *size;
            for (place, number) in numbers.iter().enumerate() {
                let parts = axes.get(place).map_or(1, |axis| layout.mesh()[*axis]);
                let last = place + 1 == numbers.len();
                shape.push(if last { rest } else { parts });
                rest /= parts;
                map.push(vec![*number]);
            }
        }
        let flattened = Layout::new(layout.mesh(), &map, layout.optimizer())?;
        let expanded = StageLayout {
            stage,
            layout: Arc::new(flattened),
            expanded_shape: Some(shape),
            padded: false,
        };
        let parts = layout.parts();
        let shard: Vec<u64> = full.iter().zip(parts).map(|(n, parts)| n / parts).collect();
        match expanded.fit_shard(&shard) {
            Ok(found) if is_cut_alike(&found, layout) => Ok(expanded),
            _ => {
                let message = format!("JSON can't hold the layout of a tensor of shape {full:?}");
                Err(Fault::new(Kind::Strategy, message).hint("write the protobuf form"))
            }
        }
    }
}

/// Whether two layouts of one mesh are the same but for axes of a single rank.
fn is_cut_alike(a: &Layout, b: &Layout) -> bool {
    let cuts = |layout: &Layout| -> Vec<Vec<usize>> {
        let long = |axis: &&usize| layout.mesh()[**axis] > 1;
        let map = layout.map().iter();
        map.map(|axes| axes.iter().filter(long).copied().collect())
            .collect()
    };
    (a.mesh(), a.optimizer(), cuts(a)) == (b.mesh(), b.optimizer(), cuts(b))
}

/// Checks that `layout` cuts a tensor of `shape` into equal parts.
///
/// # Errors
/// [`Kind::Shape`] naming the dimension.
pub(super) fn check_even(layout: &Layout, shape: &[u64]) -> Result<()> {
    for (dimension, (size, parts)) in shape.iter().zip(layout.parts()).enumerate() {
        if !size.is_multiple_of(parts) {
            let message = format!(
                "dimension {dimension} of shape {shape:?} can't be cut into {parts} equal parts"
            );
            return Err(Fault::new(Kind::Shape, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::OptimizerShard;

    #[test]
    fn what_several_axes_cut_is_told_from_its_shape_again() {
        let map = [vec![-1], vec![1, 0]];
        let layout = Arc::new(Layout::new(&[2, 4], &map, None).unwrap());
        let expanded = StageLayout::expanded(3, &layout, &[48, 24]).unwrap();
        assert_eq!(expanded.expanded_shape.as_deref(), Some(&[48, 2, 12][..]));
        assert_eq!(expanded.stage, 3);
        assert_eq!(expanded.fit_full(&[48, 24]).unwrap(), layout);
        let shard = OptimizerShard { step: 8, size: 2 };
        let map = [vec![1, 0], vec![-1]];
        let layout = Arc::new(Layout::new(&[2, 2, 4], &map, Some(shard)).unwrap());
        let expanded = StageLayout::expanded(0, &layout, &[64, 3]).unwrap();
        assert_eq!(expanded.fit_shard(&[4, 3]).unwrap(), layout);
    }

    #[test]
    fn a_layout_of_single_axes_stays_and_one_that_could_be_another_is_refused() {
        let plain = Arc::new(Layout::new(&[2, 4], &[vec![0], vec![-1]], None).unwrap());
        let same = StageLayout::expanded(0, &plain, &[48, 24]).unwrap();
        assert_eq!((same.layout, same.expanded_shape), (plain, None));
        let map = [vec![1], vec![2, 0]];
        let odd = Arc::new(Layout::new(&[2, 2, 4], &map, None).unwrap());
        let fault = StageLayout::expanded(0, &odd, &[2, 24]).unwrap_err();
        assert_eq!(fault.kind, Kind::Strategy);
    }
}
