//! Keys that are nearly those that a job is cut by, and none: a trainer refuses them, or passes them over.

use crate::fault::{Fault, Kind, Result, edit_distance};
use serde_json::{Map, Value};

/// Most characters that a misspelt key has otherwise, one in five.
const SLIPS_MAX: usize = 2;
/// How the one key begins that tells where a model in Hugging Face's form lies.
const PRETRAINED: &str = "pretrained_";

/// Sections, and the keys in them that decide what is loaded and how it is cut, with others that are near those.
const KEYS: [(&[&str], &[&str]); 7] = [
    (
        &[],
        &[
            "auto_trans_ckpt",
            "base_config",
            "checkpoint",
            "load_checkpoint",
            "load_ckpt_format",
            "moe_config",
            "optimizer",
            "output_dir",
            "parallel",
            "parallel_config",
            "parallelism",
            "pretrained_model_dir",
            "remove_redundancy",
            "resume_training",
            "run_mode",
            "runner_config",
            "src_strategy_path_or_dir",
            "use_legacy",
            "use_legacy_format",
            "use_parallel",
        ],
    ),
    (
        &["parallel_config"],
        &[
            "context_parallel",
            "context_parallel_algo",
            "data_parallel",
            "expert_parallel",
            "micro_batch_num",
            "model_parallel",
            "pipeline_stage",
            "ulysses_degree_in_cp",
            "use_seq_parallel",
            "vocab_emb_dp",
        ],
    ),
    (
        &["parallel"],
        &[
            "enable_parallel_optimizer",
            "optimizer_weight_shard_aggregated_save",
            "parallel_mode",
            "parallel_optimizer_config",
            "pipeline_config",
            "strategy_ckpt_config",
        ],
    ),
    (
        &["parallel", "parallel_optimizer_config"],
        &[
            "optimizer_weight_shard_size",
            "parallel_optimizer_threshold",
        ],
    ),
    (
        &["parallel", "strategy_ckpt_config"],
        &["load_file", "only_trainable_params", "save_file"],
    ),
    (
        &["model", "model_config"],
        &[
            "ffn_dim_multiplier",
            "ffn_hidden_size",
            "first_k_dense_replace",
            "head_dim",
            "hidden_size",
            "intermediate_size",
            "kv_lora_rank",
            "lora_rank",
            "mla_qkv_concat",
            "moe_intermediate_size",
            "mtp_depth",
            "multiple_of",
            "n_kv_heads",
            "n_routed_experts",
            "n_shared_experts",
            "num_attention_heads",
            "num_experts",
            "num_heads",
            "num_hidden_layers",
            "num_key_value_heads",
            "num_layers",
            "num_nextn_predict_layers",
            "num_query_groups",
            "offset",
            "params_dtype",
            "q_lora_rank",
            "qk_head_dim",
            "qk_nope_head_dim",
            "qk_rope_head_dim",
            "qkv_concat",
            "tie_word_embeddings",
            "untie_embeddings_and_output_weights",
            "v_head_dim",
            "vocab_size",
        ],
    ),
    (
        &["runner_config"],
        &["batch_size", "gradient_accumulation_steps"],
    ),
];

/// Refuses a configuration with a key that is nearly one that decides what is loaded and how it is cut. Of shipped
/// configurations none has such a key.
///
/// # Errors
/// [`Kind::Config`] naming both.
pub(super) fn refuse(keys: &Map<String, Value>) -> Result<()> {
    for (sections, known) in KEYS {
        let below = sections
            .iter()
            .try_fold(keys, |keys, section| keys.get(*section)?.as_object());
        let others = below.into_iter().flat_map(Map::keys);
        // One with a line below it is put out of use.
        for key in others.filter(|key| !known.contains(&key.trim_matches('_'))) {
            // Of short keys others are near by chance.
            let near = |known: &&&str| {
                let begins = sections.is_empty() && known.starts_with(PRETRAINED);
                begins && key.starts_with(PRETRAINED)
                    || edit_distance(key, known) <= SLIPS_MAX.min(known.len() / 5)
            };
            if let Some(meant) = known.iter().find(near) {
                let path: Vec<&str> = sections.iter().copied().chain([key.as_str()]).collect();
                let message = format!("{} is no key that a trainer knows", path.join("."));
                let fault = Fault::new(Kind::Config, message);
                return Err(fault.hint(format!("did you mean {meant}?")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_told_and_other_keys_are_left_alone() {
        let found = |text: &str| {
            let keys = serde_json::from_str(text).expect("keys");
            refuse(&keys).map_err(|fault| (fault.message, fault.hint.unwrap_or_default()))
        };
        for (text, key, meant) in [
            (
                r#"{"paralel_config": {}}"#,
                "paralel_config",
                "parallel_config",
            ),
            (
                r#"{"parallel_config": {"model_paralel": 2}}"#,
                "parallel_config.model_paralel",
                "model_parallel",
            ),
            (
                r#"{"pretrained_model_path": "/hf"}"#,
                "pretrained_model_path",
                "pretrained_model_dir",
            ),
            (
                r#"{"parallel_config": {"pipeline_stages": 2}}"#,
                "parallel_config.pipeline_stages",
                "pipeline_stage",
            ),
            (
                r#"{"model": {"model_config": {"ofset": [1, 0]}}}"#,
                "model.model_config.ofset",
                "offset",
            ),
            (
                r#"{"parallel": {"parallel_optimizer_config": {"optimizer_weight_shard_sise": 2}}}"#,
                "parallel.parallel_optimizer_config.optimizer_weight_shard_sise",
                "optimizer_weight_shard_size",
            ),
        ] {
            let (message, hint) = found(text).expect_err(text);
            assert!(message.starts_with(&format!("{key} ")), "{message}");
            assert_eq!(hint, format!("did you mean {meant}?"));
        }
        for text in [
            r#"{"parallel": {"pipeline_stages": 2}, "model": {"model_paralel": 1}, "lora_config": 1, "run_mode_": 1}"#,
            r#"{"parallel_config": null, "load_ckpt_async": true, "parallel": 3}"#,
        ] {
            assert_eq!(found(text), Ok(()));
        }
    }
}
