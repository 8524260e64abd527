//! Names that are the model's but for a beginning: of a wrapper around it, or of the model's own.

use crate::fault::{Fault, Kind, Result};
use crate::plan::affix::Affixes;
use crate::plan::inventory::Inventory;
use std::collections::BTreeSet;

/// Beginnings that wrappers give.
const WRAPPERS: [&str; 8] = [
    "module.",
    "_orig_mod.",
    "base_model.model.",
    "model.language_model.",
    "language_model.",
    "language_model.model.",
    "_orig_mod.module.",
    "module._orig_mod.",
];

/// Refuses names of which most are those of `family` but for a beginning; says which.
///
/// # Errors
/// [`Kind::UnknownTensor`] with the flags that read them.
pub(super) fn refuse_wrapped(
    inventory: &Inventory,
    known: &BTreeSet<&str>,
    family: &str,
) -> Result<()> {
    let names = || inventory.tensors.keys();
    let (all, right) = (
        names().count(),
        names().filter(|n| known.contains(&***n)).count(),
    );
    // One that fits by chance, as lm_head, is no reason to take the others as they are.
    if right * 2 >= all {
        return Ok(());
    }
    let strips = std::iter::once("").chain(WRAPPERS);
    let ways = strips.flat_map(|strip| [(strip, ""), (strip, "model.")]);
    let fitting = |affixes: &Affixes| {
        let fitting = names().filter(|name| known.contains(affixes.of(name).as_str()));
        fitting.count()
    };
    let affixes = ways.map(|(strip, add)| Affixes {
        strip: strip.to_owned(),
        add: add.to_owned(),
    });
    let best = affixes.map(|affixes| (fitting(&affixes), affixes));
    // Of equal ones the first, which is the simplest.
    let best = best.reduce(|a, b| if b.0 > a.0 { b } else { a });
    let Some((count, affixes)) = best.filter(|(count, _)| *count > right && count * 2 > all) else {
        return Ok(());
    };
    let (mut what, mut flags) = (Vec::new(), Vec::new());
    if !affixes.strip.is_empty() {
        what.push(format!("have '{}' too much", affixes.strip));
        flags.push(format!("--strip-prefix {}", affixes.strip));
    }
    if !affixes.add.is_empty() {
        what.push(format!("lack '{}'", affixes.add));
        flags.push(format!("--add-prefix {}", affixes.add));
    }
    let message = format!(
        "its names aren't those of family {family}: {} of {all} {}",
        count - right,
        what.join(" and ")
    );
    let fault = Fault::new(Kind::UnknownTensor, message);
    Err(fault.hint(format!("{} reads them", flags.join(" "))))
}
