//! One destination cell: the transfers that fill it.

use crate::catalog::{Catalog, Place};
use crate::fault::{Fault, Kind, Result};
use crate::layout::Cell;
use crate::plan::patch;
use crate::plan::reach::Share;
use crate::plan::source_tensor::SourceTensor;
use crate::plan::spread::Spread;
use crate::plan::tensor_plan::TensorPlan;
use crate::tensor::digest::Runs;
use crate::tensor::region::Region;
use crate::tensor::shape::Shape;
use crate::tensor::strided::StridedCopy;
use crate::view::{Lying, Piece, Ranges};

/// A strided copy from a source shard into a destination cell, and who holds that shard.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Offsets count from the source shard's and the destination cell's first byte.
    pub copy: StridedCopy,
    /// The equal shards it can be read from; at least one.
    pub candidates: Vec<Place>,
}

/// All transfers into one destination cell.
#[derive(Clone, Debug)]
pub struct CellPlan {
    /// Index of the cell.
    pub cell: Cell,
    /// The transfers; together they cover the cell exactly once, unless a block brings its bytes.
    pub transfers: Vec<Transfer>,
    /// Where the cell's bytes are written, in the destination's catalog.
    pub targets: Vec<Place>,
    /// Which of those that need the cell this site is; none if it writes all copies.
    pub share: Option<Share>,
    /// Where the cell lies in its tensor.
    pub runs: Runs,
    /// The same of what is read, where other bytes are written and one tensor is all they are made of.
    pub stored: Option<Runs>,
}

impl CellPlan {
    /// Intersects `cell` of `plan` with the cells of its sources.
    ///
    /// # Errors
    /// [`Kind::MissingShard`] if no rank has a shard that is needed; [`Kind::Internal`] if the
    /// transfers don't cover the cell exactly once.
    pub fn new(
        plan: &TensorPlan,
        cell: Cell,
        targets: Vec<Place>,
        source: &Catalog,
    ) -> Result<CellPlan> {
        let region = plan.destination.grid.region(&cell);
        let mut transfers = Vec::new();
        meet_plan(plan, &region, source, &mut transfers)?;
        let covered: u64 = transfers.iter().map(|transfer| transfer.copy.bytes()).sum();
        let due = plan.zeros(&cell).start;
        if covered != due {
            let message = format!("its pieces cover {covered} of {due} bytes of part {cell:?}");
            return Err(Fault::new(Kind::Internal, message).tensor(&*plan.name));
        }
        Ok(CellPlan {
            transfers,
            ..CellPlan::of_block(plan, cell, targets)
        })
    }

    /// `cell` of `plan`, whose bytes come with those of its neighbours.
    pub(super) fn of_block(plan: &TensorPlan, cell: Cell, targets: Vec<Place>) -> CellPlan {
        let region = plan.destination.grid.region(&cell);
        let share = share(&plan.destination, &cell, &targets);
        let full = plan.destination.grid.full_shape();
        let stored = plan.is_changed() && plan.only_source().is_some();
        let stored = stored.then(|| Runs::new(&full, plan.element_bytes, &region));
        CellPlan {
            cell,
            transfers: Vec::new(),
            targets,
            share,
            runs: written_runs(plan, &full, &region),
            stored,
        }
    }
}

/// Adds the transfers that fill `region` of a tensor.
///
/// # Errors
/// [`Kind::MissingShard`] if no rank has a shard that is needed.
pub(super) fn meet_plan(
    plan: &TensorPlan,
    region: &Region,
    source: &Catalog,
    transfers: &mut Vec<Transfer>,
) -> Result<()> {
    for (piece, tensor) in &plan.pieces {
        if let Some(ranges) = Piece::cut(&piece.ranges(), &piece.destination_map, region) {
            meet(
                plan.element_bytes,
                piece,
                tensor,
                &ranges,
                region,
                source,
                transfers,
            )?;
        }
    }
    Ok(())
}

/// The runs of `region` of a tensor of shape `full` in the tensor as it is written.
fn written_runs(plan: &TensorPlan, full: &Shape, region: &Region) -> Runs {
    if plan.is_beside() {
        let scales = plan.written_shape(full);
        return Runs::new(
            &scales,
            u64::from(plan.written.bits() / 8),
            &Region::whole(&scales),
        );
    }
    Runs::new(full, plan.written_bytes(plan.element_bytes), region)
}

/// Adds the transfers that bring `part` of `tensor`, whose elements are whole bytes, together.
///
/// # Errors
/// [`Kind::MissingShard`] if no rank has a shard that is needed.
pub(super) fn meet_region(
    tensor: &SourceTensor,
    part: &Region,
    source: &Catalog,
    transfers: &mut Vec<Transfer>,
) -> Result<()> {
    let piece = Piece::identity(tensor.name.clone(), &tensor.shape);
    let Some(ranges) = Piece::cut(&piece.ranges(), &piece.source_map, part) else {
        return Ok(());
    };
    let element_bytes = u64::from(tensor.dtype.bits() / 8);
    meet(
        element_bytes,
        &piece,
        tensor,
        &ranges,
        part,
        source,
        transfers,
    )
}

