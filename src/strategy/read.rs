//! From files to layouts: one file by itself, or one file a stage.

use super::file::{Form, StrategyFile};
use super::name::{natural, split_stage};
use super::stage_layout::StageLayout;
use super::{json, protobuf};
use crate::fault::{Fault, Kind, Result};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// One layout on its way into a strategy.
pub(super) struct Item<'a> {
    /// File it was read from; empty if none.
    pub(super) file: &'a str,
    pub(super) name: Arc<str>,
    pub(super) layout: StageLayout,
}

/// A decoded file of either form.
pub(super) enum Document {
    Protobuf(protobuf::ParallelStrategyMap),
    Json(json::Document),
}

/// The file of one stage.
pub(super) struct Stage<'a> {
    pub(super) stage: u32,
    pub(super) file: &'a str,
    pub(super) document: Document,
}

impl Document {
    /// Reads a file in the form that its name tells, and refuses one without layouts.
    pub(super) fn decode(file: &StrategyFile) -> Result<Self> {
        let document = match Form::of(file.name) {
            Form::Protobuf => protobuf::decode(file.bytes).map(Document::Protobuf),
            Form::Json => json::decode(file.bytes).map(Document::Json),
        };
        let document = document.map_err(|fault| fault.file(file.name))?;
        if document.entry_names().is_empty() {
            let message = "the strategy file holds no layouts";
            return Err(Fault::new(Kind::Strategy, message).file(file.name));
        }
        Ok(document)
    }

    fn entry_names(&self) -> Vec<&str> {
        match self {
            Document::Protobuf(map) => map
                .parallel_layout_item
                .iter()
                .map(|item| &*item.param_name)
                .collect(),
            Document::Json(document) => {
                let items = document.parallel_layout_item.0.iter();
                items.map(|(name, _)| &**name).collect()
            }
        }
    }

    /// The stage of an unmerged file: that of its first operator.
    fn stage(&self) -> Option<u32> {
        match self {
            Document::Protobuf(map) => {
                let item = map.parallel_strategy_item.first()?;
                Some(item.parallel_strategys.stage)
            }
            Document::Json(document) => Some(document.parallel_strategy_item.0.first()?.1.stage),
        }
    }

    /// Whether both say the same of every parameter; the order of entries means nothing.
    fn same_layouts(&self, other: &Document) -> bool {
        match (self, other) {
            (Document::Protobuf(a), Document::Protobuf(b)) => {
                let sorted = |map: &protobuf::ParallelStrategyMap| {
                    let mut items = map.parallel_layout_item.clone();
                    items.sort_by(|a, b| a.param_name.cmp(&b.param_name));
                    items
                };
                sorted(a) == sorted(b)
            }
            (Document::Json(a), Document::Json(b)) => {
                let sorted = |document: &json::Document| {
                    let mut items = document.parallel_layout_item.0.clone();
                    items.sort_by(|a, b| a.0.cmp(&b.0));
                    items
                };
                sorted(a) == sorted(b)
            }
            _ => false,
        }
    }

    /// All layouts. Without a `stage` the names tell it; with one they are plain.
    pub(super) fn items<'a>(&self, file: &'a str, stage: Option<u32>) -> Result<Vec<Item<'a>>> {
        let item = |entry: &str, layout: Result<_>| {
            let (stage, name) = match stage {
                Some(stage) => (stage, entry),
                None => {
                    let (stage, name) = split_stage(entry);
                    (stage.unwrap_or(0), name)
                }
            };
            if name.is_empty() {
                let message = "the strategy file has a layout without a name";
                return Err(Fault::new(Kind::Strategy, message).file(file));
            }
            let (layout, expanded_shape) =
                layout.map_err(|fault: Fault| fault.tensor(name).file(file))?;
            Ok(Item {
                file,
                name: name.into(),
                layout: StageLayout {
                    stage,
                    layout: Arc::new(layout),
                    expanded_shape,
                    padded: false,
                },
            })
        };
        match self {
            Document::Protobuf(map) => {
                let items = map.parallel_layout_item.iter();
                let layout = |layouts: &protobuf::ParallelLayouts| Ok((layouts.layout()?, None));
                items
                    .map(|entry| item(&entry.param_name, layout(&entry.parallel_layouts)))
                    .collect()
            }
            Document::Json(document) => {
                let items = document.parallel_layout_item.0.iter();
                items
                    .map(|(name, entry)| item(name, entry.layout()))
                    .collect()
            }
        }
    }
}

/// The file of each stage, ascending, among the unmerged files of a directory. Files of one stage
/// must say the same, as MindSpore writes one a rank.
pub(super) fn stages<'a>(files: &[StrategyFile<'a>]) -> Result<Vec<Stage<'a>>> {
    let mut files = files.to_vec();
    files.sort_by(|a, b| natural(a.name, b.name));
    let Some(first) = files.first() else {
        return Err(Fault::new(Kind::Strategy, "there are no strategy files"));
    };
    if let Some(other) = files
        .iter()
        .find(|f| Form::of(f.name) != Form::of(first.name))
    {
        let message = format!(
            "strategy files must be all protobuf or all JSON, but '{}' is of the other form",
            other.name
        );
        return Err(Fault::new(Kind::Strategy, message).file(first.name));
    }
    // Equal ones may be the same bytes: these need not be looked at again.
    let (mut places, mut seen) = (HashSet::new(), HashSet::new());
    let mut is_new = |file: &&StrategyFile<'a>| {
        places.insert(file.bytes.as_ptr_range()) && seen.insert(file.bytes)
    };
    let mut stages: BTreeMap<u32, Stage> = BTreeMap::new();
    for file in files.iter().filter(|file| is_new(file)) {
        let document = Document::decode(file)?;
        let bad = |message: String| Fault::new(Kind::Strategy, message).file(file.name);
        let Some(stage) = document.stage() else {
            return Err(bad("no operator items, so its stage is unknown".into()));
        };
        let names = document.entry_names();
        if let Some(name) = names.iter().find(|name| split_stage(name).0.is_some()) {
            let fault = bad(format!("is merged already: '{name}' names its stage"));
            return Err(fault.hint("a merged strategy is used as it is, by itself"));
        }
        if let Some(known) = stages.get(&stage) {
            if !known.document.same_layouts(&document) {
                return Err(bad(format!(
                    "describes stage {stage} otherwise than '{}'",
                    known.file
                ))
                .hint("are these strategies of different jobs?"));
            }
            continue;
        }
        let file = file.name;
        let part = Stage {
            stage,
            file,
            document,
        };
        stages.insert(stage, part);
    }
    Ok(stages.into_values().collect())
}
