//! What a checkpoint's file names and `meta.json` say (docs/formats.md).

use crate::fault::{Fault, Kind, Result};
use crate::plan::arrange::Files;
use crate::store::Format;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Name of the record beside a rank's checkpoints.
pub const META: &str = "meta.json";

/// Directory beside `checkpoint/` with the weights alone, and what its files' names say.
pub const NETWORK: (&str, &str) = ("checkpoint_network", "network");

/// The same of the weights that are trained.
pub const TRAINABLE: (&str, &str) = ("checkpoint_trainable", "trainable_params");

/// Longest `meta.json` that is read, in bytes.
pub const META_BYTES_MAX: u64 = 1 << 16;

/// What the files of one checkpoint have in common: their names without the rank.
///
/// `llama_rank_3_1-2_40.safetensors` is prefix `llama`, repeat 1 (the second run into the same
/// directory), epoch 2, step 40 within it, on rank 3. Ordered by repeat, epoch and step.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name {
    /// Number that a later run into the same directory gets.
    pub repeat: Option<u64>,
    /// Epoch, or sink; from 1.
    pub epoch: u64,
    /// Step within the epoch, from 1.
    pub step: u64,
    /// Beginning of the name.
    pub prefix: String,
    /// Whether `_rank_R` follows the prefix.
    pub ranked: bool,
    /// Whether it is an iteration that tells its own layout: the step is its number.
    pub iteration: bool,
    /// Extension, without the dot.
    pub extension: String,
}

impl Name {
    /// Reads a file name, from the right; gives the rank in it too. `None` if it has no
    /// `-{epoch}_{step}` or isn't a weight file of a format that trainers write.
    #[must_use]
    pub fn parse(file: &str) -> Option<(Name, Option<u32>)> {
        Format::of(file).and_then(|_| Name::like(file))
    }

    /// The same of a file that may be weights in any format.
    pub(super) fn like(file: &str) -> Option<(Name, Option<u32>)> {
        let (stem, extension) = file.rsplit_once('.')?;
        Format::may_be_weights(file).then_some(())?;
        let (base, tail) = stem.rsplit_once('-')?;
        let (epoch, step) = tail.split_once('_')?;
        let mut name = Name {
            repeat: None,
            epoch: digits(epoch)?,
            step: digits(step)?,
            prefix: base.to_owned(),
            ranked: false,
            iteration: false,
            extension: extension.to_owned(),
        };
        let Some((prefix, rest)) = base.rsplit_once("_rank_") else {
            return Some((name, None));
        };
        let (rank, repeat) = match rest.split_once('_') {
            None => (rest, None),
            Some((rank, repeat)) => (rank, Some(digits(repeat)?)),
        };
        let rank = u32::try_from(digits(rank)?).ok()?;
        prefix.clone_into(&mut name.prefix);
        name.ranked = true;
        name.repeat = repeat;
        Some((name, Some(rank)))
    }

    /// The name of rank `rank`'s file.
    #[must_use]
    pub fn file(&self, rank: u32) -> String {
        let Name {
            prefix,
            epoch,
            step,
            extension,
            ..
        } = self;
        let ranked = match (self.ranked, self.repeat) {
            (false, _) => String::new(),
            (true, None) => format!("_rank_{rank}"),
            (true, Some(repeat)) => format!("_rank_{rank}_{repeat}"),
        };
        format!("{prefix}{ranked}-{epoch}_{step}.{extension}")
    }

    /// The name of rank `rank`'s file with weights alone; `kind` is `network` or `trainable_params`.
    #[must_use]
    pub fn weights_file(&self, rank: u32, kind: &str) -> String {
        let Name {
            prefix,
            epoch,
            step,
            extension,
            ..
        } = self;
        let repeat = self
            .repeat
            .map_or(String::new(), |repeat| format!("_{repeat}"));
        format!("{prefix}_rank_{rank}{repeat}-{kind}-{epoch}_{step}.{extension}")
    }

    /// Files of these names, which a trainer resumes from.
    #[must_use]
    pub fn files(&self, remove_redundancy: bool) -> Files {
        let repeat = self
            .repeat
            .map_or(String::new(), |repeat| format!("_{repeat}"));
        Files::Resume {
            prefix: self.prefix.clone(),
            ending: format!("{repeat}-{}_{}", self.epoch, self.step),
            position: self.position(),
            remove_redundancy,
        }
    }

    /// What `--file-suffix` takes to mean this checkpoint.
    #[must_use]
    pub fn suffix(&self) -> String {
        match self.repeat {
            None if self.iteration => self.step.to_string(),
            None => format!("{}_{}", self.epoch, self.step),
            Some(repeat) => format!("_{repeat}-{}_{}", self.epoch, self.step),
        }
    }

    /// The same with its prefix, which tells it from another job's of the same step.
    #[must_use]
    pub fn prefixed(&self) -> String {
        let (prefix, suffix) = (&self.prefix, self.suffix());
        match self.repeat {
            None => format!("{prefix}-{suffix}"),
            Some(_) => format!("{prefix}{suffix}"),
        }
    }

