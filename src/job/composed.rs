//! Tensors in parts, as they are inspected: each is shown once, and must be whole.

use crate::fault::{Fault, Kind, Result};
use crate::job::inspected::{Inspected, InspectedTensor};
use crate::tensor::figures::Figures;
use crate::tensor::region::{Region, check_cover};
use crate::tensor::shape::Shape;
use std::collections::HashMap;

/// What was seen of a tensor's parts.
struct Seen {
    shape: Shape,
    dtype: &'static str,
    /// Whether all are of one type, with as many dimensions.
    alike: bool,
    regions: Vec<Region>,
    /// What the elements of all come to; none if those of one aren't known.
    figures: Option<Figures>,
}

/// The tensors in parts that were seen.
pub(super) struct Composed {
    /// Whether the parts of a tensor may be any ranks' files: those of full weights.
    full: bool,
    /// By the rank that has all parts, if that says anything, and name.
    seen: HashMap<(Option<u32>, String), Seen>,
}

impl Composed {
    pub(super) fn new(full: bool) -> Composed {
        let seen = HashMap::new();
        Composed { full, seen }
    }

    fn key(&self, rank: u32, name: &str) -> (Option<u32>, String) {
        ((!self.full).then_some(rank), name.to_owned())
    }

    /// Takes a part that `rank` has, which is `region` of `tensor`; gives that back if it is the first.
    pub(super) fn take(
        &mut self,
        rank: u32,
        tensor: InspectedTensor,
        region: Region,
    ) -> Option<InspectedTensor> {
        let key = self.key(rank, &tensor.name);
        if let Some(seen) = self.seen.get_mut(&key) {
            seen.regions.push(region);
            for (size, other) in seen.shape.0.iter_mut().zip(&tensor.shape.0) {
                *size = (*size).max(*other);
            }
            seen.alike &= tensor.dtype == seen.dtype && seen.shape.0.len() == tensor.shape.0.len();
            match (&mut seen.figures, &tensor.figures) {
                (Some(all), Some(figures)) => all.join(figures),
                _ => seen.figures = None,
            }
            return None;
        }
        let seen = Seen {
            shape: tensor.shape.clone(),
            dtype: tensor.dtype,
            alike: true,
            regions: vec![region],
            figures: tensor.figures,
        };
        self.seen.insert(key, seen);
        Some(tensor)
    }

    /// Checks that all are whole, and says what the elements of all parts come to.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] and [`Kind::MissingShard`], naming the tensor.
    pub(super) fn settle(&mut self, inspected: &mut Inspected) -> Result<()> {
        for file in &mut inspected.files {
            for tensor in &mut file.tensors {
                let Some(seen) = self.seen.remove(&self.key(file.rank, &tensor.name)) else {
                    continue;
                };
                if !seen.alike {
                    let fault = Fault::new(Kind::Corrupt, "its parts are of several kinds");
                    return Err(fault.tensor(tensor.name.as_str()));
                }
                let regions: Vec<&Region> = seen.regions.iter().collect();
                let whole = check_cover(&seen.shape, &regions);
                whole.map_err(|fault| fault.tensor(tensor.name.as_str()))?;
                let element = tensor.bytes / tensor.shape.elements()?.max(1);
                let bytes = seen.shape.elements()?.saturating_mul(element);
                inspected.tensor_bytes += bytes.saturating_sub(tensor.bytes);
                tensor.bytes = bytes;
                tensor.shape = seen.shape;
                tensor.figures = seen.figures;
            }
        }
        Ok(())
    }
}
