//! `shardloom strategy …`: one process, no MPI.

mod derive;
mod new;
mod rank_files;
pub(super) mod recognise;

use crate::cli::command::{Command, Prepared};
use crate::cli::flags::strategy::{NetworkArgs, strategy};
use crate::cli::output::check_strategy;
use crate::fault::{Fault, Kind, Result};
use crate::front::Deriving;
use crate::report::Report;
use crate::source::nothing::absent;
use crate::source::strategy_files::{read_alone, strategy_bytes};
use crate::store::single::write_single;
use crate::strategy::merge::merge;
use crate::strategy::{self, Form, StrategyFile, StrategyInput, show};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const EXAMPLES: &str = "\
Examples:
  shardloom strategy merge strategy --output merged.ckpt
  shardloom strategy derive --config train.yaml --output strategy --merged job.ckpt
  shardloom strategy new --mesh dp=2,tp=4 --rule '*.wq.weight=tp,-' --weights full --output s.json";

/// Merge, show, compare and write strategy files.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Strategy {
    #[command(subcommand)]
    action: Action,
}

/// What is done.
#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Join the files of a pipeline's stages into one.
    #[command(before_help = "\
Examples:
  shardloom strategy merge strategy --output merged.ckpt
  shardloom strategy merge first.ckpt second.ckpt --output merged.ckpt")]
    Merge {
        /// Strategy files, or directories of them.
        #[arg(required = true)]
        sources: Vec<PathBuf>,
        /// File to write.
        #[arg(long)]
        output: PathBuf,
        /// Replace the output if it exists.
        #[arg(long)]
        overwrite: bool,
    },
    /// Print layouts: what each rank holds, and who else holds it.
    #[command(before_help = "\
Examples:
  shardloom strategy show strategy
  shardloom strategy show strategy --rank 0
  shardloom strategy show strategy --param w1 --shape 8,16")]
    Show {
        /// A strategy file or directory, a layout (dp=2,tp=4) or a trainer's YAML file.
        #[arg(value_parser = strategy())]
        file: StrategyInput,
        #[command(flatten)]
        network: NetworkArgs,
        /// Only this parameter, rank by rank.
        #[arg(long, value_name = "P")]
        param: Option<String>,
        /// Only this rank.
        #[arg(long, value_name = "R")]
        rank: Option<u32>,
        /// Full shape of the parameter, to print regions in elements: 1024,4096.
        #[arg(long, value_delimiter = ',', requires = "param")]
        shape: Option<Vec<u64>>,
    },
    /// Compare what two strategies give each rank.
    #[command(before_help = "\
Examples:
  shardloom strategy diff strategy new
  shardloom strategy diff strategy merged.ckpt --json")]
    Diff {
        /// The first strategy: files, a layout (dp=2,tp=4) or a trainer's YAML file.
        #[arg(value_parser = strategy())]
        a: StrategyInput,
        /// The second.
        #[arg(value_parser = strategy())]
        b: StrategyInput,
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Write the strategy that a training job would write, without starting it.
    #[command(before_help = "\
Examples:
  shardloom strategy derive --config train.yaml --output strategy
  shardloom strategy derive --parallel dp=2,tp=4 --model Qwen3-8B --names mcore --output strategy")]
    Derive(Box<derive::DeriveArgs>),
    /// Tell which layouts fit the shapes of rank files whose strategy is lost.
    #[command(before_help = "\
Examples:
  shardloom strategy recognise ckpt --model Qwen3-8B
  shardloom strategy recognise ckpt --model Qwen3-8B --json")]
    Recognise(recognise::RecogniseArgs),
    /// Write a strategy from a mesh and rules.
    #[command(before_help = "\
Examples:
  shardloom strategy new --mesh dp=2,tp=4 --rule '*.wq.weight=tp,-' --weights full --output s.json
  shardloom strategy new --like strategy --mesh dp=4,tp=2 --output s.json")]
    New(Box<new::NewArgs>),
}

impl Command for Strategy {
    fn prepare(self) -> Result<Prepared> {
        Ok(Prepared::alone(move |report| self.action.run(report)))
    }
}

impl Action {
    /// Does it; gives whether all is well (for diff: nothing differs).
    fn run(&self, report: &Report) -> Result<bool> {
        match self {
            Action::Merge {
                sources,
                output,
                overwrite,
            } => {
                let inputs = sources.iter().map(|path| ("strategy", path.as_path()));
                check_strategy(output, *overwrite, &inputs.collect::<Vec<_>>())?;
                join(sources, output, report)?;
            }
            Action::Show {
                file,
                network,
                param,
                rank,
                shape,
            } => {
                let strategy = asked(file, network)?;
                let shown = show::show(&strategy, param.as_deref(), *rank, shape.as_deref())?;
                report.data(&shown, &shown.text())?;
            }
            Action::Diff { a, b, network } => {
                let differences = show::diff(&asked(a, network)?, &asked(b, network)?);
                report.data(&differences, &differences.text())?;
                return Ok(differences.is_empty());
            }
            Action::Derive(args) => args.run(report)?,
            Action::Recognise(args) => return args.run(report),
            Action::New(args) => args.run(report)?,
        }
        Ok(true)
    }
}

/// A strategy as it was asked for.
fn asked(input: &StrategyInput, network: &NetworkArgs) -> Result<strategy::Strategy> {
    let deriving = Deriving {
        model: network.model.model.clone(),
        names: network.names,
        ..Deriving::default()
    };
    read_alone(&deriving.make_alone(input.clone())?)
}

/// Joins strategy files into one.
fn join(sources: &[PathBuf], output: &Path, report: &Report) -> Result<()> {
    let files = read_all(sources)?;
    let merged = merge(&views(&files))?;
    if merged.form != Form::of(&output.display().to_string()) {
        tracing::warn!(
            "{}: is written in the form of the files merged, which its name doesn't tell; \
             programs go by the name",
            output.display()
        );
    }

    write_single(output, &merged.bytes)?;
    report.strategy_written(output, merged.stages, files.len() as u64)
}

fn read_all(sources: &[PathBuf]) -> Result<Vec<(String, Arc<Vec<u8>>)>> {
    let mut files = Vec::new();
    for source in sources {
        match strategy_bytes(source)? {
            Some(found) => files.extend(found),
            None => {
                return Err(Fault {
                    kind: Kind::Strategy,
                    ..absent(source)
                });
            }
        }
    }
    Ok(files)
}

fn views(files: &[(String, Arc<Vec<u8>>)]) -> Vec<StrategyFile<'_>> {
    files
        .iter()
        .map(|(name, bytes)| StrategyFile { name, bytes })
        .collect()
}
