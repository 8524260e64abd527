//! The way of a source's tensors to where they go: surveyed first, then gone.

use crate::catalog::Catalog;
use crate::exchange::{Topology, World, agree};
use crate::fault::Result;
use crate::job::tally;
use crate::plan::TensorPlan;
use crate::plan::survey::Survey;
use crate::plan::turns::Sharing;
use crate::plan::work::{Site, Skip, Work};
use crate::source::Source;
use crate::transport::{self, Exchange, Moved, Mover, Moving, Observer, Readers, Sink, Witness};

/// From a source, by plans, to the files of a catalog.
#[derive(Clone, Copy)]
pub(super) struct Route<'a> {
    pub(super) source: &'a Source,
    pub(super) plans: &'a [TensorPlan],
    /// The files that the tensors go to, or against.
    pub(super) catalog: &'a Catalog,
    /// Who shares the work with this process.
    pub(super) site: &'a Site,
    /// Where other ranks are built, if nodes may send each other what they read.
    pub(super) sharing: Option<Sharing<'a>>,
}

/// What is known of a way before anything moves.
pub(super) struct Surveyed {
    pub(super) survey: Survey,
    /// How slices travel, if any do: the same on every process.
    pub(super) exchange: Option<Exchange>,
    /// Bytes that all processes write together.
    pub(super) total_bytes: u64,
    threads: usize,
    memory_bytes: u64,
}

/// Where the bytes of a way go.
#[derive(Clone, Copy)]
pub(super) struct Into<'a> {
    pub(super) sink: &'a dyn Sink,
    /// Who sees it, if anybody does.
    pub(super) witness: Option<&'a dyn Witness>,
    /// What need not be done.
    pub(super) skip: &'a Skip,
}

impl<'a> Route<'a> {
    fn work(&self, skip: &'a Skip) -> Work<'a> {
        Work {
            plans: self.plans,
            source: &self.source.catalog,
            destination: self.catalog,
            site: self.site,
            reach: &self.source.reach,
            skip,
            sharing: self.sharing,
            windows_max: u64::MAX,
        }
    }

    /// Walks the way of every process without moving a byte, and chooses how slices travel. Collective.
    ///
    /// # Errors
    /// [`crate::fault::Kind::MissingShard`] if a shard is needed that nobody sees; [`crate::fault::Kind::Mpi`].
    pub(super) fn survey(
        &self,
        world: &World,
        topology: &Topology,
        moving: &Moving,
    ) -> Result<Surveyed> {
        let threads = threads(moving, topology, world);
        let survey = transport::survey(&self.work(&Skip::Nothing), threads);
        let survey = agree(world, survey.map_err(|fault| self.source.place(fault)))?;
        Ok(Surveyed {
            total_bytes: tally::sum(world, survey.written_bytes)?,
            exchange: Exchange::choose(world, &survey, moving.memory_bytes)?,
            survey,
            threads,
            memory_bytes: moving.memory_bytes,
        })
    }

    /// Moves everything. Collective.
    ///
    /// # Errors
    /// The same on every process.
    pub(super) fn go(
        &self,
        world: &World,
        surveyed: &Surveyed,
        readers: &Readers<'_>,
        into: &Into<'_>,
        observer: &mut Observer<'_>,
    ) -> Result<Moved> {
        let mover = Mover {
            world,
            work: self.work(into.skip),
            readers,
            sink: into.sink,
            witness: into.witness,
            threads: surveyed.threads,
            memory_bytes: surveyed.memory_bytes,
            total_bytes: surveyed.total_bytes,
        };
        transport::run(&mover, surveyed.exchange, observer)
    }

    /// Surveys the way and goes it at once, with nothing left out. Collective.
    ///
    /// # Errors
    /// The same on every process.
    pub(super) fn go_at_once(
        &self,
        world: &World,
        topology: &Topology,
        moving: &Moving,
        readers: &Readers<'_>,
        (sink, witness): (&dyn Sink, Option<&dyn Witness>),
        observer: &mut Observer<'_>,
    ) -> Result<Moved> {
        let surveyed = self.survey(world, topology, moving)?;
        let into = Into {
            sink,
            witness,
            skip: &Skip::Nothing,
        };
        self.go(world, &surveyed, readers, &into, observer)
    }
}

/// Worker threads of this process.
fn threads(moving: &Moving, topology: &Topology, world: &World) -> usize {
    if moving.threads > 0 {
        return moving.threads;
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let node = topology.node_of[world.process() as usize] as usize;
    (cores / topology.nodes[node].len()).max(1)
}
