//! The sections `checkpoint` and `parallelism`, by which trainers of checkpoint 2.0 are told.
//!
//! Such a trainer brings a checkpoint 2.0 into its own layout while it loads it, and loads nothing else
//! but full weights.

use crate::config::asked::{Action, Asked, Shape};
use crate::fault::{Fault, Kind, Result};
use serde::Deserialize;

/// `checkpoint`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CheckpointSection {
    /// The weights; wins over `load_checkpoint`.
    pub load_path: Option<String>,
    /// Whether the optimizer's state is left out: no resume.
    pub no_load_optim: Option<bool>,
    /// Whether what is trained, as an adapter, is saved alone.
    pub save_trainable_only: Option<bool>,
    /// The weights that such an adapter belongs to.
    pub base_load_path: Option<String>,
    /// Beginning of the names of the files that are saved.
    pub prefix: Option<String>,
}

impl CheckpointSection {
    /// Refuses an adapter without the weights that it belongs to.
    ///
    /// # Errors
    /// [`Kind::Config`].
    pub(super) fn check_adapter(&self) -> Result<()> {
        let base = self.base_load_path.as_deref().unwrap_or_default();
        if self.save_trainable_only != Some(true) || !base.is_empty() {
            return Ok(());
        }
        let message = "checkpoint.save_trainable_only is True and checkpoint.base_load_path is empty: \
                       the trainer refuses an adapter without its weights";
        let fault = Fault::new(Kind::Config, message);
        Err(fault
            .hint("give the weights that the adapter is trained on as checkpoint.base_load_path"))
    }
}

/// `parallelism`: the mesh, in the dynamic graph.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Parallelism {
    /// Ranks that share each weight.
    pub tensor_parallel: Option<i64>,
    /// Pipeline stages.
    pub pipeline_parallel: Option<i64>,
    /// Ranks with other data that share the optimizer's state; -1: all that are left.
    pub data_parallel_shard: Option<i64>,
}

/// What weights of `shape` ask for, with a trainer of checkpoint 2.0 that resumes or doesn't.
///
/// # Errors
/// [`Kind::Config`] where the trainer refuses, or would start with other weights than asked for.
pub(super) fn action(asked: &Asked, shape: &Shape, resumes: bool) -> Result<Action> {
    let key = asked.key;
    let wrong = |message: String| Fault::new(Kind::Config, message);
    match shape {
        Shape::Iteration => Ok(Action::None),
        Shape::HuggingFace | Shape::Complete if resumes => Err(wrong(format!(
            "{key} has weights alone, and this job resumes: no optimizer state is there"
        ))
        .hint("checkpoint: {no_load_optim: True} starts from the weights")),
        Shape::HuggingFace => Ok(Action::Import),
        Shape::Complete => Ok(Action::None),
        Shape::File => Err(wrong(format!(
            "{key} is one file, and this trainer takes directories"
        ))
        .hint("give the directory that contains it")),
        Shape::Ranks | Shape::RankFile => Err(wrong(format!(
            "{key} has a directory for each rank (checkpoint 1.0), and this trainer loads checkpoint \
             2.0 alone"
        ))
        .hint("`shardloom reshard --format checkpoint2` makes one of it")),
    }
}
