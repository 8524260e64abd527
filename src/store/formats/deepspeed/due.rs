//! Which files there ought to be, by what those that are there tell: an optimizer's states say over how many ranks
//! they are cut, a model's states which weights it has.

use super::model::{Model, some};
use super::names::{File, Side, file, of_universal};
use super::optimizer::Optimizer;
use crate::fault::{Fault, Result};
use crate::store::formats::pickle::{self, Pickle};
use crate::store::formats::torch::{Saved, tensor};
use crate::store::io::{self, ReadFile};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The state that is the weight itself.
pub(super) const MASTER: &str = "fp32";
/// What the weights of one of several experts are called; each rank tells of its own by the same names.
const EXPERTS: &str = "deepspeed_experts";
/// A model's states that are the same on all ranks.
const STATES: &str = "mp_rank_00_model_states.pt";
/// Ranks beyond this are none.
const RANKS_MAX: u64 = 1 << 20;

/// What `told` says of the file of `torch.save` at `path`. Local.
fn opened<T>(path: &Path, told: impl Fn(&Pickle<'_>, &Saved<'_>) -> Result<T>) -> Result<T> {
    let told = || {
        let open = ReadFile::open(path)?;
        let saved = Saved::open(&open, 0..open.size())?;
        told(&pickle::read(&saved.pickle)?, &saved)
    };
    told().map_err(|fault: Fault| match fault.file {
        None => fault.file(path.display().to_string()),
        Some(_) => fault,
    })
}

/// The files of a ZeRO checkpoint that `ours`, those in `place`, tell of, with their ranks. Local.
///
/// # Errors
/// As the first of the optimizer's files, naming it.
pub(super) fn of_zero(place: &Path, ours: &[String]) -> Result<BTreeSet<(u32, String)>> {
    let of = |side: Side| {
        let known = ours.iter().filter_map(|name| Some((name, file(name)?)));
        known.filter(move |(_, told)| told.side == side && told.of_weight == 0)
    };
    let mut due = BTreeSet::new();
    let mut parts = of(Side::Optimizer).filter_map(|(name, told)| Some((name, told.rank?)));
    let Some((name, rank)) = parts.next() else {
        return Ok(due);
    };
    let ranks = opened(&place.join(name), |pickle, saved| {
        let ranks = Optimizer::of(pickle, saved, rank)?.most_ranks();
        Ok(u32::try_from(ranks.min(RANKS_MAX)).unwrap_or_default())
    })?;
    let called = |rank: u32| format!("zero_pp_rank_{rank}_mp_rank_");
    let (own, mut models) = (called(rank), of(Side::Model).peekable());
    // A model's states are one file for all ranks, or one for each.
    let each = models.all(|(_, File { rank, .. })| rank.is_some()) && of(Side::Model).count() > 0;
    for rank in 0..ranks {
        due.insert((rank, name.replace(&own, &called(rank))));
        if each {
            due.insert((rank, format!("{}00_model_states.pt", called(rank))));
        }
    }
    if !each {
        due.insert((0, STATES.into()));
    }
    Ok(due)
}

/// The names of weights that a model's states in the file at `path` have: those that are due, and others, which not
/// every version of DeepSpeed puts into a universal checkpoint. Local.
fn weights(path: &Path) -> Result<(Vec<String>, Vec<String>)> {
    opened(path, |pickle, _| {
        let model = Model::read(pickle)?;
        let due = model.groups.iter().flatten().chain(&model.frozen);
        let due = due.map(|(name, _)| name.clone()).collect();
        let module = some(pickle, pickle.root(), "module");
        let pairs = module.and_then(|module| pickle.items(module));
        let mut others = Vec::new();
        for pair in pairs.unwrap_or_default().chunks_exact(2) {
            if let Some(name) = pickle.text(pair[0])
                && !matches!(tensor(pickle, pair[1]), Ok(None))
            {
                others.push(name.to_owned());
            }
        }
        Ok((due, others))
    })
}

