//! A trainer's YAML file: the keys that say how the job's tensors are cut.

use crate::config::sections::{ParallelConfig, RunnerConfig};
use crate::fault::{Fault, Kind, Result};
use serde_json::{Map, Value};

/// The keys that decide which tensors a job has, and how they are cut. All others are left alone.
#[derive(Clone, Debug, Default)]
pub struct JobConfig {
    /// Whether the job has several ranks.
    pub use_parallel: Option<bool>,
    /// Whether its network has legacy names.
    pub use_legacy: Option<bool>,
    /// Directory with the model's config.json.
    pub pretrained_model_dir: Option<String>,
    /// The mesh.
    pub parallel_config: ParallelConfig,
    /// The optimizer shard, the pipeline and what strategy files hold.
    pub parallel: ParallelContext,
    /// Accumulation of gradients.
    pub runner_config: RunnerConfig,
    /// The optimizer.
    pub optimizer: Typed,
    /// The network.
    pub model: ModelConfig,
    /// Experts of legacy networks.
    pub moe_config: Option<Map<String, Value>>,
    /// Whether it is a job of a dynamic graph, which has other keys.
    pub parallelism: bool,
}

/// `parallel`.
#[derive(Clone, Debug, Default)]
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
#[derive(Clone, Debug, Default)]
pub struct OptimizerConfig {
    /// Smaller tensors stay whole, in KB of 1024.
    pub parallel_optimizer_threshold: Option<u64>,
    /// Number of pieces; -1: as many as there are replicas.
    pub optimizer_weight_shard_size: Option<i64>,
}

/// `parallel.pipeline_config`.
#[derive(Clone, Debug, Default)]
pub struct PipelineConfig {
    /// Whether a stage has several chunks of layers.
    pub pipeline_interleave: Option<bool>,
    /// The schedule.
    pub pipeline_scheduler: Option<String>,
}

/// `parallel.strategy_ckpt_config`.
#[derive(Clone, Debug, Default)]
pub struct StrategyConfig {
    /// Whether tensors that aren't trained are left out.
    pub only_trainable_params: Option<bool>,
}

/// Something with a type.
#[derive(Clone, Debug, Default)]
pub struct Typed {
    /// Its class.
    pub class: Option<String>,
}

/// `model`.
#[derive(Clone, Debug, Default)]
pub struct ModelConfig {
    /// The network's own keys.
    pub model_config: Map<String, Value>,
    /// Its class.
    pub arch: Typed,
}

/// All keys of a file.
struct Keys<'a>(&'a Map<String, Value>);

impl Keys<'_> {
    /// The value at `path`; what is left empty isn't there.
    fn at(&self, path: &str) -> Result<Option<&Value>> {
        let mut keys = self.0;
        let (sections, key) = path.rsplit_once('.').unwrap_or(("", path));
        for section in sections.split('.').filter(|section| !section.is_empty()) {
            keys = match keys.get(section) {
                None | Some(Value::Null) => return Ok(None),
                Some(Value::Object(inner)) => inner,
                Some(other) => {
                    let fault = Fault::new(Kind::Config, format!("{section} is {other}"));
                    return Err(fault.hint(format!("it has keys below it, {key} for one")));
                }
            };
        }
        Ok(keys.get(key).filter(|value| !value.is_null()))
    }

    fn read<T>(
        &self,
        path: &str,
        fits: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.at(path)? else {
            return Ok(None);
        };
        let wrong = || Fault::new(Kind::Config, format!("{path} is {value}")).hint(fits);
        read(value).map(Some).ok_or_else(wrong)
    }

    fn number(&self, path: &str) -> Result<Option<u64>> {
        self.read(path, "a whole number", Value::as_u64)
    }

    fn flag(&self, path: &str) -> Result<Option<bool>> {
        self.read(path, "True or False", Value::as_bool)
    }

    fn text(&self, path: &str) -> Result<Option<String>> {
        self.read(path, "a word", |value| value.as_str().map(str::to_owned))
    }

    fn map(&self, path: &str) -> Result<Option<Map<String, Value>>> {
        self.read(path, "keys below it", |value| value.as_object().cloned())
    }

    fn parallel_config(&self) -> Result<ParallelConfig> {
        let number = |key: &str| self.number(&format!("parallel_config.{key}"));
        let flag = |key: &str| self.flag(&format!("parallel_config.{key}"));
        Ok(ParallelConfig {
            data_parallel: number("data_parallel")?,
            model_parallel: number("model_parallel")?,
            pipeline_stage: number("pipeline_stage")?,
            context_parallel: number("context_parallel")?,
            expert_parallel: number("expert_parallel")?,
            micro_batch_num: None,
            use_seq_parallel: flag("use_seq_parallel")?,
            vocab_emb_dp: flag("vocab_emb_dp")?,
            context_parallel_algo: self.text("parallel_config.context_parallel_algo")?,
            ulysses_degree_in_cp: number("ulysses_degree_in_cp")?,
        })
    }
}

impl JobConfig {
    /// Takes the keys of a trainer's configuration, laid over its bases.
    ///
    /// # Errors
    /// [`Kind::Config`], naming the key, for a value of the wrong type.
    pub fn of(keys: &Map<String, Value>) -> Result<JobConfig> {
        let keys = Keys(keys);
        let optimizer = "parallel.parallel_optimizer_config";
        Ok(JobConfig {
            use_parallel: keys.flag("use_parallel")?,
            use_legacy: keys.flag("use_legacy")?,
            pretrained_model_dir: keys.text("pretrained_model_dir")?,
            parallel_config: keys.parallel_config()?,
            parallel: ParallelContext {
                parallel_mode: keys.at("parallel.parallel_mode")?.cloned(),
                enable_parallel_optimizer: keys.flag("parallel.enable_parallel_optimizer")?,
                parallel_optimizer_config: OptimizerConfig {
                    parallel_optimizer_threshold: keys
                        .number(&format!("{optimizer}.parallel_optimizer_threshold"))?,
                    optimizer_weight_shard_size: keys.read(
                        &format!("{optimizer}.optimizer_weight_shard_size"),
                        "a number of replicas from 1, or -1 for all",
                        Value::as_i64,
                    )?,
                },
                pipeline_config: PipelineConfig {
                    pipeline_interleave: keys
                        .flag("parallel.pipeline_config.pipeline_interleave")?,
                    pipeline_scheduler: keys.text("parallel.pipeline_config.pipeline_scheduler")?,
                },
                strategy_ckpt_config: StrategyConfig {
                    only_trainable_params: keys
                        .flag("parallel.strategy_ckpt_config.only_trainable_params")?,
                },
                optimizer_weight_shard_aggregated_save: keys
                    .flag("parallel.optimizer_weight_shard_aggregated_save")?,
            },
            runner_config: RunnerConfig {
                batch_size: None,
                gradient_accumulation_steps: keys
                    .number("runner_config.gradient_accumulation_steps")?,
            },
            optimizer: Typed {
                class: keys.text("optimizer.type")?,
            },
            model: ModelConfig {
                model_config: keys.map("model.model_config")?.unwrap_or_default(),
                arch: Typed {
                    class: keys.text("model.arch.type")?,
                },
            },
            moe_config: keys.map("moe_config")?,
            parallelism: keys.at("parallelism")?.is_some(),
        })
    }
}
