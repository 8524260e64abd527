//! This process's share of the work, cut by bytes and not by file.
//!
//! A [`Site`] is the set of processes that can write the same destination files; who of them builds what,
//! `deal.rs` says. What is written to several files is built once, and its parts in turn by
//! those that have these files.

use crate::catalog::{Catalog, Place};
use crate::fault::{Fault, Kind, Result};
use crate::layout::Cell;
use crate::plan::TensorPlan;
use crate::plan::cell::{CellPlan, Transfer};
use crate::plan::deal::{Deal, Window, position};
use crate::plan::reach::{ExchangeMode, Reach, Served};
use crate::plan::turns::{Sharing, Turns};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// Bytes of all cells of a slab together, about: what fits the second-level cache.
pub(super) const SLAB_BYTES: u64 = 1 << 20;
/// Least bytes of one cell in a slab, so that writes are not too small.
const WINDOW_BYTES_MIN: u64 = 64 << 10;
/// Most cells that are built together.
const CELLS_MAX: u64 = 64;

/// The processes that can write the same destination files, and those files' ranks.
#[derive(Clone, Debug)]
pub struct Site {
    /// Destination ranks built here, ascending.
    pub ranks: Vec<u32>,
    /// Number of processes that share the work.
    pub processes: u32,
    /// Which of them this is.
    pub index: u32,
    /// Whether they are all processes that there are.
    pub everybody: bool,
}

impl Site {
    /// This process's work divided over `threads`: the site as thread `thread` has it.
    #[must_use]
    pub fn of_thread(&self, thread: u32, threads: u32) -> Site {
        Site {
            ranks: self.ranks.clone(),
            processes: self.processes * threads,
            index: self.index * threads + thread,
            everybody: self.everybody,
        }
    }
}

/// A slab of a site's work: number of the tensor, and of the slab in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlabId {
    /// Number of the tensor among the site's plans.
    pub tensor: u32,
    /// Number of the slab, counted through the tensor.
    pub slab: u64,
}

/// Slabs that need not be built again.
#[derive(Clone, Debug, Default)]
pub enum Skip {
    /// None: build everything.
    #[default]
    Nothing,
    /// These.
    Some(HashSet<SlabId>),
    /// All of them.
    All,
}

impl Skip {
    fn skips(&self, id: SlabId) -> bool {
        match self {
            Skip::Nothing => false,
            Skip::Some(done) => done.contains(&id),
            Skip::All => true,
        }
    }
}

/// The same byte window of neighbouring destination cells: the unit of work.
#[derive(Clone, Debug)]
pub struct Slab<'a> {
    /// The tensor.
    pub plan: &'a TensorPlan,
    /// Which slab this is, the same whatever the number of processes.
    pub id: SlabId,
    /// What lies where in the source.
    pub source: &'a Catalog,
    /// The cells.
    pub cells: Arc<Vec<CellPlan>>,
    /// First byte of the window, in each cell.
    pub begin: u64,
    /// End of the window.
    pub end: u64,
    /// Number of the slab: the same on all processes, for choosing replicas in turn.
    pub salt: u64,
    /// The nodes that read its source in turn for each other; none: who builds it reads what it sees.
    pub turns: Option<Arc<Turns>>,
}

impl Slab<'_> {
    /// Bytes of the window.
    #[must_use]
    pub fn window(&self) -> u64 {
        self.end - self.begin
    }

    /// Bytes built: the window of every cell, once each.
    #[must_use]
    pub fn built_bytes(&self) -> u64 {
        self.window() * self.cells.len() as u64
    }

    /// Bytes written: the window of every cell to each of its targets.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.plan.written_bytes(self.window())
            * self
                .cells
                .iter()
                .map(|cell| cell.targets.len() as u64)
                .sum::<u64>()
    }

    /// Chooses who serves `transfer` into `cell`.
    ///
    /// # Errors
    /// [`Kind::MissingShard`] if no process sees any of its shards.
    pub fn serve(&self, reach: &Reach, cell: &CellPlan, transfer: &Transfer) -> Result<Served> {
        let ranks = transfer.candidates.iter().map(|place| place.rank);
        let turns = self.turns.as_deref();
        reach
            .serve(ranks, self.salt, cell.share, turns)
            .ok_or_else(|| {
                let fault = Fault::new(Kind::MissingShard, "no process sees this shard");
                let fault = fault.tensor(&*self.plan.name);
                match transfer.candidates.first() {
                    Some(place) => fault.rank(place.rank).file(format!("rank_{}", place.rank)),
                    None => fault,
                }
            })
    }
}

