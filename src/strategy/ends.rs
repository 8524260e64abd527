//! How models begin and end: the tensors of the first pipeline stage and of the last, by the names that trainers give them.

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

/// Whether a tensor that is of no layer is a model's first, `Some(true)`, or behind its last layer, as trainers call it;
/// a state goes with its tensor.
pub(super) fn is_first(name: &str) -> Option<bool> {
    let is = |own: &str| {
        let before = name.strip_suffix(own);
        before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    let mut models = MODELS.iter();
    models.find_map(|[embedding, _, norm, head]| match is(embedding) {
        true => Some(true),
        false => (is(norm) || is(head)).then_some(false),
    })
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
            ("model.rotary", None),
        ] {
            assert_eq!(is_first(name), first, "{name}");
        }
    }
}