    /// Whether `other` was written by the same run: it differs in epoch and step only.
    #[must_use]
    pub fn same_run(&self, other: &Name) -> bool {
        self.family() == other.family() && self.repeat == other.repeat
    }

    /// What all runs of its job into these directories have in common.
    #[must_use]
    pub fn family(&self) -> (&str, bool, bool, &str) {
        let Name {
            prefix, extension, ..
        } = self;
        (prefix, self.ranked, self.iteration, extension)
    }

    /// The same name at the beginning of its run, which no checkpoint has.
    pub(super) fn run(&self) -> Name {
        Name {
            epoch: 0,
            step: 0,
            ..self.clone()
        }
    }

    /// Where it stands in its run.
    #[must_use]
    pub fn position(&self) -> (u64, u64) {
        (self.epoch, self.step)
    }

    /// Run, epoch and step: the same for the checkpoints that two jobs have saved at the same time of theirs.
    #[must_use]
    pub fn place(&self) -> (Option<u64>, (u64, u64)) {
        (self.repeat, self.position())
    }
}

/// What `--file-suffix` takes to mean the checkpoint that the file at `path` is of, if a trainer named it.
#[must_use]
pub fn suffix_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    Name::parse(file).map(|(name, _)| name.suffix())
}

fn digits(text: &str) -> Option<u64> {
    let ok = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    ok.then(|| text.parse().ok())?
}

/// `meta.json`: the last checkpoint that a rank has completed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Its epoch.
    pub last_epoch: u64,
    /// Its step within the epoch.
    pub last_step: u64,
    /// Its file, without directories.
    pub last_ckpt_file: String,
}

impl Meta {
    /// The record of checkpoint `name` on rank `rank`.
    #[must_use]
    pub fn of(name: &Name, rank: u32) -> Meta {
        Meta {
            last_epoch: name.epoch,
            last_step: name.step,
            last_ckpt_file: name.file(rank),
        }
    }

    /// Reads a record; `None` if it is no such record, as a trainer skips those.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<(Meta, Name)> {
        let meta: Meta = serde_json::from_slice(bytes).ok()?;
        let (name, _) = Name::parse(&meta.last_ckpt_file)?;
        Some((meta, name))
    }

    /// Its JSON.
    ///
    /// # Errors
    /// [`Kind::Internal`].
    pub fn bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self)
            .map_err(|error| Fault::new(Kind::Internal, format!("{META}: {error}")))
    }
}

/// Those of ranks' `files` that are weights by their names. Ones of a format whose files lie beside weights as often as they
/// hold them count beside others where they are called as a trainer's step, or as one that counts.
pub(super) fn weights_of_ranks<'a>(files: impl Iterator<Item = &'a str> + Clone) -> Vec<&'a str> {
    let weights: HashSet<&str> = Format::weights(files.clone()).into_iter().collect();
    let stem = |file: &'a str| file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let called: HashSet<&str> = weights.iter().map(|file| stem(file)).collect();
    let counts = |file: &&'a str| {
        let name = file.rsplit('/').next().unwrap_or(file);
        let is_like = || called.contains(stem(file)) || Name::like(name).is_some();
        weights.contains(file) || Format::may_be_weights(name) && is_like()
    };
    files.filter(counts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_from_the_right() {
        let (name, rank) = Name::parse("a-b_rank_1.5_rank_12_3-2_40.safetensors").unwrap();
        assert_eq!(
            (rank, name.repeat, name.position()),
            (Some(12), Some(3), (2, 40))
        );
        assert_eq!(name.prefix, "a-b_rank_1.5");
        assert_eq!(name.suffix(), "_3-2_40");
        assert_eq!(name.file(0), "a-b_rank_1.5_rank_0_3-2_40.safetensors");
        let (plain, rank) = Name::parse("net-1_2.ckpt").unwrap();
        assert_eq!(
            (rank, plain.suffix(), plain.file(7)),
            (None, "1_2".into(), "net-1_2.ckpt".into())
        );
        for other in [
            "m_rank_0-network-1_2.safetensors.tmp",
            "m_rank_x-1_2.safetensors",
            "m_rank_0-1_.safetensors",
            "net0.safetensors",
            "m_rank_0-1_2.txt",
        ] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }

    #[test]
    fn orders_by_numbers_and_not_by_text() {
        let name = |file: &str| Name::parse(file).unwrap().0;
        assert!(name("m_rank_0-9_2.safetensors") < name("m_rank_0-10_2.safetensors"));
        assert!(name("m_rank_0-10_2.safetensors") < name("m_rank_0_1-1_1.safetensors"));
    }

    #[test]
    fn skips_records_that_are_none() {
        let good = br#"{"last_epoch":1,"last_step":2,"last_ckpt_file":"m_rank_0-1_2.safetensors"}"#;
        assert_eq!(Meta::parse(good).unwrap().1.position(), (1, 2));
        for bad in [
            &b""[..],
            b"{}",
            br#"{"last_epoch":"1","last_step":2,"last_ckpt_file":"m_rank_0-1_2.safetensors"}"#,
            br#"{"last_epoch":1,"last_step":2,"last_ckpt_file":"m.safetensors"}"#,
        ] {
            assert_eq!(Meta::parse(bad), None);
        }
    }
}
