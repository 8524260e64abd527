//! Layers that lie in one tensor, as Megatron-Core saves them: each by its own name.

use super::names::{
    EXPERTS, LAYERS, LOCAL_EXPERTS, before_part, part_of_ours, stacked_part, to_ours,
};
use crate::catalog::Catalog;
use crate::fault::Result;
use crate::plan::inventory::Inventory;
use crate::plan::patch::Patch;
use crate::plan::patched::of_patches;
use crate::plan::source_tensor::SourceTensor;
use crate::tensor::region::Region;
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Puts a tensor a layer, and a layer and expert, in the place of those of all layers, with MindSpore's
/// names; says whether there were any, or other names.
///
/// # Errors
/// [`crate::fault::Kind::Shape`] for what can't be cut so.
pub fn unstack(inventory: &mut Inventory, catalog: &Catalog) -> Result<bool> {
    let mut apart = Apart {
        catalog,
        tensors: BTreeMap::new(),
        any: false,
    };
    for (name, tensor) in std::mem::take(&mut inventory.tensors) {
        let (state, weight) = to_ours(&name);
        apart.any |= !state.is_empty();
        match (stacked_part(weight), before_part(weight)) {
            (Some(part), _) if can_be_cut(&tensor) => {
                for (layer, tensor) in slices(&tensor, catalog)? {
                    let before = format!("{state}{LAYERS}{layer}.");
                    apart.put(&before, part, Arc::new(tensor))?;
                }
                apart.any = true;
            }
            (None, Some((before, part))) => apart.put(&format!("{state}{before}"), part, tensor)?,
            _ => apart.put(&format!("{state}{weight}"), "", tensor)?,
        }
    }
    inventory.tensors = apart.tensors;
    Ok(apart.any)
}

/// Tensors that have been taken apart.
struct Apart<'a> {
    catalog: &'a Catalog,
    tensors: BTreeMap<Arc<str>, Arc<SourceTensor>>,
    /// Whether any was, or has another name now.
    any: bool,
}

impl Apart<'_> {
    /// Enters a part of a layer, or a part of each expert.
    fn put(&mut self, before: &str, part: &str, tensor: Arc<SourceTensor>) -> Result<()> {
        let experts = part.strip_prefix(EXPERTS);
        let Some(own) = experts.filter(|_| can_be_cut(&tensor)) else {
            let known = part_of_ours(part);
            self.any |= known != part;
            // What has two names at Megatron is the same under both.
            let name = format!("{before}{known}").into();
            self.tensors.entry(name).or_insert(tensor);
            return Ok(());
        };
        self.any = true;
        for (expert, mut tensor) in slices(&tensor, self.catalog)? {
            let name: Arc<str> = format!("{before}{LOCAL_EXPERTS}{expert}.{own}").into();
            tensor.name = name.clone();
            self.tensors.insert(name, Arc::new(tensor));
        }
        Ok(())
    }
}

/// Whether a tensor can be taken apart along its first dimension.
fn can_be_cut(tensor: &SourceTensor) -> bool {
    !tensor.shape.0.is_empty() && tensor.value.is_none()
}

/// The tensors along dimension 0, with their numbers.
fn slices(tensor: &SourceTensor, catalog: &Catalog) -> Result<Vec<(u64, SourceTensor)>> {
    let whole = Region::whole(&tensor.shape);
    let patches = match &tensor.patches {
        Some(patches) => patches.to_vec(),
        None => {
            let first = tensor.spreads.first();
            let place = first.and_then(|spread| catalog.find(spread.first_rank, &tensor.name));
            let width = u64::from(tensor.dtype.bits() / 8);
            let strides = tensor
                .shape
                .strides()
                .iter()
                .map(|stride| stride * width)
                .collect();
            let patch = place.map(|place| Patch {
                region: whole,
                strides,
                first: 0,
                place,
            });
            patch.into_iter().collect()
        }
    };
    let count = tensor.shape.0.first().copied().unwrap_or_default();
    let rest = Shape(tensor.shape.0[1..].to_vec());
    let slice = |number: u64| {
        let here = patches.iter().filter_map(|patch| {
            let (begin, size) = (patch.region.offset[0], patch.region.shape.0[0]);
            let inside = number.checked_sub(begin).filter(|inside| *inside < size)?;
            Some(Patch {
                region: Region {
                    offset: patch.region.offset[1..].to_vec(),
                    shape: Shape(patch.region.shape.0[1..].to_vec()),
                },
                strides: patch.strides[1..].to_vec(),
                first: patch.first + inside * patch.strides[0],
                place: patch.place,
            })
        });
        let made = of_patches(&tensor.name, tensor.dtype, rest.clone(), here.collect(), 0)?;
        Ok((number, made))
    };
    (0..count).map(slice).collect()
}
