//! The files of a checkpoint 2.0: all ranks' side by side, weights and optimizer state apart.

use crate::catalog::{FileSchema, ShardFile};
use crate::fault::{Fault, Kind, Result};
use crate::layout::Cell;
use crate::plan::arranged::Arranged;
use crate::plan::build::Build;
use crate::plan::listing::{Listing, element_shape, listed};
use crate::plan::tensor_plan::TensorPlan;
use crate::store::Format;
use crate::store::checkpoint2::{self, COMMON, COMMON_NAMES, Described, METADATA, TRACKER};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The arrangement of a checkpoint 2.0.
#[derive(Clone, Debug, Default)]
pub struct Iteration {
    /// Beginning of the files' names, if any.
    pub prefix: Option<String>,
    /// Its number: the run's total steps.
    pub number: u64,
    /// The bytes of `common.json`.
    pub common: Vec<u8>,
    /// Whether only one copy of each cell is kept.
    pub remove_redundancy: bool,
}

/// Which rank keeps a cell of a tensor, where one copy only is kept.
type Owners = HashMap<(u32, Arc<str>, Cell), u32>;

/// A tensor, and the ranks that store it, each with its file.
type Stored<'a> = (&'a TensorPlan, Vec<(u32, String)>);

/// By name and first rank of the stage: `u32::MAX` for what a rank has for itself.
type Storing<'a> = BTreeMap<(Arc<str>, u32), Stored<'a>>;

/// Lays out the files of all ranks.
///
/// # Errors
/// [`Kind::Unsupported`] if the ranks' files are not all written to one place, as the format has one
/// metadata file for all; [`Kind::Dtype`].
pub fn by_iteration(
    build: &mut Build,
    iteration: &Iteration,
    metadata: &BTreeMap<String, String>,
    ranks: &[u32],
) -> Result<Arranged> {
    let per_stage = build.ranks_per_stage.max(1) as usize;
    if ranks.len() != build.stages.len() * per_stage {
        let message =
            "a checkpoint 2.0 has one metadata.json for all ranks: its directory must be shared";
        return Err(Fault::new(Kind::Unsupported, message)
            .hint("--gather-to-root or shared storage; not --placement identity"));
    }
    for plans in build.private.values_mut() {
        plans.retain(|plan| !COMMON_NAMES.contains(&&*plan.name));
    }
    let build = &*build;
    let listings = sides(build, iteration, ranks);
    let place = checkpoint2::directory(iteration.number);
    let mut arranged = Arranged::default();
    let mut stored = Storing::new();
    let mut designed: HashMap<Listing, Arc<FileSchema>> = HashMap::new();
    for (side, kind) in ["model", "opt"].into_iter().enumerate() {
        let writing: Vec<u32> = listings
            .iter()
            .filter(|(_, sides)| !sides[side].is_empty())
            .map(|(rank, _)| *rank)
            .collect();
        for (index, rank) in writing.iter().enumerate() {
            let plans = listings.get(rank).map_or(&[][..], |sides| &sides[side]);
            let listing: Listing = plans
                .iter()
                .map(|plan| listed(plan))
                .collect::<Result<_>>()?;
            let schema = match designed.get(&listing) {
                Some(schema) => Arc::clone(schema),
                None => {
                    let schema = Arc::new(Format::SAFETENSORS.design(&listing, metadata)?);
                    designed.insert(listing, Arc::clone(&schema));
                    schema
                }
            };
            let prefix = iteration
                .prefix
                .as_ref()
                .map_or(String::new(), |prefix| format!("{prefix}-"));
            let file = format!("{prefix}{kind}-{index:07}-{:07}.safetensors", writing.len());
            note(&mut stored, build, *rank, plans, &file);
            let path = format!("{place}/{file}");
            arranged
                .catalog
                .ranks
                .entry(*rank)
                .or_default()
                .push(ShardFile { path, schema });
        }
    }
    arranged.extras = texts(&place, iteration, stored)?;
    Ok(arranged)
}

