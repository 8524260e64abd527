//! A training job, as far as its strategy depends on it.

use super::conditions::hold;
use super::distributes::distributes;
use super::feed_forward::inner_size;
use super::mesh::Mesh;
use super::offset::Offset;
use super::seen::Seen;
use super::sizes::Sizes;
use super::states::Optimizer;
use crate::config::job_yaml::JobConfig;
use crate::fault::{Fault, Kind, Result};
use crate::model::bounds::check_size;
use crate::model::choices::Scheme;
use crate::model::expression::Numbers;
use crate::model::family::Family;
use crate::model::training::Training;
use serde_json::{Map, Value};

/// Where MindSpore begins to cut, in KB, if nothing is said.
const THRESHOLD_KB: u64 = 64;

/// A job.
#[derive(Clone, Debug)]
pub struct Job {
    /// The file that errors are about.
    pub(super) origin: String,
    /// What nobody said, and the network takes: keys with their values.
    pub(super) assumed: Vec<String>,
    /// A key that releases before 1.8 obey.
    pub(super) ignored: Option<&'static str>,
    /// Layers have experts where config.json says so: there is no trainer's configuration.
    pub(super) as_model: bool,
    pub(super) family: Family,
    pub(super) training: Training,
    pub(super) numbers: Numbers,
    pub(super) scheme: Scheme,
    pub(super) mesh: Mesh,
    pub(super) sequence: bool,
    /// Ranks that share heads beside those of tensor parallel.
    pub(super) ulysses: u64,
    pub(super) vocabulary_whole: bool,
    pub(super) embedding_shard: bool,
    pub(super) cubic: Option<Cubic>,
    pub(super) shard: Option<ShardRule>,
    /// Of an element of a weight.
    pub(super) element_bytes: u64,
    pub(super) chunks: u64,
    pub(super) vee: bool,
    pub(super) offset: Offset,
    pub(super) accumulates: bool,
    pub(super) only_trained: bool,
    pub(super) optimizer: Optimizer,
}

/// Tensor parallel in three directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cubic {
    pub(super) x: u64,
    pub(super) y: u64,
    pub(super) z: u64,
}

/// What the optimizer cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShardRule {
    pub(super) threshold_bytes: u64,
    /// -1: all replicas.
    pub(super) size: i64,
    /// Whether the strategy says so: not where checkpoints are written without it.
    pub(super) is_written: bool,
}

fn wrong(message: impl Into<String>) -> Fault {
    Fault::new(Kind::Config, message)
}

