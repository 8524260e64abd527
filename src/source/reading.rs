//! How a job reads.

use crate::source::derived::Derived;
use crate::store::Format;
use crate::strategy::StrategyInput;
use std::path::PathBuf;

/// What a job reads, and which of it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Reading {
    /// A file, a tree of rank directories, or a directory of full weights.
    pub path: PathBuf,
    /// Its strategy; none means full weights.
    pub strategy: Option<StrategyInput>,
    /// Which files of full weights are meant.
    pub weights: Weights,
    /// Which files of it.
    pub which: Which,
    /// What its tensors are, beside what is stored.
    pub derived: Derived,
    /// How copies are compared before anything is written.
    pub verify: Verify,
}

/// Which files of full weights are meant.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Weights {
    /// As the directory tells.
    #[default]
    Told,
    /// Those of the model whose `config.json` lies beside them, and not what a trainer keeps in a directory below.
    Model,
    /// Those whose names match this glob.
    Named(String),
}

impl Weights {
    /// Those that match `glob`, if it is given; else `otherwise`.
    #[must_use]
    pub fn named(glob: Option<String>, otherwise: Weights) -> Weights {
        glob.map_or(otherwise, Weights::Named)
    }

    /// The glob.
    pub(crate) fn glob(&self) -> Option<&str> {
        match self {
            Weights::Named(glob) => Some(glob),
            Weights::Told | Weights::Model => None,
        }
    }
}

/// How what a source has several times is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Verify {
    /// Not at all: one copy of each shard is read.
    None,
    /// By the source's manifest, or else by a sample of each tensor.
    #[default]
    Sample,
    /// Every byte of every copy.
    All,
}

/// Which files of a source are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Which {
    /// A checkpoint: of several files in a rank directory the one with this suffix, or the newest.
    Checkpoint(Option<String>),
    /// Every file of weights, each for itself.
    Every {
        /// But for those that are in this format already.
        to: Format,
        /// Only files whose names contain this.
        contains: Option<String>,
        /// Check the CRC of those that carry one.
        check_crc: bool,
    },
}

impl Default for Which {
    fn default() -> Self {
        Which::Checkpoint(None)
    }
}

impl Reading {
    /// A checkpoint at `path`: full weights, or cut by `strategy`; of several in it the one with
    /// `suffix`.
    #[must_use]
    pub fn checkpoint(
        path: PathBuf,
        strategy: Option<StrategyInput>,
        suffix: Option<String>,
    ) -> Self {
        Reading {
            path,
            strategy,
            which: Which::Checkpoint(suffix),
            ..Reading::default()
        }
    }
}
