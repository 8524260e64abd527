//! Every job, whatever its ends: open the source, open the destination, plan, move, commit.

use crate::course::{self, Leaves};
use crate::destination::{
    Carried, Commit, Destination, Replaced, Shown, Staged, Wanted, carry, finished,
};
use crate::exchange::{Topology, World, agree};
use crate::fault::{Fault, Kind, Result};
use crate::job::compare::{self, Pairing};
use crate::job::convert;
use crate::job::fits::{Fitted, fit};
use crate::job::inputs;
use crate::job::origin::Origin;
use crate::job::outcome::{Outcome, PlanFigures, Seconds};
use crate::job::planned::Planned;
use crate::job::request::request;
use crate::job::route::{Into, Route, Surveyed, threads};
use crate::job::spec::{Goal, Job};
use crate::job::tally;
use crate::plan::reach::equal_share;
use crate::plan::turns::Sharing;
use crate::source::strategy_files::read_strategy;
use crate::source::{self, Opened, fingerprint};
use crate::store::io;
use crate::strategy::Strategy;
use crate::transport::{FileSink, Ledger, Moved, Observer, Readers};
use std::time::Instant;

/// Runs a job. Collective.
///
/// # Errors
/// The same fault on every process; then nothing is visible at the destination.
pub fn run(world: &World, job: &Job, observer: &mut Observer<'_>) -> Result<Outcome> {
    let mut clock = Clock::start();
    let topology = Topology::discover(world)?;
    agree(world, io::check_open_files())?;
    inputs::check_place(world, &topology, job)?;
    course::phase("reading what is there");
    let run = Run::new(world, &topology, job)?;
    let standing = match run.take_place()? {
        Early::Done(outcome) => return Ok(*outcome),
        Early::Standing(destination) => Some(destination),
        Early::Unknown => None,
    };
    let (source, fitted) = run.open_source()?;
    clock.lap(|seconds| &mut seconds.discover);
    let Goal::Compare(other) = &job.goal else {
        let held = standing.is_some();
        let mut destination = run.open_destination(&source, standing)?;
        if !held && !job.dry_run {
            destination.hold(world, job.command)?;
        }
        destination.denied = inputs::denied(world, job, &source)?;
        inputs::check_files(world, job, &source, &destination)?;
        course::phase("planning");
        let planned = run.plan(&source, &destination)?;
        return run.finish(&source, &fitted, &destination, &planned, observer, clock);
    };
    let other = run.open_other(other)?;
    let pairing = agree(world, compare::pair(&source, &other))?;
    run.compare(&source, &other, pairing, observer, clock)
}

/// What a run has at hand throughout.
pub(super) struct Run<'a> {
    pub(super) world: &'a World,
    topology: &'a Topology,
    pub(super) job: &'a Job,
    /// The strategy of each side.
    strategies: [Option<Strategy>; 2],
    /// CRC of each of them, by side.
    layouts: Layouts,
}

