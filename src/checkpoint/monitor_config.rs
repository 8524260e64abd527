//! The keys of a `CheckpointMonitor` entry, and what they may say.

use crate::fault::{Fault, Kind, Result};
use crate::store::formats::COUNT_NAMES;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a `CheckpointMonitor` entry of a trainer's YAML says. Unknown keys are an error, and so is what
/// can't be served.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MonitorConfig {
    /// The entry's type, `CheckpointMonitor`.
    pub r#type: String,
    /// Beginning of the files' names; `_rank_R` follows.
    pub prefix: String,
    /// Root of the written directories; none: the run's output directory.
    pub directory: Option<PathBuf>,
    /// Save every so many steps; 0: by time.
    pub save_checkpoint_steps: u64,
    /// Save every so many seconds, as process 0's clock tells, if not by steps.
    pub save_checkpoint_seconds: u64,
    /// How many complete checkpoints of this run stay; 0: as `keep_checkpoint_per_n_minutes` says.
    pub keep_checkpoint_max: usize,
    /// With `keep_checkpoint_max` 0: one checkpoint stays of each so many minutes, and the newest; 0: all.
    pub keep_checkpoint_per_n_minutes: u64,
    /// Also write full weights of every checkpoint, below `checkpoint_integrated/`.
    pub integrated_save: bool,
    /// Also write the weights alone, below `checkpoint_network/`.
    pub save_network_params: bool,
    /// Also write the trained weights alone, below `checkpoint_trainable/`; no `checkpoint_network/` then.
    pub save_trainable_params: bool,
    /// Copy the state and write it behind the training. `thread` and `process` mean true.
    #[serde(deserialize_with = "truth_or_way")]
    pub async_save: bool,
    /// Save the state of the last step when the training ends by an error
    /// ([`fail`](super::monitor::CheckpointMonitor::fail)).
    pub exception_save: bool,
    /// Numbers that every file gets as scalars. Those that the state tells are always written.
    #[serde(deserialize_with = "null_is_empty")]
    pub append_info: Vec<Appended>,
    /// Samples of a step, for resuming with another size.
    pub global_batch_size: Option<u64>,
    /// `safetensors`.
    pub checkpoint_format: String,
    /// Write one copy only of each shard.
    pub remove_redundancy: bool,
    /// `true`: rank directories.
    pub use_legacy_format: bool,
    /// `true`: all of the state is saved.
    pub save_optimizer: bool,
    /// Of the health monitor, which must be off.
    pub use_checkpoint_health_monitor: bool,
    /// Of the health monitor.
    pub embedding_size: u64,
    /// Of the health monitor.
    pub embedding_local_norm_threshold: f64,
    /// Of the health monitor.
    pub health_ckpts_record_dir: PathBuf,
    /// Must be null.
    pub config: Option<IgnoredAny>,
    /// Must be null.
    pub saved_network: Option<IgnoredAny>,
    /// Must be null: files are not encrypted.
    pub enc_key: Option<IgnoredAny>,
    /// How files would be encrypted.
    pub enc_mode: String,
}

/// An element of `append_info`: a name that is written anyway, or numbers by name.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Appended {
    /// One of the counts that the state tells.
    Name(String),
    /// Scalars by name.
    Numbers(BTreeMap<String, Number>),
}

/// A number of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Number {
    /// A truth, stored as one byte.
    Truth(bool),
    /// A whole number, stored in 32 bits, or 64 if they are needed.
    Whole(i64),
    /// Any other, stored as float32.
    Real(f32),
}

fn truth_or_way<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Truth(bool),
        Way(String),
    }
    match Value::deserialize(from) {
        Ok(Value::Truth(truth)) => Ok(truth),
        Ok(Value::Way(way)) if way == "thread" || way == "process" => Ok(true),
        _ => Err(serde::de::Error::custom(
            "async_save is a truth, 'thread' or 'process'",
        )),
    }
}

fn null_is_empty<'de, D: Deserializer<'de>>(
    from: D,
) -> std::result::Result<Vec<Appended>, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

impl Default for MonitorConfig {
    fn default() -> Self {
        MonitorConfig {
            r#type: "CheckpointMonitor".into(),
            prefix: "CKP".into(),
            directory: None,
            save_checkpoint_steps: 1,
            save_checkpoint_seconds: 0,
            keep_checkpoint_max: 5,
            keep_checkpoint_per_n_minutes: 0,
            integrated_save: false,
            save_network_params: false,
            save_trainable_params: false,
            async_save: false,
            exception_save: false,
            append_info: Vec::new(),
            global_batch_size: None,
            checkpoint_format: "safetensors".into(),
            remove_redundancy: false,
            use_legacy_format: true,
            save_optimizer: true,
            use_checkpoint_health_monitor: false,
            embedding_size: 4096,
            embedding_local_norm_threshold: 1.0,
            health_ckpts_record_dir: "./output".into(),
            config: None,
            saved_network: None,
            enc_key: None,
            enc_mode: "AES-GCM".into(),
        }
    }
}

impl MonitorConfig {
    /// Reads the entry's YAML.
    ///
    /// # Errors
    /// [`Kind::Config`] for an unknown key, a wrong type, or a value that can't be served.
    pub fn parse(text: &str) -> Result<MonitorConfig> {
        let config: MonitorConfig = serde_saphyr::from_str(text).map_err(|error| {
            let text = error.to_string();
            let line = text.lines().map(str::trim).find(|line| !line.is_empty());
            Fault::new(Kind::Config, line.unwrap_or("is no YAML").to_owned())
        })?;
        config.check().map(|()| config)
    }

