//! What a model's files can't be, or lack: the faults of import and export.

use super::choices::{Scheme, spelled};
use super::derive::Seen;
use super::family::{Block, Family};
use super::link::Tensor;
use super::mapping::Mapping;
use super::quantised::QUANTISED;
use super::tied::{self, TIED, is_replaced};
use crate::fault::plain::{counted, first};
use crate::fault::{Fault, Kind, Result};
use crate::plan::SourceTensor;
use crate::plan::dequantise::{SCALES, is_scaled, powers_of_two};
use crate::plan::inventory::Inventory;
use crate::plan::lora::BELOW_PAIR;
use crate::plan::lora_tied::is_head;
use crate::plan::value::{Step, Value};
use crate::tensor::dtype::Dtype;
use std::sync::Arc;

/// What is said of tensors that aren't made, for what they are made of is `lacking` and that is allowed.
pub(super) fn unmade(lacking: &[&str]) -> Option<String> {
    const TOLD: usize = 6;
    (!lacking.is_empty()).then(|| {
        format!(
            "not made, for the source lacks what they are made of (--allow-missing): {}, {}",
            counted(lacking.len() as u64, "tensor"),
            first(lacking, TOLD)
        )
    })
}

/// The fault for a tensor that isn't known.
pub(super) fn unknown(name: &str, message: String) -> Fault {
    Fault::new(Kind::UnknownTensor, message).tensor(name)
}

/// Refuses names that a family hasn't.
pub(crate) fn check_named(family: &Family, mapping: &Mapping, names: Scheme) -> Result<()> {
    if mapping.links.is_empty() {
        let other = spelled(other(names));
        let (family, names) = (&family.family, spelled(names));
        let message = format!("family {family} has no {names} names, only {other} ones");
        return Err(Fault::new(Kind::Unsupported, message).hint(format!(
            "is it this model's config.json? --names {other} asks for the others"
        )));
    }
    Ok(())
}

/// The names of the other network.
pub(super) fn other(names: Scheme) -> Scheme {
    match names {
        Scheme::Legacy => Scheme::Mcore,
        Scheme::Mcore => Scheme::Legacy,
    }
}

/// Refuses tensors that have the names of the other network than `names` says.
pub(super) fn refuse_other_names(
    inventory: &Inventory,
    family: &Family,
    names: Scheme,
) -> Result<()> {
    let has = |block: &Block| match names {
        Scheme::Legacy => block.mcore.is_some(),
        Scheme::Mcore => block.legacy.is_some(),
    };
    let seen = Seen::of(inventory.tensors.keys().map(|name| &**name));
    if seen.names != Some(other(names)) {
        return Ok(());
    }
    let own = |name: &&Arc<str>| Seen::of([&***name]).names == seen.names;
    let first = inventory.tensors.keys().find(own);
    let (own, asked) = (spelled(other(names)), spelled(names));
    let fault = if family.blocks.iter().any(has) {
        let message = format!("is a name of the {own} network, and {asked} names are asked for");
        let fault = Fault::new(Kind::UnknownTensor, message);
        fault.hint(format!(
            "--names {own} reads them; without it names tell whose they are"
        ))
    } else {
        let message = format!(
            "is a name of the {own} network, and family {} is known by {asked} names only",
            family.family
        );
        Fault::new(Kind::UnknownTensor, message).hint(
            "is --hf-config this model's config.json? --family, or --name-map, takes another table",
        )
    };
    Err(fault.tensor(first.map_or("", |name| &**name)))
}

