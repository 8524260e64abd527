//! `shardloom diff`: two checkpoints, tensor by tensor.

use crate::cli::command::{Command, Prepared};
use crate::cli::flags::moving::MoveArgs;
use crate::cli::flags::name_map::name_map;
use crate::cli::flags::reading::{VerifyArgs, WeightsArgs};
use crate::cli::flags::strategy::{NetworkArgs, strategy};
use crate::fault::Result;
use crate::job::{Comparing, Goal, Job};
use crate::source::{Reading, Weights};
use crate::strategy::StrategyInput;
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  mpirun -n 8 shardloom diff ckpt out --a-strategy strategy --b-strategy new
  shardloom diff ckpt full --a-strategy strategy
  shardloom diff net.ckpt net.safetensors";

/// Compare two checkpoints tensor by tensor, across layouts and formats.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
#[command(mut_arg("verify", |arg| {
    arg.help("How what the first has several times is compared; without a value: all. Of the second every byte is")
}))]
pub(crate) struct Diff {
    /// The first checkpoint.
    a: PathBuf,
    /// The second.
    b: PathBuf,
    /// Strategy of the first: files, a layout (dp=2,tp=4) or a trainer's YAML file [default: full weights].
    #[arg(long, value_name = "S", value_parser = strategy())]
    a_strategy: Option<StrategyInput>,
    /// Strategy of the second [default: full weights].
    #[arg(long, value_name = "S", value_parser = strategy())]
    b_strategy: Option<StrategyInput>,
    #[command(flatten)]
    network: NetworkArgs,
    /// Which of several files in a rank directory, on both sides.
    #[arg(long)]
    file_suffix: Option<String>,
    /// Leave out parameters whose names begin so (may be given several times).
    #[arg(long, value_name = "P")]
    filter_out_param_prefix: Vec<String>,
    /// Take elements that are no further apart than X for equal.
    #[arg(long, value_name = "X", value_parser = parse_distance)]
    max_abs: Option<f64>,
    /// Name at most so many tensors.
    #[arg(long, value_name = "N")]
    max_lines: Option<usize>,
    /// JSON or YAML file {name in the first: name in the second}.
    #[arg(long, value_name = "FILE")]
    name_map: Option<PathBuf>,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    verify: VerifyArgs,
    #[command(flatten)]
    moving: MoveArgs,
}

impl Command for Diff {
    const IS_JOB: bool = true;

    fn prepare(self) -> Result<Prepared> {
        let side = |path, strategy| Reading {
            weights: self.weights.meant(Weights::Told),
            ..Reading::checkpoint(path, strategy, self.file_suffix.clone())
        };
        let deriving = self.network.deriving(&self.a).and(&self.b);
        let other = Reading {
            verify: self.verify.verify,
            ..side(self.b, self.b_strategy)
        };
        let job = Job {
            command: "diff",
            reading: Reading {
                verify: self.verify.verify,
                ..side(self.a, self.a_strategy)
            },
            goal: Goal::Compare(Box::new(Comparing {
                other,
                filter_out_prefixes: self.filter_out_param_prefix,
                names: name_map(self.name_map.as_deref())?,
                tolerance: self.max_abs,
                lines_max: self.max_lines,
            })),
            moving: self.moving.moving(None)?,
            dry_run: false,
        };
        Prepared::derived(&self.moving, deriving, job)
    }
}

/// A distance: a finite number from 0.
fn parse_distance(text: &str) -> std::result::Result<f64, String> {
    let value: Option<f64> = text.parse().ok();
    let proper = value.filter(|value| value.is_finite() && *value >= 0.0);
    proper.ok_or_else(|| format!("'{text}' is no number from 0, as 1e-3"))
}
