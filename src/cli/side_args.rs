//! What the user typed for the commands that move no weights.

use crate::cli::args::parse_size;
use crate::plan::reach::ExchangeMode;
use crate::plan::simulate::Storage;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Arguments of `simulate`.
#[derive(Clone, Debug, Args)]
pub struct SimulateArgs {
    /// Strategy of the source: file, merged file or directory [default: full weights].
    #[arg(long)]
    pub src_strategy: Option<PathBuf>,
    /// Strategy of the destination [default: full weights].
    #[arg(long)]
    pub dst_strategy: Option<PathBuf>,
    /// Full shapes: JSON {name: {"dtype": "BF16", "shape": [4, 4]}}, or full weights.
    #[arg(long, value_name = "FILE")]
    pub shapes: PathBuf,
    /// Only this process's plan.
    #[arg(long, value_name = "P")]
    pub process: Option<u32>,
    /// Number of processes [default: one for each destination rank].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub processes: Option<u32>,
    /// Processes of a node [default: the machine's, or 8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub ranks_per_node: Option<u32>,
    /// Where source and destination are.
    #[arg(long, value_enum, default_value_t)]
    pub storage: Storage,
    /// How slices travel between processes.
    #[arg(long, value_enum, default_value_t)]
    pub exchange: ExchangeMode,
    /// Most memory for buffers, for each process.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    pub memory: u64,
    /// What a node can do: JSON with disk_read_gbps, disk_write_gbps, network_gbps, shared_read_gbps
    /// and shared_write_gbps (10^9 bytes a second), ranks_per_node and latency_us.
    #[arg(long, value_name = "JSON")]
    pub machine: Option<PathBuf>,
    /// Draw each process's bytes.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// What `bench` measures.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Messages, all-to-all, gather and broadcast between the processes, by message size.
    Collectives {
        /// Largest message.
        #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size)]
        max_size: u64,
        #[command(flatten)]
        #[allow(missing_docs)]
        repeat: RepeatArgs,
    },
    /// Writing, flushing and reading a file by each process, by the size of a call.
    Storage {
        /// Existing directory to write in.
        #[arg(long)]
        dir: PathBuf,
        /// Size of each process's file.
        #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
        bytes: u64,
        #[command(flatten)]
        #[allow(missing_docs)]
        repeat: RepeatArgs,
    },
    /// A reshard of generated weights from 8 to 4 tensor-parallel ranks, against plain copying.
    Reshard {
        /// Existing directory to write in.
        #[arg(long)]
        dir: PathBuf,
        /// Size of the weights.
        #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
        bytes: u64,
        #[command(flatten)]
        #[allow(missing_docs)]
        repeat: RepeatArgs,
    },
}

/// How often something is measured.
#[derive(Clone, Debug, Args)]
pub struct RepeatArgs {
    /// How often it is measured.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub iterations: u32,
    /// How often it is done before that.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub warmup: u32,
    /// Draw the result.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// The `checkpoints` commands.
#[derive(Clone, Debug, Subcommand)]
pub enum CheckpointsCommand {
    /// All checkpoints, oldest first: step, size, and whether all ranks have them.
    List {
        #[command(flatten)]
        #[allow(missing_docs)]
        which: CheckpointsArgs,
    },
    /// The checkpoint that a job would resume from.
    Latest {
        #[command(flatten)]
        #[allow(missing_docs)]
        which: CheckpointsArgs,
    },
    /// Remove old checkpoints; the last complete one always stays.
    Prune {
        #[command(flatten)]
        #[allow(missing_docs)]
        which: CheckpointsArgs,
        /// How many complete checkpoints to keep, at least 1.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        keep: u32,
        /// Say what would be removed, and remove nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which checkpoints are looked at, and how closely.
#[derive(Clone, Debug, Args)]
pub struct CheckpointsArgs {
    /// The directory with the job's rank directories, or its output directory.
    pub dir: PathBuf,
    /// How many ranks the job has [default: as many as the highest rank directory tells].
    #[arg(long, value_name = "N")]
    pub ranks: Option<u32>,
    /// Go by the files' names alone, as the trainer does; don't look whether they are truncated.
    #[arg(long)]
    pub names_only: bool,
}

/// The `strategy` commands.
#[derive(Clone, Debug, Subcommand)]
pub enum StrategyCommand {
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
        /// A strategy file or directory.
        file: PathBuf,
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
        /// The first strategy.
        a: PathBuf,
        /// The second.
        b: PathBuf,
    },
    /// Write a strategy from a mesh and rules.
    #[command(alias = "derive")]
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
        #[arg(long)]
        weights: PathBuf,
        /// File to write.
        #[arg(long)]
        output: PathBuf,
        /// Replace the output if it exists.
        #[arg(long)]
        overwrite: bool,
    },
}
