//! The layout of a tensor in a pipeline stage.

use crate::layout::Layout;
use std::sync::Arc;

/// Layout of one tensor in one pipeline stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageLayout {
    /// Pipeline stage, from 0.
    pub stage: u32,
    /// The layout; its ranks are local to the stage.
    pub layout: Arc<Layout>,
    /// Full sizes of the layout's dimensions, where the file tells them (JSON). They may be more
    /// than the tensor has: ask [`StageLayout::fit_full`] or [`StageLayout::fit_shard`].
    pub expanded_shape: Option<Vec<u64>>,
}

impl StageLayout {
    /// `layout` in `stage`, with as many dimensions as the tensor.
    #[must_use]
    pub fn new(stage: u32, layout: Layout) -> Self {
        StageLayout {
            stage,
            layout: Arc::new(layout),
            expanded_shape: None,
        }
    }
}
