//! The files of a checkpoint 2.0: all ranks' side by side, weights and optimizer state apart.

use crate::catalog::SmallFile;
use crate::fault::{Fault, Kind, Result};
use crate::layout::Cell;
use crate::store::formats::checkpoint2::counts;
use crate::store::formats::checkpoint2::layout::ordinal_of;
use crate::store::formats::checkpoint2::names::{COMMON, METADATA, directory};
use crate::store::formats::checkpoint2::write::{Described, metadata};
use crate::store::formats::directory::TRACKER;
use crate::store::formats::laid::{DirectoryAsked, DirectoryFile, Laid, LaidTensor};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// How the trainer of dynamic graphs begins its files' names.
const PREFIX: &str = "checkpoint";

/// Which rank keeps a cell of a tensor, where one copy only is kept.
type Owners<'a> = HashMap<(u32, &'a str, Cell), u32>;

/// For a rank its weights, and everything else.
type Sides<'a> = [Vec<&'a LaidTensor>; 2];

/// Checks that a tensor of several stages is cut alike in all of them: one layout is told of it. Local.
///
/// # Errors
/// [`Kind::Unsupported`] naming a tensor that isn't.
pub(super) fn check_stages(laid: &Laid) -> Result<()> {
    let mut first: HashMap<&str, &LaidTensor> = HashMap::new();
    for tensor in laid.stages.iter().flatten() {
        let known = *first.entry(&tensor.name).or_insert(tensor);
        let alike = match (&known.layout, &tensor.layout) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one.is_cut_like(other),
            (one, other) => one.is_none() == other.is_none(),
        };
        if !alike || known.shape() != tensor.shape() {
            let message = "is cut otherwise in another stage, which a checkpoint 2.0 can't say";
            return Err(Fault::new(Kind::Unsupported, message)
                .tensor(&*tensor.name)
                .hint("give it one layout in all stages, or write another format (--format)"));
        }
    }
    Ok(())
}

/// The files of all ranks.
pub(super) fn arrange<'a>(asked: &DirectoryAsked, laid: &'a Laid) -> Vec<DirectoryFile<'a>> {
    let mut sides = sides(laid, asked);
    let place = directory(asked.number());
    let usual = asked.dynamic.then_some(PREFIX);
    let prefix = asked.prefix.as_deref().or(usual);
    let prefix = prefix.map_or(String::new(), |prefix| format!("{prefix}-"));
    let mut files = Vec::new();
    for (side, kind) in ["model", "opt"].into_iter().enumerate() {
        let writing = sides
            .iter_mut()
            .map(|(rank, sides)| (*rank, std::mem::take(&mut sides[side])));
        let writing: Vec<_> = writing.filter(|(_, tensors)| !tensors.is_empty()).collect();
        let count = writing.len();
        for (index, (rank, tensors)) in writing.into_iter().enumerate() {
            files.push(DirectoryFile {
                rank,
                path: format!("{place}/{prefix}{kind}-{index:07}-{count:07}.safetensors"),
                tensors,
                metadata: BTreeMap::new(),
            });
        }
    }
    files
}

/// The small files beside the ranks'.
///
/// # Errors
/// As [`metadata`].
pub(super) fn texts<'a>(
    asked: &DirectoryAsked,
    files: impl Iterator<Item = &'a DirectoryFile<'a>>,
) -> Result<Vec<SmallFile>> {
    // By name and first rank of the stage; `u32::MAX` for what a rank has for itself.
    let mut stored: BTreeMap<(&str, u32), Described> = BTreeMap::new();
    for file in files {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        for tensor in &file.tensors {
            let layout = tensor.layout.as_ref();
            let layout = layout.filter(|_| !is_apart(&tensor.name, asked.dynamic));
            let first = layout.map_or(u32::MAX, |_| tensor.first_rank);
            let entry = stored.entry((&*tensor.name, first));
            let described = entry.or_insert_with(|| describe(tensor, asked.dynamic));
            described.stored.push((file.rank, name.to_owned()));
        }
    }
    let described: Vec<Described> = stored.into_values().collect();
    let place = directory(asked.number());
    let progress = asked.progress.clone().unwrap_or_default();
    let mut texts = vec![
        SmallFile::new(format!("{place}/{METADATA}"), metadata(&described)?),
        SmallFile::new(format!("{place}/{COMMON}"), counts::text(&progress)?),
        SmallFile::new(TRACKER, asked.number().to_string().into_bytes()),
    ];
    if let Some((name, text)) = asked.adapter.as_deref() {
        texts.push(SmallFile::new(format!("{place}/{name}"), text.clone()));
        texts.push(SmallFile::new(*name, text.clone()));
    }
    Ok(texts)
}

