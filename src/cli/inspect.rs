//! `shardloom inspect`: what is in a file or directory. One process, no MPI.

use crate::cli::command::{Command, Prepared};
use crate::cli::flags::choice::choice;
use crate::cli::flags::family::{FamilyArgs, SCHEMES};
use crate::cli::flags::reading::WeightsArgs;
use crate::cli::flags::strategy::ModelArgs;
use crate::fault::plain::Text;
use crate::fault::{Fault, Kind, Result};
use crate::front::Deriving;
use crate::job::inspect::{Wanted, inspect, lacks_of_older, steps_at};
use crate::model::{Mapping, Scheme, Tensor, check_named};
use crate::report::{Report, Shown};
use crate::source::nothing;
use crate::source::pattern::is_one as is_pattern;
use crate::source::strategy_files::{read_alone, strategy_bytes};
use crate::store::Format;
use crate::store::io::{self, Standing};
use crate::store::manifest::NAME;
use crate::strategy::{Strategy, StrategyFile, show};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  shardloom inspect ckpt
  shardloom inspect ckpt --rank 0 --param '*.wq.weight' --stats
  shardloom inspect Qwen3-8B --names mcore";

/// Show what is in a file or directory.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Inspect {
    /// A weight file, a directory of weights, or a strategy file, a layout (dp=2,tp=4) or a trainer's YAML file; with
    /// --names, a Hugging Face model.
    path: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// Show what a Hugging Face model's tensors are called and made of at MindSpore.
    #[arg(long, value_parser = choice(SCHEMES), value_name = "SCHEME", num_args = 0..=1)]
    #[allow(clippy::option_option)]
    names: Option<Option<Scheme>>,
    /// Which of several files in a rank directory: epoch_step, step, task-epoch_step, or latest.
    #[arg(long)]
    file_suffix: Option<String>,
    #[command(flatten)]
    weights: WeightsArgs,
    /// Only tensors whose names match, one by one: '*.wq.weight'.
    #[arg(long, value_name = "GLOB")]
    param: Option<String>,
    /// Only what rank R holds.
    #[arg(long, value_name = "R")]
    rank: Option<u32>,
    /// The names as a tree.
    #[arg(long, conflicts_with = "stats")]
    tree: bool,
    /// Every tensor of every file.
    #[arg(long)]
    all: bool,
    /// Read the tensors too: largest magnitude, norm, how many are NaN, infinite, zero.
    #[arg(long)]
    stats: bool,
    /// In the JSON result, where in its file each tensor's bytes lie.
    #[arg(long)]
    places: bool,
    #[command(flatten)]
    family: FamilyArgs,
}

impl Command for Inspect {
    fn prepare(self) -> Result<Prepared> {
        Ok(Prepared::alone(move |report| self.run(report)))
    }
}

impl Inspect {
    /// Prints what is at the path.
    fn run(&self, report: &Report) -> Result<bool> {
        let path = &self.path;
        if let Some(strategy) = self.derived()? {
            let shown = show::show(&strategy, self.param.as_deref(), self.rank, None)?;
            report.data(&shown, &shown.text())?;
            return Ok(true);
        }
        if let Some(names) = self.names {
            let shown = names_of(path, names, &self.family)?;
            report.data(&shown, &shown.text())?;
            return Ok(true);
        }
        if self.family.is_given() {
            let message = "the choices of a family are for --names";
            return Err(Fault::new(Kind::Usage, message));
        }
        if io::standing(path)? == Standing::Nothing && !is_pattern(path) {
            return Err(nothing::absent(path));
        }
        let weights = self.weights.weights.as_deref();
        let wanted = Wanted {
            parameter: self.param.as_deref(),
            rank: self.rank,
            figures: self.stats,
            places: self.places,
        };
        match inspect(path, self.file_suffix.as_deref(), weights, wanted) {
            Ok(mut inspected) => {
                if self.file_suffix.is_none() {
                    inspected.notes.extend(lacks_of_older(path, &inspected));
                }
                let each = self.all || self.stats || self.param.is_some();
                let shown = Shown {
                    each,
                    tree: self.tree,
                    ..Shown::default()
                };
                report.inspected(&inspected, shown)?;
                Ok(true)
            }
            // A .ckpt file may be weights or a strategy; tell of the format that fits better.
            Err(fault) => match strategy(path) {
                Some(shown) => {
                    report.data(&shown, &shown.text())?;
                    Ok(true)
                }
                None => {
                    // Which ranks have which step tells what to do.
                    if matches!(fault.kind, Kind::Ambiguous | Kind::MissingShard) {
                        report.steps(&steps_at(path))?;
                    }
                    Err(fault)
                }
            },
        }
    }
}

impl Inspect {
    /// The strategy of what is given in a strategy's place; none: the path is one.
    fn derived(&self) -> Result<Option<Strategy>> {
        let deriving = Deriving {
            model: self.model.model.clone(),
            names: self.names.flatten(),
            ..Deriving::default()
        };
        let made = deriving.make_alone(self.path.clone().into())?;
        if made.path().is_some() {
            deriving.check([&None])?;
            return Ok(None);
        }
        read_alone(&made).map(Some)
    }
}

fn strategy(path: &Path) -> Option<show::Shown> {
    // What this program wrote has a manifest, which keeps a strategy, and is weights.
    if matches!(io::standing(&path.join(NAME)), Ok(Standing::File)) {
        return None;
    }
    if Format::of(&path.display().to_string()) == Some(Format::SAFETENSORS) {
        return None;
    }
    let files = strategy_bytes(path).ok()??;
    let files: Vec<StrategyFile<'_>> = files
        .iter()
        .map(|(name, bytes)| StrategyFile { name, bytes })
        .collect();
    let strategy = Strategy::read(&files).ok()?;
    show::show(&strategy, None, None, None).ok()
}

/// What the tensors of a model are made of.
#[derive(Debug, Serialize)]
struct ShownNames {
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
fn names_of(directory: &Path, names: Option<Scheme>, args: &FamilyArgs) -> Result<ShownNames> {
    let (family, numbers) = args.model(directory)?;
    let choices = args.choices(&family, names);
    let mapping = Mapping::new(&family, &numbers, &choices, &|_, _| true)?;
    let named = |fault: Fault| fault.file(directory.display().to_string());
    check_named(&family, &mapping, choices.names).map_err(named)?;
    let shown = |tensors: &[Tensor]| {
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

impl ShownNames {
    /// For people.
    fn text(&self) -> Text {
        let mut out = Text::new(format_args!("family {}", self.family));
        for link in &self.names {
            for tensor in &link.mindspore {
                out.line(format_args!("{} {:?}", tensor.name, tensor.shape));
            }
            // The first and the last tell what the others of a stack are.
            let skipped = link.hf.len().saturating_sub(8);
            for (index, tensor) in link.hf.iter().enumerate() {
                if skipped > 0 && (4..link.hf.len() - 4).contains(&index) {
                    if index == 4 {
                        out.line(format_args!("    … {skipped} more"));
                    }
                    continue;
                }
                out.line(format_args!("    {} {:?}", tensor.name, tensor.shape));
            }
        }
        out
    }
}
