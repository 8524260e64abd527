//! What the user typed.

use crate::cli::lora::LoraArgs;
use crate::cli::model::{ExportArgs, FamilyArgs, ImportArgs};
pub use crate::cli::side_args::{
    BenchCommand, CheckpointsArgs, CheckpointsCommand, RepeatArgs, SimulateArgs, StrategyCommand,
};
use crate::destination::{Placement, Writing};
use crate::measure::simulate::read_machine;
use crate::model::Scheme;
use crate::plan::arrange::Naming;
use crate::plan::build::Unmatched;
use crate::plan::reach::ExchangeMode;
use crate::store::Format;
use crate::transport::{IoMode, Moving};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};

/// Move model weights between parallel layouts.
///
/// Start it like any MPI program, one process per device: mpirun -n 8 shardloom reshard …
/// Without mpirun it is a world of one process.
#[derive(Debug, Parser)]
#[command(
    name = "shardloom",
    version,
    propagate_version = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Print the result as one JSON object on stdout.
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more (-v: what is done, -vv: everything).
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Say nothing but errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Distributed weights -> distributed weights in another layout.
    Reshard(ReshardArgs),
    /// Distributed weights -> full weights.
    #[command(alias = "merge")]
    Unify(UnifyArgs),
    /// Full weights -> distributed weights.
    Split(SplitArgs),
    /// Hugging Face weights -> MindSpore weights, full or distributed.
    Import(ImportArgs),
    /// MindSpore weights, full or distributed -> Hugging Face weights.
    Export(ExportArgs),
    /// Merge, show, compare and write strategy files.
    #[command(subcommand)]
    Strategy(StrategyCommand),
    /// ckpt <-> safetensors.
    Convert(ConvertArgs),
    /// Get the weights ready that a training configuration asks for.
    Load(LoadArgs),
    /// List a job's checkpoints, find the one to resume from, remove old ones.
    #[command(subcommand)]
    Checkpoints(CheckpointsCommand),
    /// Compare two checkpoints tensor by tensor, across layouts and formats.
    Diff(DiffArgs),
    /// Check a directory's files against the manifest that was written with them.
    Verify(VerifyArgs),
    /// Show what is in a file or directory.
    Inspect(InspectArgs),
    /// Plan and cost of a reshard for thousands of ranks, from strategies and shapes alone.
    Simulate(SimulateArgs),
    /// Measure what this machine can do, with the program's own primitives.
    #[command(subcommand)]
    Bench(BenchCommand),
}

/// How a job moves bytes.
#[derive(Clone, Debug, Args)]
pub struct MoveArgs {
    /// Most memory for buffers, for each process (kB, MB, GB are decimal; KiB, MiB, GiB binary).
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    pub memory: u64,
    /// How slices travel between processes.
    #[arg(long, value_enum, default_value_t)]
    pub exchange: ExchangeMode,
    /// Worker threads of each process (0: the node's cores divided by its processes).
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
    /// How source files are read.
    #[arg(long, value_enum, default_value_t)]
    pub io: IoMode,
    /// Show progress.
    #[arg(long, value_enum, default_value_t)]
    pub progress: ProgressMode,
}

