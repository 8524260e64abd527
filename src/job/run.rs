//! Every job, whatever its ends: open the source, open the destination, plan, move, commit.

use crate::exchange::{Topology, World};
use crate::fault::Result;
use crate::job::clock::Clock;
use crate::job::fill::Filling;
use crate::job::inputs;
use crate::job::outcome::Outcome;
use crate::job::ready::{Place, Told};
use crate::job::sides::of_side;
use crate::job::spec::{Goal, Job};
use crate::job::steps::{Early, Run};
use crate::job::written::Written;
use crate::source::{Weights, Which, may_be_numbered, may_match};
use crate::transport::{Buffer, Observer};

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
    let topology = Topology::discover(world)?;
    inputs::check_place(world, &topology, job)?;
    run_to(world, &topology, job, observer, (told, None))
}

/// Runs a job whose result goes into `buffers`, the shard of destination rank `rank` into those of
/// this process; nothing is written to disk. Collective: each process names a rank of its own, or
/// none and no buffers.
///
/// The destination's tensors are those that [`run`] would write for that rank.
///
/// # Errors
/// The same on every process: those of a job, [`crate::fault::Kind::UnknownTensor`], [`crate::fault::Kind::Dtype`] and
/// [`crate::fault::Kind::Shape`] if buffers and tensors don't fit.
pub fn fill(
    world: &World,
    job: &Job,
    rank: Option<u32>,
    buffers: &mut [Buffer<'_>],
    observer: &mut Observer<'_>,
) -> Result<Outcome> {
    let topology = Topology::discover(world)?;
    let mut filling = Filling { rank, buffers };
    run_to(world, &topology, job, observer, (None, Some(&mut filling)))
}

/// Any of these: into the buffers of `filling` in place of the job's files, if it is given. Collective.
///
/// # Errors
/// As [`run_told`], and as [`Filling::go`].
fn run_to(
    world: &World,
    topology: &Topology,
    job: &Job,
    observer: &mut Observer<'_>,
    (told, filling): (Option<&mut Told<'_>>, Option<&mut Filling<'_, '_>>),
) -> Result<Outcome> {
    let mut clock = Clock::start();
    let chosen = of_one_side(world, job)?;
    let job = chosen.as_ref().unwrap_or(job);
    let run = Run::new(world, topology, job)?;
    let standing = match run.take_place(filling.is_none())? {
        Early::Done(outcome) => return Ok(*outcome),
        Early::Standing(destination) => Some(*destination),
        Early::Unknown => None,
    };
    let opened = run.open_source();
    let (source, fitted) = opened.map_err(|fault| match &job.goal {
        Goal::Compare(_) => of_side(fault, "--a-strategy"),
        _ => fault,
    })?;
    clock.lap(|seconds| &mut seconds.discover);
    if let Goal::Compare(comparing) = &job.goal {
        let other = run.open_other(&comparing.other);
        let other = other.map_err(|fault| of_side(fault, "--b-strategy"))?;
        let pairing = run.pair(&source, &other, comparing)?;
        let found = run.compare([&source, &other], &pairing, observer)?;
        return run.compared([&source, &other], (pairing, comparing), &found, clock);
    }
    let place = match &filling {
        Some(filling) => filling.place(&run)?,
        None => Place::Directory(Box::new(run.open_destination(&source, standing)?)),
    };
    let ready = run.plan((source, fitted), place)?;
    let surveyed = ready.survey(told)?;
    clock.lap(|seconds| &mut seconds.plan);
    if job.dry_run {
        return ready.foretold(&surveyed, observer, clock);
    }
    let readers = run.readers(&ready.source);
    let moved = if let Some(filling) = filling {
        let filled = filling.go(&ready, &surveyed, &readers, observer)?;
        clock.lap(|seconds| &mut seconds.exchange);
        filled
    } else {
        let written = Written::of(&ready)?;
        let staged = written.stage()?;
        clock.lap(|seconds| &mut seconds.write);
        let (moved, done) = written.go(&staged, &surveyed, &readers, observer)?;
        clock.lap(|seconds| &mut seconds.exchange);
        written.commit(staged, done)?;
        clock.lap(|seconds| &mut seconds.commit);
        moved
    };
    ready.outcome(&surveyed, &moved, &readers, clock)
}

/// Of a comparison by a step, or of some files, the same where that can be meant of one side alone: the other is as it
/// is. None for another job. Collective.
fn of_one_side(world: &World, job: &Job) -> Result<Option<Job>> {
    let Goal::Compare(comparing) = &job.goal else {
        return Ok(None);
    };
    let paths = [&job.reading.path, &comparing.other.path];
    let mut job = job.clone();
    let Goal::Compare(comparing) = &mut job.goal else {
        return Ok(None);
    };
    let sides = [&mut job.reading, &mut comparing.other];
    if let Weights::Named(glob) = sides[0].weights.clone() {
        let [one, other] = paths.map(|path| may_match(world, path, &glob));
        if let Some(side) = alone(one?, other?) {
            sides[side].weights = Weights::Told;
        }
    }
    if let Which::Checkpoint(Some(_)) = &sides[0].which {
        // Files of full weights that are chosen by name have no number.
        let chosen = [0, 1].map(|side| sides[side].weights != Weights::Told);
        let [one, other] = paths.map(|path| may_be_numbered(world, path));
        if let Some(side) = alone(one? && !chosen[0], other? && !chosen[1]) {
            sides[side].which = Which::default();
        }
    }
    Ok(Some(job))
}

/// The side that isn't meant, if the other alone is.
fn alone(one: bool, other: bool) -> Option<usize> {
    match (one, other) {
        (true, false) => Some(1),
        (false, true) => Some(0),
        _ => None,
    }
}
