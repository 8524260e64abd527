//! Tensors that lack, and those that a family's table doesn't know: what each may be.

use super::choices::spelled;
use super::derive::Seen;
use super::expression::Numbers;
use super::mapping::Mapping;
use super::refusals::unknown;
use super::states::{ends, is_beside};
use super::tied::TIED;
use crate::fault::plain::counted;
use crate::fault::{Fault, Kind, Result, nearest};
use crate::plan::inventory::Inventory;
use crate::plan::lora::{OF_PAIR, is_of_pair};
use crate::plan::lora_tied::is_head;
use crate::tensor::shape::Shape;
use std::collections::{BTreeMap, BTreeSet};

/// The fault for a tensor of `mapping` that isn't there.
pub(super) fn missing_tensor(
    inventory: &Inventory,
    mapping: &Mapping,
    name: &str,
    family: &str,
    numbers: &Numbers,
) -> Fault {
    let message = format!("family {family} with this config.json has it, the files don't");
    let fault = Fault::new(Kind::MissingShard, message).tensor(name);
    if inventory.private.contains(name) {
        return fault.hint("the files have it, but the source strategy doesn't describe it");
    }
    if is_head(name) && !numbers.holds(TIED) {
        return fault.hint(format!(
            "{TIED} of config.json is false: set it to true if the embedding is the head, too; \
             --allow-missing leaves the head out"
        ));
    }
    let shapes = shapes(mapping);
    let names = inventory.tensors.keys().map(|name| &**name);
    // Masters of weights are weights.
    let is_beside = |name: &str| is_beside(name) && !name.starts_with("fp32.");
    if names.clone().all(is_beside) {
        return fault.hint(
            "these files have what an optimizer keeps, and no weights: give the model's own files",
        );
    }
    let strangers = inventory.tensors.iter();
    let strangers = strangers.filter(|(other, tensor)| {
        !shapes.contains_key(&***other)
            && shapes.get(name) == Some(&&tensor.shape)
            && !is_beside(other)
    });
    let near = match nearest(name, strangers.map(|(name, _)| &**name)).first() {
        Some(found) => renamed(&format!("{found} of the files"), found, name),
        None => listed("nearest in the files", &nearest(name, names)),
    };
    fault.hint(format!(
        "{near}--allow-missing leaves out what is made of it"
    ))
}

/// The shapes of the tensors of both sides, by all names that they may have.
fn shapes(mapping: &Mapping) -> BTreeMap<&str, &Shape> {
    let tensors = mapping.links.iter();
    let tensors = tensors.flat_map(|link| link.hf.iter().chain(&link.ms));
    let named = tensors.flat_map(|tensor| {
        let names = std::iter::once(&tensor.name).chain(&tensor.also);
        names.map(|name| (&**name, &tensor.shape))
    });
    named.collect()
}

/// What to do where a tensor may be there as `found`; `asked` is which.
fn renamed(asked: &str, found: &str, name: &str) -> String {
    format!(
        "is it {asked}? `shardloom unify --name-map FILE`, with {{\"{found}\": \"{name}\"}} in FILE, gives it the \
         right name (copy config.json beside what it writes); "
    )
}

/// Some names, if there are any.
fn listed(what: &str, names: &[&str]) -> String {
    match names {
        [] => String::new(),
        names => format!("{what}: {}; ", names.join(", ")),
    }
}

/// Ends of the names of what lies in the place of weights that were quantised.
const PACKED: [&str; 7] = [
    ".qweight",
    ".qzeros",
    ".g_idx",
    ".scales",
    ".weight_packed",
    ".absmax",
    ".quant_map",
];

/// Refuses weights of which few names are of `known`, Hugging Face's, if they are MindSpore's already.
pub(super) fn refuse_mindspore(inventory: &Inventory, known: &BTreeSet<&str>) -> Result<()> {
    let names = || {
        let names = inventory.tensors.keys().map(|name| &**name);
        names.filter(|name| !is_beside(name))
    };
    let theirs = names().filter(|name| known.contains(name)).count();
    let mut others = names().filter(|name| !known.contains(name));
    let (Some(scheme), Some(name), true) = (
        Seen::of(names()).names,
        others.next(),
        2 * theirs < names().count(),
    ) else {
        return Ok(());
    };
    let message = format!(
        "these are names of MindSpore's {} network already",
        spelled(scheme)
    );
    Err(unknown(name, message).hint(
        "`shardloom split` and `shardloom reshard` cut such weights, `shardloom export` makes Hugging Face's of them",
    ))
}

/// Refuses tensors of `inventory` that are neither `known` to the table, of which `mapping` has those that are needed,
/// nor `others` that may be there. What ranks have beside their strategy is a job's own unless its name is in parts, as
/// those of a network's tensors are.
pub(super) fn refuse_extra(
    inventory: &Inventory,
    mapping: &Mapping,
    known: &BTreeSet<&str>,
    others: impl Fn(&str) -> bool,
    family: &str,
    numbers: &Numbers,
) -> Result<()> {
    let placed = inventory.tensors.keys();
    let own = inventory.private.iter();
    let own = own.filter(|name| name.contains('.') && !is_beside(name));
    let names = placed.chain(own).map(|name| &**name);
    let mut extra = names.filter(|name| !known.contains(name) && !others(name));
    let Some(name) = extra.next() else {
        return Ok(());
    };
    let others = extra.count();
    if is_head(name) && numbers.holds(TIED) {
        let message =
            format!("{TIED} of config.json is true, and the weights have a head of their own");
        return Err(unknown(name, message).hint(
            "--untie keeps it; --allow-extra leaves it out unseen, which is right where it equals the embedding",
        ));
    }
    let others = if others > 0 {
        format!(" (nor {})", counted(others as u64, "other"))
    } else {
        String::new()
    };
    if PACKED.iter().any(|end| name.ends_with(end)) {
        let message =
            format!("weights that were quantised (GPTQ, AWQ and their kin) aren't read{others}");
        return Err(Fault::new(Kind::Unsupported, message)
            .tensor(name)
            .hint("take the model in bfloat16"));
    }
    let shape = inventory.tensors.get(name).map(|tensor| &tensor.shape);
    let lacking = shapes(mapping).into_iter().filter(|(other, wanted)| {
        known.contains(other) && !inventory.tensors.contains_key(*other) && shape == Some(*wanted)
    });
    let copied = ends(name).find(|end| known.contains(end) && inventory.tensors.contains_key(*end));
    let near = match nearest(name, lacking.map(|(name, _)| name)).first() {
        _ if copied.is_some() => format!(
            "is it another copy of {}, as a moving average of it is? ",
            copied.unwrap_or_default()
        ),
        _ if is_of_pair(name) => format!("{OF_PAIR}; "),
        Some(lacking) => renamed(&format!("{lacking}, which the files lack"), name, lacking),
        None => listed(
            "nearest that it knows",
            &nearest(name, known.iter().copied()),
        ),
    };
    let message = format!("family {family} with this config.json doesn't know it{others}");
    Err(unknown(name, message).hint(format!("{near}--allow-extra leaves it out")))
}
