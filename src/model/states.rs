//! Names of what a training job keeps beside its weights: an optimizer's states, and where the job stands.

use crate::plan::inventory::JOB_SCALARS;
use crate::plan::state::state_and_tensor;
use std::collections::BTreeSet;

/// Beginnings of the names of a training job's own state, beside [`JOB_SCALARS`].
const JOBS: [&str; 12] = [
    "accu_grads",
    "fi_parameter",
    "global_step",
    "epoch_num",
    "step_num",
    "loss_scale",
    "global_batch_size",
    "afactor_step",
    "muon_m.placeholder.",
    "adam_m.placeholder.",
    "adam_v.placeholder.",
    "weight_decay",
];

/// Whether a name is that of an optimizer's state or of a hyper parameter: a known name after a
/// beginning that ends in a dot or underline, or one of the job's own.
pub(super) fn is_state(name: &str, known: &BTreeSet<&str>) -> bool {
    let ends = name.match_indices(['.', '_']);
    let mut ends = ends.map(|(at, _)| &name[at + 1..]);
    ends.any(|end| known.contains(end)) || is_jobs(name)
}

/// Whether it is one of what says where a job stands.
fn is_jobs(name: &str) -> bool {
    let mut jobs = JOBS.iter().chain(&JOB_SCALARS);
    jobs.any(|state| name.starts_with(state))
}

/// Beginnings of the names of an optimizer's states in PyTorch's checkpoints, as those of DeepSpeed have them.
const STATES: [&str; 5] = [
    "exp_avg.",
    "exp_avg_sq.",
    "fp32.",
    "momentum_buffer.",
    "step.",
];
/// What a training job in PyTorch saves beside the model, each under such a name, which may stand in others.
const BESIDE: [&str; 11] = [
    "optimizer",
    "optimizers",
    "optim",
    "optimizer_state",
    "optimizer_states",
    "optimizer_state_dict",
    "optim_state_dict",
    "scheduler",
    "lr_scheduler",
    "lr_schedulers",
    "rng_state",
];
/// How many names one of these may stand in.
const WITHIN_MAX: usize = 2;

/// Whether a tensor is what a training job keeps beside the model's.
pub(super) fn is_beside(name: &str) -> bool {
    let mut parts = name.split('.').take(1 + WITHIN_MAX);
    of(name) != name || is_jobs(name) || parts.any(|part| BESIDE.contains(&part))
}

/// What stands behind each dot of a name.
pub(super) fn ends(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').map(|(at, _)| &name[at + 1..])
}

/// The name of the tensor that `name` is a state of, or it itself.
pub(super) fn of(name: &str) -> &str {
    let rest = STATES.iter().find_map(|state| name.strip_prefix(state));
    rest.unwrap_or_else(|| state_and_tensor(name).1)
}