impl Job {
    /// The job of a trainer's configuration, and of the model's config.json if it has one.
    ///
    /// # Errors
    /// [`Kind::Config`] for keys that contradict each other, and for what can't be derived.
    pub fn configured(config: &JobConfig, model: &Map<String, Value>) -> Result<Job> {
        distributes(config)?;
        let scheme = match config.use_legacy.unwrap_or(true) {
            true => Scheme::Legacy,
            false => Scheme::Mcore,
        };
        let class = config.model.arch.class.as_deref();
        let own = &config.model.model_config;
        let family = family_of(scheme, class, own, model, true)?;
        let training = training_of(&family, scheme)?;
        if training.only_layouts {
            let message = format!(
                "model_type is '{}': the trainer has no network to train it with",
                family.family
            );
            let hint = "a layout (dp=2,tp=4) can be given in the place of this file, with --model";
            return Err(wrong(message).hint(hint));
        }
        let mut merged = merge(&training, own, model, false)?;
        let assumed = assume(&training, &mut merged);
        let sizes = &config.parallel_config;
        let mesh = Mesh {
            data: sizes.data_parallel.unwrap_or(1),
            tensor: sizes.model_parallel.unwrap_or(1),
            stages: sizes.pipeline_stage.unwrap_or(1),
            context: sizes.context_parallel.unwrap_or(1),
            expert: sizes.expert_parallel.unwrap_or(1),
        };
        let optimizer = Optimizer::called(config.optimizer.class.as_deref(), scheme)?;
        let mut job = Job::new(family, training, merged, mesh, optimizer)?;
        job.assumed = assumed;
        job.ignored = (scheme == Scheme::Mcore && sizes.vocab_emb_dp == Some(true))
            .then_some("parallel_config.vocab_emb_dp");
        job.sequence = sizes.use_seq_parallel.unwrap_or(false);
        job.ulysses = match sizes.context_parallel_algo.as_deref() {
            Some("ulysses_cp") => mesh.context,
            Some("hybrid_cp") => sizes.ulysses_degree_in_cp.unwrap_or(1),
            _ => 1,
        };
        job.vocabulary_whole = sizes.vocab_emb_dp.unwrap_or(true) && mesh.stages == 1;
        job.cubic = cubic(&job.numbers);
        job.embedding_shard = job.numbers.holds("parallel_optimizer");
        let parallel = &config.parallel;
        if parallel.enable_parallel_optimizer.unwrap_or(false) {
            let rule = &parallel.parallel_optimizer_config;
            let kilobytes = rule.parallel_optimizer_threshold.unwrap_or(THRESHOLD_KB);
            job.shard = Some(ShardRule {
                threshold_bytes: kilobytes.saturating_mul(1024),
                size: rule.optimizer_weight_shard_size.unwrap_or(-1),
                is_written: !parallel
                    .optimizer_weight_shard_aggregated_save
                    .unwrap_or(false),
            });
        }
        let pipeline = &parallel.pipeline_config;
        let interleaves = pipeline.pipeline_interleave.unwrap_or(false);
        if interleaves && mesh.stages > 1 {
            job.chunks = job.count("pp_interleave_num")?.unwrap_or(1);
        }
        job.vee =
            pipeline.pipeline_scheduler.as_deref() == Some("zero_bubble_v") && mesh.stages > 1;
        job.offset = Offset::parse(job.numbers.raw("offset"))?;
        let steps = config.runner_config.gradient_accumulation_steps;
        job.accumulates = mesh.stages > 1 || steps.unwrap_or(1) > 1;
        let strategy = &parallel.strategy_ckpt_config;
        job.only_trained = strategy.only_trainable_params.unwrap_or(true);
        Ok(job)
    }

    /// The usual job of a model in the layout `sizes`, with the names that are `seen` (none: those its family
    /// usually has).
    ///
    /// # Errors
    /// [`Kind::Config`], [`Kind::Unsupported`] for a model that no table is for.
    pub fn usual(seen: &Seen, sizes: &Sizes, model: &Map<String, Value>) -> Result<Job> {
        let family = family_of(Scheme::Mcore, None, model, model, false)?;
        let names = seen.names.unwrap_or(family.usual_names);
        let training = training_of(&family, names)?;
        let merged = merge(&training, &seen.configuration(), model, true)?;
        let optimizer = Optimizer::usual(seen.masters);
        let mesh = sizes.mesh;
        let mut job = Job::new(family, training, merged, mesh, optimizer)?;
        job.sequence = true;
        job.as_model = true;
        job.vocabulary_whole = sizes.vocabulary_whole.unwrap_or(true) && mesh.stages == 1;
        job.accumulates = mesh.stages > 1;
        job.offset = sizes.offset.clone();
        job.chunks = sizes.chunks;
        let kilobytes = sizes.threshold_kb.unwrap_or(THRESHOLD_KB);
        job.shard = sizes.shard.map(|size| ShardRule {
            threshold_bytes: kilobytes.saturating_mul(1024),
            size,
            is_written: true,
        });
        Ok(job)
    }

    fn new(
        family: Family,
        training: Training,
        mut merged: Map<String, Value>,
        mesh: Mesh,
        optimizer: Optimizer,
    ) -> Result<Job> {
        mesh.check()?;
        merged.insert("pipelined".into(), Value::Bool(mesh.stages > 1));
        merged.insert("muon".into(), Value::Bool(optimizer.is_muon()));
        let numbers = Numbers::new(&family.numbers, &merged);
        check_size(&family, &numbers).map_err(as_config)?;
        let element_bytes = element_bytes(&merged)?;
        Ok(Job {
            origin: String::new(),
            assumed: Vec::new(),
            ignored: None,
            as_model: false,
            scheme: training.names,
            family,
            training,
            numbers,
            mesh,
            sequence: false,
            ulysses: 1,
            vocabulary_whole: false,
            embedding_shard: false,
            cubic: None,
            shard: None,
            element_bytes,
            chunks: 1,
            vee: false,
            offset: Offset::All(0),
            accumulates: false,
            only_trained: false,
            optimizer,
        })
    }

