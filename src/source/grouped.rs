//! Files of ranks, each looked at, as the checkpoints that they are; and why these aren't complete.

use crate::fault::plain::counted;
use crate::source::meta::Name;
use crate::source::position::{Offered, saved};
use crate::source::ranks::named;
use crate::source::saved::Checkpoint;
use crate::source::step::{self, Counts};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// A file as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) rank: u32,
    pub(super) directory: String,
    pub(super) file: String,
    pub(super) bytes: u64,
    pub(super) modified: i128,
}

/// What a header says of a file: or why it can't be used.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) step: Option<u64>,
    pub(super) batch: Option<u64>,
    pub(super) redundancy_removed: Option<bool>,
    pub(super) counts: Counts,
    pub(super) tensors: Option<usize>,
    /// Of these weights, and states of an optimizer.
    pub(super) of_kind: [usize; 2],
    pub(super) bad: Option<String>,
}

/// A file, the nodes that see it, and why it can't be used where they disagree.
pub(super) struct File {
    pub(super) seen: Seen,
    pub(super) nodes: Vec<usize>,
    pub(super) differs: Option<String>,
}

/// The files of each rank.
fn offered(files: &[File]) -> Offered {
    let mut offered = Offered::new();
    for file in files {
        let own = offered.entry(file.seen.rank).or_default();
        own.push(file.seen.file.clone());
    }
    offered
}

/// Groups the files by name, with what their headers say; what is in them is only to be checked if it is asked for.
pub(super) fn group(
    files: &[File],
    read: impl IntoIterator<Item = (usize, Header)>,
    expected: u32,
    check: bool,
) -> Vec<Checkpoint> {
    let read: HashMap<usize, Header> = read.into_iter().collect();
    let headers = (0..files.len()).map(|number| read.get(&number).cloned().unwrap_or_default());
    let headers: Vec<Header> = headers.collect();
    let offered = offered(files);
    let names = saved(&offered).filter(|saved| !saved.misplaced);
    let names: HashMap<(u32, &str), Name> = names
        .map(|saved| ((saved.rank, saved.path), saved.name))
        .collect();
    let mut groups = Groups::new();
    for (file, header) in files.iter().zip(&headers) {
        if let Some(name) = names.get(&(file.seen.rank, file.seen.file.as_str())) {
            groups.entry(name.clone()).or_default().push((file, header));
        }
    }
    let fullest = fullest(&groups);
    let checkpoints = groups.into_iter().map(|(name, members)| {
        let ranks: Vec<u32> = members.iter().map(|(file, _)| file.seen.rank).collect();
        let missing: Vec<u32> = (0..expected).filter(|rank| !ranks.contains(rank)).collect();
        let why = why_not((&name, &members), &missing, &fullest, check);
        Checkpoint {
            epoch: Some(name.epoch),
            step: members
                .iter()
                .find_map(|(_, header)| header.step)
                .unwrap_or(name.step),
            states: members.iter().any(|(_, header)| header.of_kind[1] > 0),
            why,
            global_batch_size: members.iter().find_map(|(_, header)| header.batch),
            bytes: members.iter().map(|(file, _)| file.seen.bytes).sum(),
            files: members
                .iter()
                .map(|(file, _)| format!("{}/{}", file.seen.directory, file.seen.file))
                .collect(),
            redundancy_removed: members
                .iter()
                .find_map(|(_, header)| header.redundancy_removed),
            modified: members
                .iter()
                .map(|(file, _)| file.seen.modified)
                .max()
                .unwrap_or(0),
            times: members.iter().map(|(file, _)| file.seen.modified).collect(),
            directory: None,
            ranks,
            name,
        }
    });
    checkpoints.collect()
}

/// The files of each checkpoint, with what their headers say.
type Groups<'a> = BTreeMap<Name, Vec<(&'a File, &'a Header)>>;

/// The run of a checkpoint, and a rank.
type Saver = (Name, u32);

/// Of each rank the file of a run that has the most tensors: how many, and how many weights.
fn fullest<'a>(groups: &Groups<'a>) -> BTreeMap<Saver, (usize, usize, &'a str)> {
    let mut fullest: BTreeMap<Saver, (usize, usize, &str)> = BTreeMap::new();
    for (name, members) in groups {
        for (file, header) in members {
            let key = (name.run(), file.seen.rank);
            let tensors = header.tensors.unwrap_or_default();
            let most = fullest.entry(key).or_default();
            *most = (*most).max((tensors, header.of_kind[0], &file.seen.file));
        }
    }
    fullest
}

/// A file that has fewer tensors than its rank has saved at another step of the run, and not just all of its weights.
fn lacking(
    name: &Name,
    members: &[(&File, &Header)],
    fullest: &BTreeMap<Saver, (usize, usize, &str)>,
) -> Option<String> {
    members.iter().find_map(|(file, header)| {
        let Seen { rank, file, .. } = &file.seen;
        let (most, weights, other) = fullest.get(&(name.run(), *rank))?;
        let [own_weights, states] = header.of_kind;
        let weights_alone = states == 0 && own_weights >= *weights;
        let own = header.tensors.filter(|own| own < most && !weights_alone)?;
        let tensors = counted(own as u64, "tensor");
        Some(format!(
            "rank {rank}: {file} has {tensors}, {other} has {most}"
        ))
    })
}

/// Why the files of this name can't be used, of which some ranks' are `missing`; what is in them is only looked at to `check`
/// it.
fn why_not(
    (name, members): (&Name, &[(&File, &Header)]),
    missing: &[u32],
    fullest: &BTreeMap<Saver, (usize, usize, &str)>,
    check: bool,
) -> Option<String> {
    let bad = || {
        members
            .iter()
            .find_map(|(file, header)| file.differs.clone().or_else(|| header.bad.clone()))
    };
    let counts = || {
        members
            .iter()
            .map(|(file, header)| (file.seen.rank, header.counts))
    };
    match missing {
        [] => twice(members).or_else(|| {
            bad()
                .or_else(|| step::difference(&counts().collect::<Vec<_>>()))
                .or_else(|| lacking(name, members, fullest))
                .filter(|_| check)
        }),
        [rank] => Some(format!("rank {rank} has no file of it")),
        _ => Some(format!("{} have no file of it", named(missing))),
    }
}

/// Two files of one rank that a trainer takes for one step's, as `1_20` and `1_020`.
fn twice(members: &[(&File, &Header)]) -> Option<String> {
    members.windows(2).find_map(|two| {
        let [one, other] = [two[0].0, two[1].0].map(|file| &file.seen);
        let message = || {
            format!(
                "rank {} has {} and {} of it",
                one.rank, one.file, other.file
            )
        };
        (one.rank == other.rank).then(message)
    })
}
