//! How models begin and end: the tensors of the first pipeline stage and of the last, by the names that trainers give them.

use super::name::natural;
use crate::fault::{Fault, Kind, Result};
use std::collections::BTreeSet;

/// How a model begins, what its layers' names begin with, and the norm and the head that it ends with, as trainers call
/// them; something may stand before.
pub(crate) const MODELS: [[&str; 4]; 6] = [
    [
        "model.tok_embeddings.embedding_weight",
        "model.layers.",
        "model.norm_out.weight",
        "lm_head.weight",
    ],
    [
        "embedding.word_embeddings.weight",
        "decoder.layers.",
        "decoder.final_layernorm.weight",
        "output_layer.weight",
    ],
    [
        "transformer.embedding.embedding_weight",
        "transformer.encoder.layers.",
        "transformer.encoder.final_layernorm.weight",
        "transformer.output_layer.weight",
    ],
    [
        "embed_tokens.weight",
        "layers.",
        "norm.weight",
        "lm_head.weight",
    ],
    [
        "gpt_neox.embed_in.weight",
        "gpt_neox.layers.",
        "gpt_neox.final_layer_norm.weight",
        "embed_out.weight",
    ],
    [
        "transformer.wte.weight",
        "transformer.h.",
        "transformer.ln_f.weight",
        "lm_head.weight",
    ],
];

/// Parts of the names of what stands before the layers: embeddings of any sort.
const BEFORE: [&str; 3] = ["wpe", "wte", "shared"];
/// Beginnings of the names of layers that foretell further tokens than the next.
const FURTHER: &str = "mtp";

/// Whether this is a tensor of layers that foretell further tokens than the next; they stand behind the last layer.
pub(crate) fn is_further(name: &str) -> bool {
    name.split('.').any(|part| part.starts_with(FURTHER))
}

/// Whether a tensor that is of no layer is a model's first, `Some(true)`, or behind its last layer, as trainers call it;
/// a state goes with its tensor.
fn is_first(name: &str) -> Option<bool> {
    let is = |own: &str| {
        let before = name.strip_suffix(own);
        before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    let mut models = MODELS.iter();
    let known = models.find_map(|[embedding, _, norm, head]| match is(embedding) {
        true => Some(true),
        false => (is(norm) || is(head)).then_some(false),
    });
    let mut parts = name.split('.');
    let embeds = parts.any(|part| BEFORE.contains(&part) || part.contains("embed"));
    known.or(embeds.then_some(true))
}

/// The first number between dots: `model.layers.12.wq` is of layer 12.
pub(super) fn layer(name: &str) -> Option<u64> {
    let mut segments = name.split('.').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let number = segment.bytes().all(|byte| byte.is_ascii_digit());
        if number && segments.peek().is_some() && !segment.is_empty() {
            return segment.parse().ok();
        }
    }
    None
}

/// The stage of each tensor, by its layer; of what is of none by its name.
///
/// # Errors
/// [`Kind::Usage`] for fewer layers than stages.
pub(super) fn assign_stages(stages: u32, tensors: &[(String, Vec<u64>)]) -> Result<Vec<u32>> {
    if stages == 1 {
        return Ok(vec![0; tensors.len()]);
    }
    let own = tensors.iter().filter(|(name, _)| !is_further(name));
    let layers: BTreeSet<u64> = own.filter_map(|(name, _)| layer(name)).collect();
    let layers: Vec<u64> = layers.into_iter().collect();
    if layers.len() < stages as usize {
        return Err(Fault::new(
            Kind::Usage,
            format!(
                "pp={stages} needs at least {stages} layers, the tensors' names have {}",
                layers.len()
            ),
        ));
    }
    let numbered = tensors.iter().filter(|(name, _)| layer(name).is_some());
    let first = numbered.map(|(name, _)| name).min_by(|a, b| natural(a, b));
    let stage = |name: &String| match layer(name).map(|layer| layers.binary_search(&layer)) {
        _ if is_further(name) => stages as usize - 1,
        Some(Ok(place) | Err(place)) => place * stages as usize / layers.len(),
        None => {
            let sorts_first = || first.is_some_and(|first| natural(name, first).is_lt());
            match is_first(name).unwrap_or_else(sorts_first) {
                true => 0,
                false => stages as usize - 1,
            }
        }
    };
    let stages = tensors.iter().map(|(name, _)| stage(name));
    Ok(stages
        .map(|stage| u32::try_from(stage).unwrap_or(u32::MAX))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_ends_are_known_by_name() {
        for (name, first) in [
            ("model.tok_embeddings.embedding_weight", Some(true)),
            ("adam_m.model.embed_tokens.weight", Some(true)),
            ("model.norm_out.weight", Some(false)),
            ("lm_head.weight", Some(false)),
            ("output_layer.weight", Some(false)),
            ("layer_norm.weight", None),
            ("transformer.wpe.weight", Some(true)),
            ("visual.patch_embed.proj.weight", Some(true)),
            ("embed_out.weight", Some(false)),
            ("model.rotary", None),
        ] {
            assert_eq!(is_first(name), first, "{name}");
        }
    }
}
