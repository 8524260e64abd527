//! The configuration: its file, the files it is laid over, and what the launcher is given besides.

use crate::config::based::Layered;
use crate::config::train_yaml::{Resume, TrainConfig, YAML_BYTES_MAX};
use crate::exchange::{World, agree, broadcast_bytes, decode, encode};
use crate::fault::Result;
use crate::store::io::ReadFile;
use clap::Args;
use serde_json::{Value, json};
use std::path::Path;

/// What the trainer's launcher is given besides, and wins over the configuration.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct LaunchArgs {
    /// As the launcher's flag of this name, which wins over the configuration's key.
    #[arg(long, alias = "load_checkpoint", value_name = "PATH")]
    load_checkpoint: Option<String>,
    /// As the launcher's flag.
    #[arg(long, alias = "use_parallel", value_name = "BOOL", value_parser = parse_truth)]
    pub(super) use_parallel: Option<bool>,
    /// As the launcher's flag.
    #[arg(long, alias = "auto_trans_ckpt", value_name = "BOOL", value_parser = parse_truth)]
    auto_trans_ckpt: Option<bool>,
    /// As the launcher's flag: True, False or the name of a file to resume from.
    #[arg(long, alias = "resume_training", value_name = "BOOL|FILE")]
    resume_training: Option<String>,
    /// As the launcher's flag: train, finetune, eval or predict.
    #[arg(long, alias = "run_mode", value_name = "MODE")]
    run_mode: Option<String>,
}

impl LaunchArgs {
    /// The configuration's keys that mean the same.
    pub(super) fn keys(&self) -> Vec<(&'static str, Value)> {
        let resume = self.resume_training.as_ref();
        let resume = resume.map(|text| parse_truth(text).map_or_else(|_| json!(text), Value::Bool));
        let keys = [
            (
                "load_checkpoint",
                self.load_checkpoint.as_ref().map(|path| json!(path)),
            ),
            ("use_parallel", self.use_parallel.map(Value::Bool)),
            ("auto_trans_ckpt", self.auto_trans_ckpt.map(Value::Bool)),
            ("resume_training", resume),
            ("run_mode", self.run_mode.as_ref().map(|mode| json!(mode))),
        ];
        keys.into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect()
    }

    /// What gives the weights that `key` asks for: the flag, or the key in `config`.
    pub(super) fn given(&self, key: &str, config: &Path) -> String {
        match self.load_checkpoint.is_some() && key == "load_checkpoint" {
            true => "--load-checkpoint".to_owned(),
            false => format!("{key} in {}", config.display()),
        }
    }

    /// The configuration with these.
    ///
    /// # Errors
    /// [`Kind::Config`] for a value that is none.
    pub(super) fn over(&self, mut config: TrainConfig) -> Result<TrainConfig> {
        fn set<T: Clone>(key: &mut Option<T>, given: &Option<T>) {
            if given.is_some() {
                key.clone_from(given);
            }
        }
        set(&mut config.load_checkpoint, &self.load_checkpoint);
        set(&mut config.use_parallel, &self.use_parallel);
        set(&mut config.auto_trans_ckpt, &self.auto_trans_ckpt);
        set(&mut config.run_mode, &self.run_mode);
        if let Some(text) = &self.resume_training {
            config.resume_training =
                Some(parse_truth(text).map_or_else(|_| Resume::File(text.clone()), Resume::Flag));
        }
        config.check()?;
        Ok(config)
    }
}

/// A truth value as Python has it.
fn parse_truth(text: &str) -> std::result::Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("'{text}' is neither True nor False")),
    }
}

/// The configuration's files as process 0 reads them. Collective.
///
/// # Errors
/// The same on every process: [`Kind::Io`], [`Kind::Config`].
pub(super) fn read_config(world: &World, path: &Path) -> Result<Layered> {
    let bytes = if world.process() == 0 {
        let read = |path: &Path| ReadFile::open(path)?.read_all(YAML_BYTES_MAX);
        Layered::read(path, &read).and_then(|layered| encode(&layered))
    } else {
        Ok(Vec::new())
    };
    let bytes = broadcast_bytes(world, 0, agree(world, bytes)?)?;
    agree(world, decode(&bytes))
}
