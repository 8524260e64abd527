//! What a job reads, and that nothing of it is where it writes.

use crate::destination::{self, Destination, allowed};
use crate::exchange::{Topology, World, agree};
use crate::fault::Result;
use crate::job::spec::Job;
use crate::source::Opened;
use crate::store::replaceable::Replace;
use crate::strategy::StrategyInput;
use crate::tensor::digest::checksum;
use std::path::{Path, PathBuf};

/// All that `job` reads: what each is called, and its path.
fn inputs(job: &Job) -> Vec<(&'static str, &Path)> {
    let mut all: Vec<(&'static str, &Path)> = vec![("source", &job.reading.path)];
    if let Some(strategy) = job.reading.strategy.as_ref().and_then(StrategyInput::path) {
        all.push(("source's strategy", strategy));
    }
    let lora = job.reading.derived.lora.as_ref();
    let adapter = lora.into_iter().flat_map(|lora| [&lora.given, &lora.file]);
    all.extend(adapter.flatten().map(|path| ("adapter", path.as_path())));
    if let Some(writing) = job.goal.writing() {
        if let Some(strategy) = writing.strategy.as_ref().and_then(StrategyInput::path) {
            all.push(("destination's strategy", strategy));
        }
        let beside = writing.inputs.iter();
        all.extend(beside.map(|path| ("configuration", path.as_path())));
    }
    all
}

/// The number of what is asked for, `request`, and of what: of all that `job` reads, by its place. Local, the same on
/// every process.
pub(super) fn origin(job: &Job, request: u64) -> u64 {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into());
    let paths = inputs(job)
        .into_iter()
        .map(|(what, path)| (what, absolute(path)));
    let paths: Vec<(&str, PathBuf)> = paths.collect();
    checksum(format!("{request} {paths:?}").as_bytes())
}

/// Checks that a job may write where it is to. Collective.
///
/// # Errors
/// As [`allowed::check`], on every process.
pub(super) fn check_place(world: &World, topology: &Topology, job: &Job) -> Result<()> {
    let Some(writing) = job.goal.writing() else {
        return Ok(());
    };
    let checked = if topology.leads(world.process()) {
        allowed::check(&writing.path, &inputs(job), writing.in_place)
    } else {
        Ok(())
    };
    agree(world, checked)
}

/// Checks that no file of the source lies in what is replaced. Collective.
///
/// # Errors
/// As [`allowed::check_files`], on every process.
pub(super) fn check_files(
    world: &World,
    job: &Job,
    source: &Opened,
    destination: &Destination,
) -> Result<()> {
    let replaces = job.goal.writing().map(|writing| writing.replaces(0));
    let results = matches!(replaces, Some(Replace::Results | Replace::Earlier(_)));
    if !results || job.dry_run {
        return Ok(());
    }
    let source = &source.source;
    let place = destination.staging.destination();
    let checked = allowed::check_files(place, &source.base, &source.catalog, &source.reach);
    agree(world, checked)
}

/// The permissions that nobody gets on what a job writes. Collective.
///
/// # Errors
/// As [`destination::denied`], on every process.
pub(super) fn denied(world: &World, job: &Job, source: &Opened) -> Result<u32> {
    if job.dry_run {
        return Ok(0);
    }
    let source = &source.source;
    destination::denied(world, &source.base, &source.catalog, &source.reach)
}
