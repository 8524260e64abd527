//! `shardloom import`: MindSpore weights of a Hugging Face model.

use crate::cli::command::{Command, Prepared};
use crate::cli::flags::affix::AffixArgs;
use crate::cli::flags::choice::choice;
use crate::cli::flags::family::{FamilyArgs, SCHEMES, block};
use crate::cli::flags::lora::{LoraArgs, UntieArgs};
use crate::cli::flags::moving::MoveArgs;
use crate::cli::flags::reading::{CheckArgs, WeightsArgs};
use crate::cli::flags::step::StepArgs;
use crate::cli::flags::strategy::ModelArgs;
use crate::cli::flags::tensors::{Cast, TensorArgs};
use crate::cli::flags::writing::{CutArgs, DestinationArgs, WriteArgs};
use crate::config::based::is_yaml;
use crate::fault::{Fault, Kind, Result};
use crate::front::Deriving;
use crate::job::{Goal, Job, ViewMaker, Write};
use crate::model::derive::{JOINED, LATENT, latent};
use crate::model::{
    self, CONFIG, Fusion, Latent, Mapping, Scheme, TIED, check_heads, directory_of,
};
use crate::plan::arrange::{Files, Naming, RankName};
use crate::plan::build::Select;
use crate::source::derived::Derived;
use crate::source::sampled::sample;
use crate::source::{Reading, Weights, nothing};
use crate::store::formats::laid::DirectoryAsked;
use crate::store::io::{self, Standing};
use crate::strategy::StrategyInput;
use clap::Args;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  mpirun -n 8 shardloom import --hf Qwen3-8B --dst out --dst-strategy strategy --tp 4
  shardloom import --hf Qwen3-8B --dst full --names mcore
  shardloom import --hf Qwen3-8B --dst mg --format megatron";

/// Hugging Face weights -> MindSpore weights, full or distributed.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Import {
    /// A Hugging Face model: files of weights in any format that is read, and config.json, which may lie in --model instead.
    #[arg(long, value_name = "DIR")]
    hf: PathBuf,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    destination: DestinationArgs,
    #[command(flatten)]
    cut: CutArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Which names to write [default: those of the family's usual training job].
    #[arg(long, value_parser = choice(SCHEMES))]
    names: Option<Scheme>,
    #[command(flatten)]
    family: FamilyArgs,
    #[command(flatten)]
    tensors: TensorArgs,
    #[command(flatten)]
    lora: LoraArgs,
    #[command(flatten)]
    affixes: AffixArgs,
    #[command(flatten)]
    tied: UntieArgs,
    #[command(flatten)]
    step: StepArgs,
    #[command(flatten)]
    moving: MoveArgs,
    #[command(flatten)]
    checks: CheckArgs,
    #[command(flatten)]
    writing: WriteArgs,
}

impl Command for Import {
    const IS_JOB: bool = true;

    fn prepare(self) -> Result<Prepared> {
        let moving = self.moving.clone();
        let (deriving, job) = self.job()?;
        Prepared::derived(&moving, deriving, job)
    }
}

impl Import {
    /// The job, and what its strategies are derived from.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Usage`], and whatever the files say that the arguments name.
    pub(crate) fn job(mut self) -> Result<(Deriving, Job)> {
        self.of_directory()?;
        self.check_described()?;
        // Megatron's names are made of these.
        if self
            .writing
            .directory()
            .is_some_and(|of| of.stacks_layers())
        {
            self.names.get_or_insert(Scheme::Mcore);
        }
        let described = self.described().to_path_buf();
        let (import, derived) = self.import(&described)?;
        let files = match self.cut.dst_strategy {
            None => self.tensors.full(Naming::Hf),
            Some(_) => Files::Ranks {
                name: RankName::new("net", false),
                remove_redundancy: false,
            },
        };
        let files = self.writing.files(files, DirectoryAsked::default());
        let extras = self.step.beside(&files);
        let files = self.step.files(files)?;
        let mut deriving = self.model.deriving(&self.hf, self.names);
        if described != self.hf {
            deriving.model = None;
            deriving.sources.insert(0, described);
        } else if self.cut.dst_strategy.is_none() {
            // There is no layout that it would be for, and the model has a description of its own.
            deriving.model = None;
        }
        let mla = self.family.mla.map(|mla| (LATENT, mla == Latent::Joined));
        let qkv = self.family.qkv.is_some_and(|qkv| qkv != Fusion::Separate);
        deriving.rejoined = mla.into_iter().chain([(JOINED, qkv)]).collect();
        deriving.vocabulary_rows = self.tensors.vocab_rows;
        if self.tied.untie {
            deriving.rejoined.push((TIED, false));
        }
        let reading = Reading {
            weights: self.weights.meant(Weights::Model),
            ..Reading::checkpoint(self.hf, None, None)
        };
        let job = Job {
            command: "import",
            reading: self.checks.reading(reading, derived),
            goal: Goal::Write(Box::new(Write {
                select: Select::default(),
                leftovers: self.tensors.leftovers(self.checks.unmatched.unmatched),
                files,
                format: self.writing.files_format(),
                view: Some(ViewMaker::new(move |inventory, _| import.view(inventory))),
                extras,
                step: self.step.step,
                writing: self
                    .writing
                    .writing(self.destination.dst, self.cut.dst_strategy)
                    .keeping(&self.family.name_map),
            })),
            moving: self.writing.moving(&self.moving)?,
            dry_run: self.writing.dry_run,
        };
        Ok((deriving, job))
    }
}

