//! Low-rank adapters: `W + factor * (B * A)` in the place of W.
//!
//! A pair belongs to the weight that its name tells: PEFT's `base_model.model.X.lora_A.weight`, or
//! MindSpore's `X.mindpet_delta_lora_a` and `X.lora_a`, is A of `X.weight` (docs/formats.md).

use crate::catalog::Catalog;
use crate::fault::{Fault, Kind, Result, nearest};
use crate::plan::inventory::Inventory;
use crate::plan::lora_experts as experts;
pub use crate::plan::lora_meaning::{Apart, Factor, Meaning};
pub use crate::plan::lora_told::{Biases, Modules, Told};
pub use crate::plan::pattern::{Pattern, Patterns};
use crate::plan::source_tensor::SourceTensor;
use crate::plan::source_tensor::{Step, Value};
use crate::tensor::cast::is_castable;
use crate::tensor::shape::Shape;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the names of A and B end with. Those of [`EMBEDDINGS`] are for a table of rows.
const ENDINGS: [(&str, &str); 9] = [
    (".lora_embedding_A", ".lora_embedding_B"),
    (".lora_embedding_A.default", ".lora_embedding_B.default"),
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".mindpet_delta_lora_a", ".mindpet_delta_lora_b"),
    (".mindpet_delta_lora_A", ".mindpet_delta_lora_B"),
    (".lora_a.weight", ".lora_b.weight"),
    (".lora_a", ".lora_b"),
    (".lora_A", ".lora_B"),
];
/// How many of the endings are those of embeddings.
const EMBEDDINGS: usize = 2;
/// The head of a language model.
const HEAD: &str = "lm_head.weight";
/// What PEFT puts in the names of tensors that were trained in full.
const KEPT_WHOLE: [&str; 4] = [TRAINED, ".modules_to_save.", BELOW_PAIR, BEFORE];
/// What PEFT puts into the name of a weight that a pair belongs to.
pub const BELOW_PAIR: &str = ".base_layer.";
/// In whose names what a module was before it was trained in full is, and what it is since.
pub(super) const BEFORE: &str = ".original_module.";
pub(super) const TRAINED: &str = ".modules_to_save.default.";
/// In the names of `DoRA`'s vectors.
pub(super) const MAGNITUDES: &str = "lora_magnitude_vector";
/// What PEFT puts before the model's own names.
pub(super) const WRAPPED: &str = "base_model.model.";

/// What the name of a tensor of a pair tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// 0: A, 1: B.
    pub(super) which: usize,
    /// The module it is of.
    pub(super) module: &'a str,
    /// The module is a table of embeddings.
    embedding: bool,
}

/// What of an adapter found its place.
#[derive(Debug, Default)]
pub struct Taken {
    /// Weights, or parameters of experts, that pairs were merged into.
    pub merged: BTreeSet<String>,
    /// Tensors that were replaced.
    pub replaced: BTreeSet<String>,
}

/// A and B of a module, as far as they are there.
#[derive(Default)]
struct Pair<'a> {
    embedding: bool,
    parts: [Option<&'a Arc<SourceTensor>>; 2],
}

/// What to do about a part of a pair among weights.
pub(crate) const OF_PAIR: &str =
    "it is of an adapter's pair among the weights: --lora-scaling FACTOR merges such pairs";

/// Whether a tensor of this name is a part of a pair.
pub(crate) fn is_of_pair(name: &str) -> bool {
    part_of(name).is_some()
}

/// The weight that a tensor of this name, a part of a pair, is for.
pub(crate) fn weight_of_pair(name: &str) -> Option<String> {
    part_of(name).map(|part| format!("{}.weight", part.module))
}

/// Which of a pair a name means, and of which module.
pub(super) fn part_of(name: &str) -> Option<Part<'_>> {
    let name = name.strip_prefix(WRAPPED).unwrap_or(name);
    let mut endings = ENDINGS.iter().enumerate();
    endings.find_map(|(number, (a, b))| {
        let ends = [a, b].into_iter().zip(0..);
        let mut parts = ends.filter_map(|(end, which)| Some((which, name.strip_suffix(end)?)));
        parts.next().map(|(which, module)| Part {
            which,
            module,
            embedding: number < EMBEDDINGS,
        })
    })
}

