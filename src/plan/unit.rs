//! The walk through one unit of cells: window by window, those that fall to this process.

use crate::catalog::Place;
use crate::fault::Result;
use crate::layout::Cell;
use crate::plan::block::Block;
use crate::plan::cell::CellPlan;
use crate::plan::group::Group;
use crate::plan::slab::{Slab, SlabId};
use crate::plan::tensor_plan::TensorPlan;
use crate::plan::turns::Turns;
use crate::plan::work::Work;
use std::ops::Range;
use std::sync::Arc;

/// One unit of cells, and where each is written.
pub(super) struct Unit<'a, 'u> {
    pub(super) plan: &'a TensorPlan,
    pub(super) group: &'u Group<'u>,
    /// Number of the tensor among the site's plans, and of the unit in it.
    pub(super) tensor: u32,
    pub(super) number: u64,
    /// A number that is the same on all processes.
    pub(super) salt: u64,
    /// All cells of the unit.
    pub(super) indices: &'u [Cell],
    /// Those that are written here, and where.
    pub(super) cells: &'u [(Cell, Vec<Place>)],
}

/// A window of a unit.
pub(super) struct Step {
    /// Its number.
    pub(super) number: u64,
    /// The number of its slab in the tensor.
    pub(super) slab: u64,
    /// Bytes of each cell.
    pub(super) bytes: Range<u64>,
}

/// Which of the targets of a piece this node writes.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Mine {
    Nothing,
    All,
    Some(Vec<bool>),
}

impl Mine {
    /// Those of which `each` says so.
    pub(super) fn of(each: impl Iterator<Item = bool>) -> Mine {
        let each: Vec<bool> = each.collect();
        match each.iter().filter(|mine| **mine).count() {
            0 => Mine::Nothing,
            all if all == each.len() => Mine::All,
            _ => Mine::Some(each),
        }
    }

    /// Whether it has the target with this number.
    pub(super) fn has(&self, number: usize) -> bool {
        match self {
            Mine::Nothing => false,
            Mine::All => true,
            Mine::Some(each) => each.get(number) == Some(&true),
        }
    }

    /// How many of so many targets it is.
    pub(super) fn count(&self, targets: usize) -> u64 {
        match self {
            Mine::Nothing => 0,
            Mine::All => targets as u64,
            Mine::Some(each) => each.iter().filter(|mine| **mine).count() as u64,
        }
    }
}

impl<'a> Work<'a> {
    /// Calls `visit` with those of the `steps` of a unit that this process `takes`, for the targets that it
    /// is given. What is planned serves as long as these stay the same; `turns` are asked with it.
    pub(super) fn steps(
        &self,
        unit: &Unit<'a, '_>,
        steps: impl Iterator<Item = Step>,
        mut takes: impl FnMut(&Step) -> Option<Mine>,
        turns: impl Fn() -> Option<Arc<Turns>>,
        visit: &mut impl FnMut(Slab<'a>) -> Result<()>,
    ) -> Result<()> {
        let mut planned: Option<Served> = None;
        for step in steps {
            let id = SlabId {
                tensor: unit.tensor,
                slab: step.slab,
            };
            let Some(mine) = takes(&step).filter(|_| !self.skip.skips(id)) else {
                continue;
            };
            let of = (mine, unit.rows_of(&step.bytes));
            let ((block, cells), turns) = match &planned {
                Some((before, planned, turns)) if *before == of => (planned.clone(), turns.clone()),
                _ => {
                    let new = self.plan_some(unit, &of.0, of.1)?;
                    let turns = turns();
                    planned = Some((of, new.clone(), turns.clone()));
                    (new, turns)
                }
            };
            visit(Slab {
                plan: unit.plan,
                id,
                source: self.source,
                cells,
                block,
                begin: step.bytes.start,
                end: step.bytes.end,
                salt: unit.salt + step.number,
                turns,
            })?;
        }
        Ok(())
    }

    /// Plans the cells of a unit for those of its targets that are `mine`, to be built in windows of whole
    /// pieces of `window_bytes`; of any, if that is 0.
    fn plan_some(&self, unit: &Unit<'_, '_>, mine: &Mine, window_bytes: u64) -> Result<Planned> {
        let plan = unit.plan;
        let mut number = 0;
        let mut cells = Vec::new();
        for (cell, places) in unit.cells {
            let own = (number..).zip(places).filter(|(n, _)| mine.has(*n));
            let own: Vec<Place> = own.map(|(_, place)| *place).collect();
            number += places.len();
            if !own.is_empty() {
                cells.push((cell.clone(), own));
            }
        }
        let block = Block::of(plan, &cells, window_bytes, self.source)?;
        let cells = cells.into_iter().map(|(cell, targets)| match block {
            Some(_) => Ok(CellPlan::of_block(plan, cell, targets)),
            None => CellPlan::new(plan, cell, targets, self.source),
        });
        let cells = cells.collect::<Result<_>>()?;
        Ok((block.map(Arc::new), Arc::new(cells)))
    }
}

impl Unit<'_, '_> {
    /// What the window `bytes` of a cell is made of: the whole cell, whole rows of it, or (0) neither.
    fn rows_of(&self, bytes: &Range<u64>) -> u64 {
        let cell = self.group.cell_bytes;
        if *bytes == (0..cell) {
            return cell;
        }
        let rows = self.plan.destination.grid.cell_shape().0.first();
        let row = cell / rows.copied().unwrap_or(1).max(1);
        let whole = |at: u64| row > 0 && at.is_multiple_of(row);
        if whole(bytes.start) && whole(bytes.end) {
            row
        } else {
            0
        }
    }
}

/// What is planned for targets and windows, and whose turns these are.
type Served = ((Mine, u64), Planned, Option<Arc<Turns>>);

/// The plans of neighbouring cells, and of the box that they make.
type Planned = (Option<Arc<Block>>, Arc<Vec<CellPlan>>);
