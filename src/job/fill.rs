//! Memory as the destination: a rank's shards go into buffers of the caller's.

use crate::catalog::Catalog;
use crate::exchange::{Topology, World, agree, all_gather};
use crate::fault::{Fault, Kind, Result};
use crate::job::adapter;
use crate::job::ready::{Place, Ready};
use crate::job::route::{Into, Surveyed};
use crate::job::sealed;
use crate::job::spec::{Goal, Job};
use crate::job::steps::Run;
use crate::plan::SourceTensor;
use crate::plan::arrange::Kept;
use crate::plan::work::{Site, Skip};
use crate::strategy::Strategy;
use crate::transport::{
    Buffer, MemorySink, Moved, Observer, Proofs, Readers, Trace, Traced, Witness,
};
use std::collections::{BTreeMap, BTreeSet};

/// What the destination's ranks will hold, as far as `rank` is concerned: nothing is moved. Collective.
///
/// # Errors
/// The same on every process.
pub fn shards(world: &World, job: &Job, rank: Option<u32>) -> Result<Catalog> {
    let topology = Topology::discover(world)?;
    let run = Run::new(world, &topology, job)?;
    let opened = run.open_source()?;
    let place = place(&run, rank)?;
    Ok(run.plan(opened, place)?.planned.catalog)
}

/// The shard of a rank, and the buffers for it.
pub(super) struct Filling<'a, 'b> {
    /// The rank, if it is any.
    pub(super) rank: Option<u32>,
    /// One for each of its tensors that are wanted.
    pub(super) buffers: &'a mut [Buffer<'b>],
}

impl Filling<'_, '_> {
    /// The second step: where the shard goes. Collective.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a rank that the destination hasn't, and for a job that writes no tensors.
    pub(super) fn place(&self, run: &Run<'_>) -> Result<Place> {
        place(run, self.rank)
    }

    /// The last two: fills the buffers, and proves what they were filled with. Collective.
    ///
    /// # Errors
    /// The same on every process: [`Kind::UnknownTensor`], [`Kind::Dtype`] and [`Kind::Shape`] if buffers and tensors
    /// don't fit; as moving.
    pub(super) fn go(
        &mut self,
        ready: &Ready<'_>,
        surveyed: &Surveyed,
        readers: &Readers<'_>,
        observer: &mut Observer<'_>,
    ) -> Result<Moved> {
        let (run, planned) = (ready.run, &ready.planned);
        let (world, source) = (run.world, &ready.source.source);
        let sink = MemorySink::new(
            &planned.catalog,
            self.rank.unwrap_or_default(),
            self.buffers,
        );
        let sink = agree(world, sink)?;
        let proving = run.proving(&ready.source);
        let (origin, plans) = (&ready.fitted.origin, &planned.plans);
        let known = |tensor: &SourceTensor| origin.digest(tensor).is_some();
        let traced = Traced::new(plans, Trace::All, proving.share(), known);
        let (kept, counts) = takers(world, self.rank)?;
        let proofs = Proofs::new(&traced, &kept, counts);
        let into = Into {
            sink: &sink,
            witness: origin.tells().then_some(&proofs as &dyn Witness),
            skip: &Skip::Nothing,
        };
        let route = ready.route();
        let moved = route.go(world, surveyed, readers, &into, observer)?;
        source.still.check(world)?;
        sealed::check(world, source, readers)?;
        if origin.tells() {
            let traced = (&traced, &proofs.sums());
            origin.check_traced(&proving, plans, traced, BTreeSet::new())?;
        }
        adapter::check(world, run.topology, &run.job.reading)?;
        Ok(moved)
    }
}

/// Where the shard of `rank` goes: into memory of this process. Collective.
///
/// # Errors
/// As [`Filling::place`].
fn place(run: &Run<'_>, rank: Option<u32>) -> Result<Place> {
    let ranks = run.destination_strategy().map_or(1, Strategy::ranks);
    let usage = |message: String| Err(Fault::new(Kind::Usage, message));
    let checked = match (&run.job.goal, rank.filter(|rank| *rank >= ranks)) {
        (_, Some(rank)) => usage(format!(
            "rank {rank} is none of the {ranks} ranks of the destination"
        )),
        (Goal::Write(_), None) => Ok(()),
        _ => usage("only tensors that would be written can fill buffers".into()),
    };
    agree(run.world, checked)?;
    Ok(Place::Memory(Site {
        ranks: rank.into_iter().collect(),
        processes: 1,
        index: 0,
        everybody: run.world.size() == 1,
        division: None,
    }))
}

/// The ranks that processes take, and whether this one counts for its `rank`: the first of each does.
/// Collective.
fn takers(world: &World, rank: Option<u32>) -> Result<(Kept, bool)> {
    let ranks: Vec<Option<u32>> = all_gather(world, &rank)?;
    let mut taken: BTreeMap<u32, u32> = BTreeMap::new();
    for (rank, process) in ranks.iter().zip(0u32..) {
        if let Some(rank) = rank {
            taken.entry(*rank).or_insert(process);
        }
    }
    let counts = rank.is_some_and(|rank| taken.get(&rank) == Some(&world.process()));
    Ok((Kept::of_ranks(taken.into_keys().collect()), counts))
}
