//! `shardloom diff`: two checkpoints, tensor by tensor.

use crate::cli::command::{Command, Prepared};
use crate::cli::flags::moving::MoveArgs;
use crate::cli::flags::reading::{VerifyArgs, WeightsArgs};
use crate::fault::Result;
use crate::job::{Goal, Job};
use crate::source::Reading;
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
    /// Strategy of the first [default: full weights].
    #[arg(long)]
    a_strategy: Option<PathBuf>,
    /// Strategy of the second [default: full weights].
    #[arg(long)]
    b_strategy: Option<PathBuf>,
    /// Which of several files in a rank directory, on both sides.
    #[arg(long)]
    file_suffix: Option<String>,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    verify: VerifyArgs,
    #[command(flatten)]
    moving: MoveArgs,
}

impl Command for Diff {
    fn prepare(self) -> Result<Prepared> {
        let side = |path, strategy| Reading {
            weights: self.weights.weights.clone(),
            ..Reading::checkpoint(path, strategy, self.file_suffix.clone())
        };
        let other = side(self.b, self.b_strategy);
        let job = Job {
            command: "diff",
            reading: Reading {
                verify: self.verify.verify,
                ..side(self.a, self.a_strategy)
            },
            goal: Goal::Compare(Box::new(other)),
            moving: self.moving.moving(None)?,
            dry_run: false,
        };
        Ok(Prepared::job(&self.moving, job))
    }
}
