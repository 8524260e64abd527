//! How a destination's files are arranged and called.

use crate::store::Directory;
use crate::store::formats::laid::DirectoryAsked;

/// How files of full weights are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Naming {
    /// `model-00001-of-00002.safetensors`, filled in name order.
    #[default]
    Hf,
    /// `part0.safetensors`, balanced by size as MindSpore does.
    Mindspore,
    /// As `Hf`, without the map that MindSpore looks for.
    HfOnly,
}

/// How a rank's file is called: `{before}.ext`, or `{before}R{after}.ext`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RankName {
    /// What precedes the rank.
    pub before: String,
    /// Whether the rank follows it.
    pub numbered: bool,
    /// What follows the rank.
    pub after: String,
}

impl RankName {
    /// A name that begins with `before`.
    #[must_use]
    pub fn new(before: &str, numbered: bool) -> Self {
        RankName {
            before: before.to_owned(),
            numbered,
            after: String::new(),
        }
    }
}

/// Most bytes of tensors in a file of full weights where nothing else is said: what Hugging Face writes.
pub const FULL_FILE_BYTES_MAX: u64 = 5_000_000_000;

/// The arrangement of a destination's files.
#[derive(Clone, Debug)]
pub enum Files {
    /// A file a rank, in `rank_R`.
    Ranks {
        /// How it is called.
        name: RankName,
        /// Whether only one copy of each cell is kept.
        remove_redundancy: bool,
    },
    /// `rank_R/{prefix}_rank_R{ending}.ext` with a `meta.json` that names it: what a trainer resumes
    /// from.
    Resume {
        /// Beginning of the file's name.
        prefix: String,
        /// What follows the rank: `-{epoch}_{step}`.
        ending: String,
        /// Epoch and step within it, for `meta.json`.
        position: (u64, u64),
        /// Whether only one copy of each cell is kept.
        remove_redundancy: bool,
    },
    /// As `Resume`, under the source's names, where a trainer has saved that; else like this.
    AsSource(Box<Files>),
    /// A directory that tells its own layout.
    Directory {
        /// Its format.
        format: Directory,
        /// What is asked of it.
        asked: DirectoryAsked,
    },
    /// Full weights, cut into files of at most `file_bytes_max` bytes of tensors.
    Full {
        /// How the files are called.
        naming: Naming,
        /// Most bytes of tensors in a file; a larger tensor has a file of its own.
        file_bytes_max: u64,
    },
}