/// The place of the first target among all holders of `cell`, unless all of them are targets.
pub(super) fn share(spread: &Spread, cell: &[u64], targets: &[Place]) -> Option<Share> {
    let of = spread.layout.replicas();
    let first = targets.first().filter(|_| (targets.len() as u64) < of)?;
    let index = spread.holders(cell).take_while(|rank| *rank < first.rank);
    Some(Share {
        index: index.count() as u64,
        of,
    })
}

/// Adds the transfers for `ranges` of one piece: from the first stage that has all cells it needs.
fn meet(
    element_bytes: u64,
    piece: &Piece,
    tensor: &SourceTensor,
    ranges: &Ranges,
    region: &Region,
    source: &Catalog,
    transfers: &mut Vec<Transfer>,
) -> Result<()> {
    if let Some(patches) = &tensor.patches {
        patch::meet(
            element_bytes,
            piece,
            patches,
            ranges,
            region,
            |copy, place| {
                let candidates = vec![place];
                transfers.push(Transfer { copy, candidates });
            },
        );
        return Ok(());
    }
    let mut missing = None;
    for spread in &tensor.spreads {
        let before = transfers.len();
        match meet_stage(
            element_bytes,
            piece,
            tensor,
            spread,
            ranges,
            region,
            source,
            transfers,
        ) {
            Ok(()) => return Ok(()),
            Err(fault) => {
                transfers.truncate(before);
                missing.get_or_insert(fault);
            }
        }
    }
    Err(missing
        .unwrap_or_else(|| Fault::new(Kind::MissingShard, "no rank has it").tensor(&*tensor.name)))
}

#[allow(clippy::too_many_arguments)]
fn meet_stage(
    element_bytes: u64,
    piece: &Piece,
    tensor: &SourceTensor,
    spread: &Spread,
    ranges: &Ranges,
    region: &Region,
    source: &Catalog,
    transfers: &mut Vec<Transfer>,
) -> Result<()> {
    let mut result = Ok(());
    spread
        .grid
        .for_each_meeting(&Piece::image(ranges, &piece.source_map), |cell| {
            let shard = spread.grid.region(cell);
            let Some(ranges) = Piece::cut(ranges, &piece.source_map, &shard) else {
                return;
            };
            let mut candidates = source.find_all(spread.holders(cell), &tensor.name);
            if candidates.is_empty() && result.is_ok() {
                result = Err(missing_shard(tensor, spread, cell, source));
            }
            let strides = candidates
                .first()
                .map(|first| patch::strides(source, *first));
            let copy = match strides.flatten() {
                None => piece.lower(&ranges, &shard, region, element_bytes),
                Some(strides) => {
                    let from = Lying {
                        offset: &shard.offset,
                        strides,
                    };
                    piece.lower_from(&ranges, &from, region, element_bytes)
                }
            };
            if candidates.len() > 1 {
                let alike = |place: &Place| Some(patch::strides(source, *place)) == strides;
                candidates.retain(alike);
            }
            transfers.push(Transfer { copy, candidates });
        });
    result
}

/// Checks that the ranks of some stage have all parts of `tensor` between them. Local.
///
/// # Errors
/// [`Kind::MissingShard`] naming the first part that none of them has.
pub fn check_parts(tensor: &SourceTensor, source: &Catalog) -> Result<()> {
    if tensor.patches.is_some() {
        return Ok(());
    }
    let mut missing = None;
    for spread in &tensor.spreads {
        let whole = Region::whole(&spread.grid.full_shape());
        let mut lacks = None;
        spread.grid.for_each_meeting(&whole, |cell| {
            let mut holders = spread.holders(cell);
            let held = lacks.is_some() || holders.any(|r| source.find(r, &tensor.name).is_some());
            if !held {
                lacks = Some(missing_shard(tensor, spread, cell, source));
            }
        });
        match lacks {
            Some(fault) => missing.get_or_insert(fault),
            None => return Ok(()),
        };
    }
    missing.map_or(Ok(()), Err)
}

/// Says which ranks should have the shard: a rank without any file first.
fn missing_shard(tensor: &SourceTensor, spread: &Spread, cell: &[u64], source: &Catalog) -> Fault {
    let holders: Vec<u32> = spread.holders(cell).collect();
    let absent = holders.iter().find(|rank| !source.ranks.contains_key(rank));
    let rank = *absent.unwrap_or(&holders[0]);
    let fault = Fault::new(
        Kind::MissingShard,
        match absent {
            Some(rank) => format!("part {cell:?} of it is needed and rank {rank} has no file"),
            None => {
                format!("part {cell:?} of it is needed, but none of the ranks {holders:?} has it")
            }
        },
    );
    let fault = fault
        .tensor(&*tensor.name)
        .rank(rank)
        .file(format!("rank_{rank}"));
    if absent.is_some() {
        return fault
            .hint("is a rank directory missing, or does the strategy describe more ranks?");
    }
    fault.hint(
        "no file that is read has this shard: is one of the rank's files missing, or did a save that removed redundancy \
         keep no copy?",
    )
}