/// The files of a universal checkpoint that what is in `place` tells of, of which `files` are there. Local.
///
/// The model's states are there; each weight that they name has its own file. Where a weight has any state, it has all that another
/// weight with these has; one without any has got no gradient yet.
///
/// # Errors
/// As the model's states, naming the file.
pub(super) fn of_universal_checkpoint(
    place: &Path,
    files: &BTreeSet<String>,
) -> Result<BTreeSet<String>> {
    let mut kinds: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, kind) in files.iter().filter_map(|path| of_universal(path)) {
        kinds.entry(name).or_default().insert(kind);
    }
    let mut due = BTreeSet::new();
    let path = |name: &str, kind: &str| format!("zero/{name}/{kind}.pt");
    let beyond = |own: &BTreeSet<&str>| {
        let own: BTreeSet<&str> = own.iter().copied().filter(|kind| *kind != MASTER).collect();
        let more = kinds.values().filter(|others| others.is_superset(&own));
        let more = more.max_by_key(|others| others.len());
        more.filter(|_| !own.is_empty()).cloned()
    };
    let mut known: BTreeMap<&BTreeSet<&str>, Option<BTreeSet<&str>>> = BTreeMap::new();
    for (name, own) in &kinds {
        due.insert(path(name, MASTER));
        let more = known.entry(own).or_insert_with(|| beyond(own));
        due.extend(more.iter().flatten().map(|kind| path(name, kind)));
    }
    let models = io::list(place)?.into_iter().filter(|(name, folder)| {
        let told = file(name).filter(|_| !folder);
        told.is_some_and(|told| told.side == Side::Model && told.rank.unwrap_or_default() == 0)
    });
    let models: Vec<(String, bool)> = models.collect();
    if models.is_empty() {
        due.insert(STATES.into());
    }
    for (model, _) in models {
        let (own, others) = weights(&place.join(&model))?;
        let trained: BTreeSet<&str> = own.iter().map(String::as_str).collect();
        let there = |name: &&String| kinds.contains_key(name.as_str());
        // A file of each rank has no weights but those that aren't cut, and they stay there.
        let all = file(&model).is_some_and(|told| told.rank.is_none());
        let beside = others
            .iter()
            .filter(|name| !trained.contains(name.as_str()));
        let all = all && beside.clone().any(|name| there(&name));
        let names = own.iter().chain(others.iter().filter(|_| all));
        let names = names.filter(|name| !name.contains(EXPERTS));
        due.extend(names.map(|name| path(name, MASTER)));
    }
    Ok(due)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_has_all_states_that_another_with_its_own_has() {
        let room = tempfile::tempdir().unwrap();
        let missing = |files: &[&str]| {
            let files = files.iter().map(|file| format!("zero/{file}.pt"));
            let files: BTreeSet<String> = files.collect();
            let mut due = of_universal_checkpoint(room.path(), &files).unwrap();
            assert!(due.remove(STATES), "it tells of the weights");
            due.difference(&files).cloned().collect::<Vec<_>>()
        };
        let adam = ["a/fp32", "a/exp_avg", "a/exp_avg_sq", "a/step"];
        let with = |more: &[&'static str]| missing(&[&adam[..], more].concat());
        assert_eq!(with(&["b/fp32"]), [""; 0], "it got no gradient yet");
        assert_eq!(
            with(&["b/exp_avg"]),
            ["zero/b/exp_avg_sq.pt", "zero/b/fp32.pt", "zero/b/step.pt"]
        );
        let lacks = with(&["b/fp32", "b/exp_avg_sq", "b/step"]);
        assert_eq!(lacks, ["zero/b/exp_avg.pt"]);
        // Another optimizer's state is one of its own.
        assert_eq!(with(&["b/fp32", "b/momentum_buffer"]), [""; 0]);
        assert_eq!(with(&["b/fp32", "b/momentum_buffer", "b/step"]), [""; 0]);
        assert_eq!(missing(&["a/fp32", "b/fp32"]), [""; 0]);
    }
}
