//! The commands that are jobs: reshard, unify, split, convert, diff.

use crate::cli::args::{
    BenchCommand, CheckpointsCommand, Command, DiffArgs, LoadArgs, MoveArgs, ProgressMode,
    RepeatArgs, ReshardArgs, SplitArgs, UnifyArgs, WriteArgs, WrittenFormat,
};
use crate::cli::lora::LoraArgs;
use crate::cli::name_map::name_map;
use crate::cli::{Told, checkpoints, convert, load, model};
use crate::destination::{Placement, Writing};
use crate::exchange::World;
use crate::fault::{Fault, Kind, Result};
use crate::job::verify::{Verification, verify};
use crate::job::{Goal, Job, Write, run};
use crate::measure::bench::{Measured, Repeat};
use crate::measure::collectives::collectives;
use crate::measure::storage::storage;
use crate::plan::arrange::{Files, Naming, RankName};
use crate::plan::build::{Leftovers, Select};
use crate::plan::iteration::Iteration;
use crate::report::{Report, save_picture};
use crate::source::Reading;
use crate::source::derived::Derived;
use crate::transport::Observer;
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
    Bench(BenchCommand),
    Verify(Verification),
    Checkpoints(CheckpointsCommand),
    Load(LoadArgs),
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
            Command::Diff(args) => job(diff(args)?, &args.moving),
            Command::Convert(args) => job(convert::convert(args)?, &args.moving),
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
            Command::Checkpoints(command) => {
                (Work::Checkpoints(command.clone()), ProgressMode::Never)
            }
            Command::Load(args) => (Work::Load(args.clone()), args.moving.progress),
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
    pub(super) fn run(&self, world: &World, observer: &mut Observer<'_>) -> Result<Told> {
        let outcome = match &self.work {
            Work::Job(job) => run(world, job, observer),
            Work::Verify(verification) => verify(world, verification),
            Work::Bench(command) => return bench(world, command).map(Told::Measured),
            Work::Checkpoints(command) => return checkpoints::run(world, command),
            Work::Load(args) => return load::run(world, args, observer),
        };
        outcome.map(|outcome| Told::Outcome(Box::new(outcome)))
    }

    /// Tells what it has come to. Local.
    pub(super) fn tell(&self, done: &Told, report: &Report) -> Result<()> {
        match done {
            Told::Outcome(outcome) => report.outcome(outcome),
            Told::Data { fields, text } => report.data(fields, text),
            Told::Measured(measured) => {
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
    let destination = args.dst.as_ref().unwrap_or(&args.src);
    Ok(Job {
        command: "reshard",
        reading: Reading {
            derived: merging(&args.lora)?,
            verify: args.writing.verify,
            ..Reading::checkpoint(
                args.src.clone(),
                args.src_strategy.clone(),
                args.file_suffix.clone(),
            )
        },
        goal: Goal::Write(Box::new(Write {
            select: Select {
                filter_out_prefixes: args.filter_out_param_prefix.clone(),
                written: name_map(args.name_map.as_deref())?,
                read: BTreeMap::new(),
                view: None,
            },
            leftovers: Leftovers::Reshard(args.unmatched),
            files: written(
                &args.writing,
                args.remove_redundancy,
                Some(&args.prefix),
                Files::Ranks {
                    name: RankName::new(&args.prefix, true),
                    remove_redundancy: args.remove_redundancy,
                },
            ),
            format: args.writing.format.map(WrittenFormat::of_files),
            view: None,
            extras: Vec::new(),
            writing: Writing {
                in_place: args.in_place,
                ..args
                    .writing
                    .writing(destination.clone(), args.dst_strategy.clone())
            },
        })),
        moving: args.writing.moving(&args.moving)?,
        dry_run: args.writing.dry_run,
    })
}

fn unify(args: &UnifyArgs) -> Result<Job> {
    let placement = if args.gather_to_root {
        Placement::Root
    } else {
        args.writing.placement
    };
    let file_bytes_max = args.max_shard_size.unwrap_or(match args.naming {
        Naming::Hf | Naming::HfOnly => HF_FILE_BYTES_MAX,
        Naming::Mindspore => PART_FILE_BYTES_MAX,
    });
    Ok(Job {
        command: "unify",
        reading: Reading {
            derived: merging(&args.lora)?,
            verify: args.writing.verify,
            ..Reading::checkpoint(
                args.src.clone(),
                args.src_strategy.clone(),
                args.file_suffix.clone(),
            )
        },
        goal: Goal::Write(Box::new(Write {
            select: Select {
                filter_out_prefixes: args.filter_out_param_prefix.clone(),
                written: name_map(args.name_map.as_deref())?,
                read: BTreeMap::new(),
                view: None,
            },
            leftovers: Leftovers::Unify,
            files: written(
                &args.writing,
                false,
                None,
                Files::Full {
                    naming: args.naming,
                    file_bytes_max,
                },
            ),
            format: args.writing.format.map(WrittenFormat::of_files),
            view: None,
            extras: Vec::new(),
            writing: Writing {
                placement,
                ..args.writing.writing(args.dst.clone(), None)
            },
        })),
        moving: args.writing.moving(&args.moving)?,
        dry_run: args.writing.dry_run,
    })
}

fn split(args: &SplitArgs) -> Result<Job> {
    Ok(Job {
        command: "split",
        reading: Reading {
            derived: Derived::default(),
            verify: args.writing.verify,
            ..Reading::checkpoint(args.src.clone(), None, None)
        },
        goal: Goal::Write(Box::new(Write {
            select: Select {
                filter_out_prefixes: Vec::new(),
                written: BTreeMap::new(),
                read: name_map(args.name_map.as_deref())?,
                view: None,
            },
            leftovers: Leftovers::Split,
            files: written(
                &args.writing,
                args.remove_redundancy,
                None,
                Files::Ranks {
                    name: RankName::new("net", false),
                    remove_redundancy: args.remove_redundancy,
                },
            ),
            format: args.writing.format.map(WrittenFormat::of_files),
            view: None,
            extras: Vec::new(),
            writing: args
                .writing
                .writing(args.dst.clone(), args.dst_strategy.clone()),
        })),
        moving: args.writing.moving(&args.moving)?,
        dry_run: args.writing.dry_run,
    })
}

/// What an adapter makes of the source's tensors.
pub(super) fn merging(args: &LoraArgs) -> Result<Derived> {
    Ok(Derived {
        lora: args.adapter()?,
        ..Derived::default()
    })
}

fn diff(args: &DiffArgs) -> Result<Job> {
    let side = |path: &Path, strategy: Option<&Path>| {
        let strategy = strategy.map(Path::to_path_buf);
        Reading::checkpoint(path.to_path_buf(), strategy, args.file_suffix.clone())
    };
    Ok(Job {
        command: "diff",
        reading: side(&args.a, args.a_strategy.as_deref()),
        goal: Goal::Compare(Box::new(side(&args.b, args.b_strategy.as_deref()))),
        moving: args.moving.moving(None)?,
        dry_run: false,
    })
}

/// The arrangement to write: `files`, or a checkpoint 2.0 if that is asked for.
pub(super) fn written(
    args: &WriteArgs,
    remove_redundancy: bool,
    prefix: Option<&str>,
    files: Files,
) -> Files {
    if args.format != Some(WrittenFormat::Checkpoint2) {
        return files;
    }
    // `net` is the beginning of a rank file's name; here there is none unless one is given.
    let prefix = prefix.filter(|prefix| *prefix != "net");
    Files::Iteration(Iteration {
        prefix: prefix.map(str::to_owned),
        remove_redundancy,
        ..Iteration::default()
    })
}
