//! What a format of directories is told of the tensors that are to be written.

use crate::layout::Layout;
use crate::store::formats::progress::Progress;
use crate::store::formats::values::Values;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is asked of a checkpoint that is to be written.
#[derive(Clone, Debug, Default)]
pub struct DirectoryAsked {
    /// Beginning of the files' names, if any.
    pub prefix: Option<String>,
    /// Whether only one copy of each cell is kept.
    pub remove_redundancy: bool,
    /// Where the job stands; `None` as long as that isn't known.
    pub progress: Option<Progress>,
    /// Of a checkpoint 2.0: whether it is for the trainer of dynamic graphs.
    pub dynamic: bool,
    /// What that trainer says of an adapter: the file's name, and its text.
    pub adapter: Option<Arc<(&'static str, Vec<u8>)>>,
    /// What the source has beside tensors, where the format keeps that.
    pub values: Arc<Values>,
}

impl DirectoryAsked {
    /// Its number: the run's total steps. In dynamic graphs that is what the optimizer counts: `step_num` is how many
    /// are planned.
    #[must_use]
    pub fn number(&self) -> u64 {
        let told = self.progress.as_ref();
        let planned = told.and_then(|told| told.step_num);
        let steps = match self.dynamic {
            true => told.and_then(|told| told.global_step).or(planned),
            false => planned,
        };
        steps.unwrap_or(0)
    }
}

/// A tensor that is to be written.
#[derive(Clone, Debug)]
pub struct LaidTensor {
    /// Its name.
    pub name: Arc<str>,
    /// The element type of its source.
    pub dtype: Dtype,
    /// The element type that it is written in.
    pub written: Dtype,
    /// Shape of what each rank has of it, in elements.
    pub cell: Shape,
    /// The bytes of that, as it is built.
    pub cell_bytes: u64,
    /// Its layout over the ranks from `first_rank` on; `None` for one that a rank has for itself.
    pub layout: Option<Arc<Layout>>,
    /// The rank that local rank 0 of the layout is.
    pub first_rank: u32,
}

impl LaidTensor {
    /// Its full shape, in elements.
    #[must_use]
    pub fn shape(&self) -> Vec<u64> {
        let parts = self.layout.as_ref().map(|layout| layout.parts());
        let parts = parts.unwrap_or_else(|| vec![1; self.cell.0.len()]);
        let sizes = self.cell.0.iter().zip(&parts);
        sizes.map(|(size, parts)| size * parts).collect()
    }
}

/// Everything that is to be written.
#[derive(Clone, Debug, Default)]
pub struct Laid {
    /// The tensors of each stage.
    pub stages: Vec<Vec<LaidTensor>>,
    /// Those that a rank has for itself, by rank.
    pub private: BTreeMap<u32, Vec<LaidTensor>>,
    /// Ranks in a stage.
    pub ranks_per_stage: u32,
}

/// A file that is to be written.
#[derive(Clone, Debug)]
pub struct DirectoryFile<'a> {
    /// The rank that it is of.
    pub rank: u32,
    /// Its path inside the destination.
    pub path: String,
    /// What is in it.
    pub tensors: Vec<&'a LaidTensor>,
    /// What it says beside them, but for what all say.
    pub metadata: BTreeMap<String, String>,
}
