//! What is said where the names of the two sides don't meet.

use crate::fault::{Fault, Kind, nearest};
use crate::plan::inventory::Inventory;
use crate::plan::lora::{OF_PAIR, is_of_pair};
use crate::plan::source_tensor::SourceTensor;
use crate::strategy::Strategy;
use std::sync::Arc;

pub(super) fn nothing_in_common(inventory: &Inventory, destination: Option<&Strategy>) -> Fault {
    let fault = Fault::new(
        Kind::UnknownTensor,
        "no tensor of the source is in the destination strategy (or all are filtered out)",
    );
    let Some(name) = inventory.tensors.keys().next() else {
        return fault;
    };
    let mut names = inventory.tensors.keys().map(|name| &**name);
    if let Some(remedy) = of_hugging_face(&mut names, destination) {
        return fault.tensor(&**name).hint(remedy);
    }
    let otherwise = destination.and_then(|strategy| begins_otherwise(name, strategy));
    let near = otherwise.unwrap_or_else(|| near(name, destination));
    let fault = fault.tensor(&**name);
    if near.is_empty() {
        let first = destination.and_then(|strategy| strategy.names().next());
        let first = first.map_or_else(String::new, |name| format!("the strategy has {name}, …: "));
        return fault.hint(format!(
            "{first}is it of the same model, and are its names the same family's? --name-map tells which \
             names mean the same"
        ));
    }
    fault.hint(format!("{near}--name-map tells which mean the same"))
}

/// What to do where `names` are Hugging Face's, and the destination's those of MindSpore's network.
fn of_hugging_face<'a>(
    names: &mut impl Iterator<Item = &'a str>,
    destination: Option<&Strategy>,
) -> Option<&'static str> {
    let networks =
        |name: &Arc<str>| name.starts_with("decoder.layers.") || name.contains(".attention.w");
    let is_network = destination.is_some_and(|strategy| strategy.names().any(networks));
    (is_network && names.any(|name| name.contains(".self_attn."))).then_some(
        "the source has Hugging Face's names, the strategy those of MindSpore's network: `shardloom import` makes \
         these of those",
    )
}

/// Names told of many.
const NAMES_TOLD: usize = 3;

/// How many `names` there are and what the first ones are, unless it is one.
fn told(names: &[&str]) -> String {
    let count = names.len();
    if count < 2 {
        return String::new();
    }
    let first = names[..count.min(NAMES_TOLD)].join(", ");
    let more = if count > NAMES_TOLD { ", …" } else { "" };
    format!(" ({count} such tensors: {first}{more})")
}

/// The name in `strategy` that only begins otherwise than `name`, and how, where no name is the same.
fn begins_otherwise(name: &str, strategy: &Strategy) -> Option<String> {
    strategy.names().find_map(|other| {
        let (side, begins, flag) = match (name.strip_suffix(&**other), other.strip_suffix(name)) {
            (Some(begins), _) => ("source", begins, "--strip-prefix"),
            (None, Some(begins)) => ("strategy", begins, "--add-prefix"),
            (None, None) => return None,
        };
        begins.ends_with('.').then(|| {
            format!(
                "it is {other} in the strategy: the {side}'s names begin with {begins} ({flag} {begins} makes them \
                 alike); "
            )
        })
    })
}

/// The names in `strategy` that are nearest to `name`.
pub(crate) fn near(name: &str, strategy: Option<&Strategy>) -> String {
    if is_of_pair(name) {
        return format!("{OF_PAIR}; ");
    }
    let known = strategy.into_iter().flat_map(Strategy::names);
    let near = nearest(name, known.map(|name| &**name));
    if near.is_empty() {
        return String::new();
    }
    format!("nearest in the strategy: {}; ", near.join(", "))
}

pub(super) fn unknown_tensor(names: &[&str], destination: Option<&Strategy>) -> Fault {
    unknown(
        names,
        destination,
        "is it the strategy of the job that reads this? --unmatched copy takes such tensors over as they \
         are, --unmatched drop leaves them out; --name-map tells which names mean the same",
    )
}

pub(super) fn not_in_strategy(names: &[&str], strategy: &Strategy) -> Fault {
    unknown(
        names,
        Some(strategy),
        "do --names, --qkv, --ffn and --experts fit the training job? --unmatched drop leaves it out, \
         --unmatched copy gives it to every rank as it is",
    )
}

/// That the strategy doesn't know these `names`, and what to do.
fn unknown(names: &[&str], destination: Option<&Strategy>, remedy: &str) -> Fault {
    let message = format!("the destination strategy doesn't know it{}", told(names));
    let first = names.first().copied().unwrap_or_default();
    let fault = Fault::new(Kind::UnknownTensor, message).tensor(first);
    if let Some(remedy) = of_hugging_face(&mut names.iter().copied(), destination) {
        return fault.hint(remedy);
    }
    let near = near(first, destination);
    fault.hint(format!("{near}{remedy}"))
}

/// Whether each part of `tensor` is on one of the first `ranks` ranks.
pub(crate) fn is_held_by(tensor: &SourceTensor, ranks: u32) -> bool {
    tensor.spreads.iter().any(|spread| {
        let layout = &spread.layout;
        let first = spread.first_rank;
        let held = |rank: u32| {
            let mut holders = layout.holders(&layout.cell(rank));
            holders.any(|holder| first.saturating_add(holder) < ranks)
        };
        !layout.is_cut() || (0..layout.ranks()).all(held)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_of_many_names_are_told() {
        for (names, due) in [
            (&["a"][..], ""),
            (&["a", "b"], " (2 such tensors: a, b)"),
            (&["a", "b", "c"], " (3 such tensors: a, b, c)"),
            (&["a", "b", "c", "d"], " (4 such tensors: a, b, c, …)"),
        ] {
            assert_eq!(told(names), due);
        }
    }
}
