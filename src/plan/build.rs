//! From two sides' strategies and a source's catalog to the tensors to make.

use crate::catalog::Catalog;
use crate::fault::{Fault, Result};
use crate::layout::Layout;
use crate::plan::inventory::Inventory;
use crate::plan::made::made;
use crate::plan::private::Private;
use crate::plan::tensor_plan::TensorPlan;
use crate::plan::unmatched::{not_in_strategy, nothing_in_common, unknown_tensor};
use crate::store::formats::Count;
use crate::strategy::Strategy;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use crate::plan::made::{Made, plan_tensor};
pub use crate::plan::select::{Leftovers, Select, Unmatched};

/// Everything to be made.
#[derive(Clone, Debug, Default)]
pub struct Build {
    /// The tensors of each stage, by stage. Shared by all ranks of the stage.
    pub stages: Vec<Vec<TensorPlan>>,
    /// Tensors that a single rank gets, by rank.
    pub private: BTreeMap<u32, Vec<TensorPlan>>,
    /// Tensors that every rank gets though no file of the source has them: a job's counts.
    pub counts: Vec<Count>,
    /// Ranks in a stage of the destination.
    pub ranks_per_stage: u32,
    /// Names in the destination's strategy that the source has no data for.
    pub without_data: Vec<Arc<str>>,
    /// Names left out though the source has them.
    pub dropped: Vec<Arc<str>>,
    /// Names that the destination's strategy doesn't know, copied as they are.
    pub copied: Vec<Arc<str>>,
}

/// Finds the tensors to make for a destination strategy (none: whole, at rank 0). Private tensors are
/// made for the ranks in `ranks` only.
///
/// # Errors
/// [`crate::fault::Kind::UnknownTensor`] for a cut tensor that the destination doesn't know, [`crate::fault::Kind::Shape`] for
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
    let made = made(inventory, select, leftovers)?;
    let mut used = match destination {
        None => {
            let plans = made.iter().map(|(name, made)| {
                let layout = Arc::new(Layout::whole(made.shape.0.len()));
                plan_tensor(name, made, 0, layout)
            });
            build.stages = vec![plans.collect::<Result<_>>()?];
            made.values().flat_map(Made::sources).collect()
        }
        Some(strategy) => build.place(strategy, &made)?,
    };
    build.dropped.extend(inventory.left_out.iter().cloned());
    let viewed = match leftovers {
        Leftovers::View(_) => {
            let private = inventory.private.iter();
            let private = private.filter(|name| select.keeps(name) && !used.contains(*name));
            build.dropped.extend(private.cloned());
            true
        }
        _ => select.view.is_some(),
    };
    if let (true, Some(strategy)) = (viewed, destination) {
        // What a view leaves as it is goes with what no stage gets.
        let carried = |name: &Arc<str>, made: &Made| {
            !matches!(leftovers, Leftovers::View(_)) && made.sources().eq([name.clone()])
        };
        let unknown = made
            .iter()
            .filter(|(name, made)| strategy.layouts(name).is_empty() && !carried(name, made));
        let unknown: Vec<_> = unknown.collect();
        if select.view.is_some() && !matches!(leftovers, Leftovers::View(_)) {
            used.extend(unknown.iter().flat_map(|(_, made)| made.sources()));
        }
        build.sort_viewed(&unknown, leftovers.unmatched(), strategy, ranks)?;
    }
    if used.is_empty() && !inventory.tensors.is_empty() {
        return Err(nothing_in_common(inventory, destination));
    }
    let copied = build.sort_leftovers(inventory, select, destination, leftovers, &used)?;
    if !matches!(leftovers, Leftovers::View(_)) {
        let private = Private::new(
            (inventory, catalog),
            (select, leftovers),
            destination,
            &copied,
        )?;
        build.dropped.extend(private.left_out());
        for rank in ranks {
            let plans = private.plans(*rank)?;
            build.private.entry(*rank).or_default().extend(plans);
        }
    }
    build.copied.extend(copied);
    Ok(build)
}

