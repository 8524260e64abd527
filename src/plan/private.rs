//! Tensors that ranks get for themselves: those that no strategy knows, and those that are copied as they are.

use crate::catalog::{Catalog, Place};
use crate::fault::{Fault, Kind, Result};
use crate::layout::Layout;
use crate::plan::inventory::{Inventory, whole_tensor};
use crate::plan::made::{Made, plan_tensor};
use crate::plan::select::{Leftovers, Select, Unmatched};
use crate::plan::source_tensor::{SourceTensor, Value};
use crate::plan::state::is_accumulator;
use crate::plan::tensor_plan::TensorPlan;
use crate::strategy::Strategy;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the ranks of a destination get so.
pub(super) struct Private<'a> {
    inventory: &'a Inventory,
    catalog: &'a Catalog,
    select: &'a Select,
    leftovers: Leftovers,
    /// The names of what is copied as it is, though the source's strategy knows it.
    copied: &'a [Arc<str>],
    /// Names that are left out.
    left_out: BTreeSet<Arc<str>>,
    /// The lowest rank's place of each of them.
    first: BTreeMap<&'a str, Place>,
    /// Whether source and destination have as many ranks in the same stages.
    is_same: bool,
}

impl<'a> Private<'a> {
    /// Those of a source, for the ranks of `destination`, with what is `copied` as it is.
    ///
    /// # Errors
    /// [`Kind::Strategy`] naming a tensor of which full weights have one rank's part, and which is to be cut.
    pub(super) fn new(
        (inventory, catalog): (&'a Inventory, &'a Catalog),
        (select, leftovers): (&'a Select, Leftovers),
        destination: Option<&Strategy>,
        copied: &'a [Arc<str>],
    ) -> Result<Self> {
        let first = |name: &'a Arc<str>| {
            let place = catalog
                .ranks
                .keys()
                .find_map(|rank| catalog.find(*rank, name))?;
            Some((&**name, place))
        };
        let mut private = Private {
            inventory,
            catalog,
            select,
            leftovers,
            copied,
            left_out: BTreeSet::new(),
            first: inventory
                .private
                .iter()
                .chain(copied)
                .filter_map(first)
                .collect(),
            is_same: destination.is_none_or(|strategy| are_alike(inventory, strategy)),
        };
        if let (Leftovers::Split(unmatched), Some(strategy)) = (leftovers, destination) {
            // Accumulators are rank 0's for all, as MindSpore's own tools have them.
            let kept = inventory.private.iter();
            let kept = kept.filter(|name| select.keeps(name) && !is_accumulator(name));
            let is_cut = |name: &&Arc<str>| {
                let layouts = strategy.layouts(&select.written_name(name)).iter();
                layouts.into_iter().any(|stage| stage.layout.is_cut())
            };
            let cut: BTreeSet<Arc<str>> = kept.filter(is_cut).cloned().collect();
            match (cut.first(), unmatched) {
                (Some(name), Unmatched::Fail | Unmatched::Copy) => return Err(of_one_rank(name)),
                _ => private.left_out = cut,
            }
        }
        Ok(private)
    }

