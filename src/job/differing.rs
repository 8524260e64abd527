//! A sink that compares: what one checkpoint has with what another one has at the same place.

use crate::catalog::{Catalog, Place};
use crate::exchange::{Topology, World, agree};
use crate::fault::memory::zeroed;
use crate::fault::{Fault, Kind, Result};
use crate::job::lying;
use crate::job::rest::{file_of, of_region};
use crate::job::route::Route;
use crate::job::sealed;
use crate::plan::work::Site;
use crate::plan::{Patch, TensorPlan};
use crate::source::{Opened, Source};
use crate::tensor::number::{Difference, compare};
use crate::tensor::strided::StridedCopy;
use crate::transport::{Filler, Moving, Observer, Readers, Sink};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What was found different, and where first.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) difference: Difference,
    pub(super) first: Place,
}

/// Where the other side has what is built, and how it lies there.
struct Other {
    name: Arc<str>,
    place: Place,
    /// Lays it out row after row.
    copy: StridedCopy,
}

/// Reads what the other side has at the same place and compares.
struct CompareSink<'a> {
    readers: &'a Readers<'a>,
    catalog: &'a Catalog,
    /// What the entries of the only file stand for that is built, if these aren't the other side's own.
    parts: Option<&'a [Other]>,
    found: Mutex<BTreeMap<Arc<str>, Found>>,
}

impl CompareSink<'_> {
    /// What bytes from `begin` on, `length` of them, of the tensor built at `place` are compared with.
    fn read(&self, other: &Other, begin: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = zeroed(length)?;
        let mut filler = Filler::new(self.readers);
        lying::read(&mut filler, &other.copy, other.place, begin, &mut bytes)?;
        Ok(bytes)
    }

    /// The entry of the other side at `place`, which may lie with strides of its own.
    fn own(&self, place: Place) -> Other {
        Other {
            name: self.catalog.entry(place).name.clone(),
            place,
            copy: lying::in_rows(self.catalog, place),
        }
    }
}

impl Sink for CompareSink<'_> {
    fn put(&self, place: Place, offset: u64, bytes: &[u8]) -> Result<()> {
        let own;
        let other = match self.parts.map(|parts| parts.get(place.entry as usize)) {
            Some(Some(part)) => part,
            Some(None) => return Err(Fault::new(Kind::Internal, "a part of no tensor")),
            None => {
                own = self.own(place);
                &own
            }
        };
        let there = self.read(other, offset, bytes.len())?;
        if there == bytes {
            return Ok(());
        }
        let dtype = self.catalog.entry(place).dtype;
        let difference = compare(dtype, bytes, &there);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Found {
            difference,
            first: other.place,
        };
        found
            .entry(other.name.clone())
            .and_modify(|old| old.difference.add(&difference))
            .or_insert(new);
        Ok(())
    }
}

/// Moves A's tensors against B's files: what this process finds different. Collective.
///
/// # Errors
/// The same on every process; a difference is no error.
pub(super) fn differences(
    world: &World,
    topology: &Topology,
    a: &Opened,
    b: &Opened,
    plans: &[TensorPlan],
    moving: &Moving,
    observer: &mut Observer<'_>,
) -> Result<BTreeMap<Arc<str>, Found>> {
    of_sealed(world, topology, [a, b], plans, moving, false, observer)
}

