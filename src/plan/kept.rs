//! Which of a cell's holders have it in their files.

use crate::layout::keep::Keep;
use crate::plan::tensor_plan::TensorPlan;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Which of a cell's holders have it in their files.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// For each stage; none where all holders keep it.
    pub(super) stages: Vec<Option<Keep>>,
    pub(super) ranks_per_stage: u32,
    /// All ranks that have files at all; none: every one.
    pub(super) ranks: Option<BTreeSet<u32>>,
    /// The ranks, in order, whose files have the tensor of a name; none: every one that holds it.
    pub(super) named: Option<HashMap<Arc<str>, Vec<u32>>>,
}

impl Kept {
    /// All holders that are among `ranks` keep what they hold.
    #[must_use]
    pub fn of_ranks(ranks: BTreeSet<u32>) -> Kept {
        Kept {
            ranks: Some(ranks),
            ..Kept::default()
        }
    }

    /// The ranks that have `cell` of `plan` in their files.
    pub fn keepers<'p>(
        &'p self,
        plan: &'p TensorPlan,
        cell: &'p [u64],
    ) -> impl Iterator<Item = u32> + 'p {
        let one = self.only_keeper(plan, cell);
        let all = one.is_none().then(|| plan.destination.holders(cell));
        let named = self.named.as_ref().map(|named| named.get(&plan.name));
        let there = move |rank: &u32| {
            self.ranks.as_ref().is_none_or(|ranks| ranks.contains(rank))
                && named.is_none_or(|own| own.is_some_and(|own| own.binary_search(rank).is_ok()))
        };
        one.into_iter()
            .chain(all.into_iter().flatten().filter(there))
    }

    /// The one rank that stands for all that have `cell` of `plan` in their files.
    #[must_use]
    pub fn first(&self, plan: &TensorPlan, cell: &[u64]) -> Option<u32> {
        self.keepers(plan, cell).next()
    }

    /// The rank that has the only copy, where only one is kept.
    fn only_keeper(&self, plan: &TensorPlan, cell: &[u64]) -> Option<u32> {
        let begin = plan.destination.first_rank;
        let stage = usize::try_from(begin.checked_div(self.ranks_per_stage)?).ok()?;
        let keep = self.stages.get(stage)?.as_ref()?;
        if plan.destination.layout.ranks() != self.ranks_per_stage {
            return None;
        }
        let lowest = plan.destination.holders(cell).next()?;
        Some(begin + keep.keeper(&plan.name, lowest - begin))
    }
}
