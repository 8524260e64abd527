//! `--quantise`: weights in 8 bits on their way out.

use crate::cli::flags::choice::{Choice, choice};
use crate::model::Quantise;
use clap::Args;

/// A way to quantise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Fp8Block,
}

const WAYS: &[Choice<Way>] = &[(
    "fp8-block",
    Way::Fp8Block,
    "Floats of 8 bits with a scale for 128 rows and columns, as DeepSeek-V3 is published",
)];

/// Which weights are quantised, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct QuantiseArgs {
    /// Write the weights of linear layers in fewer bits.
    #[arg(long, alias = "quantize", value_name = "WAY", value_parser = choice(WAYS))]
    quantise: Option<Way>,
    /// Leave weights with such a name as they are: `*` stands for any letters, `?` for one.
    #[arg(long, value_name = "GLOB", requires = "quantise")]
    keep: Vec<String>,
}

impl QuantiseArgs {
    /// What is asked for, if anything is.
    pub(crate) fn quantise(&self) -> Option<Quantise> {
        self.quantise.map(|Way::Fp8Block| Quantise {
            keep: self.keep.clone(),
        })
    }
}
