//! Finite numbers that became infinite on the way, because the type written is too narrow for them.

use crate::plan::TensorPlan;
use crate::tensor::cast::infinities;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Elements that became infinite, by tensor. Shared by the threads of a process.
#[derive(Debug, Default)]
pub(super) struct Overflow(Mutex<BTreeMap<String, u64>>);

impl Overflow {
    /// Compares a window as written with how many of its elements were infinite before; it goes into
    /// `files` files.
    pub(super) fn note(&self, plan: &TensorPlan, before: u64, written: &[u8], files: u64) {
        let became = infinities(plan.written, written).saturating_sub(before);
        if became == 0 {
            return;
        }
        let mut counts = match self.0.lock() {
            Ok(counts) => counts,
            Err(poisoned) => poisoned.into_inner(),
        };
        *counts.entry(plan.name.to_string()).or_default() += became * files;
    }

    /// What was counted.
    pub(super) fn take(&self) -> BTreeMap<String, u64> {
        match self.0.lock() {
            Ok(mut counts) => std::mem::take(&mut counts),
            Err(poisoned) => std::mem::take(&mut poisoned.into_inner()),
        }
    }
}
