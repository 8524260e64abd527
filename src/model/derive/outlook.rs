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

/// Beginnings of the names of what a job under way has beside its weights, and whether it saves them.
const STATES: [(&str, bool); 3] = [("adam_m.", true), ("adam_v.", true), ("accu_grads.", false)];

/// The tensors of the usual network of `model`: names, types and full shapes; its weights, and with `states`
/// what the optimizer saves of them, in float32. Local.
///
/// # Errors
/// [`Kind::Config`] for a model that no table is for.
pub fn tensors(seen: &Seen, model: &Path, states: bool) -> Result<Vec<(Arc<str>, Dtype, Shape)>> {
    let dtype = element_type(model)?;
    let whole = derive(&usual("dp=1", seen, model)?)?.held(0).into_iter();
    let tensors = whole.filter_map(|(name, shape)| {
        let dtype = saved_as(&name, dtype, states)?;
        Some((Arc::from(name), dtype, Shape(shape)))
    });
    Ok(tensors.collect())
}

/// The type that a tensor is saved in; none: it isn't, or isn't asked for.
fn saved_as(name: &str, weights: Dtype, states: bool) -> Option<Dtype> {
    match STATES.iter().find(|(state, _)| name.starts_with(state)) {
        None => Some(weights),
        Some((_, saved)) => (*saved && states).then_some(Dtype::F32),
    }
}

/// The layouts that `devices` can have of `model`, by data and tensor parallel and stages: as typed, and
/// derived. Local.
///
/// # Errors
/// As [`tensors`]; those that the model can't have are left out.
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
    /// Bytes of the tensors in the largest of the ranks' files, of weights of type `dtype`; with `states` as
    /// for [`tensors`].
    #[must_use]
    pub fn largest_bytes(&self, dtype: Dtype, states: bool) -> u64 {
        let stages = (0u32..).take(self.stages.len());
        let sums = stages.map(|stage| {
            let held = self.held(stage).into_iter();
            let sizes = held.filter_map(|(name, shape)| {
                let bits = saved_as(&name, dtype, states)?.bits();
                let elements = shape.iter().fold(1u64, |all, n| all.saturating_mul(*n));
                Some(elements.saturating_mul(u64::from(bits)) / 8)
            });
            sizes.fold(0, u64::saturating_add)
        });
        sums.max().unwrap_or_default()
    }
}
