//! The shapes of DeepSeek-V3 with its optimizer's state, and strategies for it on any mesh.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

use shardloom::layout::{Layout, OptimizerShard};
use shardloom::plan::simulate::Shapes;
use shardloom::strategy::{StageLayout, Strategy};
use shardloom::tensor::dtype::Dtype;
use shardloom::tensor::shape::Shape;
use std::sync::Arc;

const LAYERS: u32 = 61;
const DENSE_LAYERS: u32 = 3;

/// How a tensor is cut.
#[derive(Clone, Copy)]
enum Cut {
    Rows,
    Columns,
    Not,
    Experts,
}

/// Sizes of the mesh: `dp * tp` is a multiple of `ep`.
#[derive(Clone, Copy)]
pub(crate) struct Parallel {
    pub(crate) pp: u32,
    pub(crate) dp: u64,
    pub(crate) tp: u64,
    pub(crate) ep: u64,
}

/// Name, layer (none: first or last stage), full shape, cut.
fn parameters() -> Vec<(String, u32, Vec<u64>, Cut)> {
    let mut all = vec![
        ("embedding.weight".into(), 0, vec![129_280, 7168], Cut::Rows),
        ("norm.weight".into(), LAYERS - 1, vec![7168], Cut::Not),
        (
            "head.weight".into(),
            LAYERS - 1,
            vec![129_280, 7168],
            Cut::Rows,
        ),
    ];
    for layer in 0..LAYERS {
        let mut add = |name: &str, shape: &[u64], cut: Cut| {
            all.push((format!("layers.{layer}.{name}"), layer, shape.to_vec(), cut));
        };
        add("input_norm.weight", &[7168], Cut::Not);
        add("post_norm.weight", &[7168], Cut::Not);
        add("attention.q_a.weight", &[1536, 7168], Cut::Not);
        add("attention.q_a_norm.weight", &[1536], Cut::Not);
        add("attention.q_b.weight", &[24_576, 1536], Cut::Rows);
        add("attention.kv_a.weight", &[576, 7168], Cut::Not);
        add("attention.kv_a_norm.weight", &[512], Cut::Not);
        add("attention.kv_b.weight", &[32_768, 512], Cut::Rows);
        add("attention.o.weight", &[7168, 16_384], Cut::Columns);
        if layer < DENSE_LAYERS {
            add("mlp.gate_up.weight", &[36_864, 7168], Cut::Rows);
            add("mlp.down.weight", &[7168, 18_432], Cut::Columns);
        } else {
            add("mlp.router.weight", &[256, 7168], Cut::Not);
            add("mlp.router.bias", &[256], Cut::Not);
            add("mlp.experts.gate_up", &[256, 7168, 4096], Cut::Experts);
            add("mlp.experts.down", &[256, 2048, 7168], Cut::Experts);
            add("mlp.shared.gate_up.weight", &[4096, 7168], Cut::Rows);
            add("mlp.shared.down.weight", &[7168, 2048], Cut::Columns);
        }
    }
    all
}

/// Parameters in bf16, two moments of each in fp32.
pub(crate) fn shapes() -> Shapes {
    let mut shapes = Shapes::new();
    for (name, _, shape, _) in parameters() {
        shapes.push((name.as_str().into(), Dtype::BF16, Shape(shape.clone())));
        for moment in ["adam_m", "adam_v"] {
            let name = format!("{moment}.{name}");
            shapes.push((name.into(), Dtype::F32, Shape(shape.clone())));
        }
    }
    shapes
}

/// Layers spread evenly over the stages; moments are cut over 8 replicas more where that divides.
pub(crate) fn strategy(parallel: Parallel) -> Strategy {
    let Parallel { pp, dp, tp, ep } = parallel;
    let ranks = dp * tp;
    let mut layouts: Vec<(Arc<str>, StageLayout)> = Vec::new();
    for (name, layer, shape, cut) in parameters() {
        let stage = layer * pp / LAYERS;
        let dims = shape.len();
        let mut map = vec![vec![-1]; dims];
        let mesh = match cut {
            Cut::Experts => vec![ranks / ep, ep],
            _ => vec![dp, tp],
        };
        match cut {
            Cut::Rows | Cut::Experts => map[0] = vec![0],
            Cut::Columns => map[1] = vec![0],
            Cut::Not => {}
        }
        let plain = Layout::new(&mesh, &map, None).unwrap();
        let rows = shape[0] / plain.parts()[0];
        let step = i64::try_from(if matches!(cut, Cut::Not) { 1 } else { mesh[1] }).unwrap();
        let divides = rows.is_multiple_of(8) && plain.replicas().is_multiple_of(8);
        let shard = OptimizerShard { step, size: 8 };
        let sharded = match divides {
            true => Layout::new(&mesh, &map, Some(shard)).unwrap(),
            false => plain.clone(),
        };
        for moment in ["adam_m", "adam_v"] {
            let name = format!("{moment}.{name}");
            layouts.push((name.into(), StageLayout::new(stage, sharded.clone())));
        }
        layouts.push((name.into(), StageLayout::new(stage, plain)));
    }
    Strategy::from_layouts(pp, u32::try_from(ranks).unwrap(), layouts).unwrap()
}

/// What `--shapes` reads, with each dimension but the number of experts a part of what it is.
pub(crate) fn shapes_json(part: u64) -> String {
    let entries = shapes().into_iter().map(|(name, dtype, shape)| {
        let size = |size: &u64| if *size > 256 { size / part } else { *size };
        let shape: Vec<u64> = shape.0.iter().map(size).collect();
        let described = serde_json::json!({"dtype": dtype.safetensors_name(), "shape": shape});
        (name.to_string(), described)
    });
    serde_json::Value::Object(entries.collect()).to_string()
}
