//! Low-rank adapters: `W + factor * (B * A)` in the place of W.
//!
//! A pair belongs to the weight that its name tells: PEFT's `base_model.model.X.lora_A.weight`, or
//! MindSpore's `X.mindpet_delta_lora_a` and `X.lora_a`, is A of `X.weight` (docs/formats.md).

use crate::fault::{Fault, Kind, Result, nearest};
use crate::plan::inventory::Inventory;
use crate::plan::source_tensor::SourceTensor;
use crate::plan::source_tensor::{Step, Value};
use crate::tensor::cast::is_castable;
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the names of A and B end with.
const ENDINGS: [(&str, &str); 7] = [
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".mindpet_delta_lora_a", ".mindpet_delta_lora_b"),
    (".mindpet_delta_lora_A", ".mindpet_delta_lora_B"),
    (".lora_a.weight", ".lora_b.weight"),
    (".lora_a", ".lora_b"),
    (".lora_A", ".lora_B"),
];
/// What PEFT puts before the model's own names.
const WRAPPED: &str = "base_model.model.";
/// Beginnings of the names of an optimizer's state.
const STATES: [&str; 4] = ["adam_m.", "adam_v.", "accu_grads.", "muon_m."];

/// What a pair's product is multiplied by.
#[derive(Clone, Debug, PartialEq)]
pub enum Factor {
    /// This, whatever the rank.
    Fixed(f64),
    /// Alpha over the rank, or over its square root.
    Alpha {
        /// Alpha.
        alpha: f64,
        /// Other alphas, by the end of the module's name.
        patterns: BTreeMap<String, f64>,
        /// Over the square root.
        by_root: bool,
    },
}

impl Factor {
    /// The factor of the pair of rank `rank` for module `module`, worked out in `f64`, as a number
    /// that elements are multiplied by.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "rounding is what is wanted"
    )]
    #[allow(clippy::cast_precision_loss, reason = "ranks are small")]
    pub fn of(&self, module: &str, rank: u64) -> f32 {
        match self {
            Factor::Fixed(factor) => *factor as f32,
            Factor::Alpha {
                alpha,
                patterns,
                by_root,
            } => {
                let own = patterns.iter().find(|(end, _)| {
                    let rest = module.strip_suffix(end.as_str());
                    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                });
                let alpha = own.map_or(*alpha, |(_, alpha)| *alpha);
                let rank = rank as f64;
                (alpha / if *by_root { rank.sqrt() } else { rank }) as f32
            }
        }
    }
}

/// Which of a pair a name means, and of which module.
fn part_of(name: &str) -> Option<(usize, &str)> {
    let name = name.strip_prefix(WRAPPED).unwrap_or(name);
    ENDINGS.iter().find_map(|(a, b)| {
        let a = name.strip_suffix(a).map(|module| (0, module));
        a.or_else(|| name.strip_suffix(b).map(|module| (1, module)))
    })
}

/// Takes the pairs that lie among the tensors of `inventory` itself out of it. What the optimizer
/// keeps of them goes too: no layout without them has a place for it.
#[must_use]
pub fn take_own_pairs(inventory: &mut Inventory) -> Vec<Arc<SourceTensor>> {
    let (mut own, mut kept) = (Vec::new(), BTreeMap::new());
    for (name, tensor) in std::mem::take(&mut inventory.tensors) {
        let state = STATES.iter().any(|state| name.starts_with(state));
        match part_of(&name) {
            Some(_) if state => {}
            Some(_) => own.push(tensor),
            None => {
                kept.insert(name, tensor);
            }
        }
    }
    inventory.tensors = kept;
    own
}

