//! `shardloom strategy …`: one process, no MPI.

mod derive;
mod rank_files;
pub(super) mod recognise;

use crate::cli::command::{Command, Prepared};
use crate::cli::flags::strategy::{Deriving, NetworkArgs, strategy};
use crate::cli::output::{check_output, write_output};
use crate::fault::plain::Text;
use crate::fault::{Fault, Kind, Result};
use crate::job::inspect::full_tensors;
use crate::report::Report;
use crate::source::strategy_files::{read_alone, strategy_bytes};
use crate::strategy::derive::{Mesh, Rule};
use crate::strategy::like::like;
use crate::strategy::merge::merge;
use crate::strategy::{self, Form, StrategyFile, StrategyInput, show};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

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
    Derive(Box<derive::DeriveArgs>),
    /// Tell which layouts fit the shapes of rank files whose strategy is lost.
    Recognise(recognise::RecogniseArgs),
    /// Write a strategy from a mesh and rules.
    New {
        /// Mesh axes, slowest first; pp means pipeline stages: dp=2,tp=4,pp=2.
        #[arg(long)]
        mesh: String,
        /// An axis or - for each dimension of the tensors that match: '*.weight=tp,-'.
        #[arg(long = "rule", value_name = "GLOB=AXES")]
        rules: Vec<String>,
        /// Cut dimension 0 once more over this many replicas; -1: all.
        #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
        optimizer_shard: Option<i64>,
        /// Full weights that the strategy is for.
        #[arg(long, required_unless_present = "like")]
        weights: Option<PathBuf>,
        /// In place of rules and weights: a strategy whose axes, in their order, cut what those of the
        /// mesh are to cut.
        #[arg(long, value_name = "OLD", conflicts_with_all = ["weights", "rules", "optimizer_shard"])]
        like: Option<PathBuf>,
        /// File to write.
        #[arg(long)]
        output: PathBuf,
        /// Replace the output if it exists.
        #[arg(long)]
        overwrite: bool,
    },
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
                check_output(output, *overwrite, &inputs.collect::<Vec<_>>())?;
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
                report.data(&shown, &Text::of_lines(&shown.to_string()))?;
            }
            Action::Diff { a, b, network } => {
                let differences = show::diff(&asked(a, network)?, &asked(b, network)?);
                report.data(&differences, &Text::of_lines(&differences.to_string()))?;
                return Ok(differences.is_empty());
            }
            Action::Derive(args) => args.run(report)?,
            Action::Recognise(args) => return args.run(report),
            Action::New {
                mesh,
                rules,
                optimizer_shard,
                weights,
                like,
                output,
                overwrite,
            } => {
                let inputs = weights.iter().map(|path| ("weights", path.as_path()));
                let inputs = inputs.chain(like.iter().map(|path| ("strategy", path.as_path())));
                check_output(output, *overwrite, &inputs.collect::<Vec<_>>())?;
                let mesh = Mesh::parse(mesh)?;
                let made = match (like, weights) {
                    (Some(old), _) => cut_like(old, &mesh, output)?,
                    (None, Some(weights)) => {
                        cut_by(rules, *optimizer_shard, weights, &mesh, output)?
                    }
                    (None, None) => {
                        return Err(Fault::new(Kind::Usage, "give --weights, or --like"));
                    }
                };
                write_output(output, &made.bytes)?;
                report.strategy_made(output, &made.strategy, &made.rules, made.tensors)?;
            }
        }
        Ok(true)
    }
}

/// A strategy as it was asked for.
fn asked(input: &StrategyInput, network: &NetworkArgs) -> Result<strategy::Strategy> {
    let deriving = Deriving {
        renamed: None,
        rejoined: None,
        model: network.model.model.clone(),
        names: network.names,
        sources: Vec::new(),
    };
    read_alone(&deriving.make_alone(input.clone())?)
}

/// What `strategy new` has made.
struct Made {
    bytes: Vec<u8>,
    strategy: strategy::Strategy,
    /// How many tensors each rule cuts.
    rules: Vec<(String, u64)>,
    /// Tensors that rules could cut.
    tensors: usize,
}

/// What `strategy new` writes for rules, and its number of stages.
fn cut_by(
    rules: &[String],
    shard: Option<i64>,
    weights: &Path,
    mesh: &Mesh,
    output: &Path,
) -> Result<Made> {
    let rules = rules.iter().map(|rule| Rule::parse(rule));
    let rules = rules.collect::<Result<Vec<_>>>()?;
    let tensors = full_tensors(weights)?;
    let derived = strategy::derive::derive(mesh, &rules, shard, &tensors)?;
    let bytes = match Form::of(&output.display().to_string()) {
        Form::Json => derived.strategy.to_json()?,
        Form::Protobuf => derived.bytes,
    };
    Ok(Made {
        bytes,
        strategy: derived.strategy,
        rules: derived.rules,
        tensors: tensors.len(),
    })
}

/// What `strategy new` writes for an old strategy, in the form that the output's name tells.
fn cut_like(old: &Path, mesh: &Mesh, output: &Path) -> Result<Made> {
    let named = |fault: Fault| fault.file(old.display().to_string());
    let made = like(&read(old)?, mesh).map_err(named)?;
    let bytes = match Form::of(&output.display().to_string()) {
        Form::Json => made.to_json()?,
        Form::Protobuf => made.to_protobuf()?,
    };
    Ok(Made {
        bytes,
        strategy: made,
        rules: Vec::new(),
        tensors: 0,
    })
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
    write_output(output, &merged.bytes)?;
    report.strategy_written(output, merged.stages, files.len() as u64)
}

fn read_all(sources: &[PathBuf]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for source in sources {
        match strategy_bytes(source)? {
            Some(found) => files.extend(found),
            None => {
                let fault = Fault::new(Kind::Strategy, "doesn't exist");
                return Err(fault.file(source.display().to_string()));
            }
        }
    }
    Ok(files)
}

fn views(files: &[(String, Vec<u8>)]) -> Vec<StrategyFile<'_>> {
    files
        .iter()
        .map(|(name, bytes)| StrategyFile { name, bytes })
        .collect()
}

fn read(path: &Path) -> Result<strategy::Strategy> {
    let files = read_all(&[path.to_path_buf()])?;
    strategy::Strategy::read(&views(&files)).map_err(|fault| fault.file(path.display().to_string()))
}
