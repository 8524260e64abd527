//! The commands that are jobs: reshard, unify, split, convert, diff.

use crate::cli::args::{
    BenchCommand, Command, DiffArgs, MoveArgs, ProgressMode, RepeatArgs, ReshardArgs, SplitArgs,
    UnifyArgs,
};
use crate::cli::{convert, model};
use crate::engine::compare::{Comparison, diff};
use crate::engine::convert::Conversion;
use crate::engine::job::{Job, run};
use crate::engine::mover::Observer;
use crate::engine::outcome::Outcome;
use crate::engine::place::Placement;
use crate::engine::verify::{Verification, verify};
use crate::exchange::World;
use crate::fault::{Fault, Kind, Result};
use crate::measure::bench::{Measured, Repeat};
use crate::measure::collectives::collectives;
use crate::measure::storage::storage;
use crate::plan::arrange::{Files, Naming, RankName};
use crate::plan::build::{Leftovers, Select};
use crate::report::{Report, save_picture};
use crate::store::full_dir::MAP_BYTES_MAX;
use crate::store::io::ReadFile;
use std::collections::BTreeMap;
use std::path::Path;

/// Most bytes of tensors in a Hugging Face file.
pub(super) const HF_FILE_BYTES_MAX: u64 = 5_000_000_000;
/// Most bytes of tensors in a part file of MindSpore's.
const PART_FILE_BYTES_MAX: u64 = 3 << 30;

/// A command ready to run: all that can be checked without the others has been.
pub(super) struct Prepared {
    work: Work,
    progress: ProgressMode,
}

enum Work {
    Job(Box<Job>),
    Diff(Comparison),
    Convert(Conversion),
    Bench(BenchCommand),
    Verify(Verification),
}

/// What a command of all processes has come to.
pub(super) enum Done {
    Outcome(Box<Outcome>),
    Measured(Measured),
}

impl Done {
    pub(super) fn ok(&self) -> bool {
        match self {
            Done::Outcome(outcome) => outcome.ok,
            Done::Measured(measured) => measured.ok,
        }
    }
}

impl Prepared {
    /// Checks a command's arguments.
    ///
    /// # Errors
    /// [`Kind::Usage`].
    pub(super) fn new(command: &Command) -> Result<Prepared> {
        let job = |job: Job, moving: &MoveArgs| (Work::Job(Box::new(job)), moving.progress);
        let (work, progress) = match command {
            Command::Reshard(args) => job(reshard(args)?, &args.moving),
            Command::Unify(args) => job(unify(args)?, &args.moving),
            Command::Split(args) => job(split(args)?, &args.moving),
            Command::Diff(args) => (Work::Diff(comparison(args)), args.moving.progress),
            Command::Convert(args) => {
                let conversion = convert::conversion(args)?;
                (Work::Convert(conversion), args.moving.progress)
            }
            Command::Verify(args) => {
                let verification = Verification {
                    directory: args.directory.clone(),
                    against: args.against.clone(),
                };
                (Work::Verify(verification), ProgressMode::Never)
            }
            Command::Import(args) => job(model::import(args)?, &args.moving),
            Command::Export(args) => job(model::export(args)?, &args.moving),
            Command::Bench(command) => (Work::Bench(command.clone()), ProgressMode::Never),
            Command::Strategy(_) | Command::Inspect(_) | Command::Simulate(_) => {
                return Err(Fault::new(
                    Kind::Internal,
                    "this command needs no other processes",
                ));
            }
        };
        Ok(Prepared { work, progress })
    }

    pub(super) fn shows_progress(&self) -> bool {
        self.progress == ProgressMode::Auto
    }

    /// Runs it. Collective.
    pub(super) fn run(&self, world: &World, observer: &mut Observer<'_>) -> Result<Done> {
        let outcome = match &self.work {
            Work::Job(job) => run(world, job, observer),
            Work::Verify(verification) => verify(world, verification),
            Work::Diff(comparison) => diff(world, comparison, observer),
            Work::Convert(conversion) => {
                crate::engine::convert::convert(world, conversion, observer)
            }
            Work::Bench(command) => return bench(world, command).map(Done::Measured),
        };
        outcome.map(|outcome| Done::Outcome(Box::new(outcome)))
    }

    /// Tells what it has come to. Local.
    pub(super) fn tell(&self, done: &Done, report: &Report) -> Result<()> {
        match done {
            Done::Outcome(outcome) => report.outcome(outcome),
            Done::Measured(measured) => {
                if let Work::Bench(command) = &self.work
                    && let Some(path) = &repeat_args(command).svg
                {
                    save_picture(path, &Report::measured_picture(measured))?;
                }
                report.measured(measured)
            }
        }
    }
}

