//! This process's share of the work, cut by bytes and not by file.
//!
//! A [`Site`] is the set of processes that can write the same destination files. The cells of its
//! destination ranks, laid end to end in file order, are cut into equal parts by written bytes, one a
//! process.

use crate::catalog::{Catalog, Place};
use crate::fault::Result;
use crate::layout::Cell;
use crate::plan::TensorPlan;
use crate::plan::cell::CellPlan;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Bytes of all cells of a slab together, about: what fits the second-level cache.
const SLAB_BYTES: u64 = 1 << 20;
/// Least bytes of one cell in a slab, so that writes are not too small.
const WINDOW_BYTES_MIN: u64 = 64 << 10;

/// The processes that can write the same destination files, and those files' ranks.
#[derive(Clone, Debug)]
pub struct Site {
    /// Destination ranks built here, ascending.
    pub ranks: Vec<u32>,
    /// Number of processes that share the work.
    pub processes: u32,
    /// Which of them this is.
    pub index: u32,
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
    /// What is done already.
    pub skip: &'a Skip,
}

impl<'a> Work<'a> {
    /// Calls `visit` with each slab of this process's share, in file order.
    ///
    /// # Errors
    /// [`crate::fault::Kind::MissingShard`] and whatever `visit` returns.
    pub fn for_each_slab(&self, mut visit: impl FnMut(Slab<'a>) -> Result<()>) -> Result<()> {
        let weights: Vec<u64> = self.plans.iter().map(|plan| self.weight(plan)).collect();
        let total = u128::from(weights.iter().sum::<u64>());
        let share = |index: u32| total * u128::from(index) / u128::from(self.site.processes.max(1));
        let (begin, end) = (share(self.site.index), share(self.site.index + 1));
        let mut before = 0u128;
        for (number, (plan, weight)) in (0u32..).zip(self.plans.iter().zip(weights)) {
            let salt = u64::from(number) + 1;
            let after = before + u128::from(weight);
            if weight > 0 && before < end && after > begin {
                let bounds = Bounds {
                    before,
                    begin,
                    end,
                    number,
                    salt,
                };
                self.tensor_slabs(plan, weight, &bounds, &mut visit)?;
            } else if weight == 0 && self.site.index == 0 {
                // Empty tensors still have to be checked: by one process.
                let bounds = Bounds {
                    before: 0,
                    begin: 0,
                    end: 1,
                    number,
                    salt,
                };
                self.tensor_slabs(plan, weight, &bounds, &mut visit)?;
            }
            before = after;
        }
        Ok(())
    }

    /// Calls `visit` with this process's share in pieces as large as can be: neighbouring slabs of the
    /// same cells as one. For counting, not for moving.
    ///
    /// # Errors
    /// As [`Work::for_each_slab`].
    pub fn for_each_span(&self, mut visit: impl FnMut(Slab<'a>) -> Result<()>) -> Result<()> {
        let mut span: Option<Slab<'a>> = None;
        self.for_each_slab(|slab| match &mut span {
            Some(before) if before.end == slab.begin && Arc::ptr_eq(&before.cells, &slab.cells) => {
                before.end = slab.end;
                Ok(())
            }
            _ => span.replace(slab).map_or(Ok(()), &mut visit),
        })?;
        span.map_or(Ok(()), visit)
    }

    /// Bytes that the site writes of `plan`, about (replicas that redundancy removal leaves out are
    /// counted too: every process of the site must get the same number cheaply).
    fn weight(&self, plan: &TensorPlan) -> u64 {
        let ranks = plan.destination.ranks();
        let from = self.site.ranks.partition_point(|rank| *rank < ranks.start);
        let to = self.site.ranks.partition_point(|rank| *rank < ranks.end);
        plan.cell_bytes() * (to - from) as u64
    }

    /// The site's cells of `plan`, each with the places it is written to.
    fn site_cells(&self, plan: &TensorPlan) -> BTreeMap<Cell, Vec<Place>> {
        let ranks = plan.destination.ranks();
        let from = self.site.ranks.partition_point(|rank| *rank < ranks.start);
        let mut cells: BTreeMap<Cell, Vec<Place>> = BTreeMap::new();
        for rank in self.site.ranks[from..]
            .iter()
            .take_while(|rank| **rank < ranks.end)
        {
            if let Some(place) = self.destination.find(*rank, &plan.name) {
                let cell = plan.destination.layout.cell(rank - ranks.start);
                cells.entry(cell).or_default().push(place);
            }
        }
        cells
    }

    fn tensor_slabs(
        &self,
        plan: &'a TensorPlan,
        weight: u64,
        bounds: &Bounds,
        visit: &mut impl FnMut(Slab<'a>) -> Result<()>,
    ) -> Result<()> {
        let cells = self.site_cells(plan);
        let cell_bytes = plan.cell_bytes();
        let written: u64 = cells.values().map(|targets| targets.len() as u64).sum();
        // Positions are scaled so that the tensor fills its weight whatever is left out.
        let scale = |bytes: u64| {
            let real = u128::from(written * cell_bytes).max(1);
            bounds.before + u128::from(bytes) * u128::from(weight) / real
        };
        let mut position = 0u64;
        let mut cells = cells.into_iter().peekable();
        let mut salt = bounds.salt;
        let mut id = SlabId {
            tensor: bounds.number,
            slab: 0,
        };
        while let Some((cell, targets)) = cells.next() {
            let first = cell.first().copied();
            let mut band = vec![(cell, targets)];
            while let Some(next) = cells.next_if(|(cell, _)| cell.first().copied() == first) {
                band.push(next);
            }
            let copies: u64 = band.iter().map(|(_, targets)| targets.len() as u64).sum();
            let band_end = position + copies * cell_bytes;
            let window = window_bytes(plan, band.len() as u64);
            if scale(band_end) < bounds.begin || scale(position) >= bounds.end {
                position = band_end;
                id.slab += cell_bytes.div_ceil(window).max(1);
                continue;
            }
            let mut planned = None;
            let mut begin = 0;
            loop {
                let end = (begin + window).min(cell_bytes);
                let here = scale(position);
                if (bounds.begin..bounds.end).contains(&here) && !self.skip.skips(id) {
                    let cells = match &planned {
                        Some(cells) => Arc::clone(cells),
                        None => planned
                            .insert(Arc::new(self.plan_cells(plan, &band)?))
                            .clone(),
                    };
                    visit(Slab {
                        plan,
                        id,
                        source: self.source,
                        cells,
                        begin,
                        end,
                        salt,
                    })?;
                }
                salt += 1;
                id.slab += 1;
                position += copies * (end - begin);
                begin = end;
                if begin >= cell_bytes {
                    break;
                }
            }
        }
        Ok(())
    }

    fn plan_cells(&self, plan: &TensorPlan, band: &[(Cell, Vec<Place>)]) -> Result<Vec<CellPlan>> {
        band.iter()
            .map(|(cell, targets)| CellPlan::new(plan, cell.clone(), targets.clone(), self.source))
            .collect()
    }
}

/// Where a tensor lies in the site's work, and which part of that is this process's.
struct Bounds {
    before: u128,
    begin: u128,
    end: u128,
    number: u32,
    salt: u64,
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
