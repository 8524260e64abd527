//! A trainer's YAML file: the keys that say which weights are loaded and how, and what they ask for.
//!
//! The rules are those of MindSpore Transformers (docs/migrating.md); where it goes on in silence
//! with weights that are not what was asked for, this is an error.

use crate::fault::{Fault, Kind, Result};
use crate::store::Format;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Longest configuration that is read, in bytes.
pub const YAML_BYTES_MAX: u64 = 16 << 20;

/// The keys that concern weights. All others are left alone.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TrainConfig {
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
}

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
#[derive(Clone, Debug, Default, Deserialize)]
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
    /// Micro batches of a pipeline.
    pub micro_batch_num: Option<u64>,
}

/// `runner_config`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RunnerConfig {
    /// Samples of a micro batch on one rank.
    pub batch_size: Option<u64>,
    /// Batches a step, without a pipeline.
    pub gradient_accumulation_steps: Option<u64>,
}

/// What a path holds, by its shape alone, as the trainer decides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One file, in no rank directory.
    File,
    /// A file in a rank directory.
    RankFile,
    /// A directory of rank directories.
    Ranks,
    /// A directory of full weights.
    Complete,
    /// A directory of full weights under Hugging Face names.
    HuggingFace,
    /// A directory of checkpoint 2.0, which tells its own layout.
    Iteration,
}

/// What there is to do before the job starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: the job can load it as it is.
    None,
    /// Full weights have to be cut.
    Split,
    /// Shards have to be brought into another layout, if it is another one.
    Reshard,
    /// Names have to be mapped, which the trainer does by itself.
    Import,
}

impl Action {
    /// Its name in the JSON result.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Action::None => "none",
            Action::Split => "split",
            Action::Reshard => "reshard",
            Action::Import => "import",
        }
    }
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
        let config: TrainConfig = serde_saphyr::from_str(text).map_err(|error| {
            let text = error.to_string();
            let line = text.lines().map(str::trim).find(|line| !line.is_empty());
            wrong(line.unwrap_or("is no YAML").to_owned())
        })?;
        if let Some(format) = &config.load_ckpt_format
            && Format::called(format).is_none()
        {
            let known: Vec<&str> = Format::all().map(Format::name).collect();
            let known = known.join("' or '");
            let message = format!("load_ckpt_format is '{format}', not '{known}'");
            return Err(wrong(message));
        }
        Ok(config)
    }

    /// The path that is loaded, if there is one: `load_checkpoint`, else `pretrained_model_dir`.
    ///
    /// # Errors
    /// [`Kind::Config`] if there must be one and isn't.
    pub fn source(&self) -> Result<Option<PathBuf>> {
        let given = |text: &Option<String>| {
            let text = text.as_deref().unwrap_or_default().trim_end_matches('/');
            (!text.is_empty()).then(|| PathBuf::from(text))
        };
        let load = given(&self.load_checkpoint);
        if load.is_none() && self.resumes() {
            return Err(wrong("resume_training is set and load_checkpoint is empty")
                .hint("give the directory that has the rank directories of the job to resume"));
        }
        let source = load.or_else(|| given(&self.pretrained_model_dir));
        if source.is_none() && self.translates() {
            return Err(wrong(
                "auto_trans_ckpt is True and load_checkpoint is empty",
            ));
        }
        Ok(source)
    }

    /// Whether the job resumes.
    #[must_use]
    pub fn resumes(&self) -> bool {
        match &self.resume_training {
            None | Some(Resume::Flag(false)) => false,
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
    pub fn action(&self, shape: &Shape) -> Result<Action> {
        let parallel = self.parallel();
        match shape {
            Shape::File if parallel => Err(wrong("load_checkpoint is one file and use_parallel is True")
                .hint("give the directory that contains it, with auto_trans_ckpt: True")),
            Shape::File | Shape::Complete if !parallel => Ok(Action::None),
            Shape::HuggingFace if !parallel => Ok(Action::Import),
            Shape::Complete | Shape::HuggingFace if !self.translates() => Err(wrong(
                "load_checkpoint has full weights, use_parallel is True and auto_trans_ckpt False",
            )
            .hint("auto_trans_ckpt: True lets them be cut for the job's ranks")),
            Shape::HuggingFace => Ok(Action::Import),
            Shape::Complete | Shape::File => Ok(Action::Split),
            Shape::Ranks | Shape::RankFile | Shape::Iteration if !parallel => Err(wrong(
                "load_checkpoint has distributed weights and use_parallel is False",
            )
            .hint("use_parallel: True, or make full weights of them: `shardloom unify`")),
            Shape::RankFile if !self.translates() => Err(wrong(
                "load_checkpoint is one rank's file: the trainer would find nothing below it, and start \
                 from random weights",
            )
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
                let action = config(parallel, translates).action(&shape);
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
        assert_eq!(config.source().unwrap(), Some(PathBuf::from("/hf")));
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
