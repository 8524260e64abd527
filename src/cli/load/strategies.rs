//! Where the strategies of a training job lie.

use crate::cli::load::sight::Sight;
use crate::config::train_yaml::{Shape, TrainConfig};
use crate::fault::{Fault, Kind, Result};
use crate::strategy::Strategy;
use std::path::{Path, PathBuf};

/// Where the trainer that wrote the weights left their strategy. Collective.
pub(super) fn of_source(
    sight: &Sight<'_>,
    config: &TrainConfig,
    source: &Path,
    shape: &Shape,
) -> Result<PathBuf> {
    let given = config
        .src_strategy_path_or_dir
        .as_deref()
        .unwrap_or_default();
    if !given.is_empty() {
        return Ok(PathBuf::from(given));
    }
    let up = if *shape == Shape::RankFile { 3 } else { 1 };
    let beside = (0..up)
        .try_fold(source, |path, _| path.parent())
        .unwrap_or(Path::new(""));
    let beside = beside.join("strategy");
    if sight.anywhere(&beside)? {
        return Ok(beside);
    }
    Err(Fault::new(
        Kind::Config,
        "src_strategy_path_or_dir is empty and there is no strategy beside load_checkpoint",
    )
    .file(beside.display().to_string())
    .hint("set src_strategy_path_or_dir to the strategy of the job that wrote the weights"))
}

/// The strategy of the job that is to be started. Collective.
pub(super) fn of_job(
    sight: &Sight<'_>,
    config: &TrainConfig,
    source: Option<&Path>,
) -> Result<PathBuf> {
    let output = config.output();
    let (own, merged) = (
        output.join("strategy"),
        output.join("merged_strategy/dst_strategy.ckpt"),
    );
    // Where the weights were written by an earlier run into the same output, its strategy is
    // the source's.
    let own_first = source != Some(own.as_path());
    let order = if own_first {
        [&own, &merged]
    } else {
        [&merged, &own]
    };
    for candidate in order {
        if sight.anywhere(candidate)? {
            return Ok(candidate.clone());
        }
    }
    Err(
        Fault::new(Kind::Config, "the job's strategy isn't there yet")
            .file(own.display().to_string())
            .hint("run the trainer once with only_save_strategy: True, or give --dst-strategy"),
    )
}

/// A strategy must be for as many ranks as the configuration asks for. Local.
pub(super) fn check_ranks(
    config: &TrainConfig,
    strategy: Option<&Strategy>,
    path: &Path,
) -> Result<()> {
    let (Some(strategy), Some(ranks)) = (strategy, config.ranks()) else {
        return Ok(());
    };
    if ranks <= 1 || u64::from(strategy.ranks()) == ranks {
        return Ok(());
    }
    let message = format!(
        "is for {} ranks, parallel_config asks for {ranks}",
        strategy.ranks()
    );
    Err(Fault::new(Kind::Config, message)
        .file(path.display().to_string())
        .hint("is it an earlier job's? Run the trainer once with only_save_strategy: True"))
}
