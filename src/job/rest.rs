//! Parts of source tensors that a job has no use for, read for their digests alone.

use crate::catalog::{Catalog, Entry, FileSchema, ShardFile};
use crate::exchange::{Topology, World, agree};
use crate::fault::Result;
use crate::job::route::Route;
use crate::layout::Layout;
use crate::layout::grid::Grid;
use crate::plan::arrange::Kept;
use crate::plan::work::Site;
use crate::plan::{SourceTensor, Spread, TensorPlan};
use crate::source::Source;
use crate::tensor::quantise::Form;
use crate::tensor::region::Region;
use crate::tensor::shape::Shape;
use crate::transport::{Moving, Proofs, Readers, Sink, Sums, Traced, Whole};
use crate::view::{AxisMap, Piece};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A tensor, and what is to be read of it.
pub(super) struct Part {
    pub(super) tensor: Arc<SourceTensor>,
    /// The first rank that what was read of it before goes to.
    pub(super) first_rank: u32,
    /// In elements of whole bytes.
    pub(super) regions: Vec<Region>,
}

/// Nothing becomes of the bytes.
struct Nowhere;

impl Sink for Nowhere {
    fn put(&self, _: crate::catalog::Place, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Reads `parts`, each once, the work shared by all processes: what this one has read of each, by their
/// numbers. Collective, with the same parts on each.
///
/// # Errors
/// The same on every process.
pub(super) fn read(
    world: &World,
    topology: &Topology,
    source: &Source,
    parts: &[Part],
    moving: &Moving,
) -> Result<(Traced, Sums)> {
    let (plans, catalog, traced) = agree(world, planned(parts))?;
    let site = Site {
        ranks: vec![0],
        processes: world.size(),
        index: world.process(),
        everybody: true,
        division: None,
    };
    let route = Route {
        source,
        plans: &plans,
        catalog: &catalog,
        site: &site,
        sharing: None,
    };
    let readers = Readers::new(&source.base, &source.catalog, moving.io);
    let kept = Kept::default();
    let proofs = Proofs::new(&traced, &kept, true);
    let into = (&Nowhere as &dyn Sink, Some(&proofs as _));
    route.go_at_once(world, topology, moving, &readers, into, &mut |_, _| {})?;
    let sums = proofs.sums();
    Ok((traced, sums))
}

/// A plan for each region, the files that they would go to, and what they are parts of. Local.
fn planned(parts: &[Part]) -> Result<(Vec<TensorPlan>, Catalog, Traced)> {
    let (mut plans, mut wholes) = (Vec::new(), Vec::new());
    for part in parts {
        let (shape, element_bytes) = part.tensor.shape.in_bytes(part.tensor.dtype)?;
        let mut pieces = Vec::new();
        for region in &part.regions {
            let number = u32::try_from(plans.len()).unwrap_or(u32::MAX);
            let plan = of_region(&part.tensor, region, (0, number), element_bytes)?;
            pieces.push((number, 0));
            plans.push(plan);
        }
        let whole = Whole {
            name: part.tensor.name.clone(),
            first_rank: part.first_rank,
            bytes: shape.0.iter().product::<u64>() * element_bytes,
            shape,
            rest: (0, Vec::new()),
        };
        wholes.push((whole, pieces));
    }
    let catalog = file_of(&plans, 0)?;
    Ok((plans, catalog, Traced::of(wholes)))
}

/// The one file of rank `rank` that the tensors of `plans` would go to, in their order.
pub(super) fn file_of(plans: &[TensorPlan], rank: u32) -> Result<Catalog> {
    let mut end = 0;
    let entries = plans.iter().map(|plan| {
        let begin = end;
        end += plan.cell_bytes();
        Entry {
            name: plan.name.clone(),
            dtype: plan.dtype,
            shape: plan.destination.grid.full_shape(),
            segments: std::iter::once(begin..end).collect(),
        }
    });
    let schema = FileSchema::new(entries.collect(), BTreeMap::new(), Vec::new(), end)?;
    let file = ShardFile {
        path: String::new(),
        schema: Arc::new(schema),
    };
    Ok(Catalog::of(BTreeMap::from([(rank, vec![file])])))
}

/// Brings `region` of `tensor`, as it is stored, together for rank `rank`, as tensor number `number`.
pub(super) fn of_region(
    tensor: &Arc<SourceTensor>,
    region: &Region,
    (rank, number): (u32, u32),
    element_bytes: u64,
) -> Result<TensorPlan> {
    let axes = |offsets: &[u64]| {
        let maps = offsets.iter().enumerate();
        let affine = |(axis, offset): (usize, &u64)| AxisMap::Affine {
            offset: *offset,
            step: 1,
            axis,
        };
        maps.map(affine).collect::<Vec<_>>()
    };
    let Shape(domain) = &region.shape;
    let piece = Piece {
        source: tensor.name.clone(),
        domain: domain.clone(),
        source_map: axes(&region.offset),
        destination_map: axes(&vec![0; domain.len()]),
    };
    let layout = Arc::new(Layout::whole(domain.len()));
    let stored = SourceTensor {
        value: None,
        ..tensor.as_ref().clone()
    };
    Ok(TensorPlan {
        name: Arc::from(format!("{number}")),
        dtype: tensor.dtype,
        written: tensor.dtype,
        form: Form::Elements,
        element_bytes,
        destination: Spread {
            first_rank: rank,
            grid: Grid::new(&region.shape, &layout.parts())?,
            layout,
        },
        pieces: vec![(piece, Arc::new(stored))],
        zeros_from: None,
    })
}
