//! A trainer's YAML file: the keys that say which weights are loaded and how, and what they ask for.
//!
//! The rules are those of MindSpore Transformers (docs/migrating.md); where it goes on in silence
//! with weights that are not what was asked for, this is an error.

use crate::config::checkpoint_section::{self, CheckpointSection, Parallelism};
use crate::config::no_yaml::no_yaml;
use crate::fault::{Fault, Kind, Result};
use crate::store::Format;
use serde::Deserialize;
use std::path::{Path, PathBuf};

pub use crate::config::asked::{Action, Asked, Shape};
pub use crate::config::sections::{ParallelConfig, Resume, RunnerConfig};

/// Longest configuration that is read, in bytes.
pub const YAML_BYTES_MAX: u64 = 16 << 20;

/// What a trainer is asked to do.
const RUN_MODES: [&str; 5] = [
    "train",
    "finetune",
    "predict",
    "eval",
    "predict_with_train_model",
];

/// The keys that concern weights. All others are left alone.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TrainConfig {
    /// What is run: `train`, `finetune`, `predict`, `eval`.
    pub run_mode: Option<String>,
    /// File or directory with the weights.
    pub load_checkpoint: Option<String>,
    /// Directory of Hugging Face weights, used if `load_checkpoint` is empty.
    pub pretrained_model_dir: Option<String>,
    /// `ckpt` or `safetensors`.
    pub load_ckpt_format: Option<String>,
    /// Whether the weights are to be brought into the job's layout.
    pub auto_trans_ckpt: Option<bool>,
    /// Strategy of the weights: a file or a directory.
    pub src_strategy_path_or_dir: Option<String>,
    /// Whether the job has several ranks.
    pub use_parallel: Option<bool>,
    /// Whether the job goes on where another stopped; or from which file.
    pub resume_training: Option<Resume>,
    /// What the loader believes of files that don't say whether their redundancy was removed.
    pub remove_redundancy: Option<bool>,
    /// Where the job writes.
    pub output_dir: Option<String>,
    /// The job's mesh.
    pub parallel_config: Option<ParallelConfig>,
    /// Batch sizes.
    pub runner_config: Option<RunnerConfig>,
    /// Interleaved micro batches.
    pub micro_batch_interleave_num: Option<u64>,
    /// `False` is checkpoint 2.0.
    pub use_legacy_format: Option<bool>,
    /// What a trainer of checkpoint 2.0 loads.
    pub checkpoint: Option<CheckpointSection>,
    /// The mesh of a dynamic graph.
    pub parallelism: Option<Parallelism>,
}

fn wrong(message: impl Into<String>) -> Fault {
    Fault::new(Kind::Config, message)
}

impl TrainConfig {
    /// Reads a YAML file's text.
    ///
    /// # Errors
    /// [`Kind::Config`] with the place of what is no YAML, or a value of the wrong type.
    pub fn parse(text: &str) -> Result<TrainConfig> {
        let config: TrainConfig = serde_saphyr::from_str(text).map_err(|error| no_yaml(&error))?;
        config.check()?;
        Ok(config)
    }

    /// Whether each key has a value that is one.
    ///
    /// # Errors
    /// [`Kind::Config`], naming the key.
    pub fn check(&self) -> Result<()> {
        if let Some(format) = &self.load_ckpt_format
            && Format::called(format).is_none()
        {
            let known: Vec<&str> = Format::all().map(Format::name).collect();
            let known = known.join("' or '");
            let message = format!("load_ckpt_format is '{format}', not '{known}'");
            return Err(wrong(message));
        }
        if let Some(mode) = &self.run_mode
            && !RUN_MODES.contains(&mode.as_str())
        {
            let known = RUN_MODES.join("', '");
            let message = format!("run_mode is '{mode}', not one of '{known}'");
            return Err(wrong(message));
        }
        Ok(())
    }

    /// Refuses a YAML file of something else, which has no key that a trainer's configuration has.
    ///
    /// # Errors
    /// [`Kind::Config`].
    pub fn check_any(&self) -> Result<()> {
        if *self != TrainConfig::default() {
            return Ok(());
        }
        Err(wrong(
            "has none of the keys of a training configuration, as load_checkpoint, use_parallel, \
             parallel_config",
        )
        .hint("give the YAML file that the trainer is started with"))
    }

    /// Whether it is for a trainer of checkpoint 2.0, which changes layouts by itself.
    #[must_use]
    pub fn modern(&self) -> bool {
        self.checkpoint.is_some()
            || self.parallelism.is_some()
            || self.use_legacy_format == Some(false)
    }