/// The small files beside the ranks': path and contents.
fn texts(
    place: &str,
    iteration: &Iteration,
    stored: Storing<'_>,
) -> Result<Vec<(String, Vec<u8>)>> {
    let described: Vec<Described> = stored
        .into_iter()
        .map(|((name, first), (plan, stored))| describe(name, first, plan, stored))
        .collect();
    Ok(vec![
        (
            format!("{place}/{METADATA}"),
            checkpoint2::metadata(&described)?,
        ),
        (format!("{place}/{COMMON}"), iteration.common.clone()),
        (
            TRACKER.to_owned(),
            iteration.number.to_string().into_bytes(),
        ),
    ])
}

/// Notes that `rank` stores `plans` in `file`.
fn note<'a>(
    stored: &mut Storing<'a>,
    build: &Build,
    rank: u32,
    plans: &[&'a TensorPlan],
    file: &str,
) {
    for plan in plans {
        let private = build
            .private
            .get(&rank)
            .is_some_and(|own| own.iter().any(|p| std::ptr::eq(p, *plan)));
        let first = if private {
            u32::MAX
        } else {
            plan.destination.first_rank
        };
        let entry = stored.entry((plan.name.clone(), first));
        let (_, files) = entry.or_insert((plan, Vec::new()));
        files.push((rank, file.to_owned()));
    }
}

/// For each rank its weights, and everything else.
fn sides<'a>(
    build: &'a Build,
    iteration: &Iteration,
    ranks: &[u32],
) -> BTreeMap<u32, [Vec<&'a TensorPlan>; 2]> {
    let per_stage = build.ranks_per_stage.max(1) as usize;
    let owners = iteration.remove_redundancy.then(|| balance(build));
    let names: BTreeSet<&str> = build
        .stages
        .iter()
        .flatten()
        .map(|plan| &*plan.name)
        .collect();
    let states: BTreeSet<&str> = names
        .iter()
        .copied()
        .filter(|name| is_state(name, &names))
        .collect();
    let mut listings: BTreeMap<u32, [Vec<&TensorPlan>; 2]> = BTreeMap::new();
    for &rank in ranks {
        let stage = rank as usize / per_stage;
        let sides = listings.entry(rank).or_default();
        for plan in build.stages.get(stage).into_iter().flatten() {
            let cell = plan
                .destination
                .layout
                .cell(rank - plan.destination.first_rank);
            let key = (plan.destination.first_rank, plan.name.clone(), cell);
            if owners
                .as_ref()
                .is_none_or(|owners| owners.get(&key) == Some(&rank))
            {
                sides[usize::from(states.contains(&*plan.name))].push(plan);
            }
        }
        sides[1].extend(build.private.get(&rank).into_iter().flatten());
    }
    listings
}

fn describe(
    name: Arc<str>,
    first: u32,
    plan: &TensorPlan,
    stored: Vec<(u32, String)>,
) -> Described {
    let private = first == u32::MAX;
    let cell = element_shape(plan.destination.grid.cell_shape(), plan.written);
    let parts = plan.destination.layout.parts();
    let shape = cell
        .0
        .iter()
        .zip(&parts)
        .map(|(size, parts)| size * parts)
        .collect();
    Described {
        name,
        dtype: plan
            .dtype
            .ckpt_name()
            .unwrap_or(plan.written.safetensors_name()),
        shape,
        layout: (!private).then(|| Arc::clone(&plan.destination.layout)),
        first_rank: if private { 0 } else { first },
        stored,
    }
}

/// Whether `name` is an optimizer's state of another of the names: `adam_m.W` of `W`.
fn is_state(name: &str, names: &BTreeSet<&str>) -> bool {
    name.match_indices('.')
        .any(|(dot, _)| names.contains(&name[dot + 1..]))
}

/// One keeper a cell, balanced by bytes: cells with few holders first, then large ones, each to the
/// holder with the least so far (docs/formats.md).
fn balance(build: &Build) -> Owners {
    let mut cells = Vec::new();
    for plan in build.stages.iter().flatten() {
        let layout = &plan.destination.layout;
        let first = plan.destination.first_rank;
        for rank in 0..layout.ranks() {
            let cell = layout.cell(rank);
            let holders: Vec<u32> = layout.holders(&cell).map(|rank| rank + first).collect();
            if holders.first() == Some(&(rank + first)) {
                let key = format!(
                    "('{}', ({},))",
                    plan.name,
                    checkpoint2::ordinal_of(layout, rank)
                );
                cells.push((
                    holders,
                    plan.cell_bytes(),
                    key,
                    (first, plan.name.clone(), cell),
                ));
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
