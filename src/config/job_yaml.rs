//! A trainer's YAML file: the keys that say how the job's tensors are cut.

use crate::fault::{Fault, Kind, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The keys that decide which tensors a job has, and how they are cut. All others are left alone.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JobConfig {
    /// Whether the job has several ranks.
    pub use_parallel: Option<bool>,
    /// Whether its network has legacy names.
    pub use_legacy: Option<bool>,
    /// Directory with the model's config.json.
    pub pretrained_model_dir: Option<String>,
    /// The mesh.
    pub parallel_config: MeshConfig,
    /// The optimizer shard, the pipeline and what strategy files hold.
    pub parallel: ParallelContext,
    /// Accumulation of gradients.
    pub runner_config: RunnerSteps,
    /// The optimizer.
    pub optimizer: Typed,
    /// The network.
    pub model: ModelConfig,
    /// Experts of legacy networks.
    pub moe_config: Option<Map<String, Value>>,
}

/// `parallel_config`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct MeshConfig {
    /// Ranks with the same weights and other data.
    pub data_parallel: Option<u64>,
    /// Ranks that share each weight.
    pub model_parallel: Option<u64>,
    /// Pipeline stages.
    pub pipeline_stage: Option<u64>,
    /// Ranks that share each sequence.
    pub context_parallel: Option<u64>,
    /// Ranks that share the experts.
    pub expert_parallel: Option<u64>,
    /// Whether the ranks of a weight share sequences between its layers.
    pub use_seq_parallel: Option<bool>,
    /// Whether the embedding is whole on each rank.
    pub vocab_emb_dp: Option<bool>,
    /// How sequences are shared.
    pub context_parallel_algo: Option<String>,
    /// The part of `context_parallel` that shares heads.
    pub ulysses_degree_in_cp: Option<u64>,
}

/// `parallel`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ParallelContext {
    /// How MindSpore distributes: a number or a word.
    pub parallel_mode: Option<Value>,
    /// Whether there is an optimizer shard.
    pub enable_parallel_optimizer: Option<bool>,
    /// The optimizer shard.
    pub parallel_optimizer_config: OptimizerConfig,
    /// The pipeline.
    pub pipeline_config: PipelineConfig,
    /// What strategy files hold.
    pub strategy_ckpt_config: StrategyConfig,
    /// Whether checkpoints are written without the optimizer shard.
    pub optimizer_weight_shard_aggregated_save: Option<bool>,
}

/// `parallel.parallel_optimizer_config`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct OptimizerConfig {
    /// Smaller tensors stay whole, in KB of 1024.
    pub parallel_optimizer_threshold: Option<u64>,
    /// Number of pieces; -1: as many as there are replicas.
    pub optimizer_weight_shard_size: Option<i64>,
}

/// `parallel.pipeline_config`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PipelineConfig {
    /// Whether a stage has several chunks of layers.
    pub pipeline_interleave: Option<bool>,
    /// The schedule.
    pub pipeline_scheduler: Option<String>,
}

/// `parallel.strategy_ckpt_config`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StrategyConfig {
    /// Whether tensors that aren't trained are left out.
    pub only_trainable_params: Option<bool>,
}

/// `runner_config`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RunnerSteps {
    /// Batches a step.
    pub gradient_accumulation_steps: Option<u64>,
}

/// Something with a type.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Typed {
    /// Its class.
    #[serde(rename = "type")]
    pub class: Option<String>,
}

/// `model`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ModelConfig {
    /// The network's own keys.
    pub model_config: Map<String, Value>,
    /// Its class.
    pub arch: Typed,
}

impl JobConfig {
    /// Reads a YAML file's text.
    ///
    /// # Errors
    /// [`Kind::Config`] with the place of what is no YAML, or a value of the wrong type.
    pub fn parse(text: &str) -> Result<JobConfig> {
        serde_saphyr::from_str(text).map_err(|error| {
            let text = error.to_string();
            let line = text.lines().map(str::trim).find(|line| !line.is_empty());
            Fault::new(Kind::Config, line.unwrap_or("is no YAML"))
        })
    }
}