fn repeat_args(command: &BenchCommand) -> &RepeatArgs {
    match command {
        BenchCommand::Collectives { repeat, .. }
        | BenchCommand::Storage { repeat, .. }
        | BenchCommand::Reshard { repeat, .. } => repeat,
    }
}

fn bench(world: &World, command: &BenchCommand) -> Result<Measured> {
    let args = repeat_args(command);
    let repeat = Repeat {
        iterations: args.iterations,
        warmup: args.warmup,
    };
    match command {
        BenchCommand::Collectives { max_size, .. } => collectives(world, repeat, *max_size),
        BenchCommand::Storage { dir, bytes, .. } => storage(world, repeat, dir, *bytes),
        BenchCommand::Reshard { dir, bytes, .. } => {
            crate::measure::reshard::reshard(world, repeat, dir, *bytes)
        }
    }
}

fn reshard(args: &ReshardArgs) -> Result<Job> {
    let mut options = args.writing.options(&args.moving);
    options.in_place = args.in_place;
    let destination = args.dst.as_ref().unwrap_or(&args.src);
    Ok(Job {
        command: "reshard",
        source: args.src.clone(),
        source_strategy: args.src_strategy.clone(),
        file_suffix: args.file_suffix.clone(),
        destination: destination.clone(),
        destination_strategy: args.dst_strategy.clone(),
        select: Select {
            filter_out_prefixes: args.filter_out_param_prefix.clone(),
            written: name_map(args.name_map.as_deref())?,
            read: BTreeMap::new(),
            view: None,
        },
        leftovers: Leftovers::Reshard(args.unmatched),
        files: Files::Ranks {
            name: RankName::new(&args.prefix, true),
            remove_redundancy: args.remove_redundancy,
        },
        format: args.writing.format,
        view: None,
        extras: Vec::new(),
        options,
    })
}

fn unify(args: &UnifyArgs) -> Result<Job> {
    let mut options = args.writing.options(&args.moving);
    if args.gather_to_root {
        options.placement = Placement::Root;
    }
    let file_bytes_max = args.max_shard_size.unwrap_or(match args.naming {
        Naming::Hf | Naming::HfOnly => HF_FILE_BYTES_MAX,
        Naming::Mindspore => PART_FILE_BYTES_MAX,
    });
    Ok(Job {
        command: "unify",
        source: args.src.clone(),
        source_strategy: args.src_strategy.clone(),
        file_suffix: args.file_suffix.clone(),
        destination: args.dst.clone(),
        destination_strategy: None,
        select: Select {
            filter_out_prefixes: args.filter_out_param_prefix.clone(),
            written: name_map(args.name_map.as_deref())?,
            read: BTreeMap::new(),
            view: None,
        },
        leftovers: Leftovers::Unify,
        files: Files::Full {
            naming: args.naming,
            file_bytes_max,
        },
        format: args.writing.format,
        view: None,
        extras: Vec::new(),
        options,
    })
}

fn split(args: &SplitArgs) -> Result<Job> {
    Ok(Job {
        command: "split",
        source: args.src.clone(),
        source_strategy: None,
        file_suffix: None,
        destination: args.dst.clone(),
        destination_strategy: args.dst_strategy.clone(),
        select: Select {
            filter_out_prefixes: Vec::new(),
            written: BTreeMap::new(),
            read: name_map(args.name_map.as_deref())?,
            view: None,
        },
        leftovers: Leftovers::Split,
        files: Files::Ranks {
            name: RankName::new("net", false),
            remove_redundancy: args.remove_redundancy,
        },
        format: args.writing.format,
        view: None,
        extras: Vec::new(),
        options: args.writing.options(&args.moving),
    })
}

fn comparison(args: &DiffArgs) -> Comparison {
    Comparison {
        a: args.a.clone(),
        a_strategy: args.a_strategy.clone(),
        b: args.b.clone(),
        b_strategy: args.b_strategy.clone(),
        file_suffix: args.file_suffix.clone(),
        options: args.moving.options(),
    }
}

/// Reads a map of names: a flat JSON object of texts.
pub(super) fn name_map(path: Option<&Path>) -> Result<BTreeMap<String, String>> {
    let Some(path) = path else {
        return Ok(BTreeMap::new());
    };
    let bytes = ReadFile::open(path)?.read_all(MAP_BYTES_MAX)?;
    let map: BTreeMap<String, String> = serde_json::from_slice(&bytes).map_err(|error| {
        let message = format!("is no JSON map of names to names: {error}");
        Fault::new(Kind::Corrupt, message).file(path.display().to_string())
    })?;
    let mut seen = BTreeMap::new();
    for (from, to) in &map {
        if let Some(other) = seen.insert(to, from) {
            let message = format!("gives '{other}' and '{from}' the same name '{to}'");
            return Err(Fault::new(Kind::Corrupt, message).file(path.display().to_string()));
        }
    }
    Ok(map)
}
