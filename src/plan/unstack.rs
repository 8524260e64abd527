//! Layers that lie in one tensor, as Megatron-Core saves them: each by its own name.

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

/// What stands before the parts of a layer.
const LAYERS: &str = "decoder.layers.";
/// What stands before the experts' own parts.
const EXPERTS: &str = "mlp.experts.experts.";
/// An optimizer's states, and what they are called with layers by number.
const STATES: [(&str, &str); 3] = [
    ("optimizer.state.exp_avg.", "adam_m."),
    ("optimizer.state.exp_avg_sq.", "adam_v."),
    ("optimizer.state.param.", "main_param."),
];
/// Parts that have the name of the module that uses them, and their own names.
const NORMS: [(&str, &str); 4] = [
    (
        "self_attention.linear_qkv.layer_norm_weight",
        "input_layernorm.weight",
    ),
    (
        "self_attention.linear_qkv.layer_norm_bias",
        "input_layernorm.bias",
    ),
    (
        "mlp.linear_fc1.layer_norm_weight",
        "pre_mlp_layernorm.weight",
    ),
    ("mlp.linear_fc1.layer_norm_bias", "pre_mlp_layernorm.bias"),
];

/// A name in two: an optimizer's state, if it is one, and the weight.
fn split(name: &str) -> (&'static str, &str) {
    let state = STATES
        .iter()
        .find_map(|(theirs, ours)| Some((*ours, name.strip_prefix(theirs)?)));
    state.unwrap_or(("", name))
}

/// The part of a layer that is in a tensor of all layers.
fn stacked(name: &str) -> Option<&str> {
    let (_, weight) = split(name);
    let part = weight.strip_prefix(LAYERS)?;
    (!part.starts_with(|c: char| c.is_ascii_digit())).then_some(part)
}

/// Puts a tensor a layer, and a layer and expert, in the place of those of all layers, with the usual
/// names; says whether there were any.
///
/// # Errors
/// [`crate::fault::Kind::Shape`] for what can't be cut so.
pub fn unstack(inventory: &mut Inventory, catalog: &Catalog) -> Result<bool> {
    if !inventory.tensors.keys().any(|name| stacked(name).is_some()) {
        return Ok(false);
    }
    let mut tensors = BTreeMap::new();
    for (name, tensor) in std::mem::take(&mut inventory.tensors) {
        let (state, weight) = split(&name);
        let depth = match stacked(&name) {
            None => 0,
            Some(part) if part.starts_with(EXPERTS) => 2,
            Some(_) => 1,
        };
        if depth == 0 || tensor.shape.0.len() < depth || tensor.value.is_some() {
            let name: Arc<str> = match state {
                "" => name,
                _ => format!("{state}{weight}").into(),
            };
            tensors.insert(name, tensor);
            continue;
        }
        for layer in slices(&tensor, catalog)? {
            let layers = match depth {
                2 => slices(&layer.1, catalog)?
                    .into_iter()
                    .map(|(expert, t)| (Some(expert), t))
                    .collect(),
                _ => vec![(None, layer.1)],
            };
            for (expert, mut tensor) in layers {
                let part = stacked(&name).unwrap_or_default();
                let own: Arc<str> =
                    format!("{state}{LAYERS}{}.{}", layer.0, called(part, expert)).into();
                tensor.name = own.clone();
                tensors.insert(own, Arc::new(tensor));
            }
        }
    }
    inventory.tensors = tensors;
    Ok(true)
}

/// The usual name of a part of a layer.
fn called(part: &str, expert: Option<u64>) -> String {
    if let (Some(rest), Some(expert)) = (part.strip_prefix(EXPERTS), expert) {
        return format!("mlp.experts.local_experts.{expert}.{rest}");
    }
    let norm = NORMS.iter().find(|(theirs, _)| *theirs == part);
    norm.map_or(part, |(_, ours)| ours).to_owned()
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
