//! `shardloom import`, `shardloom export`, and the names that `shardloom inspect --names` shows.

use crate::cli::args::{MoveArgs, WriteArgs, WrittenFormat, parse_size};
use crate::cli::jobs::{HF_FILE_BYTES_MAX, merging};
use crate::cli::lora::LoraArgs;
use crate::cli::name_map::family_table;
use crate::fault::{Fault, Kind, Result};
use crate::job::{Goal, Job, ViewMaker, Write};
use crate::model::{
    Choices, Experts, Export, Family, Fusion, Given, Import, Mapping, Numbers, QUANTISED, Scheme,
    find_family, quantised_block,
};
use crate::plan::arrange::{Files, Naming, RankName};
use crate::plan::build::{Leftovers, Select};
use crate::source::Reading;
use crate::source::derived::Derived;
use crate::store::Format;
use crate::store::io::{self, ReadFile};
use crate::tensor::dtype::Dtype;
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Largest of the small files of a model: tokenizers have tens of MB.
const SMALL_BYTES_MAX: u64 = 128 << 20;
/// The file that describes a model.
const CONFIG: &str = "config.json";
/// Endings of the small files that go along with a model's weights.
const SMALL: [&str; 6] = ["json", "model", "txt", "jinja", "tiktoken", "py"];

/// An element type to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Cast {
    Bf16,
    F16,
    F32,
}

impl Cast {
    fn dtype(self) -> Dtype {
        match self {
            Cast::Bf16 => Dtype::BF16,
            Cast::F16 => Dtype::F16,
            Cast::F32 => Dtype::F32,
        }
    }

    fn torch_name(self) -> &'static str {
        match self {
            Cast::Bf16 => "bfloat16",
            Cast::F16 => "float16",
            Cast::F32 => "float32",
        }
    }
}

/// What a family's table says, and what it can't tell.
#[derive(Clone, Debug, Args)]
pub struct FamilyArgs {
    /// The model's family; auto: what its config.json says.
    #[arg(long, default_value = "auto")]
    pub family: String,
    /// A family's table of your own, in the form of src/model/families, as JSON or YAML
    /// (docs/formats.md).
    #[arg(long, value_name = "FILE", conflicts_with = "family")]
    pub name_map: Option<PathBuf>,
    /// How query, key and value are laid out at MindSpore.
    #[arg(long, value_enum)]
    pub qkv: Option<Fusion>,
    /// How gate and up are laid out at MindSpore.
    #[arg(long, value_enum)]
    pub ffn: Option<Fusion>,
    /// How experts are kept at MindSpore.
    #[arg(long, value_enum)]
    pub experts: Option<Experts>,
    /// Tensor-parallel size that contiguous fused tensors are made for.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub tp: Option<u64>,
}

impl FamilyArgs {
    /// Whether anything was said.
    pub(super) fn is_given(&self) -> bool {
        let choice = self.qkv.is_some() || self.ffn.is_some() || self.experts.is_some();
        choice || self.tp.is_some() || self.name_map.is_some() || self.family != "auto"
    }

    fn given(&self, names: Option<Scheme>) -> Given {
        Given {
            names,
            qkv: self.qkv,
            ffn: self.ffn,
            experts: self.experts,
            tp: self.tp,
        }
    }

    /// The table and the numbers for the model described in `directory`.
    fn model(&self, directory: &Path) -> Result<(Family, Numbers)> {
        let path = directory.join(CONFIG);
        let bytes = ReadFile::open(&path)?.read_all(SMALL_BYTES_MAX)?;
        let config: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|error| {
            Fault::new(Kind::Corrupt, format!("is no JSON object: {error}"))
                .file(path.display().to_string())
        })?;
        let family = match &self.name_map {
            Some(table) => family_table(table)?,
            None => find_family(&self.family, &config).map_err(|fault| match fault.kind {
                Kind::Usage => fault,
                _ => fault.file(path.display().to_string()),
            })?,
        };
        let numbers = Numbers::new(&family.numbers, &config);
        Ok((family, numbers))
    }
}

/// Arguments of `import`.
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// A Hugging Face model: config.json and safetensors files.
    #[arg(long, value_name = "DIR")]
    pub hf: PathBuf,
    /// Directory to write.
    #[arg(long)]
    pub dst: PathBuf,
    /// Strategy of the destination [default: full weights].
    #[arg(long)]
    pub dst_strategy: Option<PathBuf>,
    /// Which names to write [default: those of the family's usual training job].
    #[arg(long, value_enum)]
    pub names: Option<Scheme>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub family: FamilyArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub tensors: TensorArgs,
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

