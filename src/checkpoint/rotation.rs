//! Which checkpoints may go, and their removal.

use crate::checkpoint::fence;
use crate::exchange::{Topology, World, agree, all_gather};
use crate::fault::Result;
use crate::source::latest::latest;
use crate::source::meta::{NETWORK, TRAINABLE};
use crate::source::saved::{Checkpoint, Survey};
use crate::store::io;
use crate::store::replaceable::check_own;
use std::collections::BTreeMap;

/// What lies beside `checkpoint/` with weights of the same checkpoints, and what its files' names say.
const COMPANIONS: [(&str, &str); 2] = [NETWORK, TRAINABLE];

/// The checkpoints that need not be kept for `keep` complete ones of each family to stay, oldest first.
///
/// A family is what one job writes into these directories, in one run after the other; other jobs' names begin
/// otherwise. Of each the newest `keep` complete ones stay (at least one), of those with an optimizer's states the
/// newest complete one, the one that a job would resume from, those that some rank's `meta.json` names, and whatever is newer than the newest complete one: it may be in the making. If none is complete, all
/// stay.
#[must_use]
pub fn expendable(survey: &Survey, keep: usize) -> Vec<&Checkpoint> {
    let mut complete: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, checkpoint) in survey.checkpoints.iter().enumerate() {
        if checkpoint.complete() {
            complete
                .entry(checkpoint.name.family())
                .or_default()
                .push(index);
        }
    }
    let resumed = latest(survey).ok().map(|checkpoint| &checkpoint.name);
    let may_go = |(index, checkpoint): &(usize, &Checkpoint)| {
        let complete = complete.get(&checkpoint.name.family());
        let complete = complete.map_or(&[][..], |indices| indices);
        let kept = &complete[complete.len().saturating_sub(keep.max(1))..];
        let with_states = |index: &&usize| survey.checkpoints[**index].states;
        complete.last().is_some_and(|newest| index < newest)
            && !kept.contains(index)
            && complete.iter().rev().find(with_states) != Some(index)
            && Some(&checkpoint.name) != resumed
            && !survey.metas.values().any(|named| *named == checkpoint.name)
    };
    let all = survey.checkpoints.iter().enumerate().filter(may_go);
    all.map(|(_, checkpoint)| checkpoint).collect()
}

/// The files with the weights alone that `checkpoint_network` and `checkpoint_trainable`, beside a surveyed
/// directory called `checkpoint`, have of `checkpoints`: by path inside the surveyed directory, their bytes.
/// A trainer's rotation takes them along, so they are of no use without. Collective.
///
/// # Errors
/// The same on every process: [`crate::fault::Kind::Io`].
pub fn companions(
    world: &World,
    topology: &Topology,
    survey: &Survey,
    checkpoints: &[&Checkpoint],
) -> Result<BTreeMap<String, u64>> {
    let leads = topology.leads(world.process());
    let look = || -> Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        let old = checkpoints.iter().filter(|_| leads);
        for path in old.flat_map(|old| beside(survey, old)) {
            if let Some(bytes) = io::size(&survey.directory.join(&path))? {
                found.push((path, bytes));
            }
        }
        Ok(found)
    };
    let mine = agree(world, look())?;
    Ok(all_gather(world, &mine)?.into_iter().flatten().collect())
}

/// Where such files of a checkpoint would be, by path inside the surveyed directory.
#[must_use]
pub fn beside(survey: &Survey, checkpoint: &Checkpoint) -> Vec<String> {
    let name = &checkpoint.name;
    if !survey.directory.ends_with("checkpoint") || !name.ranked || name.iteration {
        return Vec::new();
    }
    // A rank may have lost its own file and still have this one.
    let of = |(room, kind): (&str, &str)| {
        let paths = (0..survey.ranks).map(|rank| {
            let file = name.weights_file(rank, kind);
            format!("../{room}/rank_{rank}/{file}")
        });
        paths.collect::<Vec<_>>()
    };
    COMPANIONS.into_iter().flat_map(of).collect()
}