/// A tensor of an adapter, by its name there, or among the tensors of the source.
pub type Named = (Arc<str>, Arc<SourceTensor>);

/// Merges the pairs among `adapter` into the weights of `inventory`, and puts its other tensors, which
/// were trained in full, in the place of these.
///
/// # Errors
/// [`Kind::UnknownTensor`] for a pair whose weight isn't there, with the nearest names;
/// [`Kind::Shape`] naming both where they don't fit; [`Kind::Unsupported`] for a tensor that is
/// neither; [`Kind::MissingShard`] if one of a pair, or every pair, is missing; [`Kind::Corrupt`] for a tensor without
/// elements.
pub fn merge(
    inventory: &mut Inventory,
    catalog: &Catalog,
    adapter: &[Named],
    meaning: &Meaning,
) -> Result<Taken> {
    let mut taken = Taken::default();
    let mut pairs: BTreeMap<&str, Pair<'_>> = BTreeMap::new();
    for (name, tensor) in adapter {
        refuse_empty(tensor)?;
        match part_of(name) {
            Some(part) => {
                let pair = pairs.entry(part.module).or_default();
                pair.embedding = part.embedding;
                if let Some(other) = pair.parts[part.which].replace(tensor) {
                    let message = format!("its pair has {} for the same", other.name);
                    return Err(Fault::new(Kind::Corrupt, message).tensor(&*tensor.name));
                }
            }
            None if meaning.described => {
                let others = adapter.iter().map(|(_, other)| other);
                let others = others.filter(|other| meaning.tied && other.name != tensor.name);
                let name = replace(inventory, tensor, others)?;
                taken.replaced.insert(name);
            }
            None => return Err(no_pair(&tensor.name)),
        }
    }
    if pairs.is_empty() {
        return Err(no_pairs(inventory));
    }
    for (module, pair) in pairs {
        let Pair { embedding, parts } = pair;
        let [Some(a), Some(b)] = parts else {
            let (has, lacks) = if parts[0].is_some() {
                ("A", "B")
            } else {
                ("B", "A")
            };
            let message = format!("of its pair there is {has} and no {lacks}");
            let there = parts.iter().flatten().next();
            let name = there.map_or(module, |tensor| &*tensor.name);
            return Err(Fault::new(Kind::MissingShard, message).tensor(name));
        };
        let weight = format!("{module}.weight");
        let Some(tensor) = inventory.tensors.get(weight.as_str()) else {
            if meaning.parameters.is_empty() {
                return Err(unknown(inventory, &a.name, &weight));
            }
            let pair = experts::Pair { a, b };
            let parameter = of_experts(inventory, catalog, module, pair, meaning)?;
            taken.merged.insert(parameter);
            continue;
        };
        let rank = a.shape.0.first().copied().unwrap_or_default();
        check_rank(meaning, module, rank, a)?;
        let step = Step::Add {
            a: a.clone(),
            b: b.clone(),
            factor: meaning.factor.of(module, rank),
            transposed: check(tensor, a, b, embedding, meaning.transposed)?,
        };
        let tensor = tensor.clone();
        add(inventory, &tensor, weight.as_str().into(), step);
        taken.merged.insert(weight);
    }
    Ok(taken)
}

/// Adds a step to those that make `tensor`, called `name`.
fn add(inventory: &mut Inventory, tensor: &SourceTensor, name: Arc<str>, step: Step) {
    let mut merged = tensor.clone();
    let before = merged.value.as_deref();
    let steps = before.map_or(&[][..], |value| &value.steps);
    merged.value = Some(Arc::new(Value {
        dtype: merged.value_dtype(),
        steps: steps.iter().cloned().chain([step]).collect(),
    }));
    inventory.tensors.insert(name, Arc::new(merged));
}

