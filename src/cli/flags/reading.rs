//! What a job reads, and which of its tensors.

use crate::cli::flags::affix::AffixArgs;
use crate::cli::flags::choice::{Choice, choice};
use crate::cli::flags::name_map::name_map;
use crate::cli::flags::strategy::strategy;
use crate::fault::{Fault, Kind, Result};
use crate::plan::build::{Select, Unmatched};
use crate::source::derived::Derived;
use crate::source::{Reading, Verify, Weights};
use crate::strategy::StrategyInput;
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;

const UNMATCHED: &[Choice<Unmatched>] = &[
    ("fail", Unmatched::Fail, "Refuse to go on"),
    (
        "copy",
        Unmatched::Copy,
        "Copy the shard of source rank (destination rank mod source ranks), as MindSpore does",
    ),
    ("drop", Unmatched::Drop, "Leave it out, with a word"),
];

const VERIFY: &[Choice<Verify>] = &[
    (
        "none",
        Verify::None,
        "Not at all, nor with the source's manifest",
    ),
    (
        "sample",
        Verify::Sample,
        "By the source's manifest, else by a sample of each tensor",
    ),
    (
        "all",
        Verify::All,
        "Every byte of every copy, before anything is written",
    ),
];

/// A checkpoint in whatever layout.
#[derive(Clone, Debug, Args)]
pub(crate) struct SourceArgs {
    /// Rank directories, a directory of full weights, or one file.
    #[arg(long)]
    pub(crate) src: PathBuf,
    /// Strategy of the source: file, merged file or directory, a layout (dp=2,tp=4) or a trainer's YAML file
    /// [default: full weights].
    #[arg(long, value_name = "S", value_parser = strategy())]
    pub(crate) src_strategy: Option<StrategyInput>,
    /// Which of several files in a rank directory: epoch_step, step, task-epoch_step, or latest.
    #[arg(long)]
    pub(crate) file_suffix: Option<String>,
    #[command(flatten)]
    pub(crate) weights: WeightsArgs,
    #[command(flatten)]
    pub(crate) affixes: AffixArgs,
}

/// Which files of full weights.
#[derive(Clone, Debug, Args)]
pub(crate) struct WeightsArgs {
    /// Which of the weight files in a directory of full weights, by name or glob; no index is asked.
    #[arg(long, value_name = "GLOB")]
    pub(crate) weights: Option<String>,
}

impl WeightsArgs {
    /// Those that are named, else `otherwise`.
    pub(crate) fn meant(&self, otherwise: Weights) -> Weights {
        self.weights.clone().map_or(otherwise, Weights::Named)
    }

    /// Refuses a choice among files where the trainer reads what is there by itself.
    ///
    /// # Errors
    /// [`Kind::Usage`].
    pub(crate) fn refuse_unread(&self) -> Result<()> {
        let Some(glob) = &self.weights else {
            return Ok(());
        };
        let message =
            format!("--weights '{glob}': nothing is written here, the trainer reads it as it is");
        Err(Fault::new(Kind::Usage, message).hint("move the files that aren't meant elsewhere"))
    }
}

impl SourceArgs {
    /// Reading it.
    pub(crate) fn reading(&self, checks: &CheckArgs, derived: Derived) -> Reading {
        let reading = Reading::checkpoint(
            self.src.clone(),
            self.src_strategy.clone(),
            self.file_suffix.clone(),
        );
        let weights = self.weights.meant(Weights::Told);
        let affixes = self.affixes.affixes();
        checks.reading(
            Reading { weights, ..reading },
            Derived { affixes, ..derived },
        )
    }
}

/// What is checked of a source before anything is written.
#[derive(Clone, Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) verify: VerifyArgs,
    #[command(flatten)]
    pub(crate) unmatched: UnmatchedArgs,
}

/// How copies are compared.
#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyArgs {
    /// How what the source has several times is compared; without a value: all.
    #[arg(long, value_name = "HOW", num_args = 0..=1, default_value = "sample",
          default_missing_value = "all", value_parser = choice(VERIFY))]
    pub(crate) verify: Verify,
}

impl CheckArgs {
    /// `reading`, with these checks.
    pub(crate) fn reading(&self, reading: Reading, derived: Derived) -> Reading {
        Reading {
            derived,
            verify: self.verify.verify,
            ..reading
        }
    }
}

/// What becomes of what only one side knows.
#[derive(Clone, Debug, Args)]
pub(crate) struct UnmatchedArgs {
    /// What to do with parameters that the destination strategy doesn't know, or that the source's
    /// doesn't and ranks hold differently.
    #[arg(long, default_value = "fail", value_parser = choice(UNMATCHED))]
    pub(crate) unmatched: Unmatched,
}

/// Other names.
#[derive(Clone, Debug, Args)]
pub(crate) struct NameMapArgs {
    /// JSON or YAML file {name read: name written}.
    #[arg(long, value_name = "FILE")]
    pub(crate) name_map: Option<PathBuf>,
}

impl NameMapArgs {
    /// The map; empty if none is given.
    ///
    /// # Errors
    /// As [`name_map`].
    pub(crate) fn read(&self) -> Result<BTreeMap<String, String>> {
        name_map(self.name_map.as_deref())
    }
}

/// Which tensors, and under which names.
#[derive(Clone, Debug, Args)]
pub(crate) struct SelectArgs {
    /// Leave out parameters whose names begin so (may be given several times).
    #[arg(long, value_name = "P")]
    pub(crate) filter_out_param_prefix: Vec<String>,
    #[command(flatten)]
    pub(crate) names: NameMapArgs,
}

impl SelectArgs {
    /// What they select.
    ///
    /// # Errors
    /// As [`name_map`].
    pub(crate) fn select(&self) -> Result<Select> {
        Ok(Select {
            filter_out_prefixes: self.filter_out_param_prefix.clone(),
            written: self.names.read()?,
            read: BTreeMap::new(),
            view: None,
        })
    }
}