    /// The ranks of all stages.
    #[must_use]
    pub fn ranks(&self) -> u64 {
        self.mesh.ranks()
    }

    /// How the names of its layers' tensors begin, before the layer's number.
    pub(super) fn layers_prefix(&self) -> Option<String> {
        let block = self.family.blocks.iter().find(|block| !block.mtp)?;
        let name = match self.scheme {
            Scheme::Legacy => block.legacy.as_ref(),
            Scheme::Mcore => block.mcore.as_ref(),
        };
        Some(name?.split_once("{layer}")?.0.to_owned())
    }

    /// What of it can't be derived.
    pub(super) fn refusals(&self) -> Result<()> {
        let refuses = &self.training.refuses;
        match refuses.iter().find(|r| hold(&self.numbers, &r.when)) {
            None => Ok(()),
            Some(refusal) => {
                let value = self.numbers.raw(&refusal.key);
                let value = value.map_or("not given".into(), Value::to_string);
                let message = format!(
                    "model.model_config.{} is {value}: {}",
                    refusal.key, refusal.why
                );
                Err(wrong(message).hint("only the job itself can write this strategy, if any"))
            }
        }
    }

    /// A number of the model's configuration that may be absent.
    pub(super) fn count(&self, key: &str) -> Result<Option<u64>> {
        match self.numbers.raw(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().filter(|n| *n > 0) {
                Some(number) => Ok(Some(number)),
                None => Err(wrong(format!("{key} is {value}")).hint("a whole number from 1")),
            },
        }
    }
}

/// What is wrong with a model's numbers is a matter of its configuration.
pub(super) fn as_config(mut fault: Fault) -> Fault {
    if fault.kind == Kind::Corrupt {
        fault.kind = Kind::Config;
        fault.message = fault
            .message
            .replace("config.json has", "the model's configuration has");
        fault.hint = Some(
            "give it in model.model_config, or with --model and a config.json that has it".into(),
        );
    }
    fault
}

/// The family whose network the configuration names: by its class, or by the model's type; for a fault, those that
/// can be `trained`, or all.
fn family_of(
    scheme: Scheme,
    class: Option<&str>,
    own: &Map<String, Value>,
    model: &Map<String, Value>,
    trained: bool,
) -> Result<Family> {
    let text = |key: &str| {
        let values = [own.get(key), model.get(key)];
        values.into_iter().flatten().find_map(Value::as_str)
    };
    let listed = |map: &Map<String, Value>| -> Option<String> {
        let first = map.get("architectures")?.as_array()?.first()?;
        Some(first.as_str()?.to_owned())
    };
    let class = class.map(str::to_owned);
    // The network of several families may be one class: their table is the first that has it.
    let (class, kind) = match (scheme, class) {
        (Scheme::Legacy, Some(class)) => (Some(class), None),
        (_, class) => (listed(own).or(listed(model)).or(class), text("model_type")),
    };
    let mut known = Vec::new();
    for family in Family::built_in()? {
        let is_kind = |kind: &str| family.model_types.iter().any(|known| known == kind);
        let Some(training) = family.training.as_ref() else {
            if kind.is_some_and(is_kind) {
                return Err(not_derived(&family));
            }
            continue;
        };
        let is_class = |class: &String| training.architectures.contains(class);
        if kind.map_or_else(|| class.as_ref().is_some_and(is_class), is_kind) {
            return Ok(family);
        }
        if trained && training.only_layouts {
            continue;
        }
        let names = training.architectures.join(", ");
        known.push(format!("{} ({names})", family.model_types.join(", ")));
    }
    let message = match (kind, class) {
        (Some(kind), _) => format!("model_type is '{kind}': no table says how its network is cut"),
        (None, Some(class)) => format!("the network is '{class}': no table says how it is cut"),
        (None, None) => "neither model.arch.type nor model_type says which network it is".into(),
    };
    Err(wrong(message).hint(format!("known: {}", known.join("; "))))
}