/// How a job writes.
#[derive(Clone, Debug, Args)]
pub struct WriteArgs {
    /// Print the plan and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Which process builds what.
    #[arg(long, value_enum, default_value_t)]
    pub placement: Placement,
    /// What the nodes can do, as for simulate: whether each of them reads what several need from
    /// storage that they share, or they read in turn and send it, follows from it.
    #[arg(long, value_name = "JSON")]
    pub machine: Option<PathBuf>,
    /// Replace what stands at the destination, in one step, when the new is complete.
    #[arg(long)]
    pub overwrite: bool,
    /// Take up what an interrupted run of the same job has left.
    #[arg(long)]
    pub resume: bool,
    /// First check that all copies of each shard are equal.
    #[arg(long)]
    pub verify: bool,
    /// When to wait for the disk.
    #[arg(long, value_enum, default_value_t)]
    pub sync: SyncMode,
    /// Format of the files written [default: that of the source's files, in rank directories].
    #[arg(long, value_enum)]
    pub format: Option<WrittenFormat>,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WrittenFormat {
    /// safetensors.
    Safetensors,
    /// MindSpore's protobuf checkpoint.
    Ckpt,
    /// Checkpoint 2.0: an iteration's directory of safetensors, with its layout in metadata.json.
    Checkpoint2,
}

impl WrittenFormat {
    /// The format of each file.
    #[must_use]
    pub fn of_files(self) -> Format {
        match self {
            WrittenFormat::Ckpt => Format::Ckpt,
            WrittenFormat::Safetensors | WrittenFormat::Checkpoint2 => Format::Safetensors,
        }
    }
}

/// Whether progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum ProgressMode {
    /// On long work: a line that renews itself on a terminal, else plain lines.
    #[default]
    Auto,
    /// Never.
    Never,
}

/// When to wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum SyncMode {
    /// Before the result becomes visible.
    #[default]
    Commit,
    /// Not at all.
    None,
}

impl MoveArgs {
    /// How bytes are moved, by `machine` if one is described.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Corrupt`] if the machine's description is none.
    pub(super) fn moving(&self, machine: Option<&Path>) -> crate::fault::Result<Moving> {
        Ok(Moving {
            memory_bytes: self.memory,
            exchange: self.exchange,
            threads: self.threads,
            io: self.io,
            machine: read_machine(machine)?,
        })
    }
}

impl WriteArgs {
    /// How bytes are moved.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Corrupt`] if the machine's description is none.
    pub(super) fn moving(&self, moving: &MoveArgs) -> crate::fault::Result<Moving> {
        moving.moving(self.machine.as_deref())
    }

    /// Writing into `path`, cut by `strategy`.
    pub(super) fn writing(&self, path: PathBuf, strategy: Option<PathBuf>) -> Writing {
        Writing {
            path,
            strategy,
            placement: self.placement,
            overwrite: self.overwrite,
            resume: self.resume,
            in_place: false,
            unflushed: self.sync == SyncMode::None,
        }
    }
}

/// Arguments of `reshard`.
#[derive(Clone, Debug, Args)]
pub struct ReshardArgs {
    /// Rank directories, a directory of full weights, or one file.
    #[arg(long)]
    pub src: PathBuf,
    /// Strategy of the source: file, merged file or directory [default: full weights].
    #[arg(long)]
    pub src_strategy: Option<PathBuf>,
    /// Directory to write.
    #[arg(long, required_unless_present = "in_place")]
    pub dst: Option<PathBuf>,
    /// Replace the source by its new layout, in one step, when that is complete: file names keep
    /// their pattern, other files stay.
    #[arg(long, conflicts_with_all = ["dst", "prefix", "overwrite", "lora", "lora_scaling"])]
    pub in_place: bool,
    /// Strategy of the destination [default: full weights].
    #[arg(long)]
    pub dst_strategy: Option<PathBuf>,
    /// Beginning of the written files' names: rank_R/{prefix}R.safetensors.
    #[arg(long, default_value = "net", value_parser = parse_stem)]
    pub prefix: String,
    /// Which of several files in a rank directory: epoch_step, step, or task-epoch_step.
    #[arg(long)]
    pub file_suffix: Option<String>,
    /// Write one copy of each shard, by MindSpore's rule.
    #[arg(long)]
    pub remove_redundancy: bool,
    /// Leave out parameters whose names begin so (may be given several times).
    #[arg(long, value_name = "P")]
    pub filter_out_param_prefix: Vec<String>,
    /// JSON or YAML file {name read: name written}.
    #[arg(long, value_name = "FILE")]
    pub name_map: Option<PathBuf>,
    /// What to do with parameters that the source cuts and the destination strategy doesn't know.
    #[arg(long, value_enum, default_value_t)]
    pub unmatched: Unmatched,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub lora: LoraArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub moving: MoveArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub writing: WriteArgs,
}

