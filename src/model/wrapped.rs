//! Names that are the model's but for a beginning: of a wrapper around it, or of the model's own.

use super::choices::{Choices, Experts, Fusion, Scheme};
use super::expression::Numbers;
use super::family::Family;
use super::mapping::Mapping;
use super::states::is_beside;
use crate::fault::{Fault, Kind, Result};
use crate::plan::affix::{Affixes, WITHIN};
use crate::plan::inventory::Inventory;
use crate::plan::lora::BELOW_PAIR;
use std::collections::BTreeSet;

/// What is said of the flags that read such names.
pub(super) const READS: &str = " reads them";
/// How a model's own names begin, which some save without.
const OWN: &str = "model.";

/// Refuses names of which most are those of `family` but for a beginning; says which, of the names in the files: what
/// was given for them is no matter then.
///
/// # Errors
/// [`Kind::UnknownTensor`] with the flags that read them.
pub(super) fn refuse_wrapped(
    inventory: &Inventory,
    known: &BTreeSet<&str>,
    family: &str,
) -> Result<()> {
    refuse_unmerged(inventory)?;
    let tensors = inventory.tensors.iter();
    let tensors: Vec<_> = tensors
        .filter(|(name, tensor)| !is_beside(name) && !is_beside(&tensor.name))
        .collect();
    let all = tensors.len();
    let right = tensors.iter();
    let right = right.filter(|(name, _)| known.contains(&***name)).count();
    if right == all {
        return Ok(());
    }
    let names: Vec<&str> = tensors.iter().map(|(_, tensor)| &*tensor.name).collect();
    let ways = strips(&names, known)
        .into_iter()
        .flat_map(|strip| ["", OWN].map(|add| Affixes::new(strip.clone(), add)));
    let fitting = |affixes: &Affixes| {
        let fitting = names.iter().map(|name| affixes.of(name));
        let fitting = fitting.filter(|name| known.contains(&**name));
        fitting.collect::<BTreeSet<_>>().len()
    };
    let ways: Vec<_> = ways.map(|affixes| (fitting(&affixes), affixes)).collect();
    // Of equal ones the first, which is the simplest.
    let best = ways.iter().reduce(|a, b| if b.0 > a.0 { b } else { a });
    // One that fits by chance, as lm_head, is no reason to take the others as they are, half of them are: the rest may be
    // another copy; nor are some that don't fit to call the others wrong, but where that makes all fit.
    let least = if right * 2 < all {
        all.saturating_sub(1) / 2
    } else {
        all - 1
    };
    let Some((count, affixes)) = best.filter(|(count, _)| *count > right.max(least)) else {
        return Ok(());
    };
    if *affixes == Affixes::default() {
        let message = format!(
            "{count} of its {all} names are those of family {family} as they are in the files"
        );
        let fault = Fault::new(Kind::UnknownTensor, message);
        return Err(fault.hint("leave --strip-prefix and --add-prefix out"));
    }
    let is_copy = |(other, way): &&(usize, Affixes)| {
        other == count && 2 * count <= all && way.add == affixes.add
    };
    let copies = ways.iter().filter(is_copy);
    let copies: Vec<String> = copies.map(|(_, copy)| copy.flags().join(" ")).collect();
    Err(wrapped(affixes, &copies, [*count - right, all], family))
}

/// The fault of `count` names of `all` that have beginnings which `affixes` takes off; `copies` are the flags for each copy
/// of the model that is there.
fn wrapped(affixes: &Affixes, copies: &[String], [count, all]: [usize; 2], family: &str) -> Fault {
    if let [one, other, ..] = copies {
        let message = format!(
            "its names aren't those of family {family}: the model is there more than once, under names of its own each time"
        );
        let fault = Fault::new(Kind::Ambiguous, message);
        return fault.hint(format!(
            "{one} --allow-extra takes the one and leaves out the rest, {other} --allow-extra the other"
        ));
    }
    let mut what = Vec::new();
    if !affixes.strip.is_empty() {
        let strips = affixes.strip.iter().map(|strip| format!("'{strip}'"));
        let strips: Vec<String> = strips.collect();
        what.push(format!("have {} too much", strips.join(" and ")));
    }
    if !affixes.add.is_empty() {
        what.push(format!("lack '{}'", affixes.add));
    }
    let message = format!(
        "its names aren't those of family {family}: {count} of {all} {}",
        what.join(" and ")
    );
    let fault = Fault::new(Kind::UnknownTensor, message);
    fault.hint(format!("{}{READS}", affixes.flags().join(" ")))
}

