//! What an optimizer keeps of a tensor, by its name.

/// Beginnings of the names of an optimizer's states: `adam_m.w` is one of `w`.
pub(super) const STATES: [&str; 8] = [
    "adam_m.",
    "adam_v.",
    "accu_grads.",
    "muon_m.",
    MASTER,
    "moment1.",
    "moment2.",
    "pma_weight_ema.",
];

/// Whether a tensor of this name is one of those that MindSpore's tools take for a job's gradient accumulators, which
/// they keep as rank 0 has them.
pub(super) fn is_accumulator(name: &str) -> bool {
    name.starts_with("accu_grads")
}

/// The beginning of the name of a weight's master in 32 bits, from which a trainer goes on.
pub(crate) const MASTER: &str = "main_param.";

/// Whether a tensor of this name is what an optimizer keeps of another.
pub(crate) fn is_state(name: &str) -> bool {
    !state_and_tensor(name).0.is_empty()
}

/// The beginning that tells which state of an optimizer it is, and the name of the tensor that it is of; of a tensor
/// itself there is no beginning.
pub(crate) fn state_and_tensor(name: &str) -> (&str, &str) {
    let state = STATES.iter().find(|state| name.starts_with(**state));
    name.split_at(state.map_or(0, |state| state.len()))
}
