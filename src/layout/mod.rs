//! How one tensor is spread over the ranks of a stage, with no shape needed.
//!
//! A [`Layout`] is mesh arithmetic between a rank and a cell. It is the only place that computes
//! who holds what: the redundancy group of a cell *is* [`Layout::holders`].
//!
//! *Absent on purpose*: files, processes and clocks; shapes, but in [`grid`]; a second way to tell
//! who holds what.

pub mod grid;
pub mod keep;

use crate::fault::{Fault, Kind, Result};
use serde::{Deserialize, Serialize};

/// Most ranks of a job: more than any has, and few enough to be counted through.
pub const RANKS_MAX: u32 = 1 << 20;

/// Index of a cell: one piece number a dimension.
pub type Cell = Vec<u64>;

/// Optimizer shard as a strategy file has it (spec: `opt_weight_shard_step`, `_size`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OptimizerShard {
    /// Distance between consecutive ranks of a group.
    pub step: i64,
    /// Number of pieces dimension 0 is cut into once more; -1 means all replicas.
    pub size: i64,
}

/// How one tensor is spread over the ranks of one stage. Ranks are local to the stage, `0..ranks()`.
///
/// Example: mesh `[2, 4]`, map `[[], [1]]` (dimension 1 cut by the last mesh axis) gives rank 5 =
/// coordinates (1, 1) cell `[0, 1]`, which ranks 1 and 5 hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Layout {
    /// Device matrix: sizes of the mesh axes, the last one varying fastest.
    mesh: Vec<u64>,
    /// For each tensor dimension the mesh axes (indices from the left) that cut it, outermost first.
    map: Vec<Vec<usize>>,
    /// Mesh axes that cut nothing and have more than one coordinate, in mesh order.
    repeated: Vec<usize>,
    /// Pieces that the optimizer shard cuts dimension 0 into; 1 if there is none.
    optimizer_pieces: u64,
    /// What the file said of the optimizer shard.
    optimizer: Option<OptimizerShard>,
}

impl Layout {
    /// One cell on one rank: full weights. `dimensions` is the tensor's number of dimensions.
    #[must_use]
    pub fn whole(dimensions: usize) -> Self {
        Layout {
            mesh: vec![1],
            map: vec![Vec::new(); dimensions],
            repeated: Vec::new(),
            optimizer_pieces: 1,
            optimizer: None,
        }
    }

    /// A layout from a strategy file's fields.
    ///
    /// `tensor_map` lists for each dimension the mesh axes that cut it, outermost first, *numbered
    /// from the right* as MindSpore does (axis `a` is `device_matrix[k - 1 - a]`); a -1 is skipped.
    ///
    /// # Errors
    /// [`Kind::Strategy`] for an axis out of range or used twice, an empty or zero mesh, or an
    /// optimizer shard that doesn't fit the mesh (rules of MindSpore 2.10, see docs/formats.md).
    pub fn new(
        device_matrix: &[u64],
        tensor_map: &[Vec<i64>],
        optimizer: Option<OptimizerShard>,
    ) -> Result<Self> {
        let bad = |message: String| Fault::new(Kind::Strategy, message);
        let ranks = device_matrix
            .iter()
            .try_fold(1u64, |product, size| product.checked_mul(*size));
        match ranks {
            Some(ranks)
                if !device_matrix.is_empty() && (1..=u64::from(RANKS_MAX)).contains(&ranks) => {}
            _ => {
                return Err(bad(format!(
                    "device matrix {device_matrix:?} is empty or has more than {RANKS_MAX} ranks"
                )));
            }
        }
        let axes = device_matrix.len();
        let mut used = vec![false; axes];
        let mut map = Vec::with_capacity(tensor_map.len());
        for (dimension, numbers) in tensor_map.iter().enumerate() {
            let mut cuts = Vec::new();
            for &number in numbers.iter().filter(|number| **number != -1) {
                let axis = usize::try_from(number)
                    .ok()
                    .filter(|a| *a < axes)
                    .ok_or_else(|| {
                        bad(format!(
                            "tensor map of dimension {dimension} names axis {number}, but device \
                         matrix {device_matrix:?} has axes 0 to {}",
                            axes - 1
                        ))
                    })?;
                let axis = axes - 1 - axis;
                if std::mem::replace(&mut used[axis], true) {
                    return Err(bad(format!(
                        "tensor map {tensor_map:?} uses axis {number} twice"
                    )));
                }
                cuts.push(axis);
            }
            map.push(cuts);
        }
        let repeated = (0..axes)
            .filter(|axis| !used[*axis] && device_matrix[*axis] > 1)
            .collect::<Vec<_>>();
        let mut layout = Layout {
            mesh: device_matrix.to_vec(),
            map,
            repeated,
            optimizer_pieces: 1,
            optimizer: optimizer.filter(|shard| shard.step != 0 && shard.size != 0),
        };
        if let Some(shard) = layout.optimizer {
            layout.optimizer_pieces = layout.check_optimizer(shard)?;
        }
        Ok(layout)
    }