type Layouts = [(&'static str, Option<u64>); 2];

/// What stands at a destination before its source is looked at.
enum Early {
    /// An earlier run has left nothing to do.
    Done(Box<Outcome>),
    /// The source itself, which is to be replaced.
    Standing(Destination),
    /// It isn't known yet.
    Unknown,
}

impl<'a> Run<'a> {
    /// Reads the strategies of both sides. Collective.
    pub(super) fn new(world: &'a World, topology: &'a Topology, job: &'a Job) -> Result<Self> {
        let other = match &job.goal {
            Goal::Compare(other) => other.strategy.as_deref(),
            goal => goal
                .writing()
                .and_then(|writing| writing.strategy.as_deref()),
        };
        let (from, from_crc) = read_strategy(world, topology, job.reading.strategy.as_deref())?;
        let (to, to_crc) = read_strategy(world, topology, other)?;
        Ok(Run {
            world,
            topology,
            job,
            strategies: [from, to],
            layouts: [("source", from_crc), ("destination", to_crc)],
        })
    }

    /// For a job that replaces its source: its directory, unless nothing is left to do, which is
    /// said. Collective.
    fn take_place(&self) -> Result<Early> {
        let Some(writing) = self.job.goal.writing() else {
            return Ok(Early::Unknown);
        };
        if !writing.in_place || self.job.dry_run {
            return Ok(Early::Unknown);
        }
        let mut destination = self.destination_of_ranks()?;
        destination.hold(self.world, self.job.command)?;
        let request = request(self.job, &self.layouts);
        let found = finished(self.world, &destination, request, !writing.unflushed)?;
        let Some(manifest) = found else {
            return Ok(Early::Standing(destination));
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
        source.derive(self.world, &job.reading.derived)?;
        Ok((source, fitted))
    }

    /// The second step, for a job that writes. Collective.
    fn open_destination(
        &self,
        source: &Opened,
        standing: Option<Destination>,
    ) -> Result<Destination> {
        match (&self.job.goal, standing) {
            (_, Some(standing)) => Ok(standing),
            (Goal::Convert(convert), None) => {
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
            (_, None) => self.destination_of_ranks(),
        }
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
    fn ranks_written(&self, source: &Opened) -> u32 {
        match &self.job.goal {
            Goal::Convert(_) => source.source.reach.source_ranks,
            _ => self.ranks_of_strategy(),
        }
    }

    /// The second step, for a job that compares. Collective.
    fn open_other(&self, reading: &source::Reading) -> Result<Opened> {
        let strategy = self.strategies[1].clone();
        let exchange = self.job.moving.exchange;
        let needed = |_: &str| true;
        source::open(
            self.world,
            self.topology,
            reading,
            strategy,
            exchange,
            needed,
        )
    }

    /// The third step. Collective.
    fn plan(&self, source: &Opened, destination: &Destination) -> Result<Planned> {
        match &self.job.goal {
            Goal::Convert(goal) => {
                let planned = convert::plan(goal, source, &destination.site.ranks);
                agree(self.world, planned)
            }
            Goal::Write(write) => {
                let strategy = self.strategies[1].as_ref();
                let ranks = &destination.site.ranks;
                Planned::of_write(self.world, write, source, strategy, ranks)
            }
            Goal::Compare(_) => Err(Fault::new(Kind::Internal, "nothing is written")),
        }
    }

    /// The way of what is planned.
    fn route<'r>(
        &'r self,
        source: &'r Opened,
        destination: &'r Destination,
        planned: &'r Planned,
    ) -> Route<'r> {
        Route {
            source: &source.source,
            plans: &planned.plans,
            catalog: &planned.catalog,
            site: &destination.site,
            sharing: (!planned.by_file).then_some(Sharing {
                homes: &destination.homes,
                kept: &planned.kept,
                machine: &self.job.moving.machine,
            }),
        }
    }

    /// The steps after the plan; of a dry run none. Collective.
    fn finish(
        &self,
        source: &Opened,
        fitted: &Fitted,
        destination: &Destination,
        planned: &Planned,
        observer: &mut Observer<'_>,
        mut clock: Clock,
    ) -> Result<Outcome> {
        let (world, moving) = (self.world, &self.job.moving);
        let route = self.route(source, destination, planned);
        let threads = threads(moving, self.topology, world);
        let survey = agree(world, route.survey(threads))?;
        let surveyed = route.settle(world, &survey, threads, moving.memory_bytes)?;
        clock.lap(|seconds| &mut seconds.plan);
        let readers = Readers::new(&source.source.base, &source.source.catalog, moving.io);
        let mut outcome = self.describe(source, planned);
        outcome.copies_compared = fitted.compared;
        let mut moved = Moved::default();
        if self.job.dry_run {
            moved.written_bytes = survey.written_bytes;
        } else {
            let writing = Written {
                run: self,
                source,
                origin: &fitted.origin,
                destination,
                planned,
            };
            moved = writing.all(&route, &surveyed, &readers, observer, &mut clock)?;
            outcome.bytes.reused = tally::sum(world, survey.written_bytes - moved.written_bytes)?;
        }
        let seconds = clock.stop();
        tally::total(world, &mut outcome, &survey, &moved, &readers, &seconds)?;
        if self.job.dry_run {
            foretell(world, &mut outcome, &surveyed)?;
        }
        outcome.ok = true;
        Ok(outcome)
    }

    /// What is known of the outcome once all is planned.
    fn describe(&self, source: &Opened, planned: &Planned) -> Outcome {
        let mut files = planned.catalog.paths();
        files.extend(planned.extras.iter().map(|(path, _)| path.clone()));
        Outcome {
            tensors: planned.tensors,
            files,
            source_files: source.source.catalog.paths(),
            names_without_data: planned.without_data.clone(),
            names_dropped: planned.dropped.clone(),
            ..tally::outcome(self.world, self.topology, self.job.command)
        }
    }

    /// The steps after the plan of a comparison. Collective.
    fn compare(
        &self,
        a: &Opened,
        b: &Opened,
        pairing: Pairing,
        observer: &mut Observer<'_>,
        clock: Clock,
    ) -> Result<Outcome> {
        let moving = &self.job.moving;
        let plans = &pairing.plans;
        let mut found =
            compare::differences(self.world, self.topology, a, b, plans, moving, observer)?;
        // Every copy of B has been read, of A one of each shard.
        for (name, copy) in compare::unequal_copies(self.world, self.topology, a, plans, moving)? {
            found.entry(name).or_insert(copy);
        }
        a.source.still.check(self.world)?;
        b.source.still.check(self.world)?;
        let rows = pairing.rows(&compare::joined(self.world, found)?);
        let equal = rows.iter().all(|row| row.state == "equal");
        let mut outcome = Outcome {
            ok: equal,
            tensors: rows.len() as u64,
            equal: Some(equal),
            differences: rows,
            ..tally::outcome(self.world, self.topology, self.job.command)
        };
        outcome.seconds.total = clock.stop().total;
        Ok(outcome)
    }
}

/// The last two steps of a job that writes.
struct Written<'a> {
    run: &'a Run<'a>,
    source: &'a Opened,
    origin: &'a Origin,
    destination: &'a Destination,
    planned: &'a Planned,
}

impl Written<'_> {
    /// Creates the files, fills them and puts them in place. Collective.
    fn all(
        &self,
        route: &Route<'_>,
        surveyed: &Surveyed<'_>,
        readers: &Readers<'_>,
        observer: &mut Observer<'_>,
        clock: &mut Clock,
    ) -> Result<Moved> {
        let (world, job) = (self.run.world, self.run.job);
        let (destination, planned) = (self.destination, self.planned);
        let Some(writing) = job.goal.writing() else {
            return Ok(Moved::default());
        };
        let carried = if writing.in_place {
            let source = &self.source.source;
            let replaced = Replaced {
                base: &source.base,
                catalog: &source.catalog,
                reach: &source.reach,
            };
            carry(world, &replaced, destination, &planned.catalog)?
        } else {
            Carried::default()
        };
        let mut extras = planned.extras.clone();
        extras.extend(carried.extras);
        let lora = &job.reading.derived;
        let depends_on = format!(
            "{} {:?} {:?} {:?} {}",
            job.command,
            self.run.layouts,
            lora.block,
            lora.lora.as_ref().map(|lora| &lora.factor),
            planned.depends_on
        );
        let (replace, flush) = (writing.replaces(), !writing.unflushed);
        let wanted = Wanted {
            job: fingerprint(world, &self.source.source, &depends_on)?,
            resume: writing.resume,
            replace,
            flush,
        };
        course::phase("making files");
        let staged = Staged::create(world, destination, &planned.catalog, &wanted)?;
        let partial = destination.staging.partial().to_path_buf();
        course::leaves(Leaves::Staged(partial));
        course::phase("moving");
        clock.lap(|seconds| &mut seconds.write);
        let proof = |shown: &Shown<'_>| {
            let (origin, source) = (self.origin, &self.source.source);
            origin.check(world, source, &planned.plans, shown)
        };
        let commit = Commit {
            proof: &proof,
            command: job.command,
            job: wanted.job,
            request: request(job, &self.run.layouts),
            ranks: self.run.ranks_written(self.source),
            layouts: self.run.layouts,
            destination,
            catalog: &planned.catalog,
            plans: &planned.plans,
            extras: &extras,
            links: &carried.links,
            replace,
            flush,
            trailers: planned.trailers,
            by_file: planned.by_file,
        };
        let moved = self.fill(route, surveyed, readers, &staged, &commit, observer, clock);
        // A run that takes up leftovers leaves them to be taken up again.
        if moved.is_err() && !writing.resume {
            destination.discard();
        }
        moved
    }

    /// Fills the staged files, then commits them. Collective.
    #[allow(
        clippy::too_many_arguments,
        reason = "the values of all steps meet here"
    )]
    fn fill(
        &self,
        route: &Route<'_>,
        surveyed: &Surveyed<'_>,
        readers: &Readers<'_>,
        staged: &Staged,
        commit: &Commit<'_>,
        observer: &mut Observer<'_>,
        clock: &mut Clock,
    ) -> Result<Moved> {
        let (world, staging) = (self.run.world, &self.destination.staging);
        let catalog = &self.planned.catalog;
        let sink = FileSink::new(staging.partial(), catalog);
        let ledger = Ledger::new(
            catalog,
            &self.destination.site,
            &self.planned.kept,
            staging.partial(),
            staging.journals(),
            commit.flush,
        );
        let into = Into {
            sink: &sink,
            ledger: Some(&ledger),
            skip: staged.skip(),
        };
        let moved = route.go(world, surveyed, readers, &into, observer)?;
        clock.lap(|seconds| &mut seconds.exchange);
        self.source.source.still.check(world)?;
        course::phase("putting in place");
        if !self.destination.leads {
            course::leaves(Leaves::Unknown);
        }
        commit.make(world, staged, ledger.close())?;
        course::leaves(Leaves::Placed(None));
        clock.lap(|seconds| &mut seconds.commit);
        Ok(moved)
    }
}

