//! A box inside a tensor.

use crate::fault::{Fault, Kind, Result};
use crate::tensor::shape::Shape;
use std::collections::BTreeSet;

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

/// Checks that parts cover a tensor of shape `full` exactly once.
///
/// # Errors
/// [`Kind::Corrupt`] for parts that overlap, [`Kind::MissingShard`] if some of the tensor is in none.
pub fn check_cover(full: &Shape, parts: &[&Region]) -> Result<()> {
    let axis = (0..full.0.len()).max_by_key(|axis| {
        let begins = parts.iter().map(|region| region.offset[*axis]);
        begins.collect::<BTreeSet<u64>>().len()
    });
    let mut covered = 0u64;
    let mut sorted = parts.to_vec();
    sorted.sort_by_key(|region| axis.map_or(0, |axis| region.offset[axis]));
    for (number, region) in sorted.iter().enumerate() {
        covered = covered.saturating_add(region.shape.elements()?);
        let end = axis.map(|axis| region.offset[axis] + region.shape.0[axis]);
        let later = sorted[number + 1..].iter();
        let mut near = later.take_while(|other| {
            axis.zip(end)
                .is_none_or(|(axis, end)| other.offset[axis] < end)
        });
        if let Some(other) = near.find(|other| region.intersect(other).is_some()) {
            let message = format!(
                "its parts at {:?} and {:?} overlap",
                region.offset, other.offset
            );
            return Err(Fault::new(Kind::Corrupt, message));
        }
    }
    let due = full.elements()?;
    if covered == due {
        return Ok(());
    }
    let message = format!("its parts have {covered} of its {due} elements: some are in no file");
    Err(Fault::new(Kind::MissingShard, message))
}