    /// The number of optimizer pieces, checked as MindSpore checks it.
    fn check_optimizer(&self, shard: OptimizerShard) -> Result<u64> {
        let bad = |message: String| Fault::new(Kind::Strategy, message);
        if self.map.is_empty() {
            return Err(bad("a scalar can't have an optimizer shard".into()));
        }
        if self.repeated.is_empty() {
            return Err(bad(format!(
                "optimizer shard of size {} needs a mesh axis that cuts nothing, device matrix {:?} \
                 has none left",
                shard.size, self.mesh
            )));
        }
        if let [axis] = self.repeated[..] {
            let right = self.mesh[axis + 1..].iter().product::<u64>();
            if i64::try_from(right) != Ok(shard.step) {
                return Err(bad(format!(
                    "optimizer shard step is {}, the mesh gives {right}",
                    shard.step
                )));
            }
        }
        let replicas = self
            .repeated
            .iter()
            .map(|axis| self.mesh[*axis])
            .product::<u64>();
        let pieces = if shard.size == -1 {
            replicas
        } else {
            u64::try_from(shard.size).unwrap_or(0)
        };
        if pieces == 0 || !replicas.is_multiple_of(pieces) {
            return Err(bad(format!(
                "optimizer shard size {} doesn't divide the {replicas} replicas",
                shard.size
            )));
        }
        Ok(pieces)
    }

    /// Device matrix, the last axis varying fastest.
    #[must_use]
    pub fn mesh(&self) -> &[u64] {
        &self.mesh
    }

    /// For each dimension the mesh axes that cut it, indices from the left, outermost first.
    #[must_use]
    pub fn map(&self) -> &[Vec<usize>] {
        &self.map
    }

    /// The optimizer shard as the strategy file has it.
    #[must_use]
    pub fn optimizer(&self) -> Option<OptimizerShard> {
        self.optimizer
    }

    /// For each dimension the mesh axes that cut it, numbered from the right as in a strategy file,
    /// outermost first; `[-1]` where nothing cuts.
    #[must_use]
    pub fn axis_numbers(&self) -> Vec<Vec<i64>> {
        let number = |axis: &usize| i64::try_from(self.mesh.len() - 1 - axis).unwrap_or(i64::MAX);
        let numbers = |axes: &Vec<usize>| match axes[..] {
            [] => vec![-1],
            _ => axes.iter().map(number).collect(),
        };
        self.map.iter().map(numbers).collect()
    }

    /// Number of pieces that the optimizer shard cuts dimension 0 into once more; 1 without one.
    #[must_use]
    pub fn optimizer_pieces(&self) -> u64 {
        self.optimizer_pieces
    }

    /// Number of ranks in the stage.
    #[must_use]
    pub fn ranks(&self) -> u32 {
        u32::try_from(self.mesh.iter().product::<u64>()).unwrap_or(u32::MAX)
    }