/// Arguments of `unify`.
#[derive(Clone, Debug, Args)]
pub struct UnifyArgs {
    /// Rank directories.
    #[arg(long, alias = "mindspore_ckpt_dir")]
    pub src: PathBuf,
    /// Their strategy: file, merged file or directory.
    #[arg(long, alias = "src_strategy_dirs")]
    pub src_strategy: Option<PathBuf>,
    /// Directory to write.
    #[arg(long, alias = "output_dir")]
    pub dst: PathBuf,
    /// Which of several files in a rank directory: epoch_step, step, or task-epoch_step.
    #[arg(long, alias = "file_suffix")]
    pub file_suffix: Option<String>,
    /// Leave out parameters whose names begin so (may be given several times).
    #[arg(long, value_name = "P", alias = "filter_out_param_prefix")]
    pub filter_out_param_prefix: Vec<String>,
    /// JSON or YAML file {name read: name written}.
    #[arg(long, value_name = "FILE")]
    pub name_map: Option<PathBuf>,
    /// Most bytes of tensors in a file [default: 5GB, 3GiB with --naming mindspore].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_shard_size: Option<u64>,
    /// How the files are called.
    #[arg(long, value_enum, default_value_t)]
    pub naming: Naming,
    /// Of unified_safetensors.py: has no effect, as what lies in the files decides.
    #[arg(long = "has_redundancy", hide = true, value_name = "BOOL", value_parser = parse_truth)]
    pub has_redundancy: Option<bool>,
    /// Of unified_safetensors.py: has no effect, as mpirun -n says how many processes there are.
    #[arg(long = "max_process_num", hide = true, value_name = "N")]
    pub max_process_num: Option<u32>,
    /// Write everything on the node of process 0.
    #[arg(long)]
    pub gather_to_root: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub lora: LoraArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub moving: MoveArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub writing: WriteArgs,
}

/// Arguments of `split`.
#[derive(Clone, Debug, Args)]
pub struct SplitArgs {
    /// A directory of full weights, or one file.
    #[arg(long)]
    pub src: PathBuf,
    /// Directory to write.
    #[arg(long)]
    pub dst: PathBuf,
    /// Strategy of the destination [default: full weights].
    #[arg(long)]
    pub dst_strategy: Option<PathBuf>,
    /// Write one copy of each shard, by MindSpore's rule.
    #[arg(long)]
    pub remove_redundancy: bool,
    /// JSON or YAML file {name in the strategy: name in the files}.
    #[arg(long, value_name = "FILE")]
    pub name_map: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub moving: MoveArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub writing: WriteArgs,
}

/// Arguments of `load`.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// The trainer's YAML file.
    #[arg(long, value_name = "TRAIN.yaml")]
    pub config: PathBuf,
    /// Write the configuration with the keys set that the trainer then needs; all else stays.
    #[arg(long, value_name = "OUT.yaml")]
    pub write_config: Option<PathBuf>,
    /// Directory to write [default: shardloom_checkpoint in the configuration's output_dir].
    #[arg(long)]
    pub dst: Option<PathBuf>,
    /// The job's strategy [default: strategy/ or merged_strategy/dst_strategy.ckpt in output_dir].
    #[arg(long)]
    pub dst_strategy: Option<PathBuf>,
    /// What to do with parameters that the source cuts and the job's strategy doesn't know.
    #[arg(long, value_enum, default_value_t)]
    pub unmatched: Unmatched,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub moving: MoveArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub writing: WriteArgs,
}

