//! Every job, whatever its ends: open the source, open the destination, plan, move, commit.

use crate::exchange::{Topology, World};
use crate::fault::Result;
use crate::job::clock::Clock;
use crate::job::inputs;
use crate::job::outcome::Outcome;
use crate::job::ready::Told;
use crate::job::spec::{Goal, Job};
use crate::job::steps::{Early, Run};
use crate::job::written::Written;
use crate::transport::Observer;

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
    inputs::check_place(world, &topology, job)?;
    let run = Run::new(world, &topology, job)?;
    let standing = match run.take_place()? {
        Early::Done(outcome) => return Ok(*outcome),
        Early::Standing(destination) => Some(destination),
        Early::Unknown => None,
    };
    let (source, fitted) = run.open_source()?;
    clock.lap(|seconds| &mut seconds.discover);
    if let Goal::Compare(comparing) = &job.goal {
        let other = run.open_other(&comparing.other)?;
        let pairing = run.pair(&source, &other, comparing)?;
        let found = run.compare([&source, &other], &pairing, observer)?;
        return run.compared([&source, &other], (pairing, comparing), &found, clock);
    }
    let destination = run.open_destination(&source, standing)?;
    let ready = run.plan((source, fitted), destination)?;
    let surveyed = ready.survey(told)?;
    clock.lap(|seconds| &mut seconds.plan);
    if job.dry_run {
        return ready.foretold(&surveyed, observer, clock);
    }
    let written = Written::of(&ready)?;
    let staged = written.stage()?;
    clock.lap(|seconds| &mut seconds.write);
    let readers = run.readers(&ready.source);
    let (moved, done) = written.go(&staged, &surveyed, &readers, observer)?;
    clock.lap(|seconds| &mut seconds.exchange);
    written.commit(staged, done)?;
    clock.lap(|seconds| &mut seconds.commit);
    ready.outcome(&surveyed, &moved, &readers, clock)
}