    /// Checks what the types can't.
    ///
    /// # Errors
    /// [`Kind::Config`].
    pub fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(Fault::new(Kind::Config, message));
        if self.r#type != "CheckpointMonitor" {
            return wrong(format!("type is CheckpointMonitor, not {}", self.r#type));
        }
        if self.prefix.contains('/') {
            return wrong("prefix is part of a file name, without '/'".into());
        }
        if self.prefix.starts_with('.') {
            return wrong("prefix begins with '.': hidden files are no checkpoints".into());
        }
        if self.checkpoint_format != "safetensors" {
            return wrong("checkpoint_format must be 'safetensors'".into());
        }
        if self.save_checkpoint_steps == 0 && self.save_checkpoint_seconds == 0 {
            return wrong("save_checkpoint_steps and save_checkpoint_seconds are both 0".into());
        }
        let null = [
            ("config", self.config.is_some()),
            ("saved_network", self.saved_network.is_some()),
            ("enc_key", self.enc_key.is_some()),
        ];
        if let Some((key, _)) = null.iter().find(|(_, set)| *set) {
            return wrong(format!("{key} can't be served: leave it out"));
        }
        if self.use_checkpoint_health_monitor {
            return wrong("use_checkpoint_health_monitor can't be served: leave it out".into());
        }
        if !self.use_legacy_format {
            let message = "use_legacy_format: False (a checkpoint 2.0) can't be written here";
            return Err(Fault::new(Kind::Config, message)
                .hint("`shardloom reshard --format checkpoint2` makes one of rank directories"));
        }
        if !self.save_optimizer {
            return wrong("save_optimizer: False is of checkpoint 2.0 only".into());
        }
        for appended in &self.append_info {
            if let Appended::Name(name) = appended
                && !COUNT_NAMES.contains(&&**name)
            {
                let known = COUNT_NAMES.join(", ");
                return wrong(format!(
                    "append_info: '{name}' alone has no value: give {{{name}: NUMBER}}, or one of {known}"
                ));
            }
        }
        Ok(())
    }

    /// The numbers of `append_info` that the state doesn't tell, by name.
    pub(super) fn appended(&self) -> impl Iterator<Item = (&str, Number)> {
        let numbers = self.append_info.iter().filter_map(|entry| match entry {
            Appended::Numbers(numbers) => Some(numbers),
            Appended::Name(_) => None,
        });
        numbers
            .flatten()
            .filter(|(name, _)| !COUNT_NAMES.contains(&&***name))
            .map(|(name, number)| (&**name, *number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves P119
    #[test]
    fn is_strict_about_its_keys() {
        let good =
            "type: CheckpointMonitor\nprefix: m\nsave_checkpoint_steps: 10\nasync_save: True";
        let config = MonitorConfig::parse(good).unwrap();
        assert!(config.async_save && config.keep_checkpoint_max == 5 && config.prefix == "m");
        for bad in [
            "prefixx: m",
            "prefix: a/b",
            "prefix: .a",
            "type: Other",
            "checkpoint_format: ckpt",
            "save_checkpoint_steps: 0",
            "keep_checkpoint_max: -1",
            "keep_checkpoint_per_n_minutes: soon",
            "async_save: 3",
            "async_save: later",
            "append_info: [learning_rate]",
            "append_info: [{learning_rate: fast}]",
            "enc_key: secret",
            "saved_network: {}",
            "use_checkpoint_health_monitor: True",
            "use_legacy_format: False",
            "save_optimizer: False",
        ] {
            assert_eq!(
                MonitorConfig::parse(bad).unwrap_err().kind,
                Kind::Config,
                "{bad}"
            );
        }
    }

    #[test]
    fn takes_every_key_of_the_trainers_entry() {
        let all = "{type: CheckpointMonitor, prefix: m, directory: null, config: null, save_checkpoint_steps: 1, \
             save_checkpoint_seconds: 0, keep_checkpoint_max: 0, keep_checkpoint_per_n_minutes: 30, \
             integrated_save: False, save_network_params: True, save_trainable_params: True, async_save: thread, \
             saved_network: null, append_info: [epoch_num, {step_num: 3, lr: 0.5, seed: 7, warm: True}], \
             enc_key: null, enc_mode: AES-GCM, exception_save: True, global_batch_size: 8, \
             checkpoint_format: safetensors, remove_redundancy: False, embedding_size: 4096, \
             embedding_local_norm_threshold: 1.0, use_checkpoint_health_monitor: False, \
             health_ckpts_record_dir: ./output, use_legacy_format: True, save_optimizer: True}";
        let config = MonitorConfig::parse(all).unwrap();
        assert!(config.async_save && config.exception_save && config.save_trainable_params);
        let appended: Vec<_> = config.appended().collect();
        let expected = [
            ("lr", Number::Real(0.5)),
            ("seed", Number::Whole(7)),
            ("warm", Number::Truth(true)),
        ];
        assert_eq!(appended, expected);
        assert!(MonitorConfig::parse("append_info: null").is_ok());
    }
}
