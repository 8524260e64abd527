//! What a model's layouts would be, before anything of it is there.

use super::derived::{Derived, derive};
use super::mesh::Mesh;
use super::offset::Offset;
use super::read::{Described, element_type, usual};
use super::recognise::{bases, divisors};
use super::seen::Seen;
use super::sizes::Sizes;
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

/// The layouts that `devices` can have of `model`, by data, tensor and, of experts, expert parallel and
/// stages: as typed, and derived. Local.
///
/// # Errors
/// As [`tensors`]; those that the model can't have are left out.
pub fn layouts(devices: u64, seen: &Seen, model: &Path) -> Result<Vec<(String, Derived)>> {
    let described = Described::read(model)?;
    let job = described.job(&Sizes::from(Mesh::ONE), seen)?;
    let has_experts = job.family.experts_in.is_some();
    let mut all = Vec::new();
    for base in bases(devices) {
        let experts = divisors(base.data * base.tensor);
        for expert in experts.filter(|expert| *expert == 1 || has_experts) {
            let mut sizes = Sizes::from(Mesh { expert, ..base });
            sizes.offset = even_as_can_be(job.numbers.value("layers").unwrap_or(0), base.stages);
            match described.job(&sizes, seen).and_then(|job| derive(&job)) {
                Ok(derived) => all.push((sizes.to_string(), derived)),
                Err(fault) if fault.kind == Kind::Config => {}
                Err(fault) => return Err(fault),
            }
        }
    }
    Ok(all)
}

/// One more layer for as many of the first stages as an even share leaves.
fn even_as_can_be(layers: u64, stages: u64) -> Offset {
    match layers % stages.max(1) {
        0 => Offset::All(0),
        rest => Offset::Stages((0..stages).map(|stage| i64::from(stage < rest)).collect()),
    }
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
