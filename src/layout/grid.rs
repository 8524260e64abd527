//! The cut positions of a tensor: a layout's parts applied to a shape.

use crate::fault::plain::counted;
use crate::fault::{Fault, Kind, Result};
use crate::tensor::region::Region;
use crate::tensor::shape::Shape;

/// Equal cuts of every dimension of one tensor. Cells partition the tensor by construction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Number of cells along each dimension.
    parts: Vec<u64>,
    /// Shape of every cell.
    cell: Shape,
}

impl Grid {
    /// Cuts a tensor of full shape `shape` into `parts` equal cells along each dimension.
    ///
    /// # Errors
    /// [`Kind::Shape`] if the number of dimensions differs or a dimension can't be divided evenly.
    pub fn new(shape: &Shape, parts: &[u64]) -> Result<Self> {
        if shape.0.len() != parts.len() {
            let message = format!(
                "the tensor has {} (shape {shape}), its strategy has {}",
                counted(shape.0.len() as u64, "dimension"),
                parts.len()
            );
            return Err(Fault::new(Kind::Shape, message));
        }
        for (dimension, (size, parts)) in shape.0.iter().zip(parts).enumerate() {
            if !size.is_multiple_of(*parts) {
                let message = format!(
                    "dimension {dimension} of shape {shape} can't be cut into {parts} equal parts"
                );
                let fault = Fault::new(Kind::Shape, message);
                return Err(match (dimension, size.checked_next_multiple_of(*parts)) {
                    (0, Some(rows)) if shape.0.len() == 2 => fault.hint(format!(
                        "is the strategy another model's? Where a vocabulary has other rows in training, \
                         import --vocab-rows {rows} writes so many"
                    )),
                    _ => fault,
                });
            }
        }
        let cell = shape
            .0
            .iter()
            .zip(parts)
            .map(|(size, parts)| size / parts)
            .collect();
        Ok(Grid {
            parts: parts.to_vec(),
            cell: Shape(cell),
        })
    }

    /// Shape of every cell.
    #[must_use]
    pub fn cell_shape(&self) -> &Shape {
        &self.cell
    }

    /// Shape of the tensor.
    #[must_use]
    pub fn full_shape(&self) -> Shape {
        let sizes = self.cell.0.iter().zip(&self.parts);
        Shape(sizes.map(|(size, parts)| size * parts).collect())
    }

    /// Number of cells along each dimension.
    #[must_use]
    pub fn parts(&self) -> &[u64] {
        &self.parts
    }

    /// The region of the tensor that `cell` covers.
    #[must_use]
    pub fn region(&self, cell: &[u64]) -> Region {
        let offset = cell
            .iter()
            .zip(&self.cell.0)
            .map(|(number, size)| number * size)
            .collect();
        Region {
            offset,
            shape: self.cell.clone(),
        }
    }

    /// How many cells meet `region`.
    #[must_use]
    pub fn count_meeting(&self, region: &Region) -> u64 {
        let dims = region.offset.iter().zip(&region.shape.0).zip(&self.cell.0);
        dims.map(|((offset, extent), cell)| match extent.checked_sub(1) {
            Some(last) => (offset + last) / cell - offset / cell + 1,
            None => 0,
        })
        .product()
    }

    /// Calls `visit` with every cell that meets `region` (not empty), in row-major order.
    pub fn for_each_meeting(&self, region: &Region, mut visit: impl FnMut(&[u64])) {
        if region.shape.0.contains(&0) {
            return;
        }
        let first: Vec<u64> = region
            .offset
            .iter()
            .zip(&self.cell.0)
            .map(|(o, c)| o / c)
            .collect();
        let last: Vec<u64> = (0..self.parts.len())
            .map(|d| (region.offset[d] + region.shape.0[d] - 1) / self.cell.0[d])
            .collect();
        let mut cell = first.clone();
        loop {
            visit(&cell);
            let Some(d) = (0..cell.len()).rev().find(|d| cell[*d] < last[*d]) else {
                return;
            };
            cell[d] += 1;
            cell[d + 1..].copy_from_slice(&first[d + 1..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_cells_that_meet_a_region() {
        let grid = Grid::new(&Shape(vec![6, 8]), &[3, 4]).unwrap();
        let mut met = Vec::new();
        let region = Region {
            offset: vec![1, 3],
            shape: Shape(vec![2, 2]),
        };
        grid.for_each_meeting(&region, |cell| met.push(cell.to_vec()));
        assert_eq!(met, [[0, 1], [0, 2], [1, 1], [1, 2]]);
        assert_eq!(grid.count_meeting(&region), 4);
    }

    #[test]
    fn cells_that_meet_are_those_with_an_element_in_common() {
        let grid = Grid::new(&Shape(vec![6, 8]), &[3, 4]).unwrap();
        let whole = Region::whole(&grid.full_shape());
        let mut all = Vec::new();
        grid.for_each_meeting(&whole, |cell| all.push(cell.to_vec()));
        assert_eq!(all.len(), 12);
        let span = |size: u64| (0..size).flat_map(move |a| (1..=size - a).map(move |n| (a, n)));
        for ((row, rows), (column, columns)) in
            span(6).flat_map(|rows| span(8).map(move |columns| (rows, columns)))
        {
            let region = Region {
                offset: vec![row, column],
                shape: Shape(vec![rows, columns]),
            };
            let meets = |cell: &&Vec<u64>| {
                let (a, b) = (cell[0] * 2, cell[1] * 2);
                a < row + rows && row < a + 2 && b < column + columns && column < b + 2
            };
            let due: Vec<&Vec<u64>> = all.iter().filter(meets).collect();
            let mut met = Vec::new();
            grid.for_each_meeting(&region, |cell| met.push(cell.to_vec()));
            assert_eq!(met.iter().collect::<Vec<_>>(), due, "{region:?}");
            assert_eq!(grid.count_meeting(&region), due.len() as u64);
        }
    }

    #[test]
    fn a_scalar_has_one_cell() {
        let grid = Grid::new(&Shape(vec![]), &[]).unwrap();
        let mut met = 0;
        grid.for_each_meeting(&Region::whole(&Shape(vec![])), |_| met += 1);
        assert_eq!(met, 1);
    }

    #[test]
    fn refuses_uneven_cuts_and_other_ranks() {
        assert!(Grid::new(&Shape(vec![23]), &[4]).is_err());
        assert!(Grid::new(&Shape(vec![4]), &[2, 2]).is_err());
    }
}
