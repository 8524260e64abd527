//! Every job, whatever its ends: open the source, open the destination, plan, move, commit.

use crate::course;
use crate::destination::Destination;
use crate::exchange::{Topology, World, agree};
use crate::fault::{Kind, Result};
use crate::job::account::{Part, account};
use crate::job::alike;
use crate::job::clock::Clock;
use crate::job::compare::{self, Pairing};
use crate::job::copies;
use crate::job::differing::of_sealed;
use crate::job::fits::Fitted;
use crate::job::inputs;
use crate::job::linked;
use crate::job::nodes;
use crate::job::outcome::{Outcome, PlanFigures};
use crate::job::pairs::pairs;
use crate::job::planned::Planned;
use crate::job::route::{Surveyed, threads};
use crate::job::sides;
use crate::job::spec::{Goal, Job};
use crate::job::steps::{Early, Run};
use crate::job::tally;
use crate::job::written::Written;
use crate::plan::forecast::Shares;
use crate::source::{Opened, Verify};
use crate::store::io;
use crate::transport::{Moved, Observer, Readers};

/// What a plan foretells, over all processes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Foretold {
    /// Bytes to read.
    pub read: u64,
    /// Bytes to write.
    pub written: u64,
}

/// Who is told of a plan before anything is moved. Collective; an error, the same on every process, ends the job.
pub type Told<'a> = dyn FnMut(Foretold) -> Result<()> + 'a;

/// Runs a job. Collective.
///
/// # Errors
/// The same fault on every process; then nothing is visible at the destination.
pub fn run(world: &World, job: &Job, observer: &mut Observer<'_>) -> Result<Outcome> {
    run_told(world, job, observer, None)
}

/// The same; `told` is what is planned. Collective.
///
/// # Errors
/// As [`run`], and that of `told`.
pub fn run_told(
    world: &World,
    job: &Job,
    observer: &mut Observer<'_>,
    told: Option<&mut Told<'_>>,
) -> Result<Outcome> {
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
    let Goal::Compare(comparing) = &job.goal else {
        let held = standing.is_some();
        let mut destination = run.open_destination(&source, standing)?;
        if !held && !job.dry_run {
            destination.hold(world, job.command)?;
        }
        destination.divide(&source.source.reach);
        destination.denied = inputs::denied(world, job, &source)?;
        inputs::check_files(world, job, &source, &destination)?;
        course::phase("planning");
        let mut planned = run.plan(&source, &destination)?;
        if job.goal.writing().is_some_and(|writing| writing.link) {
            linked::find(world, &source.source, &mut destination, &mut planned)?;
        }
        alike::check(world, &topology, &planned.plans, &run.meant())?;
        fitted.compared()?;
        if !job.dry_run {
            let copies = &planned.copies;
            compare::left_out(world, &topology, &source, copies, &job.moving)?;
        }
        let ready = Ready {
            source: &source,
            fitted: &fitted,
            destination: &destination,
            planned: &planned,
        };
        return run.finish(&ready, observer, told, clock);
    };
    let other = run.open_other(&comparing.other)?;
    let filter = &comparing.filter_out_prefixes;
    let pairs = pairs([&source, &other], filter, &comparing.names);
    let pairing = pairs.and_then(|pairs| compare::pair(&source, &other, &pairs));
    let pairing = agree(world, pairing)?;
    alike::check(world, &topology, &pairing.plans, job.command)?;
    let mut outcome = run.compare(&source, &other, pairing, observer, clock)?;
    outcome.lines_max = comparing.lines_max;
    outcome.within(comparing.tolerance);
    Ok(outcome)
}

/// Both sides, and the plan.
struct Ready<'a> {
    source: &'a Opened,
    fitted: &'a Fitted,
    destination: &'a Destination,
    planned: &'a Planned,
}

