//! The checkpoints that a training job has saved, one after the other, into the same rank directories.

use crate::source::meta::Name;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Within so many nanoseconds files may have been written in any order, as by a copy.
const SAME_TIME: i128 = 2_000_000_000;

/// One checkpoint: the files of one name on all ranks.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// What its files' names have in common.
    pub name: Name,
    /// The run's total step (`step_num` in the file); without one, the step in the name.
    pub step: u64,
    /// The epoch, where name or files tell it.
    pub epoch: Option<u64>,
    /// Ranks that have a file of it.
    pub ranks: Vec<u32>,
    /// Whether it has states of an optimizer, as far as its files have been looked into.
    pub states: bool,
    /// Why it can't be resumed from; `None` if it can.
    pub why: Option<String>,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Its files, inside the surveyed directory, by rank.
    pub files: Vec<String>,
    /// Whether one copy only of each shard was saved, where a header says so.
    pub redundancy_removed: Option<bool>,
    /// Samples of a step, where the files say so.
    pub global_batch_size: Option<u64>,
    /// The directory that is its own, inside the surveyed one.
    pub directory: Option<String>,
    /// When the last of its files was written, in nanoseconds since 1970.
    pub modified: i128,
    /// The same of each rank's file, in the order of its ranks; none where it has a directory of its own.
    pub times: Vec<i128>,
}

impl Checkpoint {
    /// Whether all ranks have it.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.why.is_none()
    }
}

impl Survey {
    /// The same by the files' names alone: whatever all ranks have a file of is complete.
    #[must_use]
    pub fn by_names(&self) -> Survey {
        let mut names = self.clone();
        for checkpoint in &mut names.checkpoints {
            let all = checkpoint.ranks.len() == self.ranks as usize;
            checkpoint.why = checkpoint.why.take().filter(|_| !all);
        }
        names
    }

    /// Of each rank the checkpoint whose file there was written last, of several at about one time the latest by name: what a
    /// trainer loads that neither resumes nor is told which (mindformers' `get_last_checkpoint`).
    #[must_use]
    pub fn last_written(&self) -> BTreeMap<u32, &Checkpoint> {
        let files = || {
            let all = self.checkpoints.iter();
            all.flat_map(|own| {
                own.ranks
                    .iter()
                    .zip(&own.times)
                    .map(move |file| (own, file))
            })
        };
        let mut latest: BTreeMap<u32, i128> = BTreeMap::new();
        for (_, (rank, time)) in files() {
            let found = latest.entry(*rank).or_insert(*time);
            *found = (*found).max(*time);
        }
        let last = files().filter(|(_, (rank, time))| **time + SAME_TIME >= latest[*rank]);
        last.map(|(own, (rank, _))| (*rank, own)).collect()
    }
}

/// All checkpoints of a directory, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// The directory with the rank directories.
    pub directory: PathBuf,
    /// Number of ranks that a complete checkpoint has.
    pub ranks: u32,
    /// The checkpoints, ordered by name.
    pub checkpoints: Vec<Checkpoint>,
    /// What the ranks' `meta.json` name, those that can be read.
    pub metas: BTreeMap<u32, Name>,
}