impl Build {
    /// Takes up what is counted beside the tensors: names that a strategy has may be among it.
    pub fn count(&mut self, counts: Vec<Count>) {
        let counted = |name: &Arc<str>| counts.iter().any(|count| count.name == &**name);
        self.without_data.retain(|name| !counted(name));
        self.counts = counts;
    }

    /// Lays the tensors out by the destination's strategy; gives the names read that were used.
    fn place(
        &mut self,
        strategy: &Strategy,
        made: &BTreeMap<Arc<str>, Made>,
    ) -> Result<BTreeSet<Arc<str>>> {
        self.stages = (0..strategy.stages()).map(|_| Vec::new()).collect();
        let mut used = BTreeSet::new();
        for name in strategy.names() {
            let Some(made) = made.get(name) else {
                self.without_data.push(name.clone());
                continue;
            };
            used.extend(made.sources());
            for stage in strategy.layouts(name) {
                let layout = stage
                    .fit_full(&made.shape.0)
                    .map_err(|fault| fault.tensor(&**name))?;
                made.check_cut(&layout)
                    .map_err(|fault| fault.tensor(&**name))?;
                let first_rank = stage.stage * self.ranks_per_stage;
                let plan = plan_tensor(name, made, first_rank, layout)?;
                if let Some(plans) = self.stages.get_mut(stage.stage as usize) {
                    plans.push(plan);
                }
            }
        }
        Ok(used)
    }

    /// What happens to the tensors of a view that the destination's strategy doesn't know.
    fn sort_viewed(
        &mut self,
        unknown: &[(&Arc<str>, &Made)],
        unmatched: Unmatched,
        strategy: &Strategy,
        ranks: &[u32],
    ) -> Result<()> {
        match unmatched {
            _ if unknown.is_empty() => {}
            Unmatched::Fail => {
                let names: Vec<&str> = unknown.iter().map(|(name, _)| &***name).collect();
                return Err(not_in_strategy(&names, strategy));
            }
            Unmatched::Drop => {
                let names = unknown.iter().map(|(name, _)| Arc::clone(name));
                self.dropped.extend(names);
            }
            Unmatched::Copy => {
                let names = unknown.iter().map(|(name, _)| Arc::clone(name));
                self.copied.extend(names);
                for rank in ranks {
                    let whole = |(name, made): &(&Arc<str>, &Made)| {
                        let layout = Arc::new(Layout::whole(made.dimensions()));
                        plan_tensor(name, made, *rank, layout)
                    };
                    let plans = unknown.iter().map(whole).collect::<Result<_>>()?;
                    self.private
                        .entry(*rank)
                        .or_default()
                        .extend::<Vec<_>>(plans);
                }
            }
        }
        Ok(())
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
        for name in inventory.tensors.keys() {
            if used.contains(name) || !select.keeps(name) {
                continue;
            }
            match leftovers {
                Leftovers::View(_) => self.dropped.push(name.clone()),
                Leftovers::Unify(_) => copied.push(name.clone()),
                Leftovers::Reshard(unmatched) | Leftovers::Split(unmatched) => match unmatched {
                    Unmatched::Copy => copied.push(name.clone()),
                    _ if inventory.stands_for_job(name) => copied.push(name.clone()),
                    Unmatched::Drop => self.dropped.push(name.clone()),
                    Unmatched::Fail => unknown.push((name, select.written_name(name))),
                },
            }
        }
        if !unknown.is_empty() {
            let names: Vec<&str> = unknown.iter().map(|(_, written)| &**written).collect();
            let renamed = unknown.first().filter(|(name, written)| *name != written);
            let fault = unknown_tensor(&names, destination);
            return Err(match renamed {
                Some((name, _)) => Fault {
                    message: format!("{}; it is {name} in the source", fault.message),
                    ..fault
                },
                None => fault,
            });
        }
        Ok(copied)
    }
}
