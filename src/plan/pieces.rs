//! Cells cut where blocks of their files meet.

use crate::plan::nodes::Target;
use crate::plan::tensor_plan::TensorPlan;
use std::ops::Range;

/// How blocks lie in a cell, as it is built.
struct Blocks {
    /// Bytes of a block.
    bytes: u64,
    /// How far each target is in a block where the cell begins.
    phases: Vec<u64>,
}

impl Blocks {
    fn of(plan: &TensorPlan, targets: &[Target]) -> Self {
        let written = plan.written_bytes(plan.element_bytes).max(1);
        let built = |bytes: u64| bytes / written * plan.element_bytes;
        let phase = |target: &Target| Some(built(target.begin % target.block_bytes?));
        let mut phases: Vec<u64> = targets.iter().filter_map(phase).collect();
        phases.sort_unstable();
        phases.dedup();
        let bytes = targets.iter().find_map(|target| target.block_bytes);
        Blocks {
            bytes: bytes.map_or(u64::MAX, built),
            phases,
        }
    }
}

/// The bytes of a cell, as it is built, in blocks that nothing else lies in: the same in all files.
pub(super) struct Inner {
    bytes: Range<u64>,
    block: u64,
    phase: u64,
}

impl Inner {
    pub(super) fn of(plan: &TensorPlan, targets: &[Target]) -> Self {
        let blocks = Blocks::of(plan, targets);
        let alike = targets.iter().all(|target| target.block_bytes.is_some());
        let (block, end) = (blocks.bytes, plan.cell_bytes());
        let (phase, bytes) = match blocks.phases[..] {
            [phase] if alike => {
                let begin = (block - phase) % block;
                let end = end.saturating_sub((end + phase) % block);
                (phase, begin..end)
            }
            _ => (0, 0..0),
        };
        Inner {
            bytes,
            block,
            phase,
        }
    }

    /// The number of the block that `piece` lies in, if it is one of these.
    pub(super) fn block(&self, piece: &Range<u64>) -> Option<u64> {
        let inside = self.bytes.start <= piece.start && piece.end <= self.bytes.end;
        let inside = inside && piece.start < piece.end;
        inside.then(|| (piece.start + self.phase) / self.block)
    }
}

/// Pieces of a cell, as it is built: each lies in one block of each of `targets`.
pub(super) struct Pieces {
    /// Bytes of a block, as they are built.
    block: u64,
    /// How far each target is in a block where the cell begins.
    phases: Vec<u64>,
    window: u64,
    bytes: u64,
    at: Option<u64>,
}

impl Pieces {
    pub(super) fn of(plan: &TensorPlan, targets: &[Target], window: u64) -> Self {
        let Blocks { bytes, phases } = Blocks::of(plan, targets);
        // No small rests of blocks.
        let whole = phases.len() == 1 && window.saturating_mul(2) > bytes;
        Pieces {
            block: bytes,
            phases,
            window: if whole { bytes } else { window },
            bytes: plan.cell_bytes(),
            at: Some(0),
        }
    }
}

impl Iterator for Pieces {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        let begin = self.at?;
        let border = |phase: &u64| begin + self.block - (begin + phase) % self.block;
        let border = self.phases.iter().map(border).min();
        let end = (begin + self.window).min(self.bytes);
        let end = border.map_or(end, |border| end.min(border));
        self.at = (end < self.bytes).then_some(end);
        Some(begin..end)
    }
}
