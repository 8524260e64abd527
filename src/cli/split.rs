//! `shardloom split`: distributed weights of full ones.

use crate::cli::command::{Command, Prepared};
use crate::cli::flags::affix::AffixArgs;
use crate::cli::flags::moving::MoveArgs;
use crate::cli::flags::reading::{CheckArgs, NameMapArgs, WeightsArgs};
use crate::cli::flags::step::StepArgs;
use crate::cli::flags::strategy::NetworkArgs;
use crate::cli::flags::writing::{CutArgs, DestinationArgs, RedundancyArgs, WriteArgs};
use crate::fault::Result;
use crate::front::Deriving;
use crate::job::{Goal, Job, Write};
use crate::plan::arrange::{Files, RankName};
use crate::plan::build::{Leftovers, Select};
use crate::source::derived::Derived;
use crate::source::{Reading, Weights};
use crate::store::formats::laid::DirectoryAsked;
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  mpirun -n 8 shardloom split --src full --dst out --dst-strategy strategy
  shardloom split --src full --dst out --dst-strategy strategy --remove-redundancy
  shardloom split --src full --dst out --dst-strategy strategy --format ckpt";

/// Full weights -> distributed weights.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
#[command(mut_arg("name_map", |arg| {
    arg.help("JSON or YAML file {name in the strategy: name in the files}")
}))]
pub(crate) struct Split {
    /// A directory of full weights, or one file.
    #[arg(long)]
    src: PathBuf,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    affixes: AffixArgs,
    #[command(flatten)]
    destination: DestinationArgs,
    #[command(flatten)]
    cut: CutArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    redundancy: RedundancyArgs,
    #[command(flatten)]
    step: StepArgs,
    #[command(flatten)]
    names: NameMapArgs,
    #[command(flatten)]
    moving: MoveArgs,
    #[command(flatten)]
    checks: CheckArgs,
    #[command(flatten)]
    writing: WriteArgs,
}

impl Command for Split {
    const IS_JOB: bool = true;

    fn prepare(self) -> Result<Prepared> {
        let moving = self.moving.clone();
        let (deriving, job) = self.job()?;
        Prepared::derived(&moving, deriving, job)
    }
}

impl Split {
    /// The job, and what its strategies are derived from.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Usage`], and whatever the files say that the arguments name.
    pub(crate) fn job(self) -> Result<(Deriving, Job)> {
        let remove_redundancy = self.redundancy.remove_redundancy;
        let files = Files::Ranks {
            name: RankName::new("net", false),
            remove_redundancy,
        };
        let asked = DirectoryAsked {
            remove_redundancy,
            ..DirectoryAsked::default()
        };
        let files = self.step.files(self.writing.files(files, asked))?;
        let deriving = self.network.deriving(&self.src);
        let derived = Derived {
            affixes: self.affixes.affixes(),
            ..Derived::default()
        };
        let reading = Reading {
            weights: self.weights.meant(Weights::Told),
            ..Reading::checkpoint(self.src, None, None)
        };
        let job = Job {
            command: "split",
            reading: self.checks.reading(reading, derived),
            goal: Goal::Write(Box::new(Write {
                select: Select {
                    filter_out_prefixes: Vec::new(),
                    written: BTreeMap::new(),
                    read: self.names.read()?,
                    view: None,
                },
                leftovers: Leftovers::Split(self.checks.unmatched.unmatched),
                files,
                format: self.writing.files_format(),
                view: None,
                extras: Vec::new(),
                step: self.step.step,
                writing: self
                    .writing
                    .writing(self.destination.dst, self.cut.dst_strategy)
                    .keeping(&self.names.name_map),
            })),
            moving: self.writing.moving(&self.moving)?,
            dry_run: self.writing.dry_run,
        };
        Ok((deriving, job))
    }
}
