//! `shardloom verify`: files against the manifest that was written with them.

use crate::cli::command::{Command, Prepared, Told};
use crate::cli::flags::moving::ProgressArgs;
use crate::cli::flags::report::ReportArgs;
use crate::cli::flags::strategy::{NetworkArgs, strategy};
use crate::fault::Result;
use crate::job::repair::{Origin, Repair, repair};
use crate::job::verify::{Subset, Verification, verify};
use crate::source::pattern;
use crate::strategy::StrategyInput;
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  mpirun -n 8 shardloom verify out
  shardloom verify out --against full
  shardloom verify out --repair --from full --strategy new";

/// Check a directory's files against the manifest that was written with them.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Verify {
    /// A directory with a manifest (shardloom.json).
    directory: PathBuf,
    /// Compare the tensors with those of this directory, in whatever layout, by the digests of both
    /// manifests alone.
    #[arg(long, value_name = "DIR", conflicts_with = "repair")]
    against: Option<PathBuf>,
    /// Make damaged files anew, each in one step, from equal copies of their parts: replicas in the
    /// directory itself, or what --from names.
    #[arg(long)]
    repair: bool,
    /// Another copy of the same checkpoint, in the same layout or any other. It is only read.
    #[arg(long, value_name = "DIR", requires = "repair")]
    from: Option<PathBuf>,
    /// Strategy of the damaged directory, if --from has another layout [default: full weights].
    #[arg(long, value_name = "S", requires = "from", value_parser = strategy())]
    strategy: Option<StrategyInput>,
    /// Strategy of --from, if it has another layout [default: full weights].
    #[arg(long, value_name = "S", requires = "from", value_parser = strategy())]
    from_strategy: Option<StrategyInput>,
    #[command(flatten)]
    network: NetworkArgs,
    /// Check the N-th of T parts of the files, whole files of nearly as many bytes: a long check spread over
    /// several runs. Example: 2/5.
    #[arg(long, value_name = "N/T", conflicts_with = "against")]
    subset: Option<Subset>,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    report: ReportArgs,
}

impl Command for Verify {
    const IS_JOB: bool = true;

    fn prepare(mut self) -> Result<Prepared> {
        // A manifest is that of the directory in which files of a pattern are.
        if pattern::is_one(&self.directory) {
            self.directory = pattern::base(&self.directory);
        }
        let (asked, progress) = (self.report.clone(), self.progress.clone());
        let other = self.against.as_deref().or(self.from.as_deref());
        asked.check_paths(&[
            Some(("directory", self.directory.as_path())),
            other.map(|other| ("other directory", other)),
        ])?;
        if self.repair {
            let deriving = self.network.deriving(&self.directory);
            let (mut own, mut other) = (self.strategy, self.from_strategy);
            deriving.check([&own, &other])?;
            return Ok(Prepared::told(&progress, asked, move |world, observer| {
                let deriving = self.from.iter().fold(deriving, |all, from| all.and(from));
                deriving.make(world, &mut own)?;
                deriving.make(world, &mut other)?;
                let work = Repair {
                    directory: self.directory,
                    strategy: own,
                    origin: self.from.map(|path| Origin {
                        path,
                        strategy: other,
                    }),
                    subset: self.subset,
                };
                repair(world, &work, observer).map(Told::outcome)
            }));
        }
        let verification = Verification {
            directory: self.directory,
            against: self.against,
            subset: self.subset,
        };
        Ok(Prepared::told(&progress, asked, move |world, observer| {
            verify(world, &verification, observer).map(Told::outcome)
        }))
    }
}
