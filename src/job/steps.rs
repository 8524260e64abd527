//! The first two steps of a job: both ends are opened.

use crate::course;
use crate::destination::{Destination, finished, refuse_file};
use crate::exchange::{Topology, World, agree};
use crate::fault::{Fault, Kind, Result};
use crate::job::fits::{Fitted, all_of_it, fit};
use crate::job::inputs;
use crate::job::megatron::by_layers;
use crate::job::nodes;
use crate::job::outcome::Outcome;
use crate::job::pieces::Proving;
use crate::job::request::request;
use crate::job::spec::{Goal, Job};
use crate::job::tally;
use crate::plan::reach::equal_share;
use crate::source::pattern;
use crate::source::strategy_files::read_strategy;
use crate::source::{self, Opened, Verify};
use crate::store::io;
use crate::strategy::Strategy;
use crate::transport::Readers;

/// What a run has at hand throughout.
pub(super) struct Run<'a> {
    pub(super) world: &'a World,
    pub(super) topology: &'a Topology,
    pub(super) job: &'a Job,
    /// The strategy of each side.
    pub(super) strategies: [Option<Strategy>; 2],
    /// CRC of each of them, by side.
    pub(super) layouts: Layouts,
}

pub(super) type Layouts = [(&'static str, Option<u64>); 2];

/// What stands at a destination before its source is looked at.
pub(super) enum Early {
    /// An earlier run has left nothing to do.
    Done(Box<Outcome>),
    /// The source itself, which is to be replaced.
    Standing(Box<Destination>),
    /// It isn't known yet.
    Unknown,
}

impl<'a> Run<'a> {
    /// Reads the strategies of both sides. Collective.
    pub(super) fn new(world: &'a World, topology: &'a Topology, job: &'a Job) -> Result<Self> {
        agree(world, io::check_open_files())?;
        course::phase("reading what is there");
        let other = match &job.goal {
            Goal::Compare(comparing) => comparing.other.strategy.as_ref(),
            goal => goal.writing().and_then(|writing| writing.strategy.as_ref()),
        };
        let (from, from_crc) = read_strategy(world, topology, job.reading.strategy.as_ref())?;
        let (to, to_crc) = read_strategy(world, topology, other)?;
        Ok(Run {
            world,
            topology,
            job,
            strategies: [from, to],
            layouts: [("source", from_crc), ("destination", to_crc)],
        })
    }

    /// For a job that replaces its source with `files`: its directory, unless nothing is left to do, which is
    /// said. Collective.
    pub(super) fn take_place(&self, files: bool) -> Result<Early> {
        let Some(writing) = self.job.goal.writing().filter(|_| files) else {
            return Ok(Early::Unknown);
        };
        if !writing.in_place || self.job.dry_run {
            return Ok(Early::Unknown);
        }
        let is_pattern = pattern::is_one(&writing.path);
        agree(self.world, refuse_file(&writing.path, is_pattern))?;
        let mut destination = self.destination_of_ranks()?;
        destination.hold(self.world, self.job.command)?;
        let request = request(self.job, &self.layouts);
        let found = finished(self.world, &destination, request, !writing.unflushed)?;
        let Some(manifest) = found else {
            return Ok(Early::Standing(Box::new(destination)));
        };
        if self.world.process() == 0 {
            let directory = writing.path.display();
            tracing::warn!("{directory} has the destination's layout already: nothing is moved");
        }
        Ok(Early::Done(Box::new(Outcome {
            ok: true,
            tensors: manifest.tensors.len() as u64,
            files: manifest.files.into_iter().map(|file| file.path).collect(),
            ..tally::outcome(self.world, self.topology, self.job.command)
        })))
    }

    /// What the destination is cut by.
    pub(super) fn destination_strategy(&self) -> Option<&Strategy> {
        self.strategies[1].as_ref()
    }

    /// The first step. Collective.
    pub(super) fn open_source(&self) -> Result<(Opened, Fitted)> {
        let job = self.job;
        let strategy = self.strategies[0].clone();
        let exchange = job.moving.exchange;
        let needed = |name: &str| match &job.goal {
            Goal::Write(write) => write.select.keeps(name),
            _ => true,
        };
        let (world, topology) = (self.world, self.topology);
        let mut source = source::open(world, topology, &job.reading, strategy, exchange, needed)?;
        let fitted = fit(self.world, self.topology, job, &mut source)?;
        if let Goal::Write(write) = &job.goal {
            let strategy = self.destination_strategy();
            by_layers(&mut source, write, strategy)?;
        }
        let beside = source.source.reach.source_ranks;
        source.derive(world, &job.reading.derived)?;
        nodes::check(world, topology, &source.source, job.reading.verify, beside)?;
        Ok((source, fitted))
    }

    /// CRC of each side's strategy, by side, where the source's may be what its manifest keeps.
    pub(super) fn layouts_of(&self, opened: &Opened) -> Layouts {
        let [(side, given), destination] = self.layouts;
        let laid = opened.laid.as_ref().map(|laid| laid.crc);
        [(side, given.or(laid)), destination]
    }

    /// What reads the files of a source.
    pub(super) fn readers<'s>(&self, opened: &'s Opened) -> Readers<'s> {
        let source = &opened.source;
        let readers = Readers::new(&source.base, &source.catalog, self.job.moving.io);
        readers.minding_seals(self.job.reading.verify == Verify::Sample)
    }

    /// What shows that the bytes read of a source are those that its manifests list.
    pub(super) fn proving<'s>(&'s self, opened: &'s Opened) -> Proving<'s> {
        Proving {
            world: self.world,
            topology: self.topology,
            opened,
            moving: &self.job.moving,
            verify: self.job.reading.verify,
        }
    }

    /// The second step, for a job that writes. Collective.
    pub(super) fn open_destination(
        &self,
        source: &Opened,
        standing: Option<Destination>,
    ) -> Result<Destination> {
        let (world, job) = (self.world, self.job);
        let held = standing.is_some();
        let mut destination = match standing {
            Some(standing) => standing,
            None => self.find_destination(source)?,
        };
        if !held && !job.dry_run {
            destination.hold(world, job.command)?;
        }
        destination.divide(&source.source.reach);
        destination.denied = inputs::denied(world, job, source)?;
        inputs::check_files(world, job, source, &destination)?;
        Ok(destination)
    }

    /// Where it is, and who shares it. Collective.
    fn find_destination(&self, source: &Opened) -> Result<Destination> {
        let Goal::Convert(convert) = &self.job.goal else {
            return self.destination_of_ranks();
        };
        let reach = &source.source.reach;
        // A file stays on the node that it is on.
        let home = |rank| reach.owner(rank).unwrap_or_default();
        let writing = &convert.writing;
        Destination::find(
            self.world,
            self.topology,
            &writing.path,
            reach.source_ranks,
            home,
            writing.placement,
        )
    }

    /// The destination of a strategy's ranks. Collective.
    fn destination_of_ranks(&self) -> Result<Destination> {
        let writing = self.job.goal.writing().ok_or_else(|| {
            Fault::new(
                Kind::Internal,
                "a job that writes nothing has no destination",
            )
        })?;
        let ranks = self.ranks_of_strategy();
        let home = |rank| equal_share(rank, ranks, self.world.size());
        Destination::find(
            self.world,
            self.topology,
            &writing.path,
            ranks,
            home,
            writing.placement,
        )
    }

    fn ranks_of_strategy(&self) -> u32 {
        self.strategies[1].as_ref().map_or(1, Strategy::ranks)
    }

    /// Ranks of all that is written: those of the destination, or files of a source.
    pub(super) fn ranks_written(&self, source: &Opened) -> u32 {
        match &self.job.goal {
            Goal::Convert(_) => source.source.reach.source_ranks,
            _ => self.ranks_of_strategy(),
        }
    }

    /// The second step, for a job that compares. Collective.
    pub(super) fn open_other(&self, reading: &source::Reading) -> Result<Opened> {
        let strategy = self.strategies[1].clone();
        let exchange = self.job.moving.exchange;
        let needed = |_: &str| true;
        let (world, topology) = (self.world, self.topology);
        let opened = source::open(world, topology, reading, strategy, exchange, needed)?;
        all_of_it(world, &opened, reading)?;
        Ok(opened)
    }
}
