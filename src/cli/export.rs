//! `shardloom export`: a Hugging Face model of MindSpore weights.

use crate::cli::command::{Command, Prepared};
use crate::cli::flags::choice::choice;
use crate::cli::flags::family::{FamilyArgs, SCHEMES, block, model_directory};
use crate::cli::flags::lora::{LoraArgs, UntieArgs};
use crate::cli::flags::moving::MoveArgs;
use crate::cli::flags::quantise::QuantiseArgs;
use crate::cli::flags::reading::{CheckArgs, SourceArgs};
use crate::cli::flags::strategy::ModelArgs;
use crate::cli::flags::tensors::{Cast, TensorArgs};
use crate::cli::flags::writing::{DestinationArgs, WriteArgs, WrittenFormat};
use crate::fault::{Fault, Kind, Result};
use crate::front::Deriving;
use crate::job::{Goal, Job, ViewMaker, Write};
use crate::model::{self, Scheme, TIED};
use crate::plan::arrange::Naming;
use crate::plan::build::Select;
use crate::source::derived::Derived;
use crate::store::Format;
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  mpirun -n 8 shardloom export --src ckpt --src-strategy strategy --hf-config Qwen3-8B --dst hf
  shardloom export --src full --hf-config Qwen3-8B --dst hf --dtype bf16";

/// MindSpore weights, full or distributed -> Hugging Face weights.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
#[command(mut_arg("untie", |arg| arg.help("Of a model whose tie_word_embeddings is true write the head that the files have, and false there")))]
pub(crate) struct Export {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Directory with the model's config.json and tokenizer files, which are copied.
    #[arg(long, value_name = "DIR", value_parser = model_directory)]
    hf_config: PathBuf,
    #[command(flatten)]
    destination: DestinationArgs,
    /// Which names the source has [default: as its files say].
    #[arg(long, value_parser = choice(SCHEMES))]
    names: Option<Scheme>,
    #[command(flatten)]
    family: FamilyArgs,
    #[command(flatten)]
    tensors: TensorArgs,
    #[command(flatten)]
    lora: LoraArgs,
    #[command(flatten)]
    tied: UntieArgs,
    #[command(flatten)]
    quantise: QuantiseArgs,
    #[command(flatten)]
    moving: MoveArgs,
    #[command(flatten)]
    checks: CheckArgs,
    #[command(flatten)]
    writing: WriteArgs,
}

impl Command for Export {
    const IS_JOB: bool = true;

    fn prepare(self) -> Result<Prepared> {
        let moving = self.moving.clone();
        let (deriving, job) = self.job()?;
        Prepared::derived(&moving, deriving, job)
    }
}

impl Export {
    /// The job, and what its strategies are derived from.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Usage`], and whatever the files say that the arguments name.
    pub(crate) fn job(self) -> Result<(Deriving, Job)> {
        let other = |format| format != WrittenFormat::Files(Format::SAFETENSORS);
        if self.writing.format.is_some_and(other) {
            let message = "export writes safetensors files only";
            return Err(Fault::new(Kind::Usage, message));
        }
        let (family, mut numbers) = self.family.model(&self.hf_config)?;
        let lora = self.lora.derived()?;
        let as_one = lora.as_one();
        let derived = Derived {
            // Of weights that have Hugging Face's names already.
            block: block(&self.hf_config, &numbers)?,
            tied: model::tied_in(&family, &numbers, self.tied.untie),
            ..lora
        };
        if self.tied.untie {
            numbers = model::untied(&numbers)?;
        }
        let companions = model::companions(&self.hf_config)?;
        let extras = companions.files.clone();
        let export = model::Export {
            quantise: self.quantise.quantise(),
            companions,
            family,
            numbers,
            given: self.family.given(self.names),
            dtype: self.tensors.dtype.map(Cast::dtype),
            allow_missing: self.tensors.allow_missing,
            allow_extra: self.tensors.allow_extra,
            vocabulary_rows: self.tensors.vocab_rows,
            untied: self.tied.untie,
            as_one,
        };
        let make = move |inventory: &_, metadata: &_| export.view(inventory, metadata);
        // Its config.json is the model's.
        let deriving = self.model.deriving(&self.source.src, self.names);
        let mut deriving = deriving.and(&self.hf_config);
        if self.tied.untie {
            deriving.rejoined.push((TIED, false));
        }
        let job = Job {
            command: "export",
            reading: self.source.reading(&self.checks, derived),
            goal: Goal::Write(Box::new(Write {
                select: Select::default(),
                leftovers: self.tensors.leftovers(self.checks.unmatched.unmatched),
                files: self.tensors.full(Naming::HfOnly),
                format: Some(Format::SAFETENSORS),
                view: Some(ViewMaker::new(make)),
                extras,
                step: None,
                writing: self
                    .writing
                    .writing(self.destination.dst, None)
                    .keeping(&self.family.name_map)
                    .keeping([&self.hf_config]),
            })),
            moving: self.writing.moving(&self.moving)?,
            dry_run: self.writing.dry_run,
        };
        Ok((deriving, job))
    }
}
