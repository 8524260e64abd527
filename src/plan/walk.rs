//! The walk through a process's share, slab by slab.

use crate::catalog::Place;
use crate::fault::Result;
use crate::layout::Cell;
use crate::plan::deal::Deal;
use crate::plan::group::Group;
use crate::plan::reach::ExchangeMode;
use crate::plan::slab::Slab;
use crate::plan::tensor_plan::TensorPlan;
use crate::plan::turns::Turns;
use crate::plan::unit::{Mine, Step, Unit};
use crate::plan::window::{Window, position};
use crate::plan::work::Work;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Numbers of a tensor.
#[derive(Clone, Copy)]
struct Number {
    /// Among the site's plans.
    here: u32,
    /// Among those that several ranks have: the same on all processes.
    everywhere: u64,
}

impl<'a> Work<'a> {
    /// Calls `visit` with each slab of this process's share, tensor by tensor.
    ///
    /// # Errors
    /// [`crate::fault::Kind::MissingShard`] and whatever `visit` returns.
    pub fn for_each_slab(&self, mut visit: impl FnMut(Slab<'a>) -> Result<()>) -> Result<()> {
        let deal = Deal::of(self);
        let ranks = deal.ranks();
        let mut everywhere = 0;
        for (here, plan) in (0u32..).zip(self.plans) {
            let stage = plan.destination.ranks();
            // What only one rank has, only its site knows.
            everywhere += u64::from(stage.len() > 1);
            let number = Number { here, everywhere };
            let from = ranks.partition_point(|rank| *rank < stage.start);
            let to = ranks.partition_point(|rank| *rank < stage.end);
            if from < to {
                let group = Group::of(plan, self.windows_max);
                let cells = ranks[from..to].iter().map(|rank| rank - stage.start);
                let units: BTreeSet<u64> = cells
                    .map(|local| group.unit_of(&plan.destination.layout.cell(local)))
                    .collect();
                for unit in units {
                    self.unit_slabs(number, plan, &group, unit, &deal, &mut visit)?;
                }
            }
        }
        Ok(())
    }

    /// Calls `visit` with this process's share in pieces as large as can be: neighbouring slabs of the
    /// same cells as one, unless nodes take turns with them. For counting, not for moving.
    ///
    /// # Errors
    /// As [`Work::for_each_slab`].
    pub fn for_each_span(&self, mut visit: impl FnMut(Slab<'a>) -> Result<()>) -> Result<()> {
        let mut span: Option<Slab<'a>> = None;
        self.for_each_slab(|slab| match &mut span {
            Some(before)
                if before.turns.is_none()
                    && before.end == slab.begin
                    && Arc::ptr_eq(&before.cells, &slab.cells) =>
            {
                before.end = slab.end;
                Ok(())
            }
            _ => span.replace(slab).map_or(Ok(()), &mut visit),
        })?;
        span.map_or(Ok(()), visit)
    }

    /// The places that `cell` of `plan` is written to, ascending.
    fn targets(&self, plan: &TensorPlan, cell: &[u64]) -> Vec<Place> {
        let here = |rank: &u32| self.site.ranks.binary_search(rank).is_ok();
        let holders = plan.destination.holders(cell).filter(here);
        self.destination.find_all(holders, &plan.name)
    }

    /// Those of `cells` that are written here, and where.
    fn written(&self, plan: &TensorPlan, cells: &[Cell]) -> Vec<(Cell, Vec<Place>)> {
        let cells = cells.iter();
        let cells = cells.map(|cell| (cell.clone(), self.targets(plan, cell)));
        cells.filter(|(_, targets)| !targets.is_empty()).collect()
    }

    /// The slabs of one unit that fall to this process.
    #[allow(clippy::too_many_arguments)]
    fn unit_slabs(
        &self,
        number: Number,
        plan: &'a TensorPlan,
        group: &Group<'_>,
        unit: u64,
        deal: &Deal<'_>,
        visit: &mut impl FnMut(Slab<'a>) -> Result<()>,
    ) -> Result<()> {
        let indices: Vec<Cell> = group.cells(unit).collect();
        if deal.nodes().is_none() && deal.passes_by(plan, &indices) {
            return Ok(());
        }
        let cells = self.written(plan, &indices);
        let of = Unit {
            plan,
            group,
            tensor: number.here,
            number: unit,
            salt: number.everywhere + 1 + unit * group.windows,
            indices: &indices,
            cells: &cells,
        };
        if let Some(nodes) = deal.nodes() {
            return self.unit_pieces(&of, deal, nodes, visit);
        }
        let homes = homes(&cells, u64::from(number.here) + unit);
        if homes.is_empty() {
            return Ok(());
        }
        let extents = deal.extents(self.destination, &homes);
        let windows = self.in_turn(group.windows).map(|number| Step {
            number,
            slab: unit * group.windows + number,
            bytes: group.window(number),
        });
        let takes = |step: &Step| {
            let window = Window {
                plan,
                cells: &indices,
                bytes: step.bytes.clone(),
                targets: homes.len() as u64,
                position: position(&extents, step.number, group.windows),
            };
            deal.takes(&window).then_some(Mine::All)
        };
        let turns = || self.turns(plan, group, unit);
        self.steps(&of, windows, takes, turns, visit)
    }

    /// The numbers of `windows` windows, from that on whose turn it is here: where bytes are sent, those who need
    /// the same rows' neighbours shouldn't all ask the same process at a time.
    fn in_turn(&self, windows: u64) -> impl Iterator<Item = u64> + use<> {
        let first = match self.reach.all_see_all() && self.reach.mode != ExchangeMode::Collective {
            true => 0,
            false => {
                let processes = self.reach.node_of.len() as u64;
                windows * u64::from(self.reach.process) / processes.max(1)
            }
        };
        (first..windows).chain(0..first)
    }

    /// The nodes that read a unit's source in turn for each other, if any do.
    fn turns(&self, plan: &TensorPlan, group: &Group<'_>, unit: u64) -> Option<Arc<Turns>> {
        let sharing = self.sharing.as_ref();
        let sharing = sharing.filter(|_| self.reach.mode == ExchangeMode::Auto)?;
        sharing.turns(plan, group.cells(unit)).map(Arc::new)
    }
}

/// The places that `cells` are written to, ascending from the one whose turn it is.
fn homes(cells: &[(Cell, Vec<Place>)], turn: u64) -> Vec<Place> {
    let places = cells.iter().flat_map(|(_, places)| places);
    let mut homes: Vec<Place> = places.copied().collect();
    homes.sort_unstable();
    let turn = turn.checked_rem(homes.len() as u64).unwrap_or_default();
    homes.rotate_left(usize::try_from(turn).unwrap_or_default());
    homes
}
