//! The layout that a result keeps, so that nobody has to give it again.

use crate::plan::TensorPlan;
use crate::plan::arrange::Files;
use crate::plan::build::Build;
use crate::strategy::json::Document;
use crate::strategy::{StageLayout, Strategy};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What `build` writes into `files` is cut by, as a strategy file tells it: the layouts of its tensors by
/// `strategy`, under the names that are written. None for full weights, for files that tell their own layout,
/// and where a strategy file can't tell it. Local.
pub(super) fn laid(files: &Files, build: &Build, strategy: Option<&Strategy>) -> Option<Document> {
    let strategy = cutting(files, strategy)?;
    let stages = (0u32..).zip(&build.stages);
    let layouts = stages.flat_map(|(stage, plans)| plans.iter().map(move |plan| of(stage, plan)));
    let layouts: Vec<(Arc<str>, StageLayout)> = layouts.collect::<Option<_>>()?;
    // Of a stage without tensors nothing is told, and then it isn't of all ranks.
    let laid =
        Strategy::from_layouts(strategy.stages(), strategy.ranks_per_stage(), layouts).ok()?;
    laid.document().ok()
}

/// What is said where the result keeps no layout though it is files of ranks. Local.
pub(super) fn unkept(
    files: &Files,
    strategy: Option<&Strategy>,
    laid: Option<&Document>,
) -> Option<String> {
    (cutting(files, strategy).is_some() && laid.is_none()).then(|| {
        "the result keeps no layout (a strategy file in JSON can't tell this one): whoever reads it needs the \
         strategy"
            .to_owned()
    })
}

/// `strategy`, if it cuts what is written into directories of ranks.
fn cutting<'a>(files: &Files, strategy: Option<&'a Strategy>) -> Option<&'a Strategy> {
    strategy.filter(|strategy| strategy.ranks() > 1 && are_of_ranks(files))
}

/// Whether each rank has a directory of files that don't tell what they are parts of.
fn are_of_ranks(files: &Files) -> bool {
    match files {
        Files::Ranks { .. } | Files::Resume { .. } => true,
        Files::AsSource(otherwise) => are_of_ranks(otherwise),
        Files::Directory { .. } | Files::Full { .. } => false,
    }
}

/// How `plan` is cut in `stage`.
fn of(stage: u32, plan: &TensorPlan) -> Option<(Arc<str>, StageLayout)> {
    let layout = &plan.destination.layout;
    let shape = plan.written_shape(&plan.destination.grid.full_shape());
    // A packed type has other sizes in its file than in bytes.
    let told = layout.map().iter().all(|axes| axes.len() < 2) || plan.written.bits() >= 8;
    let expanded = StageLayout::expanded(stage, layout, &shape.0);
    let expanded = expanded.ok().filter(|_| told)?;
    Some((plan.name.clone(), expanded))
}

/// `strategy` for files whose tensors get other `names`. Local.
pub(super) fn renamed(strategy: &Strategy, names: &BTreeMap<String, String>) -> Option<Document> {
    let layouts = strategy.iter().map(|(name, layout)| {
        let written = names.get(&**name).map(|written| written.as_str().into());
        (written.unwrap_or_else(|| name.clone()), layout.clone())
    });
    let renamed =
        Strategy::from_layouts(strategy.stages(), strategy.ranks_per_stage(), layouts).ok()?;
    renamed.document().ok()
}