    /// The path that is loaded, if there is one: `checkpoint.load_path`, else `load_checkpoint`, else
    /// `pretrained_model_dir`.
    ///
    /// # Errors
    /// [`Kind::Config`] if there must be one and isn't, or one that isn't used.
    pub fn source(&self) -> Result<Option<Asked>> {
        let given = |text: &Option<String>, key| {
            let text = text.as_deref().unwrap_or_default();
            let path = text.trim_end_matches('/');
            let path = if path.is_empty() && !text.is_empty() {
                "/"
            } else {
                path
            };
            (!path.is_empty()).then(|| Asked {
                path: PathBuf::from(path),
                key,
            })
        };
        let load = given(&self.load_checkpoint, "load_checkpoint");
        let section = self
            .checkpoint
            .as_ref()
            .filter(|section| section.load_path.is_some());
        if let Some(section) = section {
            section.check_adapter()?;
            let path = given(&section.load_path, "checkpoint.load_path");
            return match (path, load) {
                (None, Some(_)) => Err(wrong(
                    "checkpoint.load_path is empty, and wins over load_checkpoint: the trainer would \
                     start from random weights",
                )
                .hint("give the path as checkpoint.load_path, or leave that key out")),
                (path, _) => Ok(path),
            };
        }
        if load.is_none() && self.resumes() && !self.modern() {
            return Err(wrong("resume_training is set and load_checkpoint is empty")
                .hint("give the directory that has the rank directories of the job to resume"));
        }
        let source = load.or_else(|| given(&self.pretrained_model_dir, "pretrained_model_dir"));
        if source.is_none() && self.translates() {
            return Err(
                wrong("auto_trans_ckpt is True and load_checkpoint is empty")
                    .hint("give the weights as load_checkpoint, or set auto_trans_ckpt: False"),
            );
        }
        Ok(source)
    }

    /// Whether the job resumes.
    #[must_use]
    pub fn resumes(&self) -> bool {
        let section = self.checkpoint.as_ref();
        if let Some(without) = section.and_then(|section| section.no_load_optim) {
            return !without;
        }
        match &self.resume_training {
            // In the dynamic graph the whole state is loaded where nothing else is said.
            None => self.parallelism.is_some(),
            Some(Resume::Flag(false)) => false,
            Some(Resume::Flag(true)) => true,
            Some(Resume::File(name)) => !name.is_empty(),
        }
    }

    /// Whether the layout is to be changed.
    #[must_use]
    pub fn translates(&self) -> bool {
        self.auto_trans_ckpt.unwrap_or(false)
    }

    /// Whether the job has several ranks.
    #[must_use]
    pub fn parallel(&self) -> bool {
        self.use_parallel.unwrap_or(false)
    }

    /// Where the job writes.
    #[must_use]
    pub fn output(&self) -> &Path {
        Path::new(
            self.output_dir
                .as_deref()
                .filter(|dir| !dir.is_empty())
                .unwrap_or("./output"),
        )
    }

    /// The number of ranks that `parallel_config` comes to, where it gives the data parallel size.
    #[must_use]
    pub fn ranks(&self) -> Option<u64> {
        let mesh = self.parallel_config.as_ref()?;
        let sizes = [
            mesh.model_parallel,
            mesh.pipeline_stage,
            mesh.context_parallel,
        ];
        sizes
            .into_iter()
            .try_fold(mesh.data_parallel?, |product, size| {
                product.checked_mul(size.unwrap_or(1))
            })
    }

    /// The number of devices that `parallel_config` asks for at least.
    fn devices(&self) -> u64 {
        let mesh = self.parallel_config.clone().unwrap_or_default();
        let sizes = [
            mesh.data_parallel,
            mesh.model_parallel,
            mesh.pipeline_stage,
            mesh.context_parallel,
        ];
        sizes.into_iter().flatten().fold(1, u64::saturating_mul)
    }

    /// Samples of a step, where the configuration tells.
    #[must_use]
    pub fn global_batch_size(&self) -> Option<u64> {
        let mesh = self.parallel_config.as_ref()?;
        let runner = self.runner_config.as_ref()?;
        let pipeline = mesh.pipeline_stage.unwrap_or(1) > 1;
        let repeats = if pipeline {
            mesh.micro_batch_num
        } else {
            runner.gradient_accumulation_steps
        };
        [
            Some(mesh.data_parallel?),
            repeats,
            self.micro_batch_interleave_num,
        ]
        .into_iter()
        .try_fold(runner.batch_size?, |product, size| {
            product.checked_mul(size.unwrap_or(1))
        })
    }

