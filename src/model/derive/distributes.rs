//! Jobs whose strategy can't be derived, whatever their network is.

use crate::config::job_yaml::JobConfig;
use crate::fault::{Fault, Kind, Result};
use serde_json::Value;

/// How the networks of older releases join tensors.
const CONTIGUOUS: &str = "use_contiguous_weight_layout";

fn wrong(message: impl Into<String>) -> Fault {
    Fault::new(Kind::Config, message)
}

/// Refuses jobs that are not cut by strategies.
///
/// # Errors
/// [`Kind::Config`] naming the key.
pub(super) fn distributes(config: &JobConfig) -> Result<()> {
    if config.parallelism {
        let fault = wrong(
            "parallelism: it is a job of a dynamic graph, which writes no strategy: its checkpoints tell their own layout",
        );
        return Err(
            fault.hint("a layout (dp=2,tp=4) can be given in the place of this file, with --model")
        );
    }
    if config.model.model_config.contains_key(CONTIGUOUS) {
        let fault = wrong(format!(
            "model.model_config.{CONTIGUOUS} is a key of releases before 1.7: how their networks are cut isn't known"
        ));
        return Err(fault.hint("since 1.7: use_contiguous_weight_layout_attention and use_interleaved_weight_layout_mlp"));
    }
    if config.use_parallel == Some(false) {
        let fault = wrong("use_parallel is False: the job has one rank, and writes no strategy");
        return Err(fault.hint("use_parallel: True"));
    }
    if let Some(mode) = &config.parallel.parallel_mode {
        let text = mode
            .as_str()
            .map_or_else(|| mode.to_string(), str::to_owned);
        if !["1", "semi_auto_parallel", "SEMI_AUTO_PARALLEL"].contains(&&*text) {
            let fault = wrong(format!(
                "parallel.parallel_mode is {text}: only the network's own cuts (1) can be derived"
            ));
            return Err(fault.hint("with other modes MindSpore decides, on the cluster"));
        }
    }
    let experts = config
        .moe_config
        .as_ref()
        .and_then(|moe| moe.get("expert_num"));
    if let Some(count) = experts.and_then(Value::as_u64).filter(|count| *count > 1)
        && config.use_legacy.unwrap_or(true)
    {
        return Err(wrong(format!(
            "moe_config.expert_num is {count}: how a legacy network cuts experts isn't known"
        )));
    }
    if let Some(size) = config
        .parallel
        .parallel_optimizer_config
        .optimizer_weight_shard_size
        && (size == 0 || size < -1)
    {
        let fault = wrong(format!("optimizer_weight_shard_size is {size}"));
        return Err(fault.hint("a number of replicas from 1, or -1 for all"));
    }
    Ok(())
}
