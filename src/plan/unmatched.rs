//! What is said where the names of the two sides don't meet.

use crate::fault::{Fault, Kind, nearest};
use crate::plan::inventory::Inventory;
use crate::strategy::Strategy;

pub(super) fn nothing_in_common(inventory: &Inventory, destination: Option<&Strategy>) -> Fault {
    let fault = Fault::new(
        Kind::UnknownTensor,
        "no tensor of the source is in the destination strategy (or all are filtered out)",
    );
    let Some(name) = inventory.tensors.keys().next() else {
        return fault;
    };
    let known = destination
        .into_iter()
        .flat_map(Strategy::names)
        .map(|name| &**name);
    let near = nearest(name, known);
    let fault = fault.tensor(&**name);
    if near.is_empty() {
        return fault.hint("--name-map tells which names mean the same");
    }
    fault.hint(format!(
        "nearest in the strategy: {}; --name-map tells which mean the same",
        near.join(", ")
    ))
}

pub(super) fn unknown_tensor(name: &str, count: usize, known: Vec<&str>) -> Fault {
    let others = if count > 1 {
        format!(" (nor {} others)", count - 1)
    } else {
        String::new()
    };
    let near = nearest(name, known.into_iter());
    let near = if near.is_empty() {
        String::new()
    } else {
        format!("nearest: {}; ", near.join(", "))
    };
    Fault::new(
        Kind::UnknownTensor,
        format!("the source strategy cuts it, the destination strategy doesn't know it{others}"),
    )
    .tensor(name)
    .hint(format!(
        "{near}--unmatched copy keeps the shards as they are, --unmatched drop leaves them out"
    ))
}

pub(super) fn not_in_strategy(name: &str, others: usize, strategy: &Strategy) -> Fault {
    let others = if others > 0 {
        format!(" (nor {others} others)")
    } else {
        String::new()
    };
    let message = format!("the destination strategy doesn't know it{others}");
    let near = nearest(name, strategy.names().map(|name| &**name)).join(", ");
    Fault::new(Kind::UnknownTensor, message)
        .tensor(name)
        .hint(format!(
            "nearest in the strategy: {near}; do --names, --qkv, --ffn and --experts fit the \
             training job? --allow-extra leaves it out"
        ))
}
