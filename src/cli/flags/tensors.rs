//! Which tensors of a model are written, and of what type.

use crate::cli::flags::choice::{Choice, choice};
use crate::cli::flags::size::parse_size;
use crate::plan::arrange::FULL_FILE_BYTES_MAX;
use crate::plan::arrange::{Files, Naming};
use crate::plan::build::{Leftovers, Unmatched};
use crate::tensor::dtype::Dtype;
use clap::Args;

const CASTS: &[Choice<Cast>] = &[
    ("bf16", Cast::Bf16, ""),
    ("f16", Cast::F16, ""),
    ("f32", Cast::F32, ""),
];

/// An element type to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cast {
    Bf16,
    F16,
    F32,
}

impl Cast {
    pub(crate) fn dtype(self) -> Dtype {
        match self {
            Cast::Bf16 => Dtype::BF16,
            Cast::F16 => Dtype::F16,
            Cast::F32 => Dtype::F32,
        }
    }
}

/// Which tensors, and of what type.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct TensorArgs {
    /// Element type of float tensors written [default: as they are].
    #[arg(long, value_parser = choice(CASTS))]
    pub(crate) dtype: Option<Cast>,
    /// Leave out what is made of tensors that are missing.
    #[arg(long)]
    pub(crate) allow_missing: bool,
    /// Leave out tensors that are not known.
    #[arg(long)]
    pub(crate) allow_extra: bool,
    /// Write so many rows of what has one for each word: the first ones, or with zeros after them
    /// [default: vocab_size of config.json, which the weights must have].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    pub(crate) vocab_rows: Option<u64>,
    /// Most bytes of tensors in a file of full weights [default: 5GB].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) max_shard_size: Option<u64>,
}

impl TensorArgs {
    /// Files of full weights.
    pub(crate) fn full(&self, naming: Naming) -> Files {
        Files::Full {
            naming,
            file_bytes_max: self.max_shard_size.unwrap_or(FULL_FILE_BYTES_MAX),
        }
    }

    /// What becomes of tensors that are not known.
    pub(crate) fn leftovers(&self, unmatched: Unmatched) -> Leftovers {
        Leftovers::View(match unmatched {
            Unmatched::Fail if self.allow_extra => Unmatched::Drop,
            unmatched => unmatched,
        })
    }
}
