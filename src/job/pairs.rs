//! Which tensor of the one side of a comparison is which of the other's.

use crate::fault::{Fault, Kind, Result};
use crate::plan::names::{check_each, followed};
use crate::source::Opened;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A tensor of the first side, of the second, or of both.
pub(super) struct Pair {
    /// What it is called on the first side, if that may have it.
    pub(super) ours: Option<Arc<str>>,
    /// What it is called on the second.
    pub(super) theirs: Arc<str>,
}

/// The pairs of two sides without names that begin with one of `filter`, where `map` says what some of the
/// first side's names are on the second.
///
/// # Errors
/// [`crate::fault::Kind::UnknownTensor`] for a name of the map that its side hasn't.
pub(super) fn pairs(
    sides: [&Opened; 2],
    filter: &[String],
    map: &BTreeMap<String, String>,
) -> Result<Vec<Pair>> {
    // Counts that one side keeps apart are no tensors, so there is nothing to compare the other's with.
    let apart = |name: &str| sides.iter().any(|side| side.source.keeps_apart(name));
    let [ours, theirs] = sides.map(|side| {
        let all = side.inventory.tensors.keys().chain(&side.inventory.private);
        let kept = all.filter(|name| {
            !apart(name) && !filter.iter().any(|prefix| name.starts_with(&**prefix))
        });
        kept.cloned().collect::<BTreeSet<Arc<str>>>()
    });
    if ours.is_empty() && theirs.is_empty() {
        let fault = Fault::new(Kind::Usage, "no tensor is left to compare");
        return Err(fault.hint(match filter {
            [] => "neither side has any",
            _ => "--filter-out-param-prefix leaves all of them out",
        }));
    }
    check(map.keys(), &ours, "first checkpoint")?;
    check(map.values(), &theirs, "second checkpoint")?;
    let map = followed(map, |name, _| ours.contains(name));
    let called = |name: &Arc<str>| match map.get(&**name) {
        Some(other) => Arc::from(other.as_str()),
        None => name.clone(),
    };
    let mut all: Vec<Pair> = Vec::with_capacity(ours.len());
    all.extend(ours.iter().map(|name| Pair {
        ours: Some(name.clone()),
        theirs: called(name),
    }));
    let mut met: BTreeSet<Arc<str>> = BTreeSet::new();
    for pair in &all {
        if !met.insert(pair.theirs.clone()) {
            let message = "two tensors of the first checkpoint would be compared with it";
            return Err(Fault::new(Kind::Ambiguous, message)
                .tensor(&*pair.theirs)
                .hint("--name-map must give each tensor a name of its own"));
        }
    }
    let alone = theirs.into_iter().filter(|name| !met.contains(name));
    all.extend(alone.map(|theirs| Pair { ours: None, theirs }));
    all.sort_by(|one, other| one.name().cmp(other.name()));
    Ok(all)
}

impl Pair {
    /// What it is called in the result: as on the first side, if that has it.
    pub(super) fn name(&self) -> &Arc<str> {
        self.ours.as_ref().unwrap_or(&self.theirs)
    }
}

fn check<'a>(
    mapped: impl Iterator<Item = &'a String>,
    known: &BTreeSet<Arc<str>>,
    side: &str,
) -> Result<()> {
    let names = || known.iter().map(|name| &**name);
    check_each(
        mapped.map(String::as_str),
        |name| known.contains(name),
        side,
        names,
    )
}