/// Arguments of `export`.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// Rank directories, a directory of full weights, or one file.
    #[arg(long)]
    pub src: PathBuf,
    /// Strategy of the source: file, merged file or directory [default: full weights].
    #[arg(long)]
    pub src_strategy: Option<PathBuf>,
    /// Which of several files in a rank directory: epoch_step, step, or task-epoch_step.
    #[arg(long)]
    pub file_suffix: Option<String>,
    /// Directory with the model's config.json and tokenizer files, which are copied.
    #[arg(long, value_name = "DIR")]
    pub hf_config: PathBuf,
    /// Directory to write.
    #[arg(long)]
    pub dst: PathBuf,
    /// Which names the source has [default: as its files say].
    #[arg(long, value_enum)]
    pub names: Option<Scheme>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub family: FamilyArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub tensors: TensorArgs,
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

/// Which tensors, and of what type.
#[derive(Clone, Copy, Debug, Args)]
pub struct TensorArgs {
    /// Element type of float tensors written [default: as they are].
    #[arg(long, value_enum)]
    pub dtype: Option<Cast>,
    /// Leave out what is made of tensors that are missing.
    #[arg(long)]
    pub allow_missing: bool,
    /// Leave out tensors that are not known.
    #[arg(long)]
    pub allow_extra: bool,
    /// Most bytes of tensors in a file of full weights [default: 5GB].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_shard_size: Option<u64>,
}

impl TensorArgs {
    fn full(&self, naming: Naming) -> Files {
        Files::Full {
            naming,
            file_bytes_max: self.max_shard_size.unwrap_or(HF_FILE_BYTES_MAX),
        }
    }

    fn leftovers(&self) -> Leftovers {
        Leftovers::View {
            allow_extra: self.allow_extra,
        }
    }
}

/// The job that imports.
pub(super) fn import(args: &ImportArgs) -> Result<Job> {
    let (family, numbers) = args.family.model(&args.hf)?;
    let block = quantised_block(&numbers).map_err(|fault| {
        let config = args.hf.join(CONFIG);
        fault.file(config.display().to_string())
    })?;
    let choices = choose(&family, &args.family, args.names);
    if choices.depend_on_tp() && args.dst_strategy.is_some() && args.family.tp.is_none() {
        let message = "contiguous fused tensors depend on the tensor-parallel size";
        return Err(Fault::new(Kind::Usage, message)
            .hint("--tp N: that of the training job; 1 if query, key and value are to be whole"));
    }
    // What the table and config.json can't agree on is found before MPI starts.
    Mapping::new(&family, &numbers, &choices, &|_, _| true)?;
    let import = Import {
        family,
        numbers,
        choices,
        dtype: args.tensors.dtype.map(Cast::dtype),
        allow_missing: args.tensors.allow_missing,
        allow_extra: args.tensors.allow_extra,
    };
    let files = match args.dst_strategy {
        None => args.tensors.full(Naming::Hf),
        Some(_) => Files::Ranks {
            name: RankName::new("net", false),
            remove_redundancy: false,
        },
    };
    if args.writing.format == Some(WrittenFormat::Checkpoint2) {
        let message =
            "import writes rank directories or full weights; reshard makes checkpoint2 of them";
        return Err(Fault::new(Kind::Usage, message));
    }
    Ok(Job {
        command: "import",
        reading: Reading {
            derived: Derived {
                block,
                ..merging(&args.lora)?
            },
            verify: args.writing.verify,
            ..Reading::checkpoint(args.hf.clone(), None, None)
        },
        goal: Goal::Write(Box::new(Write {
            select: Select::default(),
            leftovers: args.tensors.leftovers(),
            files,
            format: args.writing.format.map(WrittenFormat::of_files),
            view: Some(ViewMaker::new(move |inventory, _| import.view(inventory))),
            extras: Vec::new(),
            writing: args
                .writing
                .writing(args.dst.clone(), args.dst_strategy.clone()),
        })),
        moving: args.writing.moving(&args.moving)?,
        dry_run: args.writing.dry_run,
    })
}