impl Run<'_> {
    /// All but the source that the result depends on. Local.
    pub(super) fn depends_on(&self, planned: &Planned) -> String {
        format!("{} {}", self.meant(), planned.depends_on)
    }

    /// What is the same on every process, but for the plans. Local.
    fn meant(&self) -> String {
        let derived = &self.job.reading.derived;
        let lora = derived.lora.as_ref().map(|lora| &lora.meaning);
        let (command, layouts) = (self.job.command, &self.layouts);
        format!("{command} {layouts:?} {:?} {lora:?}", derived.block)
    }

    /// The steps after the plan; of a dry run none. Collective.
    fn finish(
        &self,
        ready: &Ready<'_>,
        observer: &mut Observer<'_>,
        told: Option<&mut Told<'_>>,
        mut clock: Clock,
    ) -> Result<Outcome> {
        let Ready {
            source,
            fitted,
            destination,
            planned,
        } = *ready;
        let (world, moving) = (self.world, &self.job.moving);
        let route = self.route(source, destination, planned);
        let threads = threads(moving, self.topology, world);
        let survey = agree(world, route.survey(threads))?;
        let surveyed = route.settle(world, &survey, threads, moving.memory_bytes)?;
        if let Some(told) = told {
            told(Foretold {
                read: tally::sum(world, survey.read_bytes())?,
                written: tally::sum(world, survey.written_bytes)?,
            })?;
        }
        clock.lap(|seconds| &mut seconds.plan);
        let readers = Readers::new(&source.source.base, &source.source.catalog, moving.io);
        let readers = readers.minding_seals(self.job.reading.verify == Verify::Sample);
        let mut outcome = self.describe(source, planned);
        outcome.copies_compared = fitted.compared()?;
        let mut moved = Moved::default();
        if self.job.dry_run {
            moved.written_bytes = survey.written_bytes;
            observer(surveyed.total_bytes, surveyed.total_bytes);
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
        let read = match self.job.dry_run {
            true => survey.read_bytes(),
            false => readers.read_bytes(),
        };
        let part = Part {
            survey: Some(&survey),
            plans: &planned.plans,
            read,
            written: moved.written_bytes,
        };
        outcome.account = account(world, self.topology, &part)?;
        if self.job.dry_run {
            self.foretell(&mut outcome, ready, &surveyed)?;
        }
        outcome.ok = true;
        Ok(outcome)
    }

    /// Fills in what a dry run tells. Collective.
    fn foretell(
        &self,
        outcome: &mut Outcome,
        ready: &Ready<'_>,
        surveyed: &Surveyed<'_>,
    ) -> Result<()> {
        let (world, survey) = (self.world, surveyed.survey);
        outcome.per_process = tally::per_process(world, survey)?;
        let rounds = tally::rounds(world, survey, surveyed.exchange)?;
        let source = &ready.source.source;
        let several = source.reach.nodes.len() > 1;
        let mut ranks = source.catalog.ranks.keys();
        let shares = Shares {
            source: several && ranks.all(|rank| source.reach.common().contains(rank)),
            destination: several && ready.destination.site.everybody,
        };
        let machine = &self.job.moving.machine;
        outcome.plan = Some(PlanFigures {
            transfers: tally::sum(world, survey.transfers)?,
            rounds,
            seconds_estimated: tally::seconds(
                world,
                survey,
                &source.reach,
                (machine, shares, rounds),
            )?,
        });
        outcome.bytes.read = tally::sum(world, survey.read_bytes())?;
        outcome.bytes.sent = tally::sum(world, survey.received_bytes)?;
        Ok(())
    }

    /// What is known of the outcome once all is planned.
    fn describe(&self, source: &Opened, planned: &Planned) -> Outcome {
        let mut files = planned.catalog.paths();
        files.extend(planned.extras.iter().map(|(path, _)| path.clone()));
        let notes = source.source.notes.iter();
        Outcome {
            tensors: planned.tensors,
            files,
            source_files: source.source.catalog.paths(),
            names_without_data: planned.without_data.clone(),
            names_dropped: planned.dropped.clone(),
            notes: notes.chain(planned.notes.iter()).cloned().collect(),
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
        let verify = self.job.reading.verify;
        let (world, topology, seals) = (self.world, self.topology, verify == Verify::Sample);
        for side in [a, b] {
            nodes::check(world, topology, &side.source, verify, 0)?;
        }
        let mut found = of_sealed(world, topology, [a, b], plans, moving, seals, observer)?;
        // Every copy of B has been read, of A one of each shard.
        let suspected = match verify {
            Verify::None => false,
            Verify::Sample => differing(copies::by_sample(self.world, a))?,
            Verify::All => true,
        };
        if suspected {
            let unequal = compare::unequal_copies(self.world, self.topology, a, plans, moving)?;
            for (name, copy) in unequal {
                found.entry(pairing.theirs(&name)).or_insert(copy);
            }
        }
        let found = compare::joined(self.world, found)?;
        let notes = sides::notes(self, [a, b], &found, &pairing)?;
        a.source.still.check(self.world)?;
        b.source.still.check(self.world)?;
        let part = Part {
            plans: &pairing.plans,
            ..Part::default()
        };
        let account = account(self.world, self.topology, &part)?;
        let rows = pairing.rows(&found);
        let equal = rows.iter().all(|row| row.state == "equal");
        let mut outcome = Outcome {
            ok: equal,
            tensors: rows.len() as u64,
            equal: Some(equal),
            differences: rows,
            account,
            copies_compared: copies::word(verify, a),
            notes,
            ..tally::outcome(self.world, self.topology, self.job.command)
        };
        outcome.seconds.total = clock.stop().total;
        Ok(outcome)
    }
}

/// Whether a comparison found a difference, which is then no error. Local.
fn differing(compared: Result<()>) -> Result<bool> {
    match compared {
        Ok(()) => Ok(false),
        Err(fault) if fault.kind == Kind::Differs => Ok(true),
        Err(fault) => Err(fault),
    }
}
