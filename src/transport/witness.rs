//! Who sees each window as it is read and as it is written.

use crate::catalog::Place;
use crate::fault::Result;
use crate::plan::arrange::Kept;
use crate::plan::block::Block;
use crate::plan::work::Slab;
use crate::tensor::digest::Joiner;
use crate::transport::sink::Sink;
use crate::transport::traced::Sums;

/// What one slab contributes, gathered while it is built.
#[derive(Default)]
pub struct Entered {
    pub(super) shards: Vec<(Place, u32, u64)>,
    pub(super) tensor: u64,
    pub(super) stored: Option<u64>,
    pub(super) traced: Sums,
    /// Whether the tensor has got what its cells contribute, together.
    pub(super) together: bool,
}

/// Whether what is built of cell number `cell` of `slab` counts: of all that is built of it, once.
pub(super) fn counts(kept: &Kept, slab: &Slab<'_>, cell: usize) -> bool {
    let cell = &slab.cells[cell];
    let first = kept.first(slab.plan, &cell.cell);
    first.is_some_and(|rank| cell.targets.iter().any(|target| target.rank == rank))
}

/// Sees all windows of a process, from several threads.
pub trait Witness: Sync {
    /// Sees the window `tile` of cell number `cell` of a slab as it was read.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Internal`], [`crate::fault::Kind::Memory`].
    fn read(
        &self,
        slab: &Slab<'_>,
        cell: usize,
        tile: &[u8],
        with: (&mut Joiner, &mut Vec<u8>),
        entered: &mut Entered,
    ) -> Result<()>;

    /// Sees the window `bytes` of a block as it was read, before those of its cells.
    fn together(
        &self,
        _slab: &Slab<'_>,
        _block: &Block,
        _bytes: &[u8],
        _joiner: &mut Joiner,
        _entered: &mut Entered,
    ) {
    }

    /// Sees the same window as it is written.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Internal`].
    fn written(
        &self,
        slab: &Slab<'_>,
        cell: usize,
        tile: &[u8],
        joiner: &mut Joiner,
        entered: &mut Entered,
    ) -> Result<()>;

    /// Takes note of a slab that is written, and of what it has `entered`; may wait for the disk.
    ///
    /// # Errors
    /// [`crate::fault::Kind::NoSpace`], [`crate::fault::Kind::Io`].
    fn enter(&self, slab: &Slab<'_>, entered: Entered, sink: &dyn Sink) -> Result<()>;
}
