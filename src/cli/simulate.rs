//! `shardloom simulate`: a plan without data. One process, no MPI.

use crate::cli::command::{Command, Prepared};
use crate::cli::flags::choice::{Choice, choice};
use crate::cli::flags::moving::RoundArgs;
use crate::cli::flags::strategy::{NetworkArgs, strategy};
use crate::cli::flags::writing::CutArgs;
use crate::fault::Result;
use crate::measure::simulate::{Question, read_machine, simulate};
use crate::plan::simulate::Storage;
use crate::report::{Report, save_picture};
use crate::strategy::StrategyInput;
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  shardloom simulate --src-strategy strategy --dst-strategy new --shapes shapes.json
  shardloom simulate --src-strategy strategy --shapes full --storage shared --svg plan.svg
  shardloom simulate --src-strategy strategy --shapes full --process 17 --machine node.json";

const STORAGES: &[Choice<Storage>] = &[
    (
        "local",
        Storage::Local,
        "On each node's own disks: shards lie where their ranks are",
    ),
    (
        "shared",
        Storage::Shared,
        "On a file system that all nodes share",
    ),
    (
        "shared-source",
        Storage::SharedSource,
        "The source on a file system that all nodes share, the destination on each node's own disks",
    ),
    (
        "shared-destination",
        Storage::SharedDestination,
        "The source on each node's own disks, the destination on a file system that all nodes share",
    ),
];

/// Plan and cost of a reshard for thousands of ranks, from strategies and shapes alone.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Simulate {
    /// Strategy of the source: files, a layout (dp=2,tp=4) or a trainer's YAML file [default: full weights].
    #[arg(long, value_name = "S", value_parser = strategy())]
    src_strategy: Option<StrategyInput>,
    #[command(flatten)]
    cut: CutArgs,
    #[command(flatten)]
    network: NetworkArgs,
    /// Full shapes: JSON {name: {"dtype": "BF16", "shape": [4, 4]}}, or full weights.
    #[arg(long, value_name = "FILE")]
    shapes: PathBuf,
    /// Only this process's plan.
    #[arg(long, value_name = "P")]
    process: Option<u32>,
    /// Number of processes [default: one for each destination rank].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    processes: Option<u32>,
    /// Processes of a node [default: the machine's, or 8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    ranks_per_node: Option<u32>,
    /// Where source and destination are.
    #[arg(long, default_value = "local", value_parser = choice(STORAGES))]
    storage: Storage,
    #[command(flatten)]
    rounds: RoundArgs,
    /// What a node can do: JSON with disk_read_gbps, disk_write_gbps, network_gbps, shared_read_gbps
    /// and shared_write_gbps (10^9 bytes a second), ranks_per_node and latency_us.
    #[arg(long, value_name = "JSON")]
    machine: Option<PathBuf>,
    /// Draw each process's bytes.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl Command for Simulate {
    fn prepare(self) -> Result<Prepared> {
        Ok(Prepared::alone(move |report| self.run(report)))
    }
}

impl Simulate {
    /// Plans and tells.
    fn run(self, report: &Report) -> Result<bool> {
        let deriving = self.network.deriving(&self.shapes);
        let (source, destination) = (self.src_strategy, self.cut.dst_strategy);
        deriving.check([&source, &destination])?;
        let make = |side: Option<StrategyInput>| side.map(|s| deriving.make_alone(s)).transpose();
        let (source, destination) = (make(source)?, make(destination)?);
        let simulated = simulate(&Question {
            source_strategy: source,
            destination_strategy: destination,
            shapes: self.shapes,
            process: self.process,
            processes: self.processes,
            ranks_per_node: self.ranks_per_node,
            storage: self.storage,
            exchange: self.rounds.exchange,
            memory_bytes: self.rounds.memory,
            machine: read_machine(self.machine.as_deref())?,
        })?;
        if let Some(path) = &self.svg {
            save_picture(path, &Report::simulated_picture(&simulated))?;
        }
        report.simulated(&simulated)?;
        Ok(true)
    }
}
