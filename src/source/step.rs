//! Where each rank's files stand in their job, by what they say inside.

use crate::catalog::FileSchema;
use crate::exchange::{World, agree, all_gather};
use crate::fault::{Fault, Kind, Result};
use crate::source::found::Source;
use crate::source::ranks::named;
use crate::source::scalars::{scalar, whole};
use crate::store::io::ReadFile;
use std::collections::BTreeMap;

/// Tensors that are the same on all ranks of one step.
const COUNTS: [&str; 3] = ["step_num", "epoch_num", "global_step"];

/// The values of [`COUNTS`], of those that a file has.
pub(super) type Counts = [Option<u64>; COUNTS.len()];

/// Reads them from an open file. Local.
///
/// # Errors
/// [`Kind::Io`].
pub(super) fn read(file: &ReadFile, schema: &FileSchema) -> Result<Counts> {
    let mut counts = Counts::default();
    for (count, name) in counts.iter_mut().zip(COUNTS) {
        *count = scalar(file, schema, name)?.and_then(whole);
    }
    Ok(counts)
}

/// In words what differs between ranks: `step_num is 20 on ranks 0-1, 10 on rank 2`.
pub(super) fn difference(of_ranks: &[(u32, Counts)]) -> Option<String> {
    COUNTS.iter().enumerate().find_map(|(index, name)| {
        let mut ranks: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for (rank, counts) in of_ranks {
            if let Some(value) = counts[index] {
                ranks.entry(value).or_default().push(*rank);
            }
        }
        if ranks.len() < 2 {
            return None;
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

/// Checks that the files of all ranks tell the same step. Collective.
///
/// # Errors
/// The same on every process: [`Kind::Differs`] naming values and ranks; [`Kind::Io`].
pub(super) fn check(world: &World, source: &Source) -> Result<()> {
    if source.catalog.ranks.len() < 2 || source.iteration.is_some() {
        return Ok(());
    }
    let told = |schema: &FileSchema| COUNTS.iter().any(|name| schema.get(name).is_some());
    if !source
        .catalog
        .distinct_schemas()
        .any(|(_, schema)| told(schema))
    {
        return Ok(());
    }
    let all = all_gather(world, &agree(world, read_own(source))?)?;
    let all: Vec<(u32, Counts)> = all.into_iter().flatten().collect();
    match difference(&all) {
        None => Ok(()),
        Some(difference) => {
            let message = format!("the ranks' files are of different steps: {difference}");
            Err(Fault::new(Kind::Differs, message)
                .file(source.base.display().to_string())
                .hint("were ranks' files of several saves put together? `shardloom checkpoints list` shows which there are"))
        }
    }
}

/// What the files say that fall to this process. Local.
fn read_own(source: &Source) -> Result<Vec<(u32, Counts)>> {
    let mut own = Vec::new();
    for (rank, files) in &source.catalog.ranks {
        if source.reach.owner(*rank) != Some(source.reach.process) {
            continue;
        }
        for file in files {
            if COUNTS.iter().any(|name| file.schema.get(name).is_some()) {
                let open = ReadFile::open(&source.base.join(&file.path))?;
                own.push((*rank, read(&open, &file.schema)?));
            }
        }
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_values_and_ranks() {
        let none = [None; 3];
        let at = |step: u64| [Some(step), Some(1), None];
        let all = [(0, at(20)), (1, at(20)), (2, at(10)), (3, none)];
        assert_eq!(
            difference(&all).as_deref(),
            Some("step_num is 20 on ranks 0-1, 10 on rank 2")
        );
        assert_eq!(difference(&all[..2]), None);
    }
}