/// The same; where the files carry checksums of their own and are `sealed`, these are compared with what was
/// read. Collective.
///
/// # Errors
/// The same on every process: as [`sealed::check`]; a difference is no error.
pub(super) fn of_sealed(
    world: &World,
    topology: &Topology,
    [a, b]: [&Opened; 2],
    plans: &[TensorPlan],
    moving: &Moving,
    sealed: bool,
    observer: &mut Observer<'_>,
) -> Result<BTreeMap<Arc<str>, Found>> {
    let (source, other) = (&a.source, &b.source);
    let theirs = Readers::new(&other.base, &other.catalog, moving.io).minding_seals(sealed);
    let ours = Readers::new(&source.base, &source.catalog, moving.io).minding_seals(sealed);
    let site = site_of(topology, other);
    let mut go = |plans: &[TensorPlan], catalog: &Catalog, parts: Option<&[Other]>| {
        let sink = CompareSink {
            readers: &theirs,
            catalog,
            parts,
            found: Mutex::default(),
        };
        let route = Route {
            source,
            plans,
            catalog,
            site: &site,
            sharing: None,
        };
        route.go_at_once(world, topology, moving, &ours, (&sink, None), observer)?;
        let found = sink.found.into_inner();
        Ok::<_, Fault>(found.unwrap_or_else(PoisonError::into_inner))
    };
    let lies_apart = |plan: &TensorPlan| patches(b, plan).is_some();
    let (apart, plain): (Vec<_>, Vec<_>) = plans.iter().cloned().partition(lies_apart);
    let mut found = go(&plain, &other.catalog, None)?;
    if plans.iter().any(lies_apart) {
        let (plans, catalog, parts) = agree(world, in_parts(b, &apart))?;
        found.extend(go(&plans, &catalog, Some(&parts))?);
    }
    for (side, readers) in [(source, &ours), (other, &theirs)] {
        sealed::check(world, side, readers)?;
    }
    Ok(found)
}

/// The parts in which `b` has the tensor that `plan` builds, if it has it so.
fn patches<'b>(b: &'b Opened, plan: &TensorPlan) -> Option<&'b [Patch]> {
    let tensor = b.inventory.tensors.get(&plan.name)?;
    tensor.patches.as_ref().map(|patches| patches.as_slice())
}

/// A plan for each part of the tensors that `plans` build, the file that they would go to, and where `b` has
/// them. Local.
///
/// # Errors
/// [`Kind::Unsupported`] for elements that aren't whole bytes.
fn in_parts(b: &Opened, plans: &[TensorPlan]) -> Result<(Vec<TensorPlan>, Catalog, Vec<Other>)> {
    let (mut regions, mut parts) = (Vec::new(), Vec::new());
    let mut rank = 0;
    for plan in plans {
        if !plan.dtype.bits().is_multiple_of(8) {
            let message = format!("parts of {} can't be compared", plan.dtype);
            return Err(Fault::new(Kind::Unsupported, message).tensor(&*plan.name));
        }
        rank = plan.destination.first_rank;
        for patch in patches(b, plan).unwrap_or_default() {
            let ours = plan.pieces.iter().map(|(_, tensor)| tensor);
            for tensor in ours {
                let number = u32::try_from(regions.len()).unwrap_or(u32::MAX);
                let (region, width) = (&patch.region, plan.element_bytes);
                regions.push(of_region(tensor, region, (rank, number), width)?);
                parts.push(Other {
                    name: plan.name.clone(),
                    place: patch.place,
                    copy: StridedCopy::in_rows(patch.first, &region.shape.0, &patch.strides, width),
                });
            }
        }
    }
    let catalog = file_of(&regions, rank)?;
    Ok((regions, catalog, parts))
}

/// Who compares what: all share B's ranks if all see them, else each node those it is first to see.
fn site_of(topology: &Topology, b: &Source) -> Site {
    let reach = &b.reach;
    let narrow = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    if reach.all_see_all() {
        return Site {
            ranks: b.catalog.ranks.keys().copied().collect(),
            processes: narrow(reach.node_of.len()),
            index: reach.process,
            everybody: true,
            division: None,
        };
    }
    let node = reach.node() as usize;
    let members = &topology.nodes[node];
    let first = |rank: &u32| reach.homes(*rank).first() == Some(&reach.node());
    Site {
        ranks: b.catalog.ranks.keys().copied().filter(first).collect(),
        processes: narrow(members.len()),
        index: narrow(
            members
                .iter()
                .position(|m| *m == reach.process)
                .unwrap_or_default(),
        ),
        everybody: false,
        division: None,
    }
}
