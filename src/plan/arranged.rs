//! A destination laid out.

use crate::catalog::Catalog;
use crate::plan::kept::Kept;
use crate::plan::tensor_plan::TensorPlan;

/// A destination laid out: every file's structure before the first write.
#[derive(Clone, Debug, Default)]
pub struct Arranged {
    /// The files of the ranks asked for.
    pub catalog: Catalog,
    /// All tensors in file order; those that single ranks get after the others, where others lay out other ranks.
    pub plans: Vec<TensorPlan>,
    /// How many, the first, are the same whoever lays out the files.
    pub common: usize,
    /// Small files beside them: path and contents.
    pub extras: Vec<(String, Vec<u8>)>,
    /// Who keeps what.
    pub kept: Kept,
}
