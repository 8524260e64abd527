//! Whether the newest step of a job, which nobody has chosen, has all that the steps before it have.

use crate::catalog::Catalog;
use crate::fault::plain::{counted, first};
use crate::fault::{Fault, Kind, Result};
use crate::plan::state::is_state;
use crate::source::position::choose::flag;
use crate::source::views::Views;
use std::collections::BTreeSet;

/// Most steps before the newest that are looked at.
pub(crate) const LOOKED_AT: usize = 3;
/// Most tensors that a message names.
const NAMED: usize = 3;

/// Whether a step that was `seen` may have more than the newest: any rank's file of it is larger, or the newest has an
/// optimizer's states alone.
pub(super) fn may_have_more(seen: &Views, newest: &Catalog) -> bool {
    let mut files = seen.0.iter().flat_map(|view| &view.listing.ranks);
    let larger = files.any(|(rank, files)| {
        let before: u64 = files.iter().map(|file| file.size).sum();
        let now = newest.ranks.get(rank).into_iter().flatten();
        before > now.map(|file| file.schema.size).sum()
    });
    larger || tensors(newest).iter().all(|name| is_state(name))
}

/// Refuses the newest step if tensors that are `needed` lack in it, on all ranks, which a step before it has: a save that
/// was broken off, or changed. Weights alone, without any state, are a checkpoint too; of files that share no weight nobody
/// says here that they are steps. Local.
///
/// # Errors
/// [`Kind::MissingShard`] naming the first ones and both steps, as `--file-suffix` takes them.
pub(crate) fn refuse_lacking(
    [newest, before]: [&str; 2],
    [here, there]: [&Catalog; 2],
    needed: impl Fn(&str) -> bool,
) -> Result<()> {
    let (here, there) = (tensors(here), tensors(there));
    let weights_alone = !here.iter().any(|name| is_state(name));
    let states_alone = here.iter().all(|name| is_state(name));
    let lacks = there.difference(&here).copied();
    let lacks: Vec<&str> = lacks
        .filter(|name| needed(name) && !(weights_alone && is_state(name)))
        .collect();
    if lacks.is_empty() || there.is_disjoint(&here) && !states_alone {
        return Ok(());
    }
    let message = format!(
        "no rank has {} at {newest}, the newest step, that {before} has: {}",
        counted(lacks.len() as u64, "tensor"),
        first(&lacks, NAMED)
    );
    Err(Fault::new(Kind::MissingShard, message).hint(format!(
        "{} takes that step; {} --unmatched drop goes on with the newest",
        flag(before),
        flag(newest)
    )))
}

/// The names of all ranks' tensors, but for counts.
fn tensors(catalog: &Catalog) -> BTreeSet<&str> {
    let schemas = catalog.distinct_schemas();
    let entries = schemas.flat_map(|(_, schema)| &schema.entries);
    let entries = entries.filter(|entry| !entry.shape.0.is_empty());
    entries.map(|entry| &*entry.name).collect()
}
