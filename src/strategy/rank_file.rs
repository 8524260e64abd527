//! The file of one rank, as a job's compiler writes it: the same for all ranks of a stage.

use super::file::Form;
use super::stage_layout::StageLayout;
use super::{json, protobuf};
use crate::fault::Result;
use crate::layout::{Layout, OptimizerShard};
use std::sync::Arc;

/// What the compiler writes in place of a stage; nobody reads it.
const CURRENT_STAGE: u32 = 2;

/// A tensor of a stage.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its layout.
    pub layout: Arc<Layout>,
    /// Its full shape.
    pub shape: Vec<u64>,
}

impl Entry {
    /// Its name and layout in `stage`.
    #[must_use]
    pub fn in_stage(&self, stage: u32) -> (Arc<str>, StageLayout) {
        let layout = StageLayout {
            stage,
            layout: Arc::clone(&self.layout),
            expanded_shape: None,
            padded: false,
        };
        (self.name.as_str().into(), layout)
    }
}

/// The file of a rank of `stage`. One operator carries the stage, which MindSpore looks for there.
///
/// # Errors
/// [`crate::fault::Kind::Strategy`] if a number doesn't fit the form.
pub fn encode(form: Form, stage: u32, entries: &[Entry]) -> Result<Vec<u8>> {
    match form {
        Form::Protobuf => message(stage, entries).map(|map| protobuf::encode(&map)),
        Form::Json => json::encode(&document(stage, entries)),
    }
}

fn operator(stage: u32) -> String {
    format!("shardloom_stage{stage}")
}

fn message(stage: u32, entries: &[Entry]) -> Result<protobuf::ParallelStrategyMap> {
    let items = entries.iter().map(|entry| {
        let layouts = protobuf::ParallelLayouts::from_layout(&entry.layout);
        Ok(protobuf::ParallelLayoutItem {
            param_name: entry.name.clone(),
            parallel_layouts: layouts.map_err(|fault| fault.tensor(&*entry.name))?,
        })
    });
    Ok(protobuf::ParallelStrategyMap {
        current_stage: CURRENT_STAGE,
        parallel_strategy_item: vec![protobuf::ParallelStrategyItem {
            node_name: operator(stage),
            parallel_strategys: protobuf::ParallelStrategys {
                stage,
                parallel_strategy: Vec::new(),
            },
        }],
        parallel_layout_item: items.collect::<Result<_>>()?,
    })
}

fn document(stage: u32, entries: &[Entry]) -> json::Document {
    let mut document = json::Document {
        current_stage: CURRENT_STAGE,
        ..Default::default()
    };
    let items = entries
        .iter()
        .map(|entry| (entry.name.clone(), flattened(entry)));
    document.parallel_layout_item.0.extend(items);
    document
        .parallel_layout_item
        .0
        .sort_by(|a, b| a.0.cmp(&b.0));
    let item = json::OperatorItem {
        parallel_strategy: Vec::new(),
        stage,
    };
    document
        .parallel_strategy_item
        .0
        .push((operator(stage), item));
    document
}

/// The compiler leaves axes of size 1 out of this form, and makes a dimension that several axes cut
/// one dimension an axis.
fn flattened(entry: &Entry) -> json::LayoutItem {
    let (mesh, map) = (entry.layout.mesh(), entry.layout.map());
    let wide: Vec<usize> = (0..mesh.len()).filter(|axis| mesh[*axis] > 1).collect();
    let number = |axis: usize| {
        let place = wide.iter().position(|wide| *wide == axis)?;
        i64::try_from(wide.len() - 1 - place).ok()
    };
    let signed = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
    let (mut tensor_map, mut shape) = (Vec::new(), Vec::new());
    for (axes, full) in map.iter().zip(&entry.shape) {
        let cuts = axes
            .iter()
            .filter_map(|axis| Some((number(*axis)?, mesh[*axis])));
        let cuts: Vec<(i64, u64)> = cuts.collect();
        let mut left = *full;
        for (place, (number, size)) in cuts.iter().enumerate() {
            tensor_map.push(*number);
            let last = place + 1 == cuts.len();
            shape.push(signed(if last { left } else { *size }));
            left /= size;
        }
        if cuts.is_empty() {
            tensor_map.push(-1);
            shape.push(signed(left));
        }
    }
    let none = OptimizerShard { step: 0, size: 0 };
    let shard = entry.layout.optimizer().unwrap_or(none);
    let sizes: Vec<u64> = wide.iter().map(|axis| mesh[*axis]).collect();
    json::LayoutItem {
        dev_matrix: if sizes.is_empty() { vec![1] } else { sizes },
        field: 0,
        opt_weight_shard_size: shard.size,
        opt_weight_shard_step: shard.step,
        tensor_map,
        tensor_shape: Some(shape),
        param_split_shape: None,
        indices_offset: None,
    }
}
