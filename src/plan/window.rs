//! A window of neighbouring cells, and where it lies among a site's bytes.

use crate::layout::Cell;
use crate::plan::ratio::portion;
use crate::plan::tensor_plan::TensorPlan;
use std::ops::Range;

/// A window that is to be dealt.
pub(super) struct Window<'w> {
    /// The tensor.
    pub(super) plan: &'w TensorPlan,
    /// Neighbouring cells of it.
    pub(super) cells: &'w [Cell],
    /// What is built of each.
    pub(super) bytes: Range<u64>,
    /// Places that they are written to, together.
    pub(super) targets: u64,
    /// Where that lies among the site's bytes.
    pub(super) position: u64,
}

impl Window<'_> {
    /// Bytes to be written.
    pub(super) fn weight(&self) -> u64 {
        (self.bytes.end - self.bytes.start) * self.targets
    }
}

/// Where window `window` of `windows` lies among the site's bytes: the targets of a unit take equal
/// parts of its windows, so that each file has its own bytes' worth of work. `extents` are the targets'
/// first byte and length.
pub(super) fn position(extents: &[(u64, u64)], window: u64, windows: u64) -> u64 {
    let targets = extents.len() as u128;
    let place = u128::from(window) * targets;
    let home = usize::try_from(place / u128::from(windows)).unwrap_or_default();
    let rest = u64::try_from(place % u128::from(windows)).unwrap_or_default();
    let Some((start, length)) = extents.get(home) else {
        return 0;
    };
    start + portion(*length, rest, windows)
}
