//! The two forms of the network: names, and which weights lie in one.

use clap::ValueEnum;

/// A form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Legacy names; query, key and value, and gate and up, are weights of their own.
    Separate,
    /// mcore names; of each head query, key and value follow each other in one weight, and each row of gate is followed
    /// by that of up.
    Fused,
}

impl Form {
    /// The name of a weight that is none of a block's.
    pub(crate) fn name(self, part: &str) -> String {
        let fused = self == Form::Fused;
        let name = match part {
            "embedding" if fused => "embedding.word_embeddings",
            "embedding" => return "model.tok_embeddings.embedding_weight".into(),
            "norm" if fused => "decoder.final_layernorm",
            "norm" => "model.norm_out",
            "head" if fused => "output_layer",
            "head" => "lm_head",
            part => part,
        };
        format!("{name}.weight")
    }

    /// The name of a weight of block `block`.
    pub(crate) fn of_block(self, block: usize, part: &str) -> String {
        if self == Form::Separate {
            return format!("model.layers.{block}.{part}.weight");
        }
        let name = match part {
            "attention_norm" => "input_layernorm",
            "attention.w_qkv" => "self_attention.linear_qkv",
            "attention.wo" => "self_attention.linear_proj",
            "ffn_norm" => "pre_mlp_layernorm",
            "feed_forward.w_gate_hidden" => "mlp.linear_fc1",
            "feed_forward.w2" => "mlp.linear_fc2",
            part => part,
        };
        format!("decoder.layers.{block}.{name}.weight")
    }
}