fn describe(tensor: &LaidTensor, dynamic: bool) -> Described {
    let written = tensor.written.safetensors_name();
    let dtype = tensor.dtype.ckpt_name().unwrap_or(written);
    let layout = tensor.layout.clone();
    let layout = layout.filter(|_| !is_apart(&tensor.name, dynamic));
    Described {
        name: Arc::clone(&tensor.name),
        dtype: if dynamic {
            dtype.to_ascii_lowercase()
        } else {
            dtype.to_owned()
        },
        shape: tensor.shape(),
        first_rank: layout.as_ref().map_or(0, |_| tensor.first_rank),
        layout,
        stored: Vec::new(),
    }
}

/// What each rank writes.
fn sides<'a>(laid: &'a Laid, asked: &DirectoryAsked) -> BTreeMap<u32, Sides<'a>> {
    let owners = asked.remove_redundancy.then(|| balance(laid));
    let names: BTreeSet<&str> = laid.stages.iter().flatten().map(|t| &*t.name).collect();
    let is_state = |name: &&&str| is_state(name, &names) || is_apart(name, asked.dynamic);
    let states: BTreeSet<&str> = names.iter().filter(is_state).copied().collect();
    let mut all: BTreeMap<u32, Sides<'a>> = BTreeMap::new();
    let mut rank = 0;
    for stage in &laid.stages {
        for _ in 0..laid.ranks_per_stage {
            let sides = all.entry(rank).or_default();
            for tensor in stage {
                let kept = match (&owners, &tensor.layout) {
                    (Some(owners), Some(layout)) => {
                        let cell = layout.cell(rank - tensor.first_rank);
                        owners.get(&(tensor.first_rank, &*tensor.name, cell)) == Some(&rank)
                    }
                    _ => true,
                };
                if kept {
                    sides[usize::from(states.contains(&*tensor.name))].push(tensor);
                }
            }
            sides[1].extend(laid.private.get(&rank).into_iter().flatten());
            rank += 1;
        }
    }
    all
}

/// Whether `name` is an optimizer's state of another of the names: `adam_m.W` of `W`.
fn is_state(name: &str, names: &BTreeSet<&str>) -> bool {
    name.match_indices('.')
        .any(|(dot, _)| names.contains(&name[dot + 1..]))
}

/// Whether the trainer of dynamic graphs has it beside the optimizer's states and without a layout: its step and
/// its rate of learning.
fn is_apart(name: &str, dynamic: bool) -> bool {
    dynamic && !name.contains('.')
}

/// One keeper a cell, balanced by bytes: cells with few holders first, then large ones, each to the
/// holder with the least so far (docs/formats.md).
fn balance(laid: &Laid) -> Owners<'_> {
    let mut cells = Vec::new();
    for tensor in laid.stages.iter().flatten() {
        let Some(layout) = &tensor.layout else {
            continue;
        };
        let first = tensor.first_rank;
        for rank in 0..layout.ranks() {
            let cell = layout.cell(rank);
            let holders: Vec<u32> = layout.holders(&cell).map(|rank| rank + first).collect();
            if holders.first() == Some(&(rank + first)) {
                let key = format!("('{}', ({},))", tensor.name, ordinal_of(layout, rank));
                let of = (first, &*tensor.name, cell);
                cells.push((holders, tensor.cell_bytes, key, of));
            }
        }
    }
    cells.sort_by(|a, b| {
        let order = |c: &(Vec<u32>, u64, String, _)| (c.0.len(), std::cmp::Reverse(c.1));
        order(a).cmp(&order(b)).then_with(|| a.2.cmp(&b.2))
    });
    let mut loads: HashMap<u32, u64> = HashMap::new();
    let mut owners = Owners::new();
    for (holders, bytes, _, key) in cells {
        let load = |rank: &u32| (loads.get(rank).copied().unwrap_or(0), *rank);
        if let Some(owner) = holders.iter().copied().min_by_key(load) {
            *loads.entry(owner).or_default() += bytes;
            owners.insert(key, owner);
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_by_the_weight_they_end_with() {
        let names = BTreeSet::from(["layers.0.w", "adam_m.layers.0.w", "norm", "x.norm2"]);
        assert!(is_state("adam_m.layers.0.w", &names));
        assert!(!is_state("layers.0.w", &names) && !is_state("x.norm2", &names));
    }
}
