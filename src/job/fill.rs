//! The same steps with memory as the destination: a rank's shards go into buffers of the caller's.

use crate::catalog::Catalog;
use crate::exchange::{Topology, World, agree, all_gather};
use crate::fault::{Fault, Kind, Result};
use crate::job::adapter;
use crate::job::outcome::Outcome;
use crate::job::planned::Planned;
use crate::job::route::Route;
use crate::job::sealed;
use crate::job::spec::{Goal, Job};
use crate::job::steps::Run;
use crate::job::tally;
use crate::plan::SourceTensor;
use crate::plan::arrange::Kept;
use crate::plan::work::Site;
use crate::source::Opened;
use crate::strategy::Strategy;
use crate::transport::{Buffer, MemorySink, Observer, Proofs, Trace, Traced, Witness};
use std::collections::{BTreeMap, BTreeSet};

/// What the destination's ranks will hold, as far as `rank` is concerned: nothing is moved. Collective.
///
/// # Errors
/// The same on every process.
pub fn shards(world: &World, job: &Job, rank: Option<u32>) -> Result<Catalog> {
    let topology = Topology::discover(world)?;
    let run = Run::new(world, &topology, job)?;
    let (source, fitted) = run.open_source()?;
    let planned = plan(&run, &source, rank)?;
    fitted.compared().map(|_| planned.catalog)
}

/// The third step, for one rank. Collective.
fn plan(run: &Run<'_>, source: &Opened, rank: Option<u32>) -> Result<Planned> {
    let strategy = run.destination_strategy();
    let ranks = strategy.map_or(1, Strategy::ranks);
    let write = match (&run.job.goal, rank.filter(|rank| *rank >= ranks)) {
        (_, Some(rank)) => {
            let message = format!("rank {rank} is none of the {ranks} ranks of the destination");
            Err(Fault::new(Kind::Usage, message))
        }
        (Goal::Write(write), None) => Ok(write),
        _ => {
            let message = "only tensors that would be written can fill buffers";
            Err(Fault::new(Kind::Usage, message))
        }
    };
    let write = agree(run.world, write)?;
    let ranks: Vec<u32> = rank.into_iter().collect();
    Planned::of_write(run.world, write, source, strategy, &ranks)
}

/// Runs a job whose result goes into `buffers`, the shard of destination rank `rank` into those of
/// this process; nothing is written to disk. Collective: each process names a rank of its own, or
/// none and no buffers.
///
/// The destination's tensors are those that [`run`](super::run()) would write for that rank.
///
/// # Errors
/// The same on every process: those of a job, [`Kind::UnknownTensor`], [`Kind::Dtype`] and
/// [`Kind::Shape`] if buffers and tensors don't fit.
pub fn fill(
    world: &World,
    job: &Job,
    rank: Option<u32>,
    buffers: &mut [Buffer<'_>],
    observer: &mut Observer<'_>,
) -> Result<Outcome> {
    let topology = Topology::discover(world)?;
    let run = Run::new(world, &topology, job)?;
    let (source, fitted) = run.open_source()?;
    let site = Site {
        ranks: rank.into_iter().collect(),
        processes: 1,
        index: 0,
        everybody: world.size() == 1,
        division: None,
    };
    let planned = plan(&run, &source, rank)?;
    fitted.compared()?;
    let sink = MemorySink::new(&planned.catalog, rank.unwrap_or_default(), buffers);
    let sink = agree(world, sink)?;
    let readers = run.readers(&source);
    let route = Route {
        source: &source.source,
        plans: &planned.plans,
        catalog: &planned.catalog,
        site: &site,
        sharing: None,
    };
    let proving = run.proving(&source);
    let (origin, plans) = (&fitted.origin, &planned.plans);
    let known = |tensor: &SourceTensor| origin.digest(tensor).is_some();
    let traced = Traced::new(plans, Trace::All, proving.share(), known);
    let (kept, counts) = takers(world, rank)?;
    let proofs = Proofs::new(&traced, &kept, counts);
    let witness = origin.tells().then_some(&proofs as &dyn Witness);
    let into = (&sink as _, witness);
    let moved = route.go_at_once(world, &topology, &job.moving, &readers, into, observer)?;
    source.source.still.check(world)?;
    sealed::check(world, &source.source, &readers)?;
    if origin.tells() {
        let traced = (&traced, &proofs.sums());
        origin.check_traced(&proving, plans, traced, BTreeSet::new())?;
    }
    adapter::check(world, &topology, &job.reading)?;
    let mut outcome = Outcome {
        ok: true,
        tensors: planned.tensors,
        source_files: source.source.catalog.paths(),
        ..tally::outcome(world, &topology, job.command)
    };
    outcome.bytes.written = tally::sum(world, moved.written_bytes)?;
    outcome.bytes.sent = tally::sum(world, moved.sent_bytes)?;
    outcome.bytes.read = tally::sum(world, readers.read_bytes())?;
    Ok(outcome)
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
