//! Where a job stands, for a checkpoint that says it apart from its tensors.

use crate::catalog::ShardFile;
use crate::exchange::{World, agree, all_gather};
use crate::fault::{Fault, Kind, Result};
use crate::plan::arrange::Files;
use crate::source::found::Source;
use crate::source::meta::Name;
use crate::source::scalars::scalar;
use crate::source::values;
use crate::store::formats::laid::DirectoryAsked;
use crate::store::formats::{Progress, Values};
use crate::store::io::ReadFile;
use crate::tensor::number::whole;
use std::sync::Arc;

/// What a trainer calls the number of steps that a job has made.
const STEP: &str = "step_num";
/// What it calls the number of the epoch.
const EPOCH: &str = "epoch_num";

/// Fills in what a directory that tells its own layout, to be written, says of the job. Collective.
///
/// # Errors
/// The same on every process: [`crate::fault::Kind::Io`].
pub fn settle(world: &World, source: &Source, files: &Files) -> Result<Files> {
    let Files::Directory { format, asked } = files else {
        return Ok(files.clone());
    };
    let values = match format.keeps_values() {
        true => values::carried(world, source)?,
        false => Values::default(),
    };
    let own = source.told.as_ref().map(|told| &told.own);
    let adapter = own.and_then(|own| own.adapter.clone());
    let adapter = adapter.filter(|(name, _)| format.holds(name));
    let told = match &source.told {
        Some(told) if told.own.progress != Progress::default() => told.own.progress.clone(),
        _ => {
            let mine = agree(world, in_tensors(source))?;
            let all = all_gather(world, &mine)?;
            let told = all.into_iter().fold(Progress::default(), Progress::or);
            match (told.step_num, told.global_step) {
                (None, None) => by_name(source, told),
                _ => told,
            }
        }
    };
    let progress = match &asked.progress {
        Some(given) => given.clone().or(told),
        None => told,
    };
    // No other trainer counts samples.
    let dynamic = own.is_some_and(|own| own.dynamic) || progress.consumed_samples.is_some();
    Ok(Files::Directory {
        format: *format,
        asked: DirectoryAsked {
            progress: Some(progress),
            dynamic: asked.dynamic || dynamic,
            adapter: adapter.map(Arc::new),
            values: Arc::new(values),
            ..asked.clone()
        },
    })
}

/// Where a count is kept apart from what is `said`, and what it is.
type Other = (String, String, u64);

/// A file and what it counts, where that can't be at the epoch and step `said` and is `kept`, if this process reads
/// it. Local.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
fn another_step(
    source: &Source,
    said: (u64, u64),
    kept: impl Fn(&str) -> bool,
) -> Result<Option<Other>> {
    let told = source.told.as_ref().map(|told| &told.own.progress);
    for count in [STEP, EPOCH].into_iter().filter(|count| kept(count)) {
        let other = |found: &u64| !fits(said, count, *found);
        let in_first = counted(source, count);
        let lowest = source.catalog.ranks.keys().next().copied();
        let reader = in_first.map_or(lowest, |(rank, _)| Some(rank));
        if !reader.is_some_and(|rank| reads(source, rank)) {
            continue;
        }
        let own = told.and_then(|told| match count {
            STEP => told.step_num,
            _ => told.epoch_num,
        });
        if let Some(found) = own.filter(other) {
            return Ok(Some((
                source.base.display().to_string(),
                count.to_owned(),
                found,
            )));
        }
        if let Some((_, file)) = in_first {
            let path = source.base.join(&file.path);
            let found = read(source, file, count)?.and_then(whole);
            if let Some(found) = found.filter(other) {
                return Ok(Some((path.display().to_string(), count.to_owned(), found)));
            }
        }
    }
    Ok(None)
}

