//! A destination laid out.

use crate::catalog::{Catalog, SmallFile};
use crate::plan::kept::Kept;
use crate::plan::tensor_plan::TensorPlan;

/// The ranks that are laid out.
#[derive(Clone, Copy, Debug)]
pub struct Ranks<'a> {
    /// Those whose files are.
    pub built: &'a [u32],
    /// All whose files lie in the same directory: the small files there tell of them.
    pub beside: &'a [u32],
    /// Whether all processes lay out the same ones.
    pub together: bool,
}

impl<'a> Ranks<'a> {
    /// These, by all processes.
    #[must_use]
    pub fn all(ranks: &'a [u32]) -> Ranks<'a> {
        Ranks {
            built: ranks,
            beside: ranks,
            together: true,
        }
    }
}

/// A destination laid out: every file's structure before the first write.
#[derive(Clone, Debug, Default)]
pub struct Arranged {
    /// The files of the ranks asked for.
    pub catalog: Catalog,
    /// All tensors in file order; those that single ranks get after the others, where others lay out other ranks.
    pub plans: Vec<TensorPlan>,
    /// How many, the first, are the same whoever lays out the files.
    pub common: usize,
    /// Small files beside them.
    pub extras: Vec<SmallFile>,
    /// Who keeps what.
    pub kept: Kept,
}
