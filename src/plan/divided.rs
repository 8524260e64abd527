//! The walk through a node's share of files that other nodes write, too: piece by piece of their blocks.

use crate::catalog::Place;
use crate::fault::Result;
use crate::layout::Cell;
use crate::plan::cell::CellPlan;
use crate::plan::deal::Deal;
use crate::plan::group::Group;
use crate::plan::nodes::{Nodes, Target};
use crate::plan::pieces::{Inner, Pieces};
use crate::plan::slab::{Slab, SlabId};
use crate::plan::tensor_plan::TensorPlan;
use crate::plan::window::{Window, position};
use crate::plan::work::Work;
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

impl<'a> Work<'a> {
    /// Calls `visit` with what falls to this process of a unit. A piece may be built on several
    /// nodes, each for the files whose blocks are its own.
    pub(super) fn unit_pieces(
        &self,
        unit: &Unit<'a, '_>,
        deal: &Deal<'_>,
        nodes: &Nodes,
        visit: &mut impl FnMut(Slab<'a>) -> Result<()>,
    ) -> Result<()> {
        let plan = unit.plan;
        let places = unit.cells.iter().flat_map(|(_, places)| places);
        let targets: Vec<Target> = places
            .map(|place| {
                nodes.target(
                    self.destination,
                    *place,
                    deal.file(self.destination, *place),
                )
            })
            .collect();
        let elsewhere = if deal.by_sight() {
            deal.passes_by(plan, unit.indices) && nodes.leave(&targets)
        } else {
            !targets.iter().any(|target| nodes.meets(target))
        };
        if elsewhere {
            return Ok(());
        }
        let mut planned: Option<(Mine, Arc<Vec<CellPlan>>)> = None;
        let mut owned = Owned::of(unit, &targets, nodes);
        let pieces = Pieces::of(plan, &targets, unit.group.window_bytes);
        for (piece, bytes) in (0u64..).zip(pieces) {
            let mut window = Window {
                plan,
                cells: unit.indices,
                bytes: bytes.clone(),
                targets: targets.len() as u64,
                position: 0,
            };
            let mine = owned.mine(&window, deal, nodes);
            window.targets = mine.count(&targets);
            let id = SlabId {
                tensor: unit.tensor,
                slab: unit.number * unit.group.cell_bytes.max(1) + bytes.start,
            };
            if window.targets == 0
                || !owned.lane_takes(&mine, &window, deal, nodes)
                || self.skip.skips(id)
            {
                continue;
            }
            let cells = match &planned {
                Some((before, cells)) if *before == mine => Arc::clone(cells),
                _ => {
                    let cells = Arc::new(self.plan_some(unit, &mine)?);
                    planned = Some((mine, Arc::clone(&cells)));
                    cells
                }
            };
            visit(Slab {
                plan,
                id,
                source: self.source,
                cells,
                begin: bytes.start,
                end: bytes.end,
                salt: unit.salt + piece,
                turns: None,
            })?;
        }
        Ok(())
    }

    /// Plans the cells of a unit for those of its targets that are `mine`.
    fn plan_some(&self, unit: &Unit<'_, '_>, mine: &Mine) -> Result<Vec<CellPlan>> {
        let mut number = 0;
        let mut planned = Vec::new();
        for (cell, places) in unit.cells {
            let own = (number..).zip(places).filter(|(n, _)| mine.has(*n));
            let own: Vec<Place> = own.map(|(_, place)| *place).collect();
            number += places.len();
            if !own.is_empty() {
                planned.push(CellPlan::new(unit.plan, cell.clone(), own, self.source)?);
            }
        }
        Ok(planned)
    }
}

/// Which of the targets of a piece this node writes.
#[derive(Clone, PartialEq, Eq)]
enum Mine {
    Nothing,
    All,
    Some(Vec<bool>),
}

impl Mine {
    fn of(each: impl Iterator<Item = bool>) -> Mine {
        let each: Vec<bool> = each.collect();
        match each.iter().filter(|mine| **mine).count() {
            0 => Mine::Nothing,
            all if all == each.len() => Mine::All,
            _ => Mine::Some(each),
        }
    }

