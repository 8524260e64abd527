//! A merged strategy that the trainer's script has left beside the files that it is merged from.

use super::file::StrategyFile;
use crate::fault::{Fault, Kind};

/// How such a file's name begins.
const STEM: &str = "merged_ckpt_strategy";

/// The files of which a strategy is read, and the merged one beside them.
pub(super) fn apart<'a>(
    files: &[StrategyFile<'a>],
) -> (Vec<StrategyFile<'a>>, Option<StrategyFile<'a>>) {
    let is_merged = |file: &StrategyFile<'_>| {
        let name = file.name.rsplit('/').next().unwrap_or_default();
        name.starts_with(STEM)
    };
    let merged = files.iter().find(|file| is_merged(file)).copied();
    let others: Vec<_> = files
        .iter()
        .filter(|file| !is_merged(file))
        .copied()
        .collect();
    match merged {
        Some(merged) if !others.is_empty() => (others, Some(merged)),
        _ => (files.to_vec(), None),
    }
}

/// The fault of a merged file that says something else than those beside it.
pub(super) fn differs(merged: StrategyFile<'_>) -> Fault {
    let message = "says something else than the files beside it that it is merged from";
    Fault::new(Kind::Strategy, message)
        .file(merged.name)
        .hint("one of them is of another run: give the right file alone, or remove what is old")
}