    /// The names that are left out, as it was asked for.
    pub(super) fn left_out(&self) -> impl Iterator<Item = Arc<str>> + '_ {
        self.left_out.iter().cloned()
    }

    /// What `rank` gets for itself: the source's private tensors, and those that are copied as they are.
    ///
    /// # Errors
    /// As [`Made::of`].
    pub(super) fn plans(&self, rank: u32) -> Result<Vec<TensorPlan>> {
        let inventory = self.inventory;
        let from = rank % inventory.ranks.max(1);
        let is_kept = |name: &&Arc<str>| self.select.keeps(name) && !self.left_out.contains(*name);
        let names = inventory.private.iter().filter(is_kept).chain(self.copied);
        let mut plans = Vec::new();
        for name in names {
            let known = inventory.tensors.get(name);
            let tensor = match known.filter(|tensor| tensor.name != *name) {
                // One of an adapter stands in its place.
                Some(other) => other.clone(),
                None => {
                    let own = self.catalog.find(from, name);
                    let Some(place) = own.or_else(|| self.stand_in(from, name)) else {
                        continue;
                    };
                    let mut tensor = whole_tensor(self.catalog.entry(place), place.rank)?;
                    tensor.value = value_of_copy(inventory, name)?;
                    Arc::new(tensor)
                }
            };
            let layout = Arc::new(Layout::whole(tensor.shape.0.len()));
            plans.push(plan_tensor(
                &self.select.written_name(name),
                &Made::of(name, &tensor)?,
                rank,
                layout,
            )?);
        }
        Ok(plans)
    }

    /// Who has what the source's rank `from` would have of a tensor, and hasn't.
    fn stand_in(&self, from: u32, name: &str) -> Option<Place> {
        let has = |rank: u32| self.catalog.find(rank, name);
        let anybody = || self.first.get(name).copied();
        let is_reshard = matches!(self.leftovers, Leftovers::Reshard(_));
        match self.inventory.tensors.get(name) {
            Some(tensor) if !is_reshard => self.count(tensor, from).then(anybody).flatten(),
            // What isn't cut is the same on every rank that kept it, and so is a part on all that hold it.
            Some(tensor) if !tensor.is_cut() => anybody(),
            Some(tensor) => holders(tensor, from).find_map(has),
            // What no strategy knows is the same on all ranks that have it. Where ranks are others, or in other stages,
            // nobody knows which of them want it; where they aren't, those that had it, and those that left their files to others.
            None => {
                let is_absent = !self.catalog.ranks.contains_key(&from);
                let wanted = is_absent
                    || is_reshard && !self.is_same
                    || matches!(self.leftovers, Leftovers::Unify(_));
                wanted.then(anybody).flatten()
            }
        }
    }

    /// Whether a tensor is what a job counts, and the rank has left its file to others that hold the same.
    fn count(&self, tensor: &SourceTensor, from: u32) -> bool {
        let single = tensor.shape.0.iter().product::<u64>() == 1;
        single && !self.catalog.ranks.contains_key(&from)
    }
}

/// Whether a source has as many ranks as `strategy`, and the same stages.
fn are_alike(inventory: &Inventory, strategy: &Strategy) -> bool {
    let spreads = inventory
        .tensors
        .values()
        .flat_map(|tensor| &tensor.spreads);
    let starts: BTreeSet<u32> = spreads.map(|spread| spread.first_rank).collect();
    let due = (0..strategy.stages()).map(|stage| stage * strategy.ranks_per_stage());
    inventory.ranks == strategy.ranks() && starts.into_iter().eq(due)
}

/// The source's ranks that hold the part of a tensor that `rank` has.
fn holders(tensor: &SourceTensor, rank: u32) -> impl Iterator<Item = u32> + '_ {
    tensor.spreads.iter().flat_map(move |spread| {
        let (layout, first) = (&spread.layout, spread.first_rank);
        let local = rank
            .checked_sub(first)
            .filter(|local| *local < layout.ranks());
        let holders = local.map(|local| layout.holders(&layout.cell(local)).collect::<Vec<_>>());
        let holders = holders.into_iter().flatten();
        holders.map(move |holder| first + holder)
    })
}

fn of_one_rank(name: &str) -> Fault {
    let message = "lies among hyper parameters as one rank had it, and the destination's strategy cuts it: no rank would have \
                   its own part";
    let fault = Fault::new(Kind::Strategy, message).tensor(name);
    fault.hint("reshard takes it from the ranks' own files; --unmatched drop leaves it out")
}

/// What the elements of a tensor that is copied as it is are computed to.
fn value_of_copy(inventory: &Inventory, name: &Arc<str>) -> Result<Option<Arc<Value>>> {
    let Some(tensor) = inventory.tensors.get(name) else {
        return Ok(None);
    };
    if tensor.is_cut() && tensor.value.is_some() {
        let message = "is to be computed, but its shards are copied as they are";
        return Err(Fault::new(Kind::Unsupported, message)
            .tensor(&**name)
            .hint("a destination strategy that describes it is needed"));
    }
    Ok(tensor.value.clone())
}
