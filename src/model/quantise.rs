//! Weights of linear layers in 8 bits on their way out, as DeepSeek-V3 is published.

use super::quantised::{BLOCK, COMPRESSED, METHOD, QUANTISED};
use crate::fault::{Fault, Kind, Result};
use crate::plan::dequantise::SCALES;
use crate::strategy::name::matches;
use crate::tensor::quantise::{Block, Form};
use crate::view::{MadeOf, Table};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Rows and columns of a block that shares a scale.
const SIDE: u64 = 128;
/// What is in a linear layer of attention or of experts.
const PARTS: [&str; 4] = [
    ".self_attn.",
    ".self_attention.",
    ".mlp.",
    ".block_sparse_moe.",
];
/// Those among them that choose experts.
const ROUTERS: [&str; 2] = [".mlp.gate.weight", ".block_sparse_moe.gate.weight"];
/// What the name of a layer's weights ends with.
const WEIGHT: &str = ".weight";
/// The key that lists the layers that are left as they are.
const LEFT: &str = "modules_to_not_convert";

/// Which weights are written in 8 bits.
#[derive(Clone, Debug, Default)]
pub struct Quantise {
    /// Patterns of names that are left as they are.
    pub keep: Vec<String>,
}

impl Quantise {
    /// Writes the weights of `table`'s linear layers in 8 bits with their scales beside them; gives the
    /// names of those that are left as they are because that is asked for.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a pattern that no weight has, [`Kind::Unsupported`] if nothing is left to
    /// quantise.
    pub(super) fn apply(&self, table: &mut Table) -> Result<Vec<Arc<str>>> {
        let unused = self.keep.iter();
        let unused = unused.filter(|pattern| !table.keys().any(|name| matches(pattern, name)));
        if let Some(pattern) = unused.min() {
            let message = format!("--keep {pattern}: no tensor written is called so");
            return Err(Fault::new(Kind::Usage, message)
                .hint("patterns are for the names written, as 'model.layers.0.*'"));
        }
        let linear = table.iter().filter(|(name, made)| is_linear(name, made));
        let (kept, chosen): (Vec<_>, Vec<_>) = linear
            .map(|(name, _)| name.clone())
            .partition(|name| self.keep.iter().any(|pattern| matches(pattern, name)));
        if chosen.is_empty() {
            let message = "there is no weight of a linear layer to write in 8 bits";
            return Err(Fault::new(Kind::Unsupported, message));
        }
        let block = Block {
            rows: SIDE,
            columns: SIDE,
        };
        for name in chosen {
            let scales: Arc<str> = format!("{name}{SCALES}").into();
            let Some(weight) = table.get_mut(&name) else {
                continue;
            };
            weight.form = Form::Quantised(block);
            let beside = MadeOf {
                form: Form::Scales(block),
                ..weight.clone()
            };
            if table.insert(scales.clone(), beside).is_some() {
                let message = "is there already, and would be the scales of a weight";
                return Err(Fault::new(Kind::Ambiguous, message).tensor(&*scales));
            }
        }
        Ok(kept)
    }
}

/// Whether a tensor is the weight of a linear layer that DeepSeek-V3 has in 8 bits: a matrix of attention
/// or of experts, and not what chooses these.
fn is_linear(name: &str, made: &MadeOf) -> bool {
    let inside = PARTS.iter().any(|part| name.contains(part));
    let weight = name.ends_with(WEIGHT) && !ROUTERS.iter().any(|router| name.ends_with(router));
    inside && weight && made.shape.0.len() == 2
}

/// What config.json says of such weights; `kept` are those left as they are.
pub(super) fn described(kept: &[Arc<str>]) -> Value {
    let mut config = Map::from_iter([
        ("activation_scheme".to_owned(), json!("dynamic")),
        ("fmt".to_owned(), json!("e4m3")),
        ("quant_method".to_owned(), json!(METHOD)),
        (BLOCK.to_owned(), json!([SIDE, SIDE])),
    ]);
    if !kept.is_empty() {
        let modules = kept.iter().filter_map(|name| name.strip_suffix(WEIGHT));
        config.insert(LEFT.to_owned(), modules.collect());
    }
    config.into()
}

/// Puts that into a config.json, unless it says so; whether it does anew.
pub(super) fn note(config: &mut Map<String, Value>, quantised: Option<&Value>) -> bool {
    match quantised {
        None => {
            let told = [QUANTISED, COMPRESSED].map(|key| config.remove(key).is_some());
            told.contains(&true)
        }
        Some(value) => config.insert(QUANTISED.to_owned(), value.clone()).as_ref() != Some(value),
    }
}
