//! Merging the strategy files of a pipeline's stages into one.

use super::beside;
use super::file::{Form, StrategyFile};
use super::layouts::Strategy;
use super::read::{self, Document};
use super::{json, protobuf};
use crate::fault::{Fault, Kind, Result};

/// A merged strategy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Form of the inputs, and so of the output whatever its name.
    pub form: Form,
    /// What to write.
    pub bytes: Vec<u8>,
    /// Number of stages.
    pub stages: u32,
}

/// Merges the files of a directory, one or more a stage, as MindSpore 2.10's
/// `merge_pipeline_strategys`: layouts are named `<stage>-<parameter>` (also those of a single
/// stage), operators keep their names. Stages ascend and layouts are sorted by name.
///
/// What MindSpore accepts but couldn't read again is refused: no files at all, files that are merged
/// already, a stage left out, different files for one stage.
///
/// # Errors
/// [`Kind::Strategy`], naming the file; as [`Strategy::read`] of several files.
pub fn merge(files: &[StrategyFile]) -> Result<Merged> {
    if files.is_empty() {
        let fault = Fault::new(Kind::Strategy, "there are no strategy files to merge");
        return Err(fault.hint("a directory needs *.ckpt or *.json files"));
    }
    let (files, _) = beside::apart(files);
    let parts = read::stages(&files)?;
    let mut items = Vec::new();
    for part in &parts {
        items.extend(part.document.items(part.file, Some(part.stage))?);
    }
    let stages = Strategy::assemble(items)?.stages();
    let mut messages = protobuf::ParallelStrategyMap {
        current_stage: 1,
        ..Default::default()
    };
    let mut document = json::Document {
        current_stage: 1,
        ..Default::default()
    };
    let mut form = Form::Protobuf;
    for part in parts {
        match part.document {
            Document::Protobuf(part_map) => add_message(&mut messages, part.stage, part_map),
            Document::Json(part_document) => {
                form = Form::Json;
                add_document(&mut document, part.stage, part_document);
            }
        }
    }
    let bytes = match form {
        Form::Protobuf => protobuf::encode(&messages),
        Form::Json => json::encode(&document)?,
    };
    Ok(Merged {
        form,
        bytes,
        stages,
    })
}

fn add_message(
    all: &mut protobuf::ParallelStrategyMap,
    stage: u32,
    mut part: protobuf::ParallelStrategyMap,
) {
    all.parallel_strategy_item
        .append(&mut part.parallel_strategy_item);
    part.parallel_layout_item
        .sort_by(|a, b| a.param_name.cmp(&b.param_name));
    for mut item in part.parallel_layout_item {
        item.param_name = format!("{stage}-{}", item.param_name);
        all.parallel_layout_item.push(item);
    }
}

/// As in MindSpore, an operator of a later stage replaces one of the same name.
fn add_document(all: &mut json::Document, stage: u32, mut part: json::Document) {
    let operators = &mut all.parallel_strategy_item.0;
    for (name, item) in part.parallel_strategy_item.0 {
        match operators.binary_search_by(|known| known.0.cmp(&name)) {
            Ok(place) => operators[place].1 = item,
            Err(place) => operators.insert(place, (name, item)),
        }
    }
    part.parallel_layout_item.0.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, item) in part.parallel_layout_item.0 {
        all.parallel_layout_item
            .0
            .push((format!("{stage}-{name}"), item));
    }
}