/// Merges a pair of a parameter that holds a matrix for each of several experts; gives the parameter's name.
fn of_experts(
    inventory: &mut Inventory,
    catalog: &Catalog,
    module: &str,
    pair: experts::Pair<'_>,
    meaning: &Meaning,
) -> Result<String> {
    let (a, b) = (pair.a, pair.b);
    let found = experts::find(inventory, catalog, module, pair, meaning)?;
    check_rank(meaning, &found.parameter, found.rank, a)?;
    let factor = meaning.factor.of(&found.parameter, found.rank);
    for (name, step) in found.steps(inventory, factor)? {
        let Some(tensor) = inventory.tensors.get(&name).cloned() else {
            continue;
        };
        check_types(&tensor, [a, b])?;
        add(inventory, &tensor, name, step);
    }
    Ok(found.parameter)
}

/// Checks the rank of a pair of `module` against what is told of it.
fn check_rank(meaning: &Meaning, module: &str, rank: u64, a: &SourceTensor) -> Result<()> {
    let told = meaning.ranks.of(module).or(meaning.rank);
    let Some(told) = told.filter(|told| *told != rank) else {
        return Ok(());
    };
    let message = format!("is of rank {rank}, the adapter's configuration says {told}");
    Err(Fault::new(Kind::Shape, message).tensor(&*a.name))
}

fn refuse_empty(tensor: &SourceTensor) -> Result<()> {
    if !tensor.shape.0.contains(&0) {
        return Ok(());
    }
    let message = format!("is {}: it has no elements", tensor.shape);
    let fault = Fault::new(Kind::Corrupt, message).tensor(&*tensor.name);
    Err(fault
        .hint("saved under ZeRO-3, where each process has a part, without gathering them first?"))
}

/// That there is no pair at all, or none that the strategy of rank files knows.
fn no_pairs(inventory: &Inventory) -> Fault {
    let Some(name) = inventory.private.iter().find(|name| is_of_pair(name)) else {
        return Fault::new(Kind::MissingShard, "there is no low-rank pair");
    };
    let message = "it is of a low-rank pair, and the source strategy doesn't know it";
    let fault = Fault::new(Kind::UnknownTensor, message).tensor(&**name);
    fault.hint(
        "unify the ranks first; --lora-scaling FACTOR then merges the pairs of the full weights",
    )
}

pub(super) fn no_pair(name: &str) -> Fault {
    let message = "is neither A nor B of a low-rank pair, nor a tensor of the source";
    let fault = Fault::new(Kind::Unsupported, message).tensor(name);
    if name.contains(MAGNITUDES) {
        return fault.hint("it is DoRA's vector of magnitudes: merge the adapter with PEFT");
    }
    if plain(name) == HEAD {
        return fault.hint(
            "is the head tied to the embedding? `shardloom import` tells by the model's config.json, and `shardloom import \
             --untie` gives it one of its own; was the vocabulary extended before the training? Merge it with PEFT then",
        );
    }
    fault.hint(
        "merge it with PEFT; a tensor that was trained in full takes the place of the source's where \
         adapter_config.json is beside the adapter",
    )
}

/// The source's name of a tensor that was trained in full.
pub(super) fn plain(name: &str) -> String {
    let name = name.strip_prefix(WRAPPED).unwrap_or(name).to_owned();
    KEPT_WHOLE
        .iter()
        .fold(name, |name, inside| name.replace(inside, "."))
}

/// Puts a tensor that was trained in full in the place of the source's, in the type of that; or beside it, where one
/// of the `others` of the same shape is in its place; gives its name there.
fn replace<'a>(
    inventory: &mut Inventory,
    tensor: &Arc<SourceTensor>,
    others: impl Iterator<Item = &'a Arc<SourceTensor>>,
) -> Result<String> {
    let plain = self::plain(&tensor.name);
    let of = |name: &str| inventory.tensors.get(name);
    let mut twins = others.filter(|other| other.shape == tensor.shape);
    let old = of(&plain).or_else(|| twins.find_map(|twin| of(&self::plain(&twin.name))));
    let Some(old) = old.filter(|_| !tensor.name.contains(BEFORE)) else {
        return Err(no_pair(&tensor.name));
    };
    if old.shape != tensor.shape {
        let message = format!(
            "is {}, '{plain}' of the source is {}",
            tensor.shape, old.shape
        );
        let fault = Fault::new(Kind::Shape, message).tensor(&*tensor.name);
        let grown = tensor.shape.0.get(1..) == old.shape.0.get(1..);
        return Err(if grown {
            fault.hint("was the vocabulary extended before the training? Merge it with PEFT, after resize_token_embeddings")
        } else {
            fault
        });
    }
    let dtype = old.value_dtype();
    let mut new = (**tensor).clone();
    if dtype != tensor.dtype {
        if !(is_castable(dtype) && is_castable(tensor.dtype)) {
            let message = format!("is {}, '{plain}' of the source is {dtype}", tensor.dtype);
            return Err(Fault::new(Kind::Dtype, message).tensor(&*tensor.name));
        }
        new.value = Some(Arc::new(Value {
            dtype,
            steps: Vec::new(),
        }));
    }
    inventory
        .tensors
        .insert(plain.as_str().into(), Arc::new(new));
    Ok(plain)
}

