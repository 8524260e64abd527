//! Names that are the model's but for a beginning: of a wrapper around it, or of the model's own.

use crate::fault::{Fault, Kind, Result};
use crate::plan::affix::{Affixes, WITHIN};
use crate::plan::inventory::Inventory;
use std::collections::BTreeSet;

/// How a model's own names begin, which some save without.
const OWN: &str = "model.";

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
    let strips = strips(inventory, known);
    let ways = strips
        .iter()
        .flat_map(|strip| [(*strip, ""), (*strip, OWN)]);
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

/// What wrappers add, and beginnings, whole parts of names, without which some name is one that is known; the
/// shortest first.
fn strips<'a>(inventory: &'a Inventory, known: &BTreeSet<&str>) -> Vec<&'a str> {
    let wrappers = WITHIN.map(|wrapper| (wrapper.len(), wrapper));
    let mut strips = BTreeSet::from(wrappers);
    strips.insert((0, ""));
    for name in inventory.tensors.keys() {
        let cuts = name.match_indices('.').map(|(at, _)| at + 1);
        let fits = |at: &usize| {
            let rest = &name[*at..];
            known.contains(rest) || known.contains(format!("{OWN}{rest}").as_str())
        };
        strips.extend(cuts.filter(fits).map(|at| (at, &name[..at])));
    }
    strips.into_iter().map(|(_, strip)| strip).collect()
}