/// Arguments of `convert`.
#[derive(Clone, Debug, Args)]
pub struct ConvertArgs {
    /// A file, a tree of rank directories, or a directory of full weights.
    pub src: PathBuf,
    /// Directory to write.
    #[arg(long)]
    pub dst: PathBuf,
    /// Format to write.
    #[arg(long, value_enum)]
    pub to: Format,
    /// JSON or YAML file {name read: name written}.
    #[arg(long, value_name = "FILE")]
    pub name_map: Option<PathBuf>,
    /// Convert only files whose names contain this text.
    #[arg(long, value_name = "TEXT")]
    pub file_name_contains: Option<String>,
    /// Check the CRC of .ckpt sources that carry one.
    #[arg(long)]
    pub check_crc: bool,
    /// Append a CRC to .ckpt files written.
    #[arg(long)]
    pub crc: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub moving: MoveArgs,
    /// Replace what stands at the destination, in one step, when the new is complete.
    #[arg(long)]
    pub overwrite: bool,
    /// Take up what an interrupted run of the same job has left.
    #[arg(long)]
    pub resume: bool,
    /// When to wait for the disk.
    #[arg(long, value_enum, default_value_t)]
    pub sync: SyncMode,
}

/// Arguments of `diff`.
#[derive(Clone, Debug, Args)]
pub struct DiffArgs {
    /// The first checkpoint.
    pub a: PathBuf,
    /// The second.
    pub b: PathBuf,
    /// Strategy of the first [default: full weights].
    #[arg(long)]
    pub a_strategy: Option<PathBuf>,
    /// Strategy of the second [default: full weights].
    #[arg(long)]
    pub b_strategy: Option<PathBuf>,
    /// Which of several files in a rank directory, on both sides.
    #[arg(long)]
    pub file_suffix: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub moving: MoveArgs,
}

/// Arguments of `verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// A directory with a manifest (shardloom.json).
    pub directory: PathBuf,
    /// Compare the tensors with those of this directory, in whatever layout, by the digests of both
    /// manifests alone.
    #[arg(long, value_name = "DIR")]
    pub against: Option<PathBuf>,
}

/// Arguments of `inspect`.
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    /// A weight file, a directory of weights, or a strategy file; with --names, a Hugging Face model.
    pub path: PathBuf,
    /// Show what a Hugging Face model's tensors are called and made of at MindSpore.
    #[arg(long, value_enum, value_name = "SCHEME", num_args = 0..=1)]
    #[allow(clippy::option_option)]
    pub names: Option<Option<Scheme>>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub family: FamilyArgs,
}

/// Reads a size: a number and an optional unit.
///
/// # Errors
/// A text for the user.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => {
            return Err(format!(
                "'{unit}' is no unit of size (kB, MB, GB, KiB, MiB, GiB)"
            ));
        }
    };
    let bad = || format!("'{text}' is no size");
    let bytes = match number.split_once('.') {
        None => number
            .parse::<u64>()
            .map_err(|_| bad())?
            .checked_mul(factor)
            .ok_or_else(bad)?,
        Some((whole, fraction)) => {
            let fraction = fraction.get(..fraction.len().min(9)).unwrap_or_default();
            let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| bad())?);
            let whole: u128 = whole.parse().map_err(|_| bad())?;
            let part: u128 = if fraction.is_empty() {
                0
            } else {
                fraction.parse().map_err(|_| bad())?
            };
            let scaled = whole.checked_mul(scale).and_then(|w| w.checked_add(part));
            let bytes = scaled.and_then(|s| s.checked_mul(u128::from(factor)));
            u64::try_from(bytes.ok_or_else(bad)? / scale).map_err(|_| bad())?
        }
    };
    if bytes == 0 {
        Err("a size must not be 0".into())
    } else {
        Ok(bytes)
    }
}

/// A truth value as Python scripts take it.
fn parse_truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("'{text}' is neither True nor False")),
    }
}

/// A beginning of a file name: no separators.
fn parse_stem(text: &str) -> Result<String, String> {
    if text.contains('/') || text.contains('\0') {
        return Err("a prefix is part of a file name, without '/'".into());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn reads_sizes() {
        assert_eq!(parse_size("5GB"), Ok(5_000_000_000));
        assert_eq!(parse_size("1.5KiB"), Ok(1536));
        assert_eq!(parse_size("64 MiB"), Ok(64 << 20));
        assert_eq!(parse_size("7"), Ok(7));
        for bad in ["", "x", "5XB", "0", "-1", "99999999999999TB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