/// Refuses weights that have places for an adapter's pairs in them.
pub(super) fn refuse_unmerged(inventory: &Inventory) -> Result<()> {
    let mut names = inventory.tensors.keys();
    let Some(name) = names.find(|name| name.contains(BELOW_PAIR)) else {
        return Ok(());
    };
    let message = "is the weight below an adapter's pair: these files are of a model with an adapter that isn't merged";
    Err(Fault::new(Kind::Unsupported, message)
        .tensor(&**name)
        .hint(
            "--lora-scaling FACTOR merges its pairs (lora_alpha / r); or save it merged (PEFT's merge_and_unload), or give \
             the model that the adapter was trained for, and the adapter with --lora",
        ))
}

/// The same of names of MindSpore's networks, however their tensors are joined.
///
/// # Errors
/// As [`refuse_wrapped`].
pub(super) fn refuse_wrapped_network(
    inventory: &Inventory,
    family: &Family,
    numbers: &Numbers,
) -> Result<()> {
    let mut known = BTreeSet::new();
    for names in [Scheme::Legacy, Scheme::Mcore] {
        let joined = Choices {
            qkv: Fusion::Interleaved,
            ffn: Fusion::Interleaved,
            ..Choices::usual(names)
        };
        let apart = Choices {
            qkv: Fusion::Separate,
            ffn: Fusion::Separate,
            experts: Experts::Separate,
            ..joined
        };
        for choices in [joined, apart] {
            let Ok(mapping) = Mapping::new(family, numbers, &choices, &|_, _| true) else {
                continue;
            };
            let tensors = mapping.links.into_iter().flat_map(|link| link.ms);
            known.extend(tensors.flat_map(|tensor| [tensor.name].into_iter().chain(tensor.also)));
        }
    }
    let known = known.iter().map(|name| &**name).collect();
    refuse_wrapped(inventory, &known, &family.family)
}

/// What to take from names: nothing, or of what wrappers add each alone and all that is there; then a beginning, whole
/// parts of a name, without which it is one that is known. The simplest first.
fn strips(names: &[&str], known: &BTreeSet<&str>) -> Vec<Vec<String>> {
    let there = |wrapper: &&str| names.iter().any(|name| name.contains(wrapper));
    let there: Vec<String> = WITHIN
        .into_iter()
        .filter(there)
        .map(str::to_owned)
        .collect();
    let each = there.iter().map(|wrapper| vec![wrapper.clone()]);
    let mut within: Vec<Vec<String>> = [Vec::new()].into_iter().chain(each).collect();
    if there.len() > 1 {
        within.push(there);
    }
    let mut strips = Vec::new();
    for within in within {
        let affixes = Affixes::new(within, "");
        let mut beginnings = BTreeSet::new();
        for name in names.iter().map(|name| affixes.of(name)) {
            let cuts = name.match_indices('.').map(|(at, _)| at + 1);
            let fits = |at: &usize| {
                let rest = &name[*at..];
                known.contains(rest) || known.contains(format!("{OWN}{rest}").as_str())
            };
            beginnings.extend(cuts.filter(fits).map(|at| (at, name[..at].to_owned())));
        }
        let longer = beginnings.into_iter().map(|(_, beginning)| {
            let mut longer = affixes.strip.clone();
            longer.push(beginning);
            longer
        });
        let longer: Vec<Vec<String>> = longer.collect();
        strips.push(affixes.strip);
        strips.extend(longer);
    }
    strips.sort_by_key(Vec::len);
    strips
}