    fn has(&self, number: usize) -> bool {
        match self {
            Mine::Nothing => false,
            Mine::All => true,
            Mine::Some(each) => each.get(number) == Some(&true),
        }
    }

    fn count(&self, targets: &[Target]) -> u64 {
        match self {
            Mine::Nothing => 0,
            Mine::All => targets.len() as u64,
            Mine::Some(each) => each.iter().filter(|mine| **mine).count() as u64,
        }
    }
}

/// What of a unit's blocks is this node's. To be asked piece by piece, in order.
struct Owned<'t> {
    targets: &'t [Target],
    /// First byte and length of each target among the site's, the one whose turn it is first.
    homes: Vec<(u64, u64)>,
    turn: usize,
    cell_bytes: u64,
    /// Whether all is this node's by its place.
    whole: bool,
    /// Where blocks are that nothing else lies in, the same in all files.
    inner: Inner,
    /// Whose such a block is, if that was asked.
    chosen: Option<(u64, Option<bool>)>,
}

impl<'t> Owned<'t> {
    fn of(unit: &Unit<'_, '_>, targets: &'t [Target], nodes: &Nodes) -> Self {
        let homes = targets.iter();
        let mut homes: Vec<_> = homes.map(|t| (t.file + t.begin, t.bytes)).collect();
        let turn = (u64::from(unit.tensor) + unit.number) % (homes.len() as u64).max(1);
        let turn = usize::try_from(turn).unwrap_or_default();
        homes.rotate_left(turn);
        Owned {
            targets,
            homes,
            turn,
            cell_bytes: unit.group.cell_bytes.max(1),
            whole: targets.iter().all(|target| nodes.has_all(target)),
            inner: Inner::of(unit.plan, targets),
            chosen: None,
        }
    }

    fn mine(&mut self, window: &Window<'_>, deal: &Deal<'_>, nodes: &Nodes) -> Mine {
        let at = window.plan.written_bytes(window.bytes.start);
        let targets = self.targets.iter();
        if !deal.by_sight() {
            return match self.whole {
                true => Mine::All,
                false => Mine::of(targets.map(|target| nodes.has(target, at))),
            };
        }
        // Whose a window is is asked once, of all that has no node yet.
        let mut chosen = None;
        if let Some(block) = self.inner.block(&window.bytes) {
            let known = self.chosen.filter(|(number, _)| *number == block);
            let (_, known) = known.unwrap_or_else(|| (block, deal.node_takes(window)));
            self.chosen = Some((block, known));
            match known {
                Some(true) => return Mine::All,
                Some(false) => return Mine::Nothing,
                None => chosen = Some(None),
            }
        }
        Mine::of(targets.map(|target| {
            nodes.takes(target, at, || {
                let chosen = chosen.get_or_insert_with(|| deal.node_takes(window));
                chosen.unwrap_or_else(|| nodes.has(target, at))
            })
        }))
    }

    /// Whether this process, or thread, builds a piece that is this node's.
    fn lane_takes(&self, mine: &Mine, window: &Window<'_>, deal: &Deal<'_>, nodes: &Nodes) -> bool {
        if let Some(takes) = deal.lane_takes(window) {
            return takes;
        }
        let position = match mine {
            Mine::Some(_) => {
                let count = self.homes.len();
                let homes = self.homes.iter().enumerate();
                let own = homes.filter(|(n, _)| mine.has((n + self.turn) % count.max(1)));
                let own: Vec<_> = own.map(|(_, home)| *home).collect();
                position(&own, window.bytes.start, self.cell_bytes)
            }
            _ => position(&self.homes, window.bytes.start, self.cell_bytes),
        };
        nodes.lane_has(position)
    }
}