/// The job that exports.
pub(super) fn export(args: &ExportArgs) -> Result<Job> {
    if args
        .writing
        .format
        .is_some_and(|format| format != WrittenFormat::Safetensors)
    {
        return Err(Fault::new(
            Kind::Usage,
            "export writes safetensors files only",
        ));
    }
    let (family, numbers) = args.family.model(&args.hf_config)?;
    let export = Export {
        family,
        numbers,
        given: args.family.given(args.names),
        dtype: args.tensors.dtype.map(Cast::dtype),
        allow_missing: args.tensors.allow_missing,
        allow_extra: args.tensors.allow_extra,
    };
    let make = move |inventory: &_, metadata: &_| export.view(inventory, metadata);
    Ok(Job {
        command: "export",
        reading: Reading {
            derived: merging(&args.lora)?,
            verify: args.writing.verify,
            ..Reading::checkpoint(
                args.src.clone(),
                args.src_strategy.clone(),
                args.file_suffix.clone(),
            )
        },
        goal: Goal::Write(Box::new(Write {
            select: Select::default(),
            leftovers: args.tensors.leftovers(),
            files: args.tensors.full(Naming::HfOnly),
            format: Some(Format::Safetensors),
            view: Some(ViewMaker::new(make)),
            extras: small_files(&args.hf_config, args.tensors.dtype)?,
            writing: args.writing.writing(args.dst.clone(), None),
        })),
        moving: args.writing.moving(&args.moving)?,
        dry_run: args.writing.dry_run,
    })
}

fn choose(family: &Family, args: &FamilyArgs, names: Option<Scheme>) -> Choices {
    args.given(names).complete(family.usual_names)
}

/// config.json, tokenizer and the like; a config.json that names an element type is told the new one,
/// and one that speaks of quantised weights that these are not.
fn small_files(directory: &Path, cast: Option<Cast>) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for (name, is_directory) in io::list(directory)? {
        let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
        let is_map = name.ends_with(".index.json") || name == "param_name_map.json";
        if is_directory || is_map || !SMALL.contains(&ending) {
            continue;
        }
        let mut bytes = ReadFile::open(&directory.join(&name))?.read_all(SMALL_BYTES_MAX)?;
        if name == CONFIG
            && let Ok(mut config) = serde_json::from_slice::<Map<String, Value>>(&bytes)
        {
            let mut changed = config.remove(QUANTISED).is_some();
            for key in ["torch_dtype", "dtype"] {
                if let (Some(value), Some(cast)) = (config.get_mut(key), cast) {
                    *value = cast.torch_name().into();
                    changed = true;
                }
            }
            if changed {
                bytes = serde_json::to_vec_pretty(&config).unwrap_or(bytes);
            }
        }
        files.push((name, bytes));
    }
    Ok(files)
}

/// What the tensors of a model are made of.
#[derive(Debug, Serialize)]
pub(super) struct ShownNames {
    family: String,
    names: Vec<ShownLink>,
}

#[derive(Debug, Serialize)]
struct ShownLink {
    hf: Vec<ShownTensor>,
    mindspore: Vec<ShownTensor>,
}

#[derive(Debug, Serialize)]
struct ShownTensor {
    name: String,
    shape: Vec<u64>,
}

/// The names of both sides for the model described in `directory`.
pub(super) fn names_of(
    directory: &Path,
    names: Option<Scheme>,
    args: &FamilyArgs,
) -> Result<ShownNames> {
    let (family, numbers) = args.model(directory)?;
    let choices = choose(&family, args, names);
    let mapping = Mapping::new(&family, &numbers, &choices, &|_, _| true)?;
    let shown = |tensors: &[crate::model::Tensor]| {
        let tensors = tensors.iter().map(|tensor| ShownTensor {
            name: tensor.name.to_string(),
            shape: tensor.shape.0.clone(),
        });
        tensors.collect()
    };
    let links = mapping.links.iter().map(|link| ShownLink {
        hf: shown(&link.hf),
        mindspore: shown(&link.ms),
    });
    Ok(ShownNames {
        family: family.family,
        names: links.collect(),
    })
}

impl std::fmt::Display for ShownNames {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(out, "family {}", self.family)?;
        for link in &self.names {
            for tensor in &link.mindspore {
                writeln!(out, "{} {:?}", tensor.name, tensor.shape)?;
            }
            // The first and the last tell what the others of a stack are.
            let skipped = link.hf.len().saturating_sub(8);
            for (index, tensor) in link.hf.iter().enumerate() {
                if skipped > 0 && (4..link.hf.len() - 4).contains(&index) {
                    if index == 4 {
                        writeln!(out, "    … {skipped} more")?;
                    }
                    continue;
                }
                writeln!(out, "    {} {:?}", tensor.name, tensor.shape)?;
            }
        }
        Ok(())
    }
}