/// What to say of a family without a training network.
fn not_derived(family: &Family) -> Fault {
    let why = family.not_derived.as_deref();
    let why = why.unwrap_or("its table doesn't say how its network cuts them");
    let message = format!("layouts of family {} aren't derived: {why}", family.family);
    wrong(message).hint("shardloom strategy new makes a strategy by rules of your own")
}

fn training_of(family: &Family, scheme: Scheme) -> Result<Training> {
    let training = family.training.clone();
    training
        .filter(|training| training.names == scheme)
        .ok_or_else(|| {
            let (has, other) = match scheme {
                Scheme::Mcore => (
                    "mcore",
                    "use_legacy: True, or --names legacy; Megatron's form is written without a strategy of the destination",
                ),
                Scheme::Legacy => ("legacy", "use_legacy: False, or --names mcore"),
            };
            let message = format!(
                "how a network of family {} with {has} names is cut isn't known",
                family.family
            );
            wrong(message).hint(other)
        })
}

/// What is said of the model: by the trainer's configuration, else by config.json, else by the table.
fn merge(
    training: &Training,
    own: &Map<String, Value>,
    model: &Map<String, Value>,
    usual: bool,
) -> Result<Map<String, Value>> {
    let mut merged = training.defaults.clone();
    if usual {
        merged.extend(training.usual.clone());
    }
    for (source, is_trainers) in [(model, false), (own, true)] {
        let mut said: Map<String, Value> = Map::new();
        for (key, value) in source {
            let meant = training.spelled.get(key).unwrap_or(key);
            if value.is_null() && meant != key {
                continue;
            }
            // In a config.json a word of the trainer's may be another number's name.
            if !is_trainers && meant != key && source.contains_key(meant) {
                continue;
            }
            if let Some(other) = said
                .get(meant)
                .filter(|other| *other != value && !other.is_null())
            {
                let message =
                    format!("'{key}' is {value}, but '{meant}' is {other}: they mean the same");
                return Err(wrong(message).hint("leave one of them out"));
            }
            said.insert(meant.clone(), value.clone());
        }
        merged.extend(said);
    }
    if let Some(number) = &training.feed_forward
        && merged.get("intermediate_size").is_none_or(Value::is_null)
        && let Some(size) = inner_size(&merged)
    {
        let key = if number == "ffn" {
            "intermediate_size"
        } else {
            number
        };
        merged.insert(key.to_owned(), size.into());
    }
    Ok(merged)
}

/// Adds the numbers that the network takes where nothing is said; gives which.
fn assume(training: &Training, merged: &mut Map<String, Value>) -> Vec<String> {
    let mut assumed = Vec::new();
    for (key, value) in &training.assumed {
        if !merged.contains_key(key) {
            merged.insert(key.clone(), value.clone());
            assumed.push(format!("{key} {value}"));
        }
    }
    assumed
}

fn element_bytes(merged: &Map<String, Value>) -> Result<u64> {
    let name = merged.get("params_dtype").and_then(Value::as_str);
    match name.unwrap_or("float32") {
        "float32" => Ok(4),
        "float16" | "bfloat16" => Ok(2),
        other => Err(wrong(format!("the type of the weights is '{other}'"))
            .hint("params_dtype (param_init_type): float32, bfloat16 or float16")),
    }
}

fn cubic(numbers: &Numbers) -> Option<Cubic> {
    numbers.holds("use_3d_tensor_parallel").then(|| {
        let size = |key: &str| numbers.raw(key).and_then(Value::as_u64).unwrap_or(1);
        Cubic {
            x: size("tp_x"),
            y: size("tp_y"),
            z: size("tp_z"),
        }
    })
}