/// Whether a job that has come to this epoch and step counts so. In its first epoch the count of all steps is that
/// step's, and a later epoch's number is counted, after as many steps at least in each before it.
fn fits((epoch, step): (u64, u64), count: &str, found: u64) -> bool {
    match (epoch, count) {
        (1, STEP) => found == step,
        (1, _) => true,
        (_, STEP) => found >= epoch.saturating_mul(step),
        _ => found == epoch,
    }
}

/// What there is to say of a step that is `said` to be another than the files say, of which `kept` tensors go along.
/// Collective.
///
/// # Errors
/// The same on every process: [`Kind::Usage`] naming the file and both steps, where `files` have it as a tensor, which
/// goes along as it is.
pub fn renumbered(
    world: &World,
    source: &Source,
    (said, files): ((u64, u64), &Files),
    kept: impl Fn(&str) -> bool,
) -> Result<Option<String>> {
    let mine = agree(world, another_step(source, said, kept))?;
    let found = all_gather(world, &mine)?.into_iter().flatten().next();
    let Some((file, count, found)) = found else {
        return Ok(None);
    };
    let (epoch, step) = said;
    if matches!(files, Files::Directory { .. }) {
        let note = format!("--step: {count} {found} of the source is written as {step}");
        return Ok(Some(note));
    }
    let (said, right) = match (epoch, &*count) {
        (1, _) => (step.to_string(), format!("give --step {found}")),
        (_, STEP) => (
            format!(
                "{epoch}_{step}, of which it would be {} or more",
                epoch.saturating_mul(step)
            ),
            format!("give --step {found}: that of the whole run"),
        ),
        _ => (
            format!("{epoch}_{step}"),
            format!("give --step {found}_{step}, or --step N: that of the whole run"),
        ),
    };
    let message = format!("{count} in it is {found}, and --step says {said}");
    Err(Fault::new(Kind::Usage, message).file(file).hint(right))
}

/// The lowest rank that has this count as a tensor, and its file: a strategy may place it in one stage alone.
fn counted<'a>(source: &'a Source, count: &str) -> Option<(u32, &'a ShardFile)> {
    let all = source.catalog.ranks.iter();
    let mut files = all.flat_map(|(rank, files)| files.iter().map(move |file| (*rank, file)));
    files.find(|(_, file)| file.schema.get(count).is_some())
}

/// Whether it is this process that reads the files of `rank`.
fn reads(source: &Source, rank: u32) -> bool {
    source.reach.owner(rank) == Some(source.reach.process)
}

/// What a file has of a count.
fn read(source: &Source, file: &ShardFile, count: &str) -> Result<Option<f64>> {
    let open = ReadFile::open(&source.base.join(&file.path))?;
    scalar(&open, &file.schema, count)
}

/// Where the job stands, as far as tensors tell it that this process reads. Local.
fn in_tensors(source: &Source) -> Result<Progress> {
    let own = |name: &str| match counted(source, name) {
        Some((rank, file)) if reads(source, rank) => read(source, file, name),
        _ => Ok(None),
    };
    let count = |name: &str| Ok(own(name)?.and_then(whole));
    Ok(Progress {
        epoch_num: count(EPOCH)?,
        step_num: count(STEP)?,
        global_step: count("global_step")?,
        global_batch_size: count("global_batch_size")?,
        consumed_samples: count("consumed_samples")?,
        loss_scale: own("loss_scale")?,
        ..Progress::default()
    })
}

/// The same with the steps that the names of the lowest rank's files say.
fn by_name(source: &Source, told: Progress) -> Progress {
    let files = source.catalog.ranks.values().next().into_iter().flatten();
    let named = files.into_iter().find_map(|file| first_epoch(&file.path));
    Progress {
        step_num: named,
        global_step: named,
        ..told
    }
}

/// The step that a file's name says, if it is one of the first epoch: that of the whole run.
fn first_epoch(path: &str) -> Option<u64> {
    let (name, _) = Name::parse(path.rsplit('/').next()?)?;
    (name.epoch == 1).then_some(name.step)
}
