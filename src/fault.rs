//! The one error of the library: what went wrong, and where.
//!
//! A [`Fault`] starts as a message with a stable [`Kind`]; each layer on its way up adds the one
//! noun it knows: the store the file, the job the tensor, rank and process. It is plain data, so
//! it can travel to other processes and be printed as text or JSON.
//!
//! *Absent on purpose*: other errors. What a library below reports becomes a fault where it is met.

#[doc(hidden)]
pub mod memory;
#[doc(hidden)]
pub mod plain;

use serde::{Deserialize, Serialize};
use std::fmt;

/// Result of everything in the library that can fail.
pub type Result<T> = std::result::Result<T, Fault>;

/// Stable, machine-readable class of a [`Fault`] (the `kind` of the JSON error object).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// The command line asks for something that makes no sense (exit code 2).
    Usage,
    /// An operating-system error while reading or writing.
    Io,
    /// The disk is full, or would be.
    NoSpace,
    /// The system gives no more memory.
    Memory,
    /// A file's bytes are not what its format allows.
    Corrupt,
    /// A strategy file can't be used.
    Strategy,
    /// A training configuration asks for something that makes no sense.
    Config,
    /// A shard that is needed is nowhere to be found.
    MissingShard,
    /// Several files could be meant.
    Ambiguous,
    /// A tensor's name is unknown to one side.
    UnknownTensor,
    /// A shape doesn't fit its layout.
    Shape,
    /// A dtype doesn't fit, or is not supported here.
    Dtype,
    /// The destination exists already.
    Exists,
    /// Another run is writing there.
    Busy,
    /// Copies that should be equal differ.
    Differs,
    /// A signal has ended the run.
    Ended,
    /// MPI failed.
    Mpi,
    /// Another process failed; this one stopped for it.
    Peer,
    /// Something that is not supported.
    Unsupported,
    /// A promise of our own was broken: a bug.
    Internal,
}

/// An error with everything that is known about its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Fault {
    /// Class of the error.
    pub kind: Kind,
    /// One line for people.
    pub message: String,
    /// MPI process it happened on.
    pub process: Option<u32>,
    /// Node of that process.
    pub node: Option<String>,
    /// Rank (of the layout) concerned.
    pub rank: Option<u32>,
    /// File concerned, as given on the command line plus the path inside it.
    pub file: Option<String>,
    /// Tensor concerned.
    pub tensor: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Fault {
    /// A fault of class `kind` with a one-line `message`.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Fault {
            kind,
            message: message.into(),
            process: None,
            node: None,
            rank: None,
            file: None,
            tensor: None,
            hint: None,
        }
    }

    /// An operating-system error while doing `action` ("open", "write 4096 bytes at 12").
    #[must_use]
    pub fn io(action: &str, error: &std::io::Error) -> Self {
        let full = error.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error())
            || error.raw_os_error() == Some(rustix::io::Errno::DQUOT.raw_os_error());
        Fault::new(
            if full { Kind::NoSpace } else { Kind::Io },
            format!("{action}: {error}"),
        )
    }

    /// Names the file, unless an inner layer has done so.
    #[must_use]
    pub fn file(mut self, file: impl Into<String>) -> Self {
        self.file.get_or_insert_with(|| file.into());
        self
    }

    /// Names the tensor, unless an inner layer has done so.
    #[must_use]
    pub fn tensor(mut self, tensor: impl Into<String>) -> Self {
        self.tensor.get_or_insert_with(|| tensor.into());
        self
    }

    /// Names the rank, unless an inner layer has done so.
    #[must_use]
    pub fn rank(mut self, rank: u32) -> Self {
        self.rank.get_or_insert(rank);
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(process) = self.process {
            write!(out, "process {process}")?;
            if let Some(node) = &self.node {
                write!(out, " on {node}")?;
            }
            write!(out, ": ")?;
        }
        if let Some(file) = &self.file {
            write!(out, "{file}: ")?;
        }
        if let Some(tensor) = &self.tensor {
            write!(out, "{}: ", plain::short(tensor))?;
        }
        write!(out, "{}", self.message)?;
        if let (Some(rank), None) = (self.rank, &self.file) {
            write!(out, " (rank {rank})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// The names nearest to `wanted` among `known`, for hints: at most three, by edit distance.
pub fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut scored: Vec<(usize, &str)> = known
        .take(20_000)
        .map(|name| (edit_distance(wanted, name), name))
        .collect();
    scored.sort_unstable();
    let limit = wanted.chars().count() / 2 + 1;
    scored
        .into_iter()
        .filter(|(distance, _)| *distance <= limit)
        .take(3)
        .map(|(_, n)| n)
        .collect()
}

/// Levenshtein distance in characters.
pub(crate) fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_every_place_once_and_keeps_the_innermost() {
        let fault = Fault::new(Kind::Shape, "is [2], should be [4]")
            .tensor("w")
            .file("rank_0/net.safetensors")
            .tensor("outer");
        assert_eq!(
            fault.to_string(),
            "rank_0/net.safetensors: w: is [2], should be [4]"
        );
    }

    #[test]
    fn offers_the_nearest_names() {
        let known = ["layers.0.wq.weight", "layers.0.wk.weight", "embedding"];
        assert_eq!(
            nearest("layers.0.wq.weigth", known.into_iter())[0],
            "layers.0.wq.weight"
        );
        assert!(nearest("zzz", known.into_iter()).is_empty());
    }
}
