//! What `inspect` shows.

use crate::catalog::Catalog;
use crate::strategy::Strategy;
use crate::tensor::figures::Figures;
use crate::tensor::shape::Shape;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A file as `inspect` shows it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct InspectedFile {
    /// Its path inside what was inspected.
    pub path: String,
    /// The rank it belongs to.
    pub rank: u32,
    /// Its size.
    pub bytes: u64,
    /// When it was last written, in nanoseconds since 1970, where places were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<i64>,
    /// Free text by key.
    pub metadata: BTreeMap<String, String>,
    /// Its tensors, in file order.
    pub tensors: Vec<InspectedTensor>,
}

/// A tensor as `inspect` shows it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct InspectedTensor {
    /// Its name.
    pub name: String,
    /// Its element type, as safetensors spells it.
    pub dtype: &'static str,
    /// Its shape in this file.
    pub shape: Shape,
    /// Its bytes.
    pub bytes: u64,
    /// The byte ranges of the file that hold its elements, row after row, each by its begin and its end; where
    /// they were asked for and it lies so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub places: Option<Vec<(u64, u64)>>,
    /// What its elements come to, where that was asked for and they are numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
}

/// A layout that a manifest keeps.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct InspectedLayout {
    /// Ranks of all stages.
    pub ranks: u32,
    /// Pipeline stages.
    pub stages: u32,
    /// The device matrices of a stage's tensors, each once.
    pub meshes: BTreeSet<Vec<u64>>,
}

impl InspectedLayout {
    /// Of a strategy.
    #[must_use]
    pub fn of(strategy: &Strategy) -> InspectedLayout {
        let layouts = strategy.iter().map(|(_, layout)| &layout.layout);
        InspectedLayout {
            ranks: strategy.ranks(),
            stages: strategy.stages(),
            meshes: layouts.map(|layout| layout.mesh().to_vec()).collect(),
        }
    }
}

/// What is at a path.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Inspected {
    /// Number of ranks.
    pub ranks: usize,
    /// Bytes of all tensors.
    pub tensor_bytes: u64,
    /// In rank directories: the checkpoints that there are, by the ending of their names, and the ranks
    /// that have each, as ranges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<(String, String)>>,
    /// What they are cut by, where their manifest tells of them all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<InspectedLayout>,
    /// What is to be said of the files that were chosen, and of what their index says of them.
    pub notes: Vec<String>,
    /// The files.
    pub files: Vec<InspectedFile>,
    /// What they were read from.
    #[serde(skip)]
    pub(crate) contents: Contents,
}

/// What was inspected, as a job knows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    /// The directory that the catalog's paths are in.
    pub(crate) base: PathBuf,
    /// What lies where.
    pub(crate) catalog: Catalog,
    /// What its format is called, where that tells its own layout, and which files there are.
    pub(crate) told: Option<&'static str>,
    /// An index lists its files.
    pub(crate) indexed: bool,
    /// Some ranks or tensors only were asked for.
    pub(crate) narrowed: bool,
}
