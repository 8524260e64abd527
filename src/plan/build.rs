//! From two sides' strategies and a source's catalog to the tensors to make.

use crate::catalog::Catalog;
use crate::fault::{Fault, Kind, Result, nearest};
use crate::layout::Layout;
use crate::plan::inventory::{Inventory, whole_tensor};
use crate::plan::{SourceTensor, Spread, TensorPlan};
use crate::strategy::Strategy;
use crate::view::Piece;
use clap::ValueEnum;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What to do with a tensor that the source strategy cuts and the destination strategy doesn't know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum Unmatched {
    /// Refuse to go on.
    #[default]
    Fail,
    /// Copy the shard of source rank (destination rank mod source ranks), as MindSpore does.
    Copy,
    /// Leave it out, with a word.
    Drop,
}

/// Which names are read, and what they are called when written.
#[derive(Clone, Debug, Default)]
pub struct Select {
    /// Names with one of these beginnings are left out everywhere.
    pub filter_out_prefixes: Vec<String>,
    /// Name read → name written.
    pub written: BTreeMap<String, String>,
    /// Name written → name read: the other way round, where one name read is written several times.
    pub read: BTreeMap<String, String>,
}

impl Select {
    fn keeps(&self, name: &str) -> bool {
        !self
            .filter_out_prefixes
            .iter()
            .any(|prefix| name.starts_with(prefix.as_str()))
    }

    fn written_name(&self, name: &Arc<str>) -> Arc<str> {
        self.written
            .get(&**name)
            .map_or_else(|| name.clone(), |written| written.as_str().into())
    }
}

/// How tensors outside the destination's strategy travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// As reshard: private and uncut ones are copied, cut ones fall under the choice.
    Reshard(Unmatched),
    /// As split: only private ones (hyper parameters) are copied, the others left out.
    Split,
    /// As unify: private ones and gradient accumulators are kept as rank 0 has them.
    Unify,
}

/// Everything to be made.
#[derive(Clone, Debug, Default)]
pub struct Build {
    /// The tensors of each stage, by stage. Shared by all ranks of the stage.
    pub stages: Vec<Vec<TensorPlan>>,
    /// Tensors that a single rank gets, by rank.
    pub private: BTreeMap<u32, Vec<TensorPlan>>,
    /// Ranks in a stage of the destination.
    pub ranks_per_stage: u32,
    /// Names in the destination's strategy that the source has no data for.
    pub without_data: Vec<Arc<str>>,
    /// Names left out though the source has them.
    pub dropped: Vec<Arc<str>>,
}

/// Finds the tensors to make for a destination strategy (none: whole, at rank 0). Private tensors are
/// made for the ranks in `ranks` only.
///
/// # Errors
/// [`Kind::UnknownTensor`] for a cut tensor that the destination doesn't know, [`Kind::Shape`] for
/// one that can't be cut as it asks.
pub fn build(
    inventory: &Inventory,
    catalog: &Catalog,
    destination: Option<&Strategy>,
    select: &Select,
    leftovers: Leftovers,
    ranks: &[u32],
) -> Result<Build> {
    let mut build = Build {
        ranks_per_stage: destination.map_or(1, Strategy::ranks_per_stage),
        ..Build::default()
    };
    let mut made: BTreeMap<Arc<str>, &Arc<SourceTensor>> = BTreeMap::new();
    for (name, tensor) in inventory
        .tensors
        .iter()
        .filter(|(name, _)| select.keeps(name))
    {
        // MindSpore's unify leaves these out of the merge (docs/formats.md).
        if leftovers == Leftovers::Unify && name.starts_with("accu_grads") {
            continue;
        }
        made.insert(select.written_name(name), tensor);
    }
    for (written, read) in &select.read {
        if let Some(tensor) = inventory.tensors.get(read.as_str()) {
            made.insert(written.as_str().into(), tensor);
        }
    }
    let used = match destination {
        None => {
            let plans = made.iter().map(|(name, tensor)| {
                let layout = Arc::new(Layout::whole(tensor.shape.0.len()));
                plan_tensor(name, tensor, 0, layout)
            });
            build.stages = vec![plans.collect::<Result<_>>()?];
            made.values().map(|tensor| tensor.name.clone()).collect()
        }
        Some(strategy) => build.place(strategy, &made)?,
    };
    if used.is_empty() && !inventory.tensors.is_empty() {
        return Err(nothing_in_common(inventory, destination));
    }
    let copied = build.sort_leftovers(inventory, select, destination, leftovers, &used)?;
    for rank in ranks {
        let from = rank % inventory.ranks.max(1);
        let names = inventory
            .private
            .iter()
            .filter(|name| select.keeps(name))
            .chain(&copied);
        let mut plans = Vec::new();
        for name in names {
            let elsewhere = || {
                // One that isn't cut is the same on every rank that kept it.
                let whole = |tensor: &Arc<SourceTensor>| {
                    !tensor.spreads.iter().any(|spread| spread.layout.is_cut())
                };
                let wanted = matches!(leftovers, Leftovers::Reshard(_))
                    && inventory.tensors.get(name).is_some_and(whole)
                    || leftovers == Leftovers::Unify && inventory.private.contains(name);
                catalog
                    .ranks
                    .keys()
                    .filter(|_| wanted)
                    .find_map(|rank| catalog.find(*rank, name))
            };
            let Some(place) = catalog.find(from, name).or_else(elsewhere) else {
                continue;
            };
            let tensor = Arc::new(whole_tensor(catalog.entry(place), place.rank)?);
            let layout = Arc::new(Layout::whole(tensor.shape.0.len()));
            plans.push(plan_tensor(
                &select.written_name(name),
                &tensor,
                *rank,
                layout,
            )?);
        }
        build.private.insert(*rank, plans);
    }
    Ok(build)
}

