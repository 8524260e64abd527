//! Names of what a training job keeps beside its weights: an optimizer's states, and where the job stands.

use crate::plan::inventory::JOB_SCALARS;
use crate::plan::names;
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
    ends.any(|end| known.contains(end))
        || JOBS
            .iter()
            .chain(&JOB_SCALARS)
            .any(|state| name.starts_with(state))
}

/// Beginnings of the names of an optimizer's states in PyTorch's checkpoints, as those of DeepSpeed have them.
const STATES: [&str; 4] = ["exp_avg.", "exp_avg_sq.", "momentum_buffer.", "step."];
/// Beginnings of the names of whatever an optimizer has, where it is saved beside the model.
const OPTIMIZERS: [&str; 2] = ["optimizer.", "optim."];

/// Whether a tensor is what an optimizer keeps of one that is `known`, or of any.
pub(super) fn is_optimizers(name: &str, known: &BTreeSet<&str>) -> bool {
    let rest = of(name);
    rest != name && (known.contains(rest) || rest.parse::<u32>().is_ok())
        || OPTIMIZERS.iter().any(|begin| name.starts_with(begin))
}

/// The name of the tensor that `name` is a state of, or it itself.
pub(super) fn of(name: &str) -> &str {
    let rest = STATES.iter().find_map(|state| name.strip_prefix(state));
    rest.unwrap_or_else(|| names::state_and_tensor(name).1)
}
