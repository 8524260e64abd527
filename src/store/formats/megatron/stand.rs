//! Where a job stands, as Megatron says it: in a value among the tensors, or in a file of its own.

use crate::fault::Result;
use crate::store::formats::dcp::Emit;
use crate::store::formats::pickle::{self, Node, Pickle, Value};
use crate::store::formats::progress::Progress;
use crate::store::formats::torch::{Shown, shown};
use serde_json::json;

/// What the value is called.
pub(super) const VALUE: &str = "common_state/shard_0_1";
/// The file of its own.
pub(super) const FILE: &str = "common.pt";
/// The most bytes of either that are read.
pub(super) const BYTES_MAX: u64 = 16 << 20;
/// What stands there of MindSpore's counts.
const COUNTS: &str = "mindspore_counts";
/// How the optimizer's state lies when it is written: each in the shape of its weight.
const STATES_LIE: &str = "fully_reshardable";

/// The pickle that an archive of `torch.save` begins with.
fn first_pickle(bytes: &[u8]) -> Option<&[u8]> {
    let two = |at: usize| {
        let pair = bytes.get(at..at + 2)?;
        Some(usize::from(pair[0]) | usize::from(pair[1]) << 8)
    };
    bytes.strip_prefix(b"PK\x03\x04")?;
    let (name, extra) = (two(26)?, two(28)?);
    let named = bytes.get(30..30 + name)?;
    named.ends_with(b"/data.pkl").then_some(())?;
    bytes.get(30 + name + extra..)
}

/// Where a job stands, by an archive; nothing where that can't be told: training data, no weights.
pub(super) fn read(bytes: &[u8]) -> Progress {
    let told = first_pickle(bytes).and_then(|bytes| {
        let pickle = pickle::read(bytes).ok()?;
        told(&pickle)
    });
    told.unwrap_or_default()
}

fn told(pickle: &Pickle<'_>) -> Option<Progress> {
    let root = match pickle.node(pickle.root()) {
        Node::List(elements) | Node::Tuple(elements) => *elements.first()?,
        _ => pickle.root(),
    };
    if let Some(own) = pickle.get(root, COUNTS)
        && let Ok(Shown::Plain(json)) = shown(pickle, own, 0)
        && let Ok(progress) = serde_json::from_value(json)
    {
        return Some(progress);
    }
    let args = settings_in(pickle, root);
    let setting = |key: &str| args.and_then(|args| pickle.count(pickle.get(args, key)?));
    let iteration = iteration(pickle, root);
    Some(Progress {
        step_num: iteration,
        global_step: iteration,
        consumed_samples: setting("consumed_train_samples").filter(|samples| *samples > 0),
        global_batch_size: setting("global_batch_size"),
        ..Progress::default()
    })
}

/// The iteration that a save is of.
pub(super) fn iteration(pickle: &Pickle<'_>, root: Value) -> Option<u64> {
    let value = pickle.get(root, "iteration")?;
    pickle.count(value)
}

/// The settings of the job that a rank's file is of, as a mapping.
pub(super) fn settings(pickle: &Pickle<'_>) -> Option<Value> {
    settings_in(pickle, pickle.root())
}

fn settings_in(pickle: &Pickle<'_>, root: Value) -> Option<Value> {
    let args = pickle.get(root, "args")?;
    match pickle.made(args) {
        Some((_, _, made)) => made.state,
        None => Some(args),
    }
}

/// The pickle that says it: at iteration `number`, with what goes before the optimizer's states if there are
/// `states`. Rates and decay, which Megatron keeps there too, aren't known here.
///
/// # Errors
/// As [`Emit::plain`].
pub(super) fn written(progress: &Progress, number: u64, states: bool) -> Result<Vec<u8>> {
    let mut counts = serde_json::to_value(progress).unwrap_or_default();
    if let Some(counts) = counts.as_object_mut() {
        counts.retain(|_, count| !count.is_null());
    }
    let mut told = json!({
        "iteration": number,
        "checkpoint_version": 3.0,
        "content_metadata": {
            "distrib_optim_sharding_type": STATES_LIE,
            "singleton_local_shards": false,
            "chained_optim_avoid_prefix": true,
        },
        COUNTS: counts,
    });
    if states {
        let group = |decay: f64| {
            json!({
                "wd_mult": decay, "lr_mult": 1.0, "is_expert_parallel": false,
                "is_decoupled_lr": false, "step": number,
            })
        };
        told["optimizer"] = json!({
            "optimizer": { "param_groups": [group(1.0), group(0.0)] },
            "param_state_sharding_type": STATES_LIE,
        });
    }
    let mut emit = Emit::new();
    emit.plain(&json!([told]))?;
    Ok(emit.finished())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_job_stands_is_read_as_it_was_written() {
        let progress = Progress {
            epoch_num: Some(2),
            step_num: Some(1 << 40),
            loss_scale: Some(0.5),
            ..Progress::default()
        };
        let pickle = written(&progress, 7, true).unwrap();
        let mut archive = b"PK\x03\x04".to_vec();
        archive.resize(30, 0);
        archive[26] = 16;
        archive.extend_from_slice(b"archive/data.pkl");
        archive.extend_from_slice(&pickle);
        assert_eq!(read(&archive), progress);
        archive.truncate(archive.len() - 1);
        assert_eq!(read(&archive), Progress::default());
        assert_eq!(read(b"PK\x03\x04"), Progress::default());
    }
}