/// Checks that a tensor, if it is there, is as config.json asks.
pub(super) fn check_shape(inventory: &Inventory, wanted: &Tensor, name: &str) -> Result<()> {
    match inventory.tensors.get(name) {
        Some(found) if found.shape.0.contains(&0) && !wanted.shape.0.contains(&0) => {
            let message = format!("is {}: it has no elements", found.shape);
            Err(Fault::new(Kind::Corrupt, message).tensor(name).hint(
                "saved under ZeRO-3, where each process has a part, without gathering them first?",
            ))
        }
        Some(found)
            if wanted.vocabulary
                && found.shape.0.len() == wanted.shape.0.len()
                && found.shape.0[1..] == wanted.shape.0[1..]
                && found.shape != wanted.shape =>
        {
            let (rows, due) = (found.shape.0[0], wanted.shape.0[0]);
            let message = format!(
                "is {}: it has {}, vocab_size of config.json is {due}",
                found.shape,
                counted(rows, "row")
            );
            Err(Fault::new(Kind::Shape, message).tensor(name).hint(format!(
                "--vocab-rows {due} writes so many rows as config.json says, the first ones or with zeros after them; \
                 --vocab-rows {rows} as many as there are"
            )))
        }
        Some(found) if found.shape != wanted.shape => {
            let message = format!("is {}, config.json asks for {}", found.shape, wanted.shape);
            let fault = Fault::new(Kind::Shape, message).tensor(name);
            if let Some((part, dimension)) = part_of(&found.shape.0, &wanted.shape.0)
                && inventory.ranks > 1
            {
                return Err(fault.hint(format!(
                    "it has one part of {part} along dimension {dimension}: is it cut where the source strategy says \
                     that it isn't? `shardloom strategy show --param` tells"
                )));
            }
            Err(fault.hint(
                "is it this model's config.json, and do --qkv, --ffn, --experts and --tp fit?",
            ))
        }
        _ => Ok(()),
    }
}

/// Of how many parts `found` is one, and along which dimension, if it differs from `wanted` by that alone.
fn part_of(found: &[u64], wanted: &[u64]) -> Option<(u64, usize)> {
    let mut other = found
        .iter()
        .zip(wanted)
        .enumerate()
        .filter(|(_, (a, b))| a != b);
    let (Some((dimension, (part, whole))), None) = (other.next(), other.next()) else {
        return None;
    };
    let parts = whole
        .checked_div(*part)
        .filter(|parts| parts * part == *whole)?;
    (found.len() == wanted.len()).then_some((parts, dimension))
}

/// Refuses an adapter for a tensor that isn't written, as it is a copy of another by config.json; `as_one` says that
/// what the adapter has for the embedding is for the head, too.
pub(super) fn refuse_adapted(inventory: &Inventory, mapping: &Mapping, as_one: bool) -> Result<()> {
    if !as_one {
        refuse_untied(inventory, mapping)?;
    }
    let anew = embedding(inventory, mapping).is_some_and(|found| is_replaced(inventory, found));
    for (name, of) in &mapping.only_hf {
        let Some(tensor) = inventory.tensors.get(name) else {
            continue;
        };
        let replaced = is_replaced(inventory, tensor);
        // Both anew: they are compared, as copies in the files are.
        if anew && replaced && is_head(name) || !replaced && !is_merged(tensor) {
            continue;
        }
        let of = of.as_ref().map(|of| format!("'{of}'"));
        let of = of.as_deref().unwrap_or("the embedding");
        let message = format!(
            "the adapter changes it, but by tie_word_embeddings of config.json it is {of}, so that the \
             change would be lost"
        );
        return Err(Fault::new(Kind::Unsupported, message)
            .tensor(&**name)
            .hint("--untie gives the model a head of its own"));
    }
    Ok(())
}

/// The embedding that is there.
fn embedding<'a>(inventory: &'a Inventory, mapping: &Mapping) -> Option<&'a SourceTensor> {
    let found = inventory.tensors.get(tied::embedding(mapping)?);
    found.map(|found| &**found)
}

/// Refuses an adapter that brings a trained embedding where that is the head, too, by config.json, and no head: that
/// which it was trained with stayed as it was, as the modules that PEFT saves whole are copies. What lies below a pair
/// is none: it is the weight of both.
fn refuse_untied(inventory: &Inventory, mapping: &Mapping) -> Result<()> {
    let Some(head) = tied::head(mapping) else {
        return Ok(());
    };
    let anew =
        |tensor: &SourceTensor| is_replaced(inventory, tensor) && !tensor.name.contains(BELOW_PAIR);
    if inventory.tensors.get(head).is_some_and(|head| anew(head)) {
        return Ok(());
    }
    let Some(found) = embedding(inventory, mapping).filter(|found| anew(found)) else {
        return Ok(());
    };
    let message = format!(
        "the adapter brings it anew, but by {TIED} of config.json it is the head, too, and that stayed as it was in \
         the training"
    );
    Err(Fault::new(Kind::Unsupported, message)
        .tensor(&*found.name)
        .hint("--untie writes that head beside it, as PEFT's merge gives the model one of its own"))
}

