//! Another layout of the same checkpoint, brought into the layout of the damaged directory: an
//! ordinary job, into a hidden directory beside it.

use crate::destination::Writing;
use crate::exchange::{World, agree, all_gather, broadcast_bytes};
use crate::fault::{Fault, Kind, Result};
use crate::job::run::run;
use crate::job::spec::{Goal, Job, Write};
use crate::plan::arrange::FULL_FILE_BYTES_MAX;
use crate::plan::arrange::{Files, Naming, RankName};
use crate::plan::build::{Leftovers, Select, Unmatched};
use crate::source::Reading;
use crate::store::Format;
use crate::store::manifest::{Manifest, NAME};
use crate::strategy::StrategyInput;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Tensors of a checkpoint up to which those that nobody needs are left out one by one.
const CHOSEN_MAX: usize = 20_000;

/// Another copy of the same checkpoint, maybe in another layout.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Where. It is only read.
    pub path: PathBuf,
    /// Its strategy; none means full weights.
    pub strategy: Option<StrategyInput>,
}

/// What is missing: tensors by name; none for the bytes around them, for which all tensors are wanted.
pub(super) type Missing = BTreeSet<Option<String>>;

/// Tensors that are damaged in the other layout, too, and left out one after the other.
const DAMAGED_MAX: usize = 16;

/// Writes the missing tensors of `origin` into `into`, cut by `strategy`, in `format` where that is written; those
/// that are damaged there are left out. Collective.
///
/// # Errors
/// As those of a reshard, the same on every process.
pub(super) fn relayout(
    world: &World,
    origin: &Origin,
    strategy: Option<&StrategyInput>,
    into: &Path,
    (manifest, format): (&Manifest, Option<Format>),
    missing: &Missing,
) -> Result<()> {
    let format = all_gather(world, &format.map(|format| format.name().to_owned()))?;
    let format = format.into_iter().flatten().next();
    let format = Format::written().find(|written| Some(written.name()) == format.as_deref());
    let all = missing.contains(&None) || manifest.tensors.len() > CHOSEN_MAX;
    let wanted: Vec<&str> = missing.iter().flatten().map(String::as_str).collect();
    let unwanted = manifest.tensors.keys().filter(|name| {
        // What begins the name of a wanted tensor can't be left out without it.
        !all && !wanted
            .iter()
            .any(|wanted| wanted.starts_with(name.as_str()))
    });
    let mine: Vec<String> = unwanted.cloned().collect();
    // Nodes may see different manifests of one result, or none: the first word counts.
    let unwanted = all_gather(world, &(!manifest.files.is_empty()).then_some(mine))?;
    let mut unwanted = unwanted.into_iter().flatten().next().unwrap_or_default();
    for _ in 0..DAMAGED_MAX {
        let job = job(origin, strategy, (into, format), unwanted.clone());
        match run(world, &job, &mut |_, _| {}) {
            // The fault is the same on all processes.
            Err(fault) if fault.kind == Kind::Corrupt && fault.tensor.is_some() => {
                if world.process() == 0 {
                    tracing::warn!("{fault}");
                }
                unwanted.extend(fault.tensor);
            }
            other => return other.map(|_| ()),
        }
    }
    let message = format!("more than {DAMAGED_MAX} tensors of it are damaged, too");
    Err(Fault::new(Kind::Corrupt, message).file(origin.path.display().to_string()))
}

/// What `directory` is cut by, as the manifest of a process that has one keeps it. Collective.
///
/// # Errors
/// The same on every process: [`Kind::Mpi`].
pub(super) fn kept(
    world: &World,
    directory: &Path,
    manifest: &Manifest,
) -> Result<Option<StrategyInput>> {
    let mine = agree(world, manifest.strategy_bytes())?;
    let all = all_gather(world, &mine.is_some())?;
    let mut all = (0u32..).zip(all);
    let Some(first) = all.find_map(|(process, has)| has.then_some(process)) else {
        return Ok(None);
    };
    let bytes = broadcast_bytes(world, first, mine.unwrap_or_default())?;
    Ok(Some(StrategyInput::made(directory.join(NAME), bytes)))
}

/// The job that writes all but the `unwanted` tensors. Local.
fn job(
    origin: &Origin,
    strategy: Option<&StrategyInput>,
    (into, format): (&Path, Option<Format>),
    unwanted: Vec<String>,
) -> Job {
    let (files, leftovers) = match (strategy, &origin.strategy) {
        (None, _) => (
            Files::Full {
                naming: Naming::Hf,
                file_bytes_max: FULL_FILE_BYTES_MAX,
            },
            Leftovers::Unify(Unmatched::Copy),
        ),
        (Some(_), None) => (ranks(), Leftovers::Split(Unmatched::Copy)),
        (Some(_), Some(_)) => (ranks(), Leftovers::Reshard(Unmatched::Copy)),
    };
    let writing = Writing {
        strategy: strategy.cloned(),
        overwrite: true,
        unflushed: true,
        ..Writing::into(into)
    };
    let write = Write {
        select: Select {
            filter_out_prefixes: unwanted,
            ..Select::default()
        },
        format: Some(format.unwrap_or_default()),
        ..Write::new(leftovers, files, writing)
    };
    let reading = Reading::checkpoint(origin.path.clone(), origin.strategy.clone(), None);
    Job::new("verify", reading, Goal::Write(Box::new(write)))
}

fn ranks() -> Files {
    Files::Ranks {
        name: RankName::new("net", false),
        remove_redundancy: false,
    }
}

/// The hidden directory beside `directory`.
pub(super) fn beside(directory: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(directory.file_name().unwrap_or_default());
    name.push(".shardloom-repair");
    directory.with_file_name(name)
}
