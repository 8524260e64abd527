//! The parts of a window: cut from the transfers, built, handed to the sink.

use crate::catalog::Place;
use crate::course::pace::{Doing, doing};
use crate::exchange::Packed;
use crate::fault::memory::provide;
use crate::fault::{Fault, Kind, Result};
use crate::plan::block::Block;
use crate::plan::cell::Transfer;
use crate::plan::reach::Reach;
use crate::plan::value::{Patch, operand_transfers, patches};
use crate::plan::work::Slab;
use crate::tensor::digest::Joiner;
use crate::tensor::strided::StridedCopy;
use crate::tensor::{cast, copy};
use crate::transport::compute::Computer;
use crate::transport::fill::{Aligned, Filler, Readers, index};
use crate::transport::overflow::Overflow;
use crate::transport::sink::Sink;
use crate::transport::witness::{Entered, Witness};
use std::ops::Range;
use std::sync::Arc;

/// Where a part of a cell's window comes from.
#[derive(Clone, Copy)]
pub(super) enum From {
    Here(Place),
    Process { process: u32, place: Place, at: u64 },
}

/// Where it goes: into the window, or beside it, to compute the window with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    Window,
    Operands,
}

pub(super) struct Part {
    pub(super) copy: StridedCopy,
    pub(super) from: From,
    pub(super) into: Into,
}

/// Cuts the transfers of each cell, or of the block that they make, to the slab's window and chooses who
/// serves each part. In rounds (`in_rounds`) a process asks itself for what it reads in turn for others,
/// so that it is read once.
pub(super) fn cut_parts(reach: &Reach, slab: &Slab<'_>, in_rounds: bool) -> Result<Vec<Vec<Part>>> {
    let asked = in_rounds && slab.turns.is_some();
    let mut clipped = Vec::new();
    let mut cells = Vec::with_capacity(slab.cells.len());
    let serve = |share, transfer: &Transfer| {
        let served = slab.serve(reach, share, transfer)?;
        let place = transfer.candidates[served.candidate];
        Ok::<_, Fault>(if served.process == reach.process && !asked {
            From::Here(place)
        } else {
            From::Process {
                process: served.process,
                place,
                at: 0,
            }
        })
    };
    for (number, filled) in slab.filled().enumerate() {
        let mut parts = Vec::new();
        let mut covered = 0;
        let Range { start, end } = filled.window;
        for transfer in filled.transfers {
            clipped.clear();
            transfer.copy.clip(start, end, &mut clipped);
            if clipped.is_empty() {
                continue;
            }
            let from = serve(filled.share, transfer)?;
            for mut copy in clipped.drain(..) {
                copy.destination -= start;
                covered += copy.bytes();
                let into = Into::Window;
                parts.push(Part { copy, from, into });
            }
        }
        let cell = &slab.cells[number];
        let zeros = zeros(slab, &cell.cell);
        if covered != end - start - (zeros.end - zeros.start) {
            let message = format!("a window of {} bytes gets {covered}", end - start);
            return Err(Fault::new(Kind::Internal, message).tensor(&*slab.plan.name));
        }
        let patches = patches(slab.plan, &cell.cell, slab.begin..slab.end)?;
        for transfer in operand_transfers(&patches, slab.source)? {
            parts.push(Part {
                from: serve(cell.share, &transfer)?,
                copy: transfer.copy,
                into: Into::Operands,
            });
        }
        cells.push(parts);
    }
    Ok(cells)
}

/// The bytes of a cell's window that are zeros, from its beginning on.
fn zeros(slab: &Slab<'_>, cell: &[u64]) -> Range<u64> {
    let zeros = slab.plan.zeros(cell);
    let inside = |byte: u64| byte.clamp(slab.begin, slab.end) - slab.begin;
    inside(zeros.start)..inside(zeros.end)
}