/// Checks that nothing that would be removed is reached through a link, or is somebody else's. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Unsupported`], [`crate::fault::Kind::Exists`], [`crate::fault::Kind::Io`], the same on every process.
pub fn check(
    world: &World,
    topology: &Topology,
    survey: &Survey,
    checkpoints: &[&Checkpoint],
    companions: &BTreeMap<String, u64>,
) -> Result<()> {
    let files = checkpoints.iter().flat_map(|checkpoint| &checkpoint.files);
    let own = checkpoints.iter().filter_map(|old| old.directory.as_ref());
    let checked = if topology.leads(world.process()) {
        fence::check(survey, files.chain(companions.keys())).and_then(|()| {
            own.clone()
                .try_for_each(|inside| check_own(&survey.directory, inside))
        })
    } else {
        Ok(())
    };
    agree(world, checked)
}

/// Removes the files of `checkpoints`, and the `companions` of these, on every node that sees them.
/// Collective.
///
/// # Errors
/// [`crate::fault::Kind::Io`]; what was removed before stays removed.
pub fn remove(
    world: &World,
    topology: &Topology,
    survey: &Survey,
    checkpoints: &[&Checkpoint],
    companions: &BTreeMap<String, u64>,
) -> Result<()> {
    check(world, topology, survey, checkpoints, companions)?;
    let leads = topology.leads(world.process());
    let mut removed = Ok(());
    let own = checkpoints.iter().filter_map(|old| old.directory.as_ref());
    for directory in own.filter(|_| leads) {
        let place = survey.directory.join(directory);
        removed = removed.and_then(|()| io::remove_directory(&place));
    }
    let files = checkpoints
        .iter()
        .flat_map(|checkpoint| &checkpoint.files)
        .chain(companions.keys());
    for file in files.filter(|_| leads) {
        removed = removed.and_then(|()| io::remove(&survey.directory.join(file)));
    }
    let stays = "what was removed before stays removed: let it be removed, too, and prune again";
    agree(world, removed.map_err(|fault| fault.hint(stays)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::meta::Name;

    fn survey(checkpoints: &[(&str, bool)], meta: Option<&str>) -> Survey {
        let name = |text: &str| {
            let file = match text.contains('-') {
                true => format!("{text}.safetensors"),
                false => format!("m_rank_0-{text}.safetensors"),
            };
            Name::parse(&file).unwrap().0
        };
        let checkpoints = checkpoints.iter().map(|(text, complete)| Checkpoint {
            directory: None,
            name: name(text),
            step: 0,
            epoch: None,
            ranks: vec![0],
            states: text.ends_with('5'),
            why: (!complete).then(|| "incomplete".into()),
            bytes: 0,
            files: vec![],
            redundancy_removed: None,
            global_batch_size: None,
            modified: 0,
            times: vec![],
        });
        Survey {
            ranks: 1,
            checkpoints: checkpoints.collect(),
            metas: meta.into_iter().map(|text| (0, name(text))).collect(),
            ..Survey::default()
        }
    }

    fn gone(checkpoints: &[(&str, bool)], meta: Option<&str>, keep: usize) -> Vec<String> {
        let survey = survey(checkpoints, meta);
        expendable(&survey, keep)
            .iter()
            .map(|c| c.name.suffix())
            .collect()
    }

    // proves P145
    #[test]
    fn keeps_the_last_complete_one_and_what_is_newer() {
        let all = [
            ("1_1", true),
            ("1_2", false),
            ("1_3", true),
            ("1_4", true),
            ("1_5", false),
        ];
        assert_eq!(gone(&all, None, 1), ["1_1", "1_2", "1_3"]);
        assert_eq!(gone(&all, None, 2), ["1_1", "1_2"]);
        assert_eq!(gone(&all, Some("1_3"), 1), ["1_1", "1_2"]);
        assert!(gone(&[("1_1", false), ("1_2", false)], None, 1).is_empty());
        assert!(gone(&[("1_1", true), ("1_2", false)], None, 1).is_empty());
        // A job that went on with fewer ranks after an older one's steps.
        let fewer = [("1_20", false), ("1_50", true), ("1_100", true)];
        assert_eq!(gone(&fewer, Some("1_20"), 1), ["1_50"]);
        // The newest with states to go on from.
        let states = [("1_5", true), ("1_6", true), ("1_7", true)];
        assert_eq!(gone(&states, None, 1), ["1_6"]);
        let other = [
            ("best-1_1", true),
            ("1_1", true),
            ("1_2", true),
            ("n_rank_0-1_1", true),
        ];
        assert_eq!(gone(&other, None, 1), ["1_1"]);
    }
}