/// Everything a process's share follows from.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// The tensors, in file order.
    pub plans: &'a [TensorPlan],
    /// What lies where in the source.
    pub source: &'a Catalog,
    /// What goes where in the destination (the site's ranks at least).
    pub destination: &'a Catalog,
    /// Who shares the work.
    pub site: &'a Site,
    /// Who sees what of the source.
    pub reach: &'a Reach,
    /// What is done already.
    pub skip: &'a Skip,
    /// Where the other ranks are built, if nodes build different ones and may send each other what
    /// they read.
    pub sharing: Option<Sharing<'a>>,
}

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
    /// [`Kind::MissingShard`] and whatever `visit` returns.
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
                let group = Group::of(plan);
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
        holders
            .filter_map(|rank| self.destination.find(rank, &plan.name))
            .collect()
    }

    /// The slabs of one unit that fall to this process.
    #[allow(clippy::too_many_arguments)]
    fn unit_slabs(
        &self,
        number: Number,
        plan: &'a TensorPlan,
        group: &Group,
        unit: u64,
        deal: &Deal<'_>,
        visit: &mut impl FnMut(Slab<'a>) -> Result<()>,
    ) -> Result<()> {
        let indices: Vec<Cell> = group.cells(unit).collect();
        if deal.passes_by(plan, &indices) {
            return Ok(());
        }
        let mut cells: Vec<(Cell, Vec<Place>)> = indices
            .iter()
            .map(|cell| (cell.clone(), self.targets(plan, cell)))
            .collect();
        cells.retain(|(_, targets)| !targets.is_empty());
        let mut homes: Vec<Place> = cells.iter().flat_map(|(_, t)| t.iter().copied()).collect();
        if homes.is_empty() {
            return Ok(());
        }
        homes.sort_unstable();
        let turn = (u64::from(number.here) + unit) % homes.len() as u64;
        homes.rotate_left(usize::try_from(turn).unwrap_or_default());
        let extents = deal.extents(self.destination, &homes);
        let mut planned: Option<Arc<Vec<CellPlan>>> = None;
        let mut turns: Option<Arc<Turns>> = None;
        for window in 0..group.windows {
            let id = SlabId {
                tensor: number.here,
                slab: unit * group.windows + window,
            };
            let begin = window * group.window_bytes;
            let bytes = begin..(begin + group.window_bytes).min(group.cell_bytes);
            let window = Window {
                plan,
                cells: &indices,
                bytes: bytes.clone(),
                targets: homes.len() as u64,
                position: position(&extents, window, group.windows),
            };
            if !deal.takes(&window) || self.skip.skips(id) {
                continue;
            }
            let cells = match &planned {
                Some(cells) => Arc::clone(cells),
                None => {
                    let sharing = self.sharing.as_ref();
                    turns = sharing
                        .filter(|_| self.reach.mode == ExchangeMode::Auto)
                        .and_then(|sharing| sharing.turns(plan, group.cells(unit)))
                        .map(Arc::new);
                    planned
                        .insert(Arc::new(self.plan_cells(plan, &cells)?))
                        .clone()
                }
            };
            visit(Slab {
                plan,
                id,
                source: self.source,
                cells,
                begin,
                end: bytes.end,
                salt: number.everywhere + 1 + id.slab,
                turns: turns.clone(),
            })?;
        }
        Ok(())
    }

    fn plan_cells(&self, plan: &TensorPlan, cells: &[(Cell, Vec<Place>)]) -> Result<Vec<CellPlan>> {
        cells
            .iter()
            .map(|(cell, targets)| CellPlan::new(plan, cell.clone(), targets.clone(), self.source))
            .collect()
    }
}

/// How the cells of a tensor are put together to be built: those next to each other in a row of cells
/// that need the same source rows are one unit. The same on every process.
struct Group<'a> {
    parts: &'a [u64],
    /// Cells of one row of cells: those with the same place in dimension 0.
    row: u64,
    /// Most cells of a unit.
    size: u64,
    cell_bytes: u64,
    window_bytes: u64,
    windows: u64,
}

impl<'a> Group<'a> {
    fn of(plan: &'a TensorPlan) -> Self {
        let row = |parts: &[u64]| parts.iter().skip(1).product::<u64>();
        let parts = plan.destination.grid.parts();
        let spreads = plan.pieces.iter().filter_map(|(_, t)| t.spreads.first());
        let source = spreads.map(|spread| row(spread.grid.parts())).max();
        let size = row(parts)
            .div_ceil(source.unwrap_or(1).max(1))
            .clamp(1, CELLS_MAX);
        let cell_bytes = plan.cell_bytes();
        let window_bytes = window_bytes(plan, size);
        Group {
            parts,
            row: row(parts),
            size,
            cell_bytes,
            window_bytes,
            windows: cell_bytes.div_ceil(window_bytes).max(1),
        }
    }

    /// The unit that `cell` is in.
    fn unit_of(&self, cell: &[u64]) -> u64 {
        let number = cell
            .iter()
            .zip(self.parts)
            .fold(0, |number, (place, parts)| number * parts + place);
        number / self.row * self.row.div_ceil(self.size) + number % self.row / self.size
    }

    /// The cells of a unit, in row-major order.
    fn cells(&self, unit: u64) -> impl Iterator<Item = Cell> + '_ {
        let units = self.row.div_ceil(self.size);
        let (row, first) = (unit / units, unit % units * self.size);
        (first..(first + self.size).min(self.row)).map(move |place| {
            let mut number = row * self.row + place;
            let mut cell = vec![0; self.parts.len()];
            for (place, parts) in cell.iter_mut().zip(self.parts).rev() {
                *place = number % parts;
                number /= parts;
            }
            cell
        })
    }
}

/// The window of a cell that makes a slab: whole rows of some inner dimensions where they fit.
fn window_bytes(plan: &TensorPlan, cells: u64) -> u64 {
    // What is computed is four bytes an element meanwhile.
    let slab = match plan.is_computed() {
        true => SLAB_BYTES * plan.element_bytes / 4,
        false => SLAB_BYTES,
    };
    let target = (slab / cells).max(WINDOW_BYTES_MIN);
    let mut unit = plan.element_bytes;
    for dim in plan.destination.grid.cell_shape().0.iter().rev() {
        if unit * dim > target {
            break;
        }
        unit *= dim;
    }
    (target / unit.max(1) * unit).max(plan.element_bytes)
}
