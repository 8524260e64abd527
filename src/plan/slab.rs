//! The unit of work, and what needs no doing again.

use crate::catalog::Catalog;
use crate::fault::{Fault, Kind, Result};
use crate::plan::block::Block;
use crate::plan::cell::{CellPlan, Transfer};
use crate::plan::reach::{Reach, Served, Share};
use crate::plan::tensor_plan::TensorPlan;
use crate::plan::turns::Turns;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

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
    /// Whether slab `id` needs not be built.
    pub(super) fn skips(&self, id: SlabId) -> bool {
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
    /// The box they make, if their bytes are brought together.
    pub block: Option<Arc<Block>>,
    /// First byte of the window, in each cell.
    pub begin: u64,
    /// End of the window.
    pub end: u64,
    /// Number of the slab: the same on all processes, for choosing replicas in turn.
    pub salt: u64,
    /// The nodes that read its source in turn for each other; none: who builds it reads what it sees.
    pub turns: Option<Arc<Turns>>,
}

/// What is filled by transfers at once: a cell's window, or that of a block of them.
#[derive(Clone, Debug)]
pub struct Filled<'s> {
    /// The transfers into the cell, or block.
    pub transfers: &'s [Transfer],
    /// Which of those that need it this site is.
    pub share: Option<Share>,
    /// Its bytes that are filled.
    pub window: Range<u64>,
}

impl Slab<'_> {
    /// What is filled: the block, or each of the cells.
    pub fn filled(&self) -> impl Iterator<Item = Filled<'_>> {
        let bytes = self.begin..self.end;
        let block = self.block.as_deref().map(|block| Filled {
            transfers: &block.transfers,
            share: block.share,
            window: block.window(&bytes),
        });
        let cells = self.cells.iter().filter(|_| self.block.is_none());
        let cells = cells.map(move |cell| Filled {
            transfers: &cell.transfers,
            share: cell.share,
            window: bytes.clone(),
        });
        block.into_iter().chain(cells)
    }

    /// How many copies read the same rows one after the other, about.
    #[must_use]
    pub fn sharing(&self) -> u64 {
        match self.block {
            Some(_) => 1,
            None => self.cells.len() as u64,
        }
    }

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

    /// Chooses who serves `transfer` into what has this `share`.
    ///
    /// # Errors
    /// [`Kind::MissingShard`] if no process sees any of its shards.
    pub fn serve(
        &self,
        reach: &Reach,
        share: Option<Share>,
        transfer: &Transfer,
    ) -> Result<Served> {
        let ranks = transfer.candidates.iter().map(|place| place.rank);
        let turns = self.turns.as_deref();
        reach.serve(ranks, self.salt, share, turns).ok_or_else(|| {
            let fault = Fault::new(Kind::MissingShard, "no process sees this shard");
            let fault = fault.tensor(&*self.plan.name);
            match transfer.candidates.first() {
                Some(place) => fault.rank(place.rank).file(format!("rank_{}", place.rank)),
                None => fault,
            }
        })
    }
}
