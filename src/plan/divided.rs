//! The walk through a node's share of files that other nodes write, too: piece by piece of their blocks.

use crate::fault::Result;
use crate::plan::deal::Deal;
use crate::plan::nodes::{Nodes, Target};
use crate::plan::pieces::{Inner, Pieces};
use crate::plan::slab::Slab;
use crate::plan::unit::{Mine, Step, Unit};
use crate::plan::window::{Window, position};
use crate::plan::work::Work;

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
        let mut owned = Owned::of(unit, &targets, nodes);
        let pieces = Pieces::of(plan, &targets, unit.group.window_bytes);
        let first = unit.number * unit.group.cell_bytes.max(1);
        let pieces = (0u64..).zip(pieces).map(|(number, bytes)| Step {
            number,
            slab: first + bytes.start,
            bytes,
        });
        let takes = |step: &Step| {
            let mut window = Window {
                plan,
                cells: unit.indices,
                bytes: step.bytes.clone(),
                targets: targets.len() as u64,
                position: 0,
            };
            let mine = owned.mine(&window, deal, nodes);
            window.targets = mine.count(targets.len());
            let takes = window.targets > 0 && owned.lane_takes(&mine, &window, deal, nodes);
            takes.then_some(mine)
        };
        self.steps(unit, pieces, takes, || None, visit)
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
