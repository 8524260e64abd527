//! Where each rank's files stand in their job, by what they say inside.

use crate::catalog::{Entry, FileSchema};
use crate::fault::{Fault, Kind, Result};
use crate::source::ranks::named;
use crate::source::scalars::value;
use crate::store::io::ReadFile;
use crate::tensor::number::whole;
use std::collections::BTreeMap;
use std::path::Path;

/// Tensors that are the same on all ranks of one step.
const COUNTS: [&str; 6] = [
    "step_num",
    "epoch_num",
    "global_step",
    "global_batch_size",
    "consumed_samples",
    "loss_scale",
];

/// The values of [`COUNTS`], of those that a file has.
pub(crate) type Counts = [Option<u64>; COUNTS.len()];

/// Where they are in a file.
#[derive(Clone, Debug)]
pub(super) struct Spots([Option<Entry>; COUNTS.len()]);

impl Spots {
    /// Of the files of `schema`.
    pub(super) fn of(schema: &FileSchema) -> Spots {
        Spots(COUNTS.map(|name| schema.get(name).cloned()))
    }

    /// Reads them from an open file. Local.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub(super) fn read(&self, file: &ReadFile) -> Result<Counts> {
        let mut counts = Counts::default();
        for (count, entry) in counts.iter_mut().zip(&self.0) {
            if let Some(entry) = entry {
                *count = value(file, entry)?.and_then(whole);
            }
        }
        Ok(counts)
    }
}

/// The counts of an open file of `schema`. Local.
///
/// # Errors
/// [`Kind::Io`].
pub(crate) fn counts_of(file: &ReadFile, schema: &FileSchema) -> Result<Counts> {
    Spots::of(schema).read(file)
}

/// In words what differs between ranks: `step_num is 20 on ranks 0-1, 10 on rank 2`.
pub(super) fn difference(of_ranks: &[(u32, Counts)]) -> Option<String> {
    COUNTS.iter().enumerate().find_map(|(index, name)| {
        let mut ranks: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for (rank, counts) in of_ranks {
            if let Some(count) = counts[index] {
                ranks.entry(count).or_default().push(*rank);
            }
        }
        if ranks.len() < 2 {
            return None;
        }
        let first = of_ranks.first().map(|(rank, _)| *rank);
        if of_ranks.iter().all(|(rank, _)| Some(*rank) == first) {
            let values: Vec<String> = ranks.keys().rev().map(u64::to_string).collect();
            return Some(format!("{name} is {}", values.join(" and ")));
        }
        let values = ranks.iter_mut().rev().map(|(value, ranks)| {
            ranks.sort_unstable();
            ranks.dedup();
            format!("{value} on {}", named(ranks))
        });
        let values: Vec<String> = values.collect();
        Some(format!("{name} is {}", values.join(", ")))
    })
}

/// Checks that the files of all ranks, in `base`, tell the same step. Local.
///
/// # Errors
/// [`Kind::Differs`] naming values and ranks.
pub(crate) fn check(base: &Path, of_ranks: &[(u32, Counts)]) -> Result<()> {
    let Some(difference) = difference(of_ranks) else {
        return Ok(());
    };
    let alone = of_ranks.iter().all(|(rank, _)| *rank == 0);
    let (whose, hint) = match alone {
        true => (
            "",
            "were files of several saves put together? Move away those that aren't of this save",
        ),
        false => (
            "ranks' ",
            "were ranks' files of several saves put together? `shardloom checkpoints list` shows which there are",
        ),
    };
    let message = format!("the {whose}files are of different steps: {difference}");
    let fault = Fault::new(Kind::Differs, message);
    Err(fault.file(base.display().to_string()).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_values_and_ranks() {
        let none = [None; 6];
        let at = |step: u64| [Some(step), Some(1), None, None, None, None];
        let all = [(0, at(20)), (1, at(20)), (2, at(10)), (3, none)];
        assert_eq!(
            difference(&all).as_deref(),
            Some("step_num is 20 on ranks 0-1, 10 on rank 2")
        );
        assert_eq!(difference(&all[..2]), None);
    }
}