fn unknown(inventory: &Inventory, name: &str, weight: &str) -> Fault {
    let message = format!("is for '{weight}', which the source hasn't");
    let fault = Fault::new(Kind::UnknownTensor, message).tensor(name);
    if inventory.private.contains(weight) {
        return fault.hint("its files have it, but the source strategy doesn't describe it");
    }
    let near = nearest(weight, inventory.tensors.keys().map(|name| &**name)).join(", ");
    fault.hint(format!(
        "nearest in the source: {near}; an adapter must use the names of the source's weights: for one with Hugging \
         Face's names `shardloom export` the weights, and merge it into those"
    ))
}

/// Checks that a pair and its weight are of types to compute with.
fn check_types(weight: &SourceTensor, pair: [&SourceTensor; 2]) -> Result<()> {
    for tensor in pair {
        if !is_castable(tensor.dtype) {
            let message = format!("is {}, no float of an adapter", tensor.dtype);
            return Err(Fault::new(Kind::Dtype, message).tensor(&*tensor.name));
        }
    }
    if !is_castable(weight.value_dtype()) {
        let message = format!("is {}: nothing can be merged into it", weight.dtype);
        return Err(Fault::new(Kind::Dtype, message).tensor(&*weight.name));
    }
    Ok(())
}

/// Checks that a pair fits its weight; says whether its product is added transposed: to a table of
/// embeddings, or, where `may_turn`, to weights that fit only so.
fn check(
    weight: &SourceTensor,
    a: &SourceTensor,
    b: &SourceTensor,
    embedding: bool,
    may_turn: bool,
) -> Result<bool> {
    check_types(weight, [a, b])?;
    let (plain, turned) = match (&weight.shape.0[..], &a.shape.0[..], &b.shape.0[..]) {
        ([rows, columns], [inner, wide], [tall, rank]) => {
            let pair = inner == rank && *rank > 0;
            let fits = |rows, columns| pair && (rows, columns) == (tall, wide);
            (fits(rows, columns), fits(columns, rows))
        }
        _ => (false, false),
    };
    if turned && !embedding && may_turn && plain {
        let message = format!(
            "fan_in_fan_out: '{}' {} is as high as wide, so it can't be told whether it lies transposed",
            weight.name, weight.shape
        );
        let fault = Fault::new(Kind::Unsupported, message).tensor(&*a.name);
        return Err(fault.hint(
            "of linear layers PEFT ignores the key: set it to false in adapter_config.json; of layers \
             that do lie transposed merge with PEFT",
        ));
    }
    if turned && (embedding || may_turn) {
        return Ok(true);
    }
    if plain && !embedding {
        return Ok(false);
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
        for (name, which, module, embedding) in [
            (
                "base_model.model.layers.0.q.lora_A.weight",
                0,
                "layers.0.q",
                false,
            ),
            ("base_model.model.q.lora_B.default.weight", 1, "q", false),
            ("base_model.model.x.lora_embedding_A", 0, "x", true),
            ("layers.0.wq.mindpet_delta_lora_b", 1, "layers.0.wq", false),
            ("decoder.linear_qkv.lora_a", 0, "decoder.linear_qkv", false),
        ] {
            let part = Part {
                which,
                module,
                embedding,
            };
            assert_eq!(part_of(name), Some(part), "{name}");
        }
        assert_eq!(part_of("base_model.model.x.lora_magnitude_vector"), None);
        assert_eq!(part_of("model.layers.0.attention.wq.weight"), None);
    }
}
