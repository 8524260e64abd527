//! `shardloom unify`: full weights of distributed ones.

use crate::cli::command::{Command, Prepared};
use crate::cli::flags::choice::{Choice, choice};
use crate::cli::flags::lora::LoraArgs;
use crate::cli::flags::moving::MoveArgs;
use crate::cli::flags::reading::{CheckArgs, SelectArgs, SourceArgs};
use crate::cli::flags::size::parse_size;
use crate::cli::flags::step::StepArgs;
use crate::cli::flags::strategy::NetworkArgs;
use crate::cli::flags::writing::{DestinationArgs, WriteArgs};
use crate::destination::{Placement, Writing};
use crate::fault::Result;
use crate::front::Deriving;
use crate::job::{Goal, Job, Write};
use crate::plan::arrange::FULL_FILE_BYTES_MAX;
use crate::plan::arrange::{Files, Naming};
use crate::plan::build::Leftovers;
use crate::store::formats::laid::DirectoryAsked;
use clap::Args;

const EXAMPLES: &str = "\
Examples:
  mpirun -n 8 shardloom unify --src ckpt --src-strategy strategy --dst full
  shardloom unify --src ckpt --src-strategy strategy --dst full --file-suffix 1_2000
  shardloom unify --src ckpt --src-strategy strategy --dst full --naming mindspore";

/// Most bytes of tensors in a part file of MindSpore's.
const PART_FILE_BYTES_MAX: u64 = 3 << 30;
const NAMINGS: &[Choice<Naming>] = &[
    (
        "hf",
        Naming::Hf,
        "`model-00001-of-00002.safetensors`, filled in name order",
    ),
    (
        "mindspore",
        Naming::Mindspore,
        "`part0.safetensors`, balanced by size as MindSpore does",
    ),
];

/// Distributed weights -> full weights.
#[derive(Clone, Debug, Args)]
#[command(alias = "merge", before_help = EXAMPLES)]
// The flags of unified_safetensors.py.
#[command(
    mut_arg("src", |arg| arg.alias("mindspore_ckpt_dir").help("Rank directories")),
    mut_arg("src_strategy", |arg| {
        arg.alias("src_strategy_dirs").help("Their strategy: file, merged file or directory")
    }),
    mut_arg("dst", |arg| arg.alias("output_dir")),
    mut_arg("file_suffix", |arg| arg.alias("file_suffix")),
    mut_arg("filter_out_param_prefix", |arg| arg.alias("filter_out_param_prefix"))
)]
pub(crate) struct Unify {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    destination: DestinationArgs,
    #[command(flatten)]
    select: SelectArgs,
    /// Most bytes of tensors in a file [default: 5GB, 3GiB with --naming mindspore].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_shard_size: Option<u64>,
    /// How the files are called.
    #[arg(long, default_value = "hf", value_parser = choice(NAMINGS))]
    naming: Naming,
    /// Of unified_safetensors.py: has no effect, as what lies in the files decides.
    #[arg(long = "has_redundancy", hide = true, value_name = "BOOL", value_parser = parse_truth)]
    #[allow(dead_code)]
    has_redundancy: Option<bool>,
    /// Of unified_safetensors.py: has no effect, as mpirun -n says how many processes there are.
    #[arg(long = "max_process_num", hide = true, value_name = "N")]
    #[allow(dead_code)]
    max_process_num: Option<u32>,
    /// Write everything on the node of process 0.
    #[arg(long)]
    gather_to_root: bool,
    #[command(flatten)]
    step: StepArgs,
    #[command(flatten)]
    lora: LoraArgs,
    #[command(flatten)]
    moving: MoveArgs,
    #[command(flatten)]
    checks: CheckArgs,
    #[command(flatten)]
    writing: WriteArgs,
}

impl Command for Unify {
    const IS_JOB: bool = true;

    fn prepare(self) -> Result<Prepared> {
        let moving = self.moving.clone();
        let (deriving, job) = self.job()?;
        Prepared::derived(&moving, deriving, job)
    }
}

impl Unify {
    /// The job, and what its strategies are derived from.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Usage`], and whatever the files say that the arguments name.
    pub(crate) fn job(self) -> Result<(Deriving, Job)> {
        let placement = if self.gather_to_root {
            Placement::Root
        } else {
            self.writing.placement
        };
        let file_bytes_max = self.max_shard_size.unwrap_or(match self.naming {
            Naming::Mindspore => PART_FILE_BYTES_MAX,
            _ => FULL_FILE_BYTES_MAX,
        });
        let files = Files::Full {
            naming: self.naming,
            file_bytes_max,
        };
        let files = self.writing.files(files, DirectoryAsked::default());
        let extras = self.step.beside(&files);
        let files = self.step.files(files)?;
        let deriving = self.network.deriving(&self.source.src);
        let job = Job {
            command: "unify",
            reading: self.source.reading(&self.checks, self.lora.derived()?),
            goal: Goal::Write(Box::new(Write {
                select: self.select.select()?,
                leftovers: Leftovers::Unify(self.checks.unmatched.unmatched),
                files,
                format: self.writing.files_format(),
                view: None,
                extras,
                step: self.step.step,
                writing: Writing {
                    placement,
                    ..self
                        .writing
                        .writing(self.destination.dst, None)
                        .keeping(&self.select.names.name_map)
                },
            })),
            moving: self.writing.moving(&self.moving)?,
            dry_run: self.writing.dry_run,
        };
        Ok((deriving, job))
    }
}

/// A truth value as Python scripts take it.
fn parse_truth(text: &str) -> std::result::Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("'{text}' is neither True nor False")),
    }
}