/// Fills in what a dry run tells. Collective.
fn foretell(world: &World, outcome: &mut Outcome, surveyed: &Surveyed<'_>) -> Result<()> {
    let survey = surveyed.survey;
    outcome.per_process = tally::per_process(world, survey)?;
    let rounds = tally::rounds(world, survey, surveyed.exchange)?;
    outcome.plan = Some(PlanFigures {
        transfers: tally::sum(world, survey.transfers)?,
        rounds,
    });
    outcome.bytes.read = tally::sum(world, survey.read_bytes)?;
    outcome.bytes.sent = tally::sum(world, survey.received_bytes)?;
    Ok(())
}

/// Seconds by phase.
struct Clock {
    start: Instant,
    phase: Instant,
    seconds: Seconds,
}

impl Clock {
    fn start() -> Self {
        let now = Instant::now();
        Clock {
            start: now,
            phase: now,
            seconds: Seconds::default(),
        }
    }

    /// Ends a phase.
    fn lap(&mut self, phase: impl Fn(&mut Seconds) -> &mut f64) {
        *phase(&mut self.seconds) = self.phase.elapsed().as_secs_f64();
        self.phase = Instant::now();
    }

    fn stop(mut self) -> Seconds {
        self.seconds.total = self.start.elapsed().as_secs_f64();
        self.seconds
    }
}
