//! The sections of a trainer's configuration that say how large the job is, and how it is cut.

use serde::Deserialize;

/// `resume_training`: a truth value, or the name of a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Resume {
    /// Whether to resume.
    Flag(bool),
    /// From which file.
    File(String),
}

/// `parallel_config`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ParallelConfig {
    /// Ranks with the same weights and other data.
    pub data_parallel: Option<u64>,
    /// Ranks that share each weight.
    pub model_parallel: Option<u64>,
    /// Pipeline stages.
    pub pipeline_stage: Option<u64>,
    /// Ranks that share each sequence.
    pub context_parallel: Option<u64>,
    /// Ranks that share experts.
    pub expert_parallel: Option<u64>,
    /// Micro batches of a pipeline.
    pub micro_batch_num: Option<u64>,
    /// Whether the ranks of a weight share sequences between its layers. As the following, it is read
    /// where a strategy is derived, and no concern of those who load.
    #[serde(skip)]
    pub use_seq_parallel: Option<bool>,
    /// Whether the embedding is whole on each rank.
    #[serde(skip)]
    pub vocab_emb_dp: Option<bool>,
    /// How sequences are shared.
    #[serde(skip)]
    pub context_parallel_algo: Option<String>,
    /// The part of `context_parallel` that shares heads.
    #[serde(skip)]
    pub ulysses_degree_in_cp: Option<u64>,
}

/// `runner_config`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RunnerConfig {
    /// Samples of a micro batch on one rank.
    pub batch_size: Option<u64>,
    /// Batches a step, without a pipeline.
    pub gradient_accumulation_steps: Option<u64>,
}
