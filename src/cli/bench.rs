//! `shardloom bench …`: what this machine can do.

use crate::cli::command::{Command, Prepared, Told};
use crate::cli::flags::size::parse_size;
use crate::exchange::World;
use crate::fault::Result;
use crate::measure::bench::{Measured, Repeat};
use crate::measure::collectives::collectives;
use crate::measure::reshard::reshard;
use crate::measure::storage::storage;
use crate::report::{Report, save_picture};
use clap::{Args, Subcommand};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  mpirun -n 8 shardloom bench collectives --max-size 16MiB
  mpirun -n 8 shardloom bench storage --dir /scratch --bytes 1GiB
  mpirun -n 4 shardloom bench reshard --dir /scratch --svg reshard.svg";

/// Measure what this machine can do, with the program's own primitives.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Bench {
    #[command(subcommand)]
    question: Question,
}

/// What is measured.
#[derive(Clone, Debug, Subcommand)]
enum Question {
    /// Messages, all-to-all, gather and broadcast between the processes, by message size.
    Collectives {
        /// Largest message.
        #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size)]
        max_size: u64,
        #[command(flatten)]
        repeat: RepeatArgs,
    },
    /// Writing, flushing and reading a file by each process, by the size of a call.
    Storage {
        #[command(flatten)]
        place: PlaceArgs,
        /// Size of each process's file.
        #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
        bytes: u64,
        #[command(flatten)]
        repeat: RepeatArgs,
    },
    /// A reshard of generated weights from 8 to 4 tensor-parallel ranks, against plain copying.
    Reshard {
        #[command(flatten)]
        place: PlaceArgs,
        /// Size of the weights.
        #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
        bytes: u64,
        #[command(flatten)]
        repeat: RepeatArgs,
    },
}

/// Where it is measured.
#[derive(Clone, Debug, Args)]
struct PlaceArgs {
    /// Existing directory to write in.
    #[arg(long)]
    dir: PathBuf,
}

/// How often something is measured.
#[derive(Clone, Debug, Args)]
struct RepeatArgs {
    /// How often it is measured.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    iterations: u32,
    /// How often it is done before that.
    #[arg(long, value_name = "N", default_value_t = 1)]
    warmup: u32,
    /// Draw the result.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl Command for Bench {
    fn prepare(self) -> Result<Prepared> {
        Ok(Prepared::together(move |world| {
            let measured = self.question.measure(world)?;
            let picture = self.question.repeat().svg.clone();
            Ok(Told::new(measured.ok, move |report| {
                if let Some(path) = &picture {
                    save_picture(path, &Report::measured_picture(&measured))?;
                }
                report.measured(&measured)
            }))
        }))
    }
}

impl Question {
    fn repeat(&self) -> &RepeatArgs {
        match self {
            Question::Collectives { repeat, .. }
            | Question::Storage { repeat, .. }
            | Question::Reshard { repeat, .. } => repeat,
        }
    }

    /// Measures it. Collective.
    fn measure(&self, world: &World) -> Result<Measured> {
        let repeat = Repeat {
            iterations: self.repeat().iterations,
            warmup: self.repeat().warmup,
        };
        match self {
            Question::Collectives { max_size, .. } => collectives(world, repeat, *max_size),
            Question::Storage { place, bytes, .. } => storage(world, repeat, &place.dir, *bytes),
            Question::Reshard { place, bytes, .. } => reshard(world, repeat, &place.dir, *bytes),
        }
    }
}