impl Import {
    /// The directory whose config.json says what the model is: a training job's checkpoint often has none, and that of a
    /// larger model tells nothing of the one in it.
    fn described(&self) -> &Path {
        let own = || self.family.model(&self.hf).is_ok();
        let given = self.model.model.as_deref().filter(|_| !own());
        given.map_or(&self.hf, directory_of)
    }

    /// Checks that `--model` is one, and has as many heads as the description beside the weights says, if there is one.
    fn check_described(&self) -> Result<()> {
        let beside = self.hf.join(CONFIG);
        let Some(model) = &self.model.model else {
            return Ok(());
        };
        self.family.model(directory_of(model))?;
        match io::standing(&beside)? {
            Standing::File => check_heads(model, &BTreeMap::new(), Some(&beside)),
            _ => Ok(()),
        }
    }

    /// One file of a model is that of its directory.
    fn of_directory(&mut self) -> Result<()> {
        if io::standing(&self.hf)? != Standing::File {
            return Ok(());
        }
        if let Some(name) = self.hf.file_name() {
            let name = name.to_string_lossy().into_owned();
            self.weights.weights.get_or_insert(name);
            self.hf = io::room(&self.hf).to_path_buf();
        }
        Ok(())
    }

    /// The fault of a model that nothing describes, with what to do about it.
    fn undescribed(&self, fault: Fault) -> Fault {
        let found = io::standing(&self.hf.join(CONFIG));
        if self.model.model.is_some() || found.is_ok_and(|found| found == Standing::File) {
            return fault;
        }
        match sample(&self.hf, &Weights::Model) {
            Ok(Some(_)) => Fault {
                hint: Some(
                    "--model DIR says which model it is: a directory that has its config.json"
                        .into(),
                ),
                ..fault
            },
            Ok(None) => nothing::refuse(&self.hf).err().unwrap_or(fault),
            Err(_) => fault,
        }
    }

    /// What is made of the model's tensors, and which of them are made of others first.
    fn import(&self, described: &Path) -> Result<(model::Import, Derived)> {
        let described_by = self.family.model(described);
        let (family, mut numbers) = described_by.map_err(|fault| self.undescribed(fault))?;
        let block = block(described, &numbers)?;
        let mut choices = self.family.choices(&family, self.names);
        if let Some(path) = self.cut.dst_strategy.as_ref().and_then(StrategyInput::path)
            && self.family.mla.is_none()
            && choices.names == Scheme::Mcore
            && is_yaml(path)
            && latent(path, &family)?
        {
            choices.mla = Latent::Joined;
        }
        if choices.depend_on_tp() && self.cut.dst_strategy.is_some() && self.family.tp.is_none() {
            let message = "contiguous fused tensors depend on the tensor-parallel size";
            return Err(Fault::new(Kind::Usage, message).hint(
                "--tp N: that of the training job; 1 if query, key and value are to be whole",
            ));
        }
        // What the table and config.json can't agree on is found before MPI starts.
        let mapping = Mapping::new(&family, &numbers, &choices, &|_, _| true)?;
        let tied = model::tied(&mapping, self.tied.untie);
        if self.tied.untie {
            numbers = model::untied(&numbers)?;
        }
        let lora = self.lora.derived()?;
        let import = model::Import {
            family,
            numbers,
            choices,
            dtype: self.tensors.dtype.map(Cast::dtype),
            allow_missing: self.tensors.allow_missing,
            allow_extra: self.tensors.allow_extra,
            vocabulary_rows: self.tensors.vocab_rows,
            as_one: lora.as_one(),
        };
        let derived = Derived {
            block,
            affixes: self.affixes.affixes(),
            tied,
            ..lora
        };
        Ok((import, derived))
    }
}