    /// What weights of `shape` ask for: the trainer's table of modes.
    ///
    /// # Errors
    /// [`Kind::Config`] where the trainer refuses, or would start with other weights than asked for.
    pub fn action(&self, asked: &Asked, shape: &Shape) -> Result<Action> {
        if self.modern() {
            return checkpoint_section::action(asked, shape, self.resumes());
        }
        let (key, devices) = (asked.key, self.devices());
        if self.use_parallel.is_none() && devices > 1 {
            let message = format!(
                "use_parallel isn't set and parallel_config asks for {devices} devices: the trainer \
                 would use one"
            );
            return Err(wrong(message).hint(
                "set use_parallel: True; or --use-parallel True, if the launcher is given its \
                 --use_parallel",
            ));
        }
        let parallel = self.parallel();
        let alone = if self.use_parallel.is_some() {
            "is False"
        } else {
            "isn't set"
        };
        match shape {
            Shape::File if parallel => {
                Err(wrong(format!("{key} is one file and use_parallel is True"))
                    .hint("give the directory that contains it, with auto_trans_ckpt: True"))
            }
            Shape::File | Shape::Complete if !parallel => Ok(Action::None),
            Shape::HuggingFace if !parallel => Ok(Action::Import),
            Shape::Complete | Shape::HuggingFace if !self.translates() => Err(wrong(format!(
                "{key} has full weights, use_parallel is True and auto_trans_ckpt False"
            ))
            .hint("auto_trans_ckpt: True lets them be cut for the job's ranks")),
            Shape::HuggingFace => Ok(Action::Import),
            Shape::Complete | Shape::File => Ok(Action::Split),
            Shape::Ranks | Shape::RankFile | Shape::Iteration if !parallel => Err(wrong(format!(
                "{key} has distributed weights and use_parallel {alone}"
            ))
            .hint(
                "use_parallel: True (or --use-parallel True, as the launcher has it), or make full \
                 weights of them: `shardloom unify`",
            )),
            Shape::RankFile if !self.translates() => Err(wrong(format!(
                "{key} is one rank's file: the trainer would find nothing below it, and start from \
                 random weights"
            ))
            .hint("give the directory that has the rank directories")),
            Shape::Ranks if !self.translates() => Ok(Action::None),
            Shape::Ranks | Shape::RankFile | Shape::Iteration => Ok(Action::Reshard),
        }
    }
}

/// Steps done, in steps of another batch size: `int(steps * saved / new)`, as the trainer does.
#[must_use]
pub fn scaled_steps(steps: u64, saved_batch: u64, new_batch: u64) -> u64 {
    let scaled = u128::from(steps) * u128::from(saved_batch) / u128::from(new_batch.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_table_of_modes() {
        let config = |parallel: bool, translates: bool| TrainConfig {
            use_parallel: Some(parallel),
            auto_trans_ckpt: Some(translates),
            ..TrainConfig::default()
        };
        let table = [
            (
                Shape::File,
                [Some(Action::None), Some(Action::None), None, None],
            ),
            (
                Shape::Complete,
                [
                    Some(Action::None),
                    Some(Action::None),
                    None,
                    Some(Action::Split),
                ],
            ),
            (
                Shape::Ranks,
                [None, None, Some(Action::None), Some(Action::Reshard)],
            ),
            (Shape::RankFile, [None, None, None, Some(Action::Reshard)]),
            (
                Shape::HuggingFace,
                [
                    Some(Action::Import),
                    Some(Action::Import),
                    None,
                    Some(Action::Import),
                ],
            ),
        ];
        for (shape, row) in table {
            for (column, (parallel, translates)) in
                [(false, false), (false, true), (true, false), (true, true)]
                    .into_iter()
                    .enumerate()
            {
                let asked = Asked {
                    path: "/w".into(),
                    key: "load_checkpoint",
                };
                let action = config(parallel, translates).action(&asked, &shape);
                assert_eq!(
                    action.ok(),
                    row[column],
                    "{shape:?} {parallel} {translates}"
                );
            }
        }
    }

    #[test]
    fn reads_what_trainers_write() {
        let text = "
base: &base {data_parallel: 2}
parallel_config: {<<: *base, model_parallel: &mp 4, pipeline_stage: 2, micro_batch_num: 8, other: x}
runner_config: {batch_size: 1, sink_mode: True}
load_checkpoint: ''
pretrained_model_dir: /hf/
use_parallel: True
resume_training: False
callbacks: [{type: CheckpointMonitor, prefix: m}]
";
        let config = TrainConfig::parse(text).unwrap();
        assert_eq!(
            (config.ranks(), config.global_batch_size()),
            (Some(16), Some(16))
        );
        let asked = config.source().unwrap().unwrap();
        assert_eq!(
            (asked.path, asked.key),
            (PathBuf::from("/hf"), "pretrained_model_dir")
        );
        let named =
            TrainConfig::parse("resume_training: m_rank_0-1_2\nload_checkpoint: a/").unwrap();
        assert!(named.resumes());
        for bad in [
            "auto_trans_ckpt: maybe",
            "load_ckpt_format: pickle",
            "use_parallel: true\nuse_parallel: false",
            "a: [",
        ] {
            assert_eq!(
                TrainConfig::parse(bad).unwrap_err().kind,
                Kind::Config,
                "{bad}"
            );
        }
        for lost in ["resume_training: True", "auto_trans_ckpt: True"] {
            assert!(
                TrainConfig::parse(lost).unwrap().source().is_err(),
                "{lost}"
            );
        }
    }

    #[test]
    fn scales_steps_as_the_trainer_does() {
        assert_eq!(scaled_steps(41, 16, 32), 20);
        assert_eq!(scaled_steps(20, 32, 16), 40);
    }
}
