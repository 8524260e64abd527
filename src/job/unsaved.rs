//! Tensors that the source's strategy has, and no file.

use crate::fault::plain::{counted, first};
use crate::fault::{Fault, Kind, Result};
use crate::plan::names::state_and_tensor;
use crate::source::Opened;
use crate::source::meta::TRAINABLE;
use std::collections::HashSet;

/// Most tensors that a message names.
const NAMED: usize = 3;

/// Refuses a source of which tensors lack that its strategy has and that are `needed`: whole layers or experts beside
/// others, weights or states, and tensors of which the states are there. A sort of states that no layer has (moments,
/// where only weights were saved) is no loss; nor is what a trainer leaves out of files of those weights that it trains,
/// or a job of what it saves. Local.
///
/// # Errors
/// [`Kind::MissingShard`] naming the first ones.
pub(super) fn refuse(opened: &Opened, needed: impl Fn(&str) -> bool) -> Result<()> {
    let inventory = &opened.inventory;
    let paths = opened.source.catalog.paths();
    if paths.iter().all(|path| path.contains(TRAINABLE.1)) {
        return Ok(());
    }
    let there = || inventory.tensors.keys().chain(&inventory.private);
    let there = || there().map(|name| &**name);
    let numbered: HashSet<&str> = there()
        .flat_map(|name| numbers(name).map(|n| n.1))
        .collect();
    let families: HashSet<&str> = there()
        .flat_map(|name| numbers(name).map(|n| n.0))
        .collect();
    let of_states: HashSet<&str> = there()
        .map(state_and_tensor)
        .filter(|(state, _)| !state.is_empty())
        .map(|(_, tensor)| tensor)
        .collect();
    let lost = |name: &str| {
        let alone = |(family, whole)| families.contains(family) && !numbered.contains(whole);
        of_states.contains(name) || numbers(name).any(alone)
    };
    let lacks = inventory.without_data.iter().map(|name| &**name);
    let lacks = lacks.filter(|name| !inventory.private.contains(*name));
    let lacks: Vec<&str> = lacks.filter(|name| needed(name) && lost(name)).collect();
    if lacks.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the source strategy has {} that no rank has: {}",
        counted(lacks.len() as u64, "tensor"),
        first(&lacks, NAMED)
    );
    let fault = Fault::new(Kind::MissingShard, message);
    Err(fault
        .file(opened.source.base.display().to_string())
        .hint(
            "are all ranks' directories there, and is it the strategy that these files were saved by? --unmatched drop \
             goes on without those tensors",
        ))
}

/// The places of a name that are numbers, of layers or experts: what is before each, and all up to it.
fn numbers(name: &str) -> impl Iterator<Item = (&str, &str)> {
    let ends = name.match_indices('.').map(|(at, _)| at);
    ends.filter_map(|end| {
        let begin = name[..end].rfind('.').map_or(0, |at| at + 1);
        let number = &name[begin..end];
        let is_one = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        is_one.then(|| (&name[..begin], &name[..=end]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_and_experts_are_found_in_names() {
        let found: Vec<_> = numbers("adam_m.layers.3.experts.12.w1").collect();
        assert_eq!(
            found,
            [
                ("adam_m.layers.", "adam_m.layers.3."),
                ("adam_m.layers.3.experts.", "adam_m.layers.3.experts.12.")
            ]
        );
        assert_eq!(numbers("step.1").count() + numbers("w.x1.y").count(), 0);
    }
}
