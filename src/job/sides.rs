//! What is said of the two sides of a comparison: how closely their copies were looked at, and on which side
//! they differ among themselves.

use crate::fault::Result;
use crate::job::compare::{Pairing, unlike_copies};
use crate::job::copies;
use crate::job::steps::Run;
use crate::source::{Opened, Verify, uncompared};
use crate::tensor::number::Difference;
use std::collections::{BTreeMap, BTreeSet};

/// Tensors whose copies are looked at once more, at most.
const NAMES_MAX: usize = 16;

/// The notes of a comparison that has `found` these differences. Collective.
///
/// # Errors
/// As reading the copies.
pub(super) fn notes(
    run: &Run<'_>,
    sides: [&Opened; 2],
    found: &BTreeMap<String, Difference>,
    pairing: &Pairing,
) -> Result<Vec<String>> {
    let [a, b] = sides;
    let mut notes = [a, b].map(|side| side.source.notes.clone()).concat();
    let values = [a, b].map(|side| side.source.values.clone()).concat();
    let values: BTreeSet<String> = values.into_iter().collect();
    notes.extend(uncompared(&values.into_iter().collect::<Vec<_>>()));
    let verify = run.job.reading.verify;
    if copies::word(verify, a).is_some() {
        let how = match verify {
            Verify::None => "one of each was",
            Verify::Sample => "one of each, and a sample of the others, were",
            Verify::All => "every one was",
        };
        let more = match verify {
            Verify::All => "",
            _ => "; --verify all reads all",
        };
        notes.push(format!(
            "of what the first side has several times {how} compared, of the second every one{more}"
        ));
    }
    let theirs: BTreeSet<&str> = found.keys().take(NAMES_MAX).map(String::as_str).collect();
    if theirs.is_empty() {
        return Ok(notes);
    }
    let ours = theirs.iter().map(|name| pairing.ours(name).unwrap_or(name));
    let both = [ours.collect(), theirs.clone()];
    for ((side, which), names) in sides.into_iter().zip(["first", "second"]).zip(both) {
        let named = |name: &str| names.contains(name);
        let moving = &run.job.moving;
        for (name, told) in unlike_copies(run.world, run.topology, side, named, moving)? {
            notes.push(format!(
                "the {which} side's own copies of '{name}' differ: {told}. One is damaged, or its strategy is \
                 another"
            ));
        }
    }
    Ok(notes)
}
