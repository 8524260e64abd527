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
pub(crate) fn is_first(name: &str) -> Option<bool> {
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
pub(crate) fn layer(name: &str) -> Option<u64> {
    let mut segments = name.split('.').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let number = segment.bytes().all(|byte| byte.is_ascii_digit());
        if number && segments.peek().is_some() && !segment.is_empty() {
            return segment.parse().ok();
        }
    }
    None
}

/// How a model's layers are dealt to pipeline stages: evenly, in their order.
pub(super) struct Stages {
    count: u32,
    layers: Vec<u64>,
}

impl Stages {
    /// So many stages of the model whose tensors these are.
    ///
    /// # Errors
    /// [`Kind::Usage`] for fewer layers than stages.
    pub(super) fn new<'a>(count: u32, names: impl Iterator<Item = &'a str>) -> Result<Stages> {
        let own = names.filter(|name| !is_further(name));
        let layers: BTreeSet<u64> = own.filter_map(layer).collect();
        if count > 1 && layers.len() < count as usize {
            let message = format!(
                "pp={count} needs at least {count} layers, the tensors' names have {}",
                layers.len()
            );
            return Err(Fault::new(Kind::Usage, message));
        }
        let layers = layers.into_iter().collect();
        Ok(Stages { count, layers })
    }

    /// The stage of a tensor: that of its layer; of one that is of no layer the first if it `begins` a model, or the last.
    pub(super) fn of(&self, name: &str, begins: impl FnOnce() -> bool) -> u32 {
        let last = self.count.saturating_sub(1);
        if is_further(name) {
            return last;
        }
        let Some(layer) = layer(name) else {
            return if begins() { 0 } else { last };
        };
        let (Ok(place) | Err(place)) = self.layers.binary_search(&layer);
        let stage = place * self.count as usize / self.layers.len().max(1);
        u32::try_from(stage).map_or(last, |stage| stage.min(last))
    }
}

/// The stage of each tensor, by its layer; of what is of none by its name, or by its place in the alphabet.
///
/// # Errors
/// [`Kind::Usage`] for fewer layers than stages.
pub(super) fn assign_stages(stages: u32, tensors: &[(String, Vec<u64>)]) -> Result<Vec<u32>> {
    let names = || tensors.iter().map(|(name, _)| &**name);
    let dealt = Stages::new(stages, names())?;
    let numbered = names().filter(|name| layer(name).is_some());
    let first = numbered.min_by(|a, b| natural(a, b));
    let sorts_first = |name: &str| first.is_some_and(|first| natural(name, first).is_lt());
    let begins = |name| is_first(name).unwrap_or_else(|| sorts_first(name));
    let stage = |name| dealt.of(name, || begins(name));
    Ok(names().map(stage).collect())
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