    /// Number of dimensions of the tensor.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.map.len()
    }

    /// Number of cells along each dimension.
    #[must_use]
    pub fn parts(&self) -> Vec<u64> {
        let mut parts: Vec<u64> = self
            .map
            .iter()
            .map(|cuts| cuts.iter().map(|axis| self.mesh[*axis]).product())
            .collect();
        if let Some(first) = parts.first_mut() {
            *first *= self.optimizer_pieces;
        }
        parts
    }

    /// Whether the tensor is cut at all.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.parts().iter().any(|parts| *parts > 1)
    }

    /// Whether each rank gets the same part of a tensor by both.
    #[must_use]
    pub fn is_cut_like(&self, other: &Layout) -> bool {
        self == other
            || self.ranks() == other.ranks()
                && self.parts() == other.parts()
                && (0..self.ranks()).all(|rank| self.cell(rank) == other.cell(rank))
    }

    /// Number of ranks that hold the same cell.
    #[must_use]
    pub fn replicas(&self) -> u64 {
        self.repeated
            .iter()
            .map(|axis| self.mesh[*axis])
            .product::<u64>()
            / self.optimizer_pieces
    }

    /// Number of ranks to the right of `axis`: the weight of its coordinate in a rank.
    fn weight(&self, axis: usize) -> u64 {
        self.mesh[axis + 1..].iter().product()
    }

    fn coordinate(&self, rank: u64, axis: usize) -> u64 {
        rank / self.weight(axis) % self.mesh[axis]
    }

    /// The cell that local rank `rank` holds.
    #[must_use]
    pub fn cell(&self, rank: u32) -> Cell {
        let rank = u64::from(rank);
        let number = |axes: &[usize]| {
            axes.iter().fold(0, |n, axis| {
                n * self.mesh[*axis] + self.coordinate(rank, *axis)
            })
        };
        let mut cell: Cell = self.map.iter().map(|cuts| number(cuts)).collect();
        if let Some(first) = cell.first_mut() {
            let replica = number(&self.repeated);
            *first = *first * self.optimizer_pieces + replica % self.optimizer_pieces;
        }
        cell
    }

    /// The local ranks that hold `cell`, ascending: its redundancy group.
    pub fn holders(&self, cell: &[u64]) -> impl Iterator<Item = u32> + '_ {
        let mut base = 0;
        for (dimension, cuts) in self.map.iter().enumerate() {
            let mut number = cell[dimension];
            if dimension == 0 {
                number /= self.optimizer_pieces;
            }
            for axis in cuts.iter().rev() {
                base += number % self.mesh[*axis] * self.weight(*axis);
                number /= self.mesh[*axis];
            }
        }
        let piece = cell
            .first()
            .map_or(0, |number| number % self.optimizer_pieces);
        (0..self.replicas()).map(move |copy| {
            let mut replica = copy * self.optimizer_pieces + piece;
            let mut rank = base;
            for axis in self.repeated.iter().rev() {
                rank += replica % self.mesh[*axis] * self.weight(*axis);
                replica /= self.mesh[*axis];
            }
            u32::try_from(rank).unwrap_or(u32::MAX)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(mesh: &[u64], map: &[&[i64]], optimizer: Option<(i64, i64)>) -> Layout {
        let map: Vec<Vec<i64>> = map.iter().map(|axes| axes.to_vec()).collect();
        let optimizer = optimizer.map(|(step, size)| OptimizerShard { step, size });
        Layout::new(mesh, &map, optimizer).unwrap()
    }

    #[test]
    fn cut_alike_are_layouts_that_give_each_rank_the_same_part() {
        let rows = layout(&[2, 4], &[&[1], &[-1]], None);
        assert!(rows.is_cut() && rows.is_cut_like(&rows));
        assert!(!Layout::whole(2).is_cut());
        assert!(!layout(&[1, 4], &[&[1], &[-1]], None).is_cut());
        for (other, alike) in [
            // By an axis more, or another one that goes the same way.
            (layout(&[2, 1, 4], &[&[2, 1], &[-1]], None), true),
            (layout(&[2, 4, 1], &[&[2], &[-1]], None), true),
            // Other ranks, other parts, other cells of the same parts.
            (layout(&[2], &[&[0], &[-1]], None), false),
            (layout(&[4, 2], &[&[1], &[-1]], None), false),
            (layout(&[2, 4], &[&[-1], &[1]], None), false),
            (layout(&[4, 2], &[&[0], &[-1]], None), false),
            (layout(&[8], &[&[0], &[-1]], None), false),
        ] {
            assert_eq!(rows.is_cut_like(&other), alike, "{other:?}");
        }
    }

    // proves P99
    #[test]
    fn worked_examples_of_the_format_description() {
        assert_eq!(layout(&[2, 4], &[&[-1], &[0]], None).cell(5), [0, 1]);
        assert_eq!(layout(&[2, 2], &[&[0], &[-1]], None).cell(2), [0, 0]);
        assert_eq!(layout(&[2, 2], &[&[0], &[-1]], None).cell(3), [1, 0]);
        assert_eq!(layout(&[2, 2, 2], &[&[1, 0], &[-1]], None).cell(6), [2, 0]);
        assert_eq!(layout(&[2, 2, 2], &[&[0, 1], &[-1]], None).cell(6), [1, 0]);
        assert_eq!(
            layout(&[4, 2], &[&[1], &[-1], &[-1]], None).cell(5),
            [2, 0, 0]
        );
    }

    // proves P99
    #[test]
    fn optimizer_shards_use_the_innermost_replicas_first() {
        let shard = layout(&[4, 2], &[&[-1], &[0]], Some((2, 2)));
        assert_eq!(shard.cell(6), [1, 0]);
        assert_eq!(shard.holders(&[1, 0]).collect::<Vec<_>>(), [2, 6]);
        assert_eq!(
            layout(&[4, 2], &[&[-1], &[0]], Some((2, -1))).cell(6),
            [3, 0]
        );
        assert_eq!(
            layout(&[4, 2], &[&[0], &[-1]], Some((2, 4))).cell(5),
            [6, 0]
        );
        assert_eq!(layout(&[8], &[&[-1]], Some((1, 2))).cell(3), [1]);
        assert_eq!(
            layout(&[2, 2, 2], &[&[-1], &[1]], Some((1, 2))).cell(3),
            [1, 1]
        );
    }

    #[test]
    fn holders_and_cell_are_inverse() {
        for layout in [
            layout(&[2, 2, 4], &[&[1], &[-1]], Some((1, 4))),
            layout(&[3, 2], &[&[-1]], Some((2, -1))),
            layout(&[2, 3, 2], &[&[2, 0], &[]], None),
            Layout::whole(0),
        ] {
            for rank in 0..layout.ranks() {
                let holders: Vec<u32> = layout.holders(&layout.cell(rank)).collect();
                assert!(
                    holders.is_sorted() && holders.contains(&rank),
                    "{layout:?} {rank}"
                );
                assert_eq!(holders.len() as u64, layout.replicas());
            }
        }
    }

    #[test]
    fn refuses_what_does_not_fit_the_mesh() {
        for (mesh, map, optimizer) in [
            (vec![4], vec![vec![1]], None),
            (vec![4], vec![vec![0], vec![0]], None),
            (vec![], vec![], None),
            (vec![4], vec![vec![0], vec![-1]], Some((1, 2))),
            (vec![2, 2], vec![vec![0], vec![-1]], Some((1, 2))),
            (vec![2, 2], vec![vec![0], vec![-1]], Some((2, 8))),
        ] {
            let optimizer = optimizer.map(|(step, size)| OptimizerShard { step, size });
            assert_eq!(
                Layout::new(&mesh, &map, optimizer).unwrap_err().kind,
                Kind::Strategy
            );
        }
    }
}
