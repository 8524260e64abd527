//! What a model's layouts would be, before anything of it is there.

use super::derived::{Derived, derive};
use super::read::{element_type, usual};
use super::recognise::{bases, spelled};
use super::seen::Seen;
use crate::fault::{Kind, Result};
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::path::Path;
use std::sync::Arc;

/// Beginnings of the names of what a job under way keeps beside its weights.
const STATES: [&str; 3] = ["adam_m.", "adam_v.", "accu_grads."];

/// The weights of the usual network of `model`: names, types and full shapes. Local.
///
/// # Errors
/// [`Kind::Config`] for a model that no table is for.
pub fn weights(seen: &Seen, model: &Path) -> Result<Vec<(Arc<str>, Dtype, Shape)>> {
    let dtype = element_type(model)?;
    let whole = derive(&usual("dp=1", seen, model)?)?.held(0).into_iter();
    let weights = whole.filter(|(name, _)| is_weight(name));
    Ok(weights
        .map(|(name, shape)| (Arc::from(name), dtype, Shape(shape)))
        .collect())
}

/// The layouts that `devices` can have of `model`, by data and tensor parallel and stages: as typed, and
/// derived. Local.
///
/// # Errors
/// As [`weights`]; those that the model can't have are left out.
pub fn layouts(devices: u64, seen: &Seen, model: &Path) -> Result<Vec<(String, Derived)>> {
    let mut all = Vec::new();
    for mesh in bases(devices) {
        let parallel = spelled(&mesh, None);
        match usual(&parallel, seen, model).and_then(|job| derive(&job)) {
            Ok(derived) => all.push((parallel, derived)),
            Err(fault) if fault.kind == Kind::Config => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(all)
}

impl Derived {
    /// Elements of the weights in the largest of the ranks' files.
    #[must_use]
    pub fn largest_elements(&self) -> u64 {
        let stages = (0u32..).take(self.stages.len());
        let sums = stages.map(|stage| {
            let held = self.held(stage).into_iter();
            let weights = held.filter(|(name, _)| is_weight(name));
            weights
                .map(|(_, shape)| shape.iter().product::<u64>())
                .sum()
        });
        sums.max().unwrap_or_default()
    }
}

fn is_weight(name: &str) -> bool {
    !STATES.iter().any(|state| name.starts_with(state))
}