/// Whether an adapter's pair is added to a tensor.
fn is_merged(tensor: &SourceTensor) -> bool {
    let added = |step: &Step| !matches!(step, Step::Scale { .. });
    let merged = |value: &Value| value.steps.iter().any(added);
    tensor.value.as_deref().is_some_and(merged)
}

/// What is said of a head and an embedding that are one by config.json, and aren't in the files or the adapter.
pub(super) fn tied(inventory: &Inventory, mapping: &Mapping, as_one: bool) -> Option<String> {
    let head = tied::head(mapping)?;
    match embedding(inventory, mapping) {
        Some(_) if as_one => None,
        Some(found) => is_merged(found).then(|| {
            format!(
                "the adapter's pair for {} changes the head, too, as {TIED} of config.json is true: so does PEFT's \
                 merge, though in the training the head may have stayed as it was, as it does with --untie",
                tied::embedding(mapping).unwrap_or(&found.name)
            )
        }),
        None => inventory.tensors.contains_key(head).then(|| {
            format!(
                "{head} is taken for the embedding, which isn't there: {TIED} of config.json is true"
            )
        }),
    }
}

/// What is said of layers that are left out.
pub(super) fn absent(mapping: &Mapping) -> Option<String> {
    (!mapping.absent.is_empty()).then(|| {
        let layers = mapping.absent.iter().map(|name| name.trim_end_matches('.'));
        format!(
            "config.json has layers that predict further tokens, and the source has none of their tensors: they are left \
             out ({})",
            layers.collect::<Vec<_>>().join(", ")
        )
    })
}

/// The head that is there in place of an embedding that isn't, as by config.json they are one; none if there is no
/// such.
pub(super) fn head_for<'a>(
    inventory: &Inventory,
    mapping: &'a Mapping,
    wanted: &Tensor,
) -> Option<&'a Arc<str>> {
    if !wanted.vocabulary || is_head(&wanted.name) {
        return None;
    }
    tied::head(mapping).filter(|name| inventory.tensors.contains_key(*name))
}

/// Ends of the names of scales that other ways to quantise have.
const OTHER_SCALES: [&str; 2] = ["weight_scale", "input_scale"];

/// Whether a type is one of 8 bits or fewer that no weight has by itself.
fn is_narrow(dtype: Dtype) -> bool {
    let others = [
        Dtype::F4,
        Dtype::F6_E2M3,
        Dtype::F6_E3M2,
        Dtype::F8_E8M0,
        Dtype::F8_E4M3FNUZ,
        Dtype::F8_E5M2FNUZ,
    ];
    is_scaled(dtype) || others.contains(&dtype)
}

/// Refuses what is still in 8 bits once scales have been seen to.
pub(super) fn refuse_quantised(inventory: &Inventory) -> Result<()> {
    let quantised = inventory
        .tensors
        .values()
        .find(|tensor| tensor.name.ends_with(SCALES) || is_narrow(tensor.value_dtype()));
    let Some(tensor) = quantised else {
        return Ok(());
    };
    let mut all = inventory.tensors.values();
    if let Some(scales) = all.find(|tensor| tensor.dtype == Dtype::F8_E8M0) {
        return Err(powers_of_two(&scales.name));
    }
    let mut names = inventory.tensors.keys();
    let others = |name: &&Arc<str>| OTHER_SCALES.iter().any(|end| name.ends_with(end));
    if !tensor.name.ends_with(SCALES)
        && let Some(scales) = names.find(others)
    {
        let message = format!(
            "is {}, and there is '{scales}': weights in 8 bits of a kind that isn't read (one scale a \
             tensor or a row, as compressed-tensors and ModelOpt write them)",
            tensor.dtype
        );
        return Err(Fault::new(Kind::Unsupported, message)
            .tensor(&*tensor.name)
            .hint(
                "take the model in bfloat16, or in 8 bits with a scale a block (weight_scale_inv)",
            ));
    }
    let message = format!(
        "is {}: weights in 8 bits need scales, and a {QUANTISED} in config.json that says of what",
        tensor.dtype
    );
    Err(Fault::new(Kind::Unsupported, message)
        .tensor(&*tensor.name)
        .hint("is it this model's config.json, and are all of its files there?"))
}