/// Merges the pairs among `adapter` into the weights of `inventory`.
///
/// # Errors
/// [`Kind::UnknownTensor`] for a pair whose weight isn't there, with the nearest names;
/// [`Kind::Shape`] naming both where they don't fit; [`Kind::Unsupported`] for a tensor that is none
/// of a pair; [`Kind::MissingShard`] if one of a pair, or every pair, is missing.
pub fn merge(
    inventory: &mut Inventory,
    adapter: &[Arc<SourceTensor>],
    factor: &Factor,
) -> Result<()> {
    let mut pairs: BTreeMap<&str, [Option<&Arc<SourceTensor>>; 2]> = BTreeMap::new();
    for tensor in adapter {
        let Some((part, module)) = part_of(&tensor.name) else {
            let message = "is neither A nor B of a low-rank pair";
            return Err(Fault::new(Kind::Unsupported, message)
                .tensor(&*tensor.name)
                .hint("weights trained in full, embeddings' pairs and DoRA can't be merged"));
        };
        pairs.entry(module).or_default()[part] = Some(tensor);
    }
    if pairs.is_empty() {
        return Err(Fault::new(Kind::MissingShard, "there is no low-rank pair"));
    }
    for (module, pair) in pairs {
        let [Some(a), Some(b)] = pair else {
            let (has, lacks) = if pair[0].is_some() {
                ("A", "B")
            } else {
                ("B", "A")
            };
            let message = format!("of its pair there is {has} and no {lacks}");
            let there = pair.iter().flatten().next();
            let name = there.map_or(module, |tensor| &*tensor.name);
            return Err(Fault::new(Kind::MissingShard, message).tensor(name));
        };
        let weight = format!("{module}.weight");
        let Some(tensor) = inventory.tensors.get(weight.as_str()) else {
            return Err(unknown(inventory, &a.name, &weight));
        };
        check(tensor, a, b)?;
        let rank = a.shape.0.first().copied().unwrap_or_default();
        let step = Step::Add {
            a: a.clone(),
            b: b.clone(),
            factor: factor.of(module, rank),
        };
        let mut merged = (**tensor).clone();
        let before = merged.value.as_deref();
        let steps = before.map_or(&[][..], |value| &value.steps);
        merged.value = Some(Arc::new(Value {
            dtype: merged.value_dtype(),
            steps: steps.iter().cloned().chain([step]).collect(),
        }));
        inventory
            .tensors
            .insert(merged.name.clone(), Arc::new(merged));
    }
    Ok(())
}

fn unknown(inventory: &Inventory, name: &str, weight: &str) -> Fault {
    let message = format!("is for '{weight}', which the source hasn't");
    let fault = Fault::new(Kind::UnknownTensor, message).tensor(name);
    if inventory.private.contains(weight) {
        return fault.hint("its files have it, but the source strategy doesn't describe it");
    }
    let near = nearest(weight, inventory.tensors.keys().map(|name| &**name)).join(", ");
    fault.hint(format!(
        "nearest in the source: {near}; an adapter must use the names of the source's weights"
    ))
}

fn check(weight: &SourceTensor, a: &SourceTensor, b: &SourceTensor) -> Result<()> {
    for tensor in [a, b] {
        if !is_castable(tensor.dtype) {
            let message = format!("is {}, no float of an adapter", tensor.dtype);
            return Err(Fault::new(Kind::Dtype, message).tensor(&*tensor.name));
        }
    }
    if !is_castable(weight.value_dtype()) {
        let message = format!("is {}: nothing can be merged into it", weight.dtype);
        return Err(Fault::new(Kind::Dtype, message).tensor(&*weight.name));
    }
    let fits = match (&weight.shape.0[..], &a.shape.0[..], &b.shape.0[..]) {
        ([rows, columns], [inner, wide], [tall, rank]) => {
            (rows, columns, inner) == (tall, wide, rank) && *rank > 0
        }
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let product = |shape: &Shape| shape.to_string();
    let message = format!(
        "B {} times A {} ('{}') doesn't fit '{}' {}",
        product(&b.shape),
        product(&a.shape),
        a.name,
        weight.name,
        weight.shape
    );
    Err(Fault::new(Kind::Shape, message).tensor(&*b.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_module() {
        for (name, part, module) in [
            (
                "base_model.model.model.layers.0.q.lora_A.weight",
                0,
                "model.layers.0.q",
            ),
            (
                "base_model.model.model.layers.0.q.lora_B.default.weight",
                1,
                "model.layers.0.q",
            ),
            (
                "model.layers.0.attention.wq.mindpet_delta_lora_b",
                1,
                "model.layers.0.attention.wq",
            ),
            (
                "decoder.layers.0.linear_qkv.lora_a",
                0,
                "decoder.layers.0.linear_qkv",
            ),
        ] {
            assert_eq!(part_of(name), Some((part, module)), "{name}");
        }
        assert_eq!(part_of("base_model.model.x.lora_embedding_A"), None);
        assert_eq!(part_of("model.layers.0.attention.wq.weight"), None);
    }

    #[test]
    fn factors_follow_alpha_and_rank() {
        let factor = |by_root| Factor::Alpha {
            alpha: 16.0,
            patterns: BTreeMap::from([("mlp.up_proj".to_owned(), 4.0)]),
            by_root,
        };
        let of = |factor: Factor, module: &str, rank| factor.of(module, rank).to_bits();
        assert_eq!(of(factor(false), "layers.0.q_proj", 8), f32::to_bits(2.0));
        assert_eq!(of(factor(true), "layers.0.q_proj", 16), f32::to_bits(4.0));
        assert_eq!(
            of(factor(false), "layers.0.mlp.up_proj", 8),
            f32::to_bits(0.5)
        );
        assert_eq!(
            of(factor(false), "layers.0.lmlp.up_proj", 8),
            f32::to_bits(2.0)
        );
        assert_eq!(of(Factor::Fixed(0.1), "x", 3), f32::to_bits(0.1));
    }
}
