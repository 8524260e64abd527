//! A tensor of the source: where its cells are, and how its elements are computed, if they are.

use crate::plan::patch::Patch;
use crate::plan::spread::Spread;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::sync::Arc;

/// A tensor of the source: its full shape, and where its cells are.
#[derive(Clone, Debug)]
pub struct SourceTensor {
    /// Its name in the source's files.
    pub name: Arc<str>,
    /// Its element type.
    pub dtype: Dtype,
    /// Its full shape, in elements.
    pub shape: Shape,
    /// One spread a stage that has it; any of them can be read.
    pub spreads: Vec<Spread>,
    /// The parts that it lies in, where these are no cells of a layout; together they cover it exactly
    /// once.
    pub patches: Option<Arc<Vec<Patch>>>,
    /// What its elements are computed to; none: they are what is stored.
    pub value: Option<Arc<Value>>,
}

impl SourceTensor {
    /// Whether a rank may have a part of it only.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.spreads.iter().any(|spread| spread.layout.is_cut())
    }

    /// The type of its elements, once computed.
    #[must_use]
    pub fn value_dtype(&self) -> Dtype {
        self.value.as_ref().map_or(self.dtype, |value| value.dtype)
    }
}

/// What a tensor's elements are: widened to `f32`, taken through all steps, rounded once.
#[derive(Clone, Debug)]
pub struct Value {
    /// Element type of the result.
    pub dtype: Dtype,
    /// What is done, in order.
    pub steps: Vec<Step>,
}

/// One step of a computation. The tensor, and those it needs, are matrices; but for the last one, whose tensor
/// has several.
#[derive(Clone, Debug)]
pub enum Step {
    /// Element (i, j) times `scales[i / block[0], j / block[1]]`.
    Scale {
        /// The scales, one a block: `[ceil(rows / block[0]), ceil(columns / block[1])]`.
        scales: Arc<SourceTensor>,
        /// Rows and columns of a block.
        block: [u64; 2],
    },
    /// Plus `factor * (b * a)`.
    Add {
        /// `[rank, columns]`.
        a: Arc<SourceTensor>,
        /// `[rows, rank]`.
        b: Arc<SourceTensor>,
        /// What the product is multiplied by.
        factor: f32,
        /// The product is added transposed: B is `[columns, rank]`, A `[rank, rows]`.
        transposed: bool,
    },
    /// The same for a tensor of several matrices, each with A and B of its own.
    AddEach {
        /// Those of each matrix.
        pairs: Vec<(Arc<SourceTensor>, Arc<SourceTensor>)>,
        /// What the products are multiplied by.
        factor: f32,
        /// As above.
        transposed: bool,
    },
}