/// Builds windows of cells and hands them to the sink.
pub(super) struct Builder<'a> {
    filler: Filler<'a>,
    sink: &'a dyn Sink,
    witness: Option<&'a dyn Witness>,
    overflow: Arc<Overflow>,
    joiner: Joiner,
    turned: Vec<u8>,
    tile: Aligned,
    block: Vec<u8>,
    operands: Vec<u8>,
    computer: Computer,
    cast: Vec<u8>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        readers: &'a Readers<'a>,
        sink: &'a dyn Sink,
        witness: Option<&'a dyn Witness>,
        overflow: Arc<Overflow>,
    ) -> Self {
        Builder {
            filler: Filler::new(readers),
            sink,
            witness,
            overflow,
            joiner: Joiner::default(),
            turned: Vec::new(),
            tile: Aligned::default(),
            block: Vec::new(),
            operands: Vec::new(),
            computer: Computer::default(),
            cast: Vec::new(),
        }
    }

    /// Builds each cell's window once and writes it to each of its targets.
    pub(super) fn build(
        &mut self,
        slab: &Slab<'_>,
        cells: &[Vec<Part>],
        received: Option<&Packed>,
    ) -> Result<()> {
        let window = usize::try_from(slab.window())
            .map_err(|_| Fault::new(Kind::Internal, "a window is too large"))?;
        let mut entered = Entered::default();
        let mut tiles = std::mem::take(&mut self.tile);
        if let Some(block) = &slab.block {
            let tiles = tiles.take(window.saturating_mul(slab.cells.len()), 0)?;
            self.build_block(slab, block, cells, received, &mut entered, tiles)?;
            for (number, tile) in tiles.chunks_exact(window.max(1)).enumerate() {
                self.hand(slab, number, &[], tile, &mut entered)?;
            }
        } else {
            for (number, (cell, parts)) in slab.cells.iter().zip(cells).enumerate() {
                let tile = tiles.take(window, self.phase(parts))?;
                let patches = patches(slab.plan, &cell.cell, slab.begin..slab.end)?;
                self.take_operands(&patches)?;
                let zeros = zeros(slab, &cell.cell);
                tile[index(zeros.start)..index(zeros.end)].fill(0);
                let into = (&mut *tile, &mut self.operands[..]);
                bring_all(&mut self.filler, parts, slab, received, into)?;
                self.hand(slab, number, &patches, tile, &mut entered)?;
            }
        }
        self.tile = tiles;
        match self.witness {
            Some(witness) => witness.enter(slab, entered, self.sink),
            None => Ok(()),
        }
    }

    /// Builds the window of a block, and cuts it into those of its cells, one after the other in `tiles`.
    fn build_block(
        &mut self,
        slab: &Slab<'_>,
        block: &Block,
        parts: &[Vec<Part>],
        received: Option<&Packed>,
        entered: &mut Entered,
        tiles: &mut [u8],
    ) -> Result<()> {
        provide(&mut self.block, tiles.len())?;
        let bytes = &mut self.block[..tiles.len()];
        for parts in parts {
            let into = (&mut *bytes, &mut self.operands[..]);
            bring_all(&mut self.filler, parts, slab, received, into)?;
        }
        if let Some(witness) = self.witness {
            witness.together(slab, block, bytes, &mut self.joiner, entered);
        }
        if copy::run(&block.cut(&(slab.begin..slab.end)), bytes, tiles) {
            return Ok(());
        }
        let message = "neighbours reach outside what they make together";
        Err(Fault::new(Kind::Internal, message).tensor(&*slab.plan.name))
    }

    /// The rest of the address that suits a buffer which is filled by `parts`.
    fn phase(&self, parts: &[Part]) -> usize {
        let read = parts
            .iter()
            .find_map(|part| match (&part.into, &part.from) {
                (Into::Window, From::Here(place)) => Some(self.filler.phase(&part.copy, *place)),
                _ => None,
            });
        read.unwrap_or_default()
    }

    /// Makes room for the operands of `patches`.
    fn take_operands(&mut self, patches: &[Patch<'_>]) -> Result<()> {
        let operands = patches.iter().flat_map(|patch| &patch.operands);
        let operands = operands.map(|operand| operand.bytes().end).max();
        let operands = usize::try_from(operands.unwrap_or_default())
            .map_err(|_| Fault::new(Kind::Internal, "operands are too large"))?;
        provide(&mut self.operands, operands)
    }

    /// Makes what is written of the window `tile` (as read) of cell number `number`, and hands it to the
    /// sink for each of its targets.
    fn hand(
        &mut self,
        slab: &Slab<'_>,
        number: usize,
        patches: &[Patch<'_>],
        tile: &[u8],
        entered: &mut Entered,
    ) -> Result<()> {
        let cell = &slab.cells[number];
        if let Some(witness) = self.witness {
            let with = (&mut self.joiner, &mut self.turned);
            witness.read(slab, number, tile, with, entered)?;
        }
        let (plan, copies) = (slab.plan, cell.targets.len() as u64);
        let written: &[u8] = if plan.is_computed() {
            let (beside, out) = (&self.operands, &mut self.cast);
            let before = self.computer.compute(plan, patches, tile, beside, out)?;
            self.overflow.note(plan, before, out, copies);
            out
        } else if plan.written == plan.dtype {
            tile
        } else if cast::cast(plan.dtype, plan.written, tile, &mut self.cast) {
            if cast::can_overflow(plan.dtype, plan.written) {
                let before = cast::infinities(plan.dtype, tile);
                self.overflow.note(plan, before, &self.cast, copies);
            }
            &self.cast
        } else {
            let message = format!("{} can't be cast to {}", plan.dtype, plan.written);
            return Err(Fault::new(Kind::Dtype, message).tensor(&*plan.name));
        };
        let begin = plan.written_bytes(slab.begin);
        if let Some(witness) = self.witness {
            witness.written(slab, number, written, &mut self.joiner, entered)?;
        }
        let _writing = doing(Doing::Write);
        for target in &cell.targets {
            self.sink.put(*target, begin, written)?;
        }
        Ok(())
    }
}

/// Puts the bytes of all parts where they belong: in the window, or beside it.
fn bring_all(
    filler: &mut Filler<'_>,
    parts: &[Part],
    slab: &Slab<'_>,
    received: Option<&Packed>,
    (window, operands): (&mut [u8], &mut [u8]),
) -> Result<()> {
    let _reading = doing(Doing::Read);
    parts.iter().try_for_each(|part| {
        let out = match part.into {
            Into::Window => &mut *window,
            Into::Operands => &mut *operands,
        };
        bring(filler, part, slab, received, out)
    })
}

/// Puts the bytes of `part` where they belong in `out`.
fn bring(
    filler: &mut Filler<'_>,
    part: &Part,
    slab: &Slab<'_>,
    received: Option<&Packed>,
    out: &mut [u8],
) -> Result<()> {
    match part.from {
        From::Here(place) => filler.fill(&part.copy, place, out, slab.sharing()),
        From::Process { at, .. } => {
            let copied =
                received.is_some_and(|r| copy::run(&part.copy.unpacked(at), &r.bytes, out));
            if copied {
                return Ok(());
            }
            let message = "a part was not received as asked for";
            Err(Fault::new(Kind::Internal, message).tensor(&*slab.plan.name))
        }
    }
}
