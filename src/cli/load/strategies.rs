//! Where the strategies of a training job lie.

use crate::cli::load::chosen::Chosen;
use crate::cli::load::sight::Sight;
use crate::config::train_yaml::{ParallelConfig, Shape, TrainConfig};
use crate::exchange::all_gather_agreed;
use crate::fault::{Fault, Kind, Result};
use crate::front::Deriving;
use crate::source::laid_at;
use crate::strategy::{Strategy, StrategyInput};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How to come by the strategy of a job.
const MAKE_ONE: &str = "make it with `shardloom strategy derive --config`, or by running the trainer once with \
                        only_save_strategy: True";

/// The strategy of the weights that are loaded.
pub(super) struct Found {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Whether that is the weights' own manifest.
    pub(super) laid: bool,
    /// What the trainer that wrote them has left beside them, or the configuration gives.
    pub(super) beside: Option<PathBuf>,
}

/// The strategy that the configuration gives, that the manifest of what is `chosen` keeps, or that the trainer which
/// wrote the weights has left beside them. Collective.
pub(super) fn of_source(
    sight: &Sight<'_>,
    config: &TrainConfig,
    source: &Path,
    (shape, chosen): (&Shape, &Chosen),
) -> Result<Found> {
    let given = config
        .src_strategy_path_or_dir
        .as_deref()
        .unwrap_or_default();
    if !given.is_empty() {
        let path = PathBuf::from(given);
        return Ok(Found {
            beside: Some(path.clone()),
            laid: false,
            path,
        });
    }
    let up = if *shape == Shape::RankFile { 3 } else { 1 };
    let beside = (0..up)
        .try_fold(source, |path, _| path.parent())
        .unwrap_or(Path::new(""));
    let beside = beside.join("strategy");
    let is_there = sight.anywhere(&beside)?;
    let laid = laid_at(&chosen.directory, chosen.suffix.as_deref());
    let laid = all_gather_agreed(sight.world, laid)?;
    let laid = laid.into_iter().flatten().next();
    let found = |path: PathBuf, laid: bool| Found {
        path,
        laid,
        beside: is_there.then(|| beside.clone()),
    };
    match laid {
        Some(manifest) => Ok(found(manifest, true)),
        None if is_there => Ok(found(beside.clone(), false)),
        None => Err(Fault::new(
            Kind::Config,
            "src_strategy_path_or_dir is empty and there is no strategy beside load_checkpoint",
        )
        .file(beside.display().to_string())
        .hint("set src_strategy_path_or_dir to the strategy of the job that wrote the weights")),
    }
}

/// The strategy of the job that is to be started; none if it isn't there yet. Collective.
pub(super) fn of_job(
    sight: &Sight<'_>,
    config: &TrainConfig,
    source: Option<&Path>,
) -> Result<Option<PathBuf>> {
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
            return Ok(Some(candidate.clone()));
        }
    }
    Ok(None)
}

/// The strategy of the job that is to be started, from its configuration alone. Collective.
///
/// # Errors
/// [`Kind::Config`], saying why it can't be derived.
pub(super) fn derived(
    sight: &Sight<'_>,
    config: &TrainConfig,
    yaml: &Path,
    deriving: &Deriving,
) -> Result<StrategyInput> {
    let mut made = Some(StrategyInput::from(yaml));
    let missing = |why: &str| {
        let own = config.output().join("strategy");
        Fault::new(
            Kind::Config,
            format!("the job's strategy isn't there yet{why}"),
        )
        .file(own.display().to_string())
    };
    deriving.make(sight.world, &mut made).map_err(|fault| {
        let why = format!(", and can't be derived: {}", fault.message);
        let first = fault
            .hint
            .map_or_else(String::new, |hint| format!("{hint}; "));
        missing(&why).hint(format!(
            "{first}or run the trainer once with only_save_strategy: True, or give --dst-strategy"
        ))
    })?;
    made.ok_or_else(|| missing("").hint(format!("{MAKE_ONE}, or give --dst-strategy")))
}

/// For people: that no file has it. Local.
pub(super) fn note(strategy: &StrategyInput) -> Option<String> {
    let made = strategy.path().is_none();
    made.then(|| format!("the job's strategy is derived from {strategy}: no file has it"))
}

/// A strategy must be for the mesh that the configuration asks for. Local.
///
/// # Errors
/// [`Kind::Config`], naming what differs.
pub(super) fn check_mesh(
    config: &TrainConfig,
    strategy: Option<&Strategy>,
    path: &Path,
) -> Result<()> {
    let (Some(strategy), Some(mesh)) = (strategy, &config.parallel_config) else {
        return Ok(());
    };
    let differs = ranks_differ(config, strategy)
        .or_else(|| stages_differ(strategy, mesh.pipeline_stage))
        .or_else(|| cuts_differ(strategy, mesh));
    let Some(message) = differs else {
        return Ok(());
    };
    Err(Fault::new(Kind::Config, message)
        .file(path.display().to_string())
        .hint(format!("is it an earlier job's? {MAKE_ONE}")))
}

fn ranks_differ(config: &TrainConfig, strategy: &Strategy) -> Option<String> {
    let ranks = config.ranks().filter(|ranks| *ranks > 1)?;
    (u64::from(strategy.ranks()) != ranks).then(|| {
        let has = strategy.ranks();
        format!("is for {has} ranks, parallel_config asks for {ranks}")
    })
}

fn stages_differ(strategy: &Strategy, wanted: Option<u64>) -> Option<String> {
    let wanted = wanted?;
    let has = u64::from(strategy.stages());
    (has != wanted).then(|| format!("has pipeline_stage {has}, parallel_config asks for {wanted}"))
}

/// Weights are cut by `model_parallel` and, where there are experts, by `expert_parallel`: a strategy
/// in which nothing is cut by the first is another mesh's, though its size may be the same.
fn cuts_differ(strategy: &Strategy, mesh: &ParallelConfig) -> Option<String> {
    let wanted = mesh.model_parallel?;
    let cuts: BTreeSet<u64> = strategy
        .iter()
        .map(|(_, layout)| {
            let parts: u64 = layout.layout.parts().iter().product();
            parts / layout.layout.optimizer_pieces().max(1)
        })
        .filter(|parts| *parts > 1)
        .collect();
    let experts = mesh.expert_parallel.unwrap_or(1) > 1;
    let fits = cuts.is_empty()
        || cuts.contains(&wanted)
        || wanted == 1 && experts
        || wanted > 1 && cuts.iter().any(|parts| parts.is_multiple_of(wanted));
    (!fits).then(|| {
        let has: Vec<String> = cuts.iter().map(u64::to_string).collect();
        format!(
            "cuts weights into {}, parallel_config has model_parallel {wanted}",
            has.join(" or ")
        )
    })
}
