//! A box inside a tensor.

use crate::tensor::shape::Shape;

/// Offset and shape of a box inside a tensor, in elements, one entry a dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// First element of the box in each dimension.
    pub offset: Vec<u64>,
    /// Extent of the box in each dimension.
    pub shape: Shape,
}

impl Region {
    /// The whole of a tensor.
    #[must_use]
    pub fn whole(shape: &Shape) -> Self {
        Region {
            offset: vec![0; shape.0.len()],
            shape: shape.clone(),
        }
    }

    /// The box that both cover, or none if they don't meet.
    #[must_use]
    pub fn intersect(&self, other: &Region) -> Option<Region> {
        let mut offset = Vec::with_capacity(self.offset.len());
        let mut dims = Vec::with_capacity(self.offset.len());
        for d in 0..self.offset.len() {
            let begin = self.offset[d].max(other.offset[d]);
            let end = (self.offset[d] + self.shape.0[d]).min(other.offset[d] + other.shape.0[d]);
            if begin >= end {
                return None;
            }
            offset.push(begin);
            dims.push(end - begin);
        }
        Some(Region {
            offset,
            shape: Shape(dims),
        })
    }
}