impl Build {
    /// Lays the tensors out by the destination's strategy; gives the names read that were used.
    fn place(
        &mut self,
        strategy: &Strategy,
        made: &BTreeMap<Arc<str>, &Arc<SourceTensor>>,
    ) -> Result<BTreeSet<Arc<str>>> {
        self.stages = (0..strategy.stages()).map(|_| Vec::new()).collect();
        let mut used = BTreeSet::new();
        for name in strategy.names() {
            let Some(tensor) = made.get(name) else {
                self.without_data.push(name.clone());
                continue;
            };
            used.insert(tensor.name.clone());
            for stage in strategy.layouts(name) {
                let layout = stage
                    .fit_full(&tensor.shape.0)
                    .map_err(|fault| fault.tensor(&**name))?;
                let first_rank = stage.stage * self.ranks_per_stage;
                let plan = plan_tensor(name, tensor, first_rank, layout)?;
                if let Some(plans) = self.stages.get_mut(stage.stage as usize) {
                    plans.push(plan);
                }
            }
        }
        Ok(used)
    }

    /// What happens to the tensors that no stage gets: gives those that are copied as they are.
    fn sort_leftovers(
        &mut self,
        inventory: &Inventory,
        select: &Select,
        destination: Option<&Strategy>,
        leftovers: Leftovers,
        used: &BTreeSet<Arc<str>>,
    ) -> Result<Vec<Arc<str>>> {
        let mut copied = Vec::new();
        let mut unknown = Vec::new();
        for (name, tensor) in &inventory.tensors {
            if used.contains(name) || !select.keeps(name) {
                continue;
            }
            let cut = tensor.spreads.iter().any(|spread| spread.layout.is_cut());
            match leftovers {
                Leftovers::Split => self.dropped.push(name.clone()),
                Leftovers::Unify => copied.push(name.clone()),
                Leftovers::Reshard(_) if !cut => copied.push(name.clone()),
                Leftovers::Reshard(Unmatched::Copy) => copied.push(name.clone()),
                Leftovers::Reshard(Unmatched::Drop) => self.dropped.push(name.clone()),
                Leftovers::Reshard(Unmatched::Fail) => unknown.push(name),
            }
        }
        if let Some(first) = unknown.first() {
            let known = destination
                .map(|s| s.names().map(|n| &**n).collect())
                .unwrap_or_default();
            return Err(unknown_tensor(first, unknown.len(), known));
        }
        Ok(copied)
    }
}

fn nothing_in_common(inventory: &Inventory, destination: Option<&Strategy>) -> Fault {
    let fault = Fault::new(
        Kind::UnknownTensor,
        "no tensor of the source is in the destination strategy (or all are filtered out)",
    );
    let Some(name) = inventory.tensors.keys().next() else {
        return fault;
    };
    let known = destination
        .into_iter()
        .flat_map(Strategy::names)
        .map(|name| &**name);
    let near = nearest(name, known);
    let fault = fault.tensor(&**name);
    if near.is_empty() {
        return fault.hint("--name-map tells which names mean the same");
    }
    fault.hint(format!(
        "nearest in the strategy: {}; --name-map tells which mean the same",
        near.join(", ")
    ))
}

fn unknown_tensor(name: &str, count: usize, known: Vec<&str>) -> Fault {
    let others = if count > 1 {
        format!(" (nor {} others)", count - 1)
    } else {
        String::new()
    };
    let near = nearest(name, known.into_iter());
    let near = if near.is_empty() {
        String::new()
    } else {
        format!("nearest: {}; ", near.join(", "))
    };
    Fault::new(
        Kind::UnknownTensor,
        format!("the source strategy cuts it, the destination strategy doesn't know it{others}"),
    )
    .tensor(name)
    .hint(format!(
        "{near}--unmatched copy keeps the shards as they are, --unmatched drop leaves them out"
    ))
}

/// A tensor made of one other, unchanged, by `layout` on the ranks from `first_rank` on.
///
/// # Errors
/// [`Kind::Shape`] if the layout doesn't fit.
pub fn plan_tensor(
    name: &Arc<str>,
    tensor: &Arc<SourceTensor>,
    first_rank: u32,
    layout: Arc<Layout>,
) -> Result<TensorPlan> {
    let (bytes, element_bytes) = tensor
        .shape
        .in_bytes(tensor.dtype)
        .map_err(|fault| fault.tensor(&**name))?;
    let destination = Spread::new(first_rank, layout, &tensor.shape, tensor.dtype)
        .map_err(|fault| fault.tensor(&**name))?;
    Ok(TensorPlan {
        name: name.clone(),
        dtype: tensor.dtype,
        element_bytes,
        destination,
        pieces: vec![(Piece::identity(tensor.name.clone(), &bytes), tensor.clone())],
    })
}
