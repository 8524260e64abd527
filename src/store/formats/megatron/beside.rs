//! What Megatron asks for beside tensors: for each of its modules a state of its own, empty as a rule.

use super::stand;
use crate::fault::Result;
use crate::store::formats::dcp::{Emit, archive_of};
use crate::store::formats::progress::Progress;
use std::collections::BTreeMap;

/// What is called so in Megatron's names has layers stacked on its first dimension.
const LAYERS: &str = "decoder.layers.";
/// The same of experts, on the next one.
const EXPERTS: &str = "mlp.experts.experts.";
/// What the optimizer's states begin with.
const OPTIMIZER: &str = "optimizer.";
/// What a module's own state is called.
const EXTRA: &str = "_extra_state";
/// The weights of modules that have such a state, by the end of their names; and modules that have one though
/// they have no weights, beside them.
const MODULES: [(&str, &str); 2] = [(".linear_proj.weight", ".core_attention."), (".weight", "")];
/// Modules with states: how the last word of their names begins, and how it ends. Norms have one in Transformer Engine.
const BEGINS: [&str; 2] = ["linear_", "eh_proj"];
const ENDS: &str = "norm";

/// The values as archives, by name. `tensors` are names and full shapes.
///
/// # Errors
/// As [`archive_of`].
pub(super) fn values(
    tensors: &BTreeMap<&str, Vec<u64>>,
    progress: &Progress,
    number: u64,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let states = tensors.keys().any(|name| name.starts_with(OPTIMIZER));
    let told = archive_of(&stand::written(progress, number, states)?)?;
    let mut emit = Emit::new();
    emit.plain(&serde_json::json!([null]))?;
    let empty = archive_of(&emit.finished())?;
    let mut all = BTreeMap::from([(stand::VALUE.to_owned(), told)]);
    for (name, shape) in tensors {
        for module in modules(name) {
            for place in places(name, shape) {
                all.insert(format!("{module}{EXTRA}/shard_{place}"), empty.clone());
            }
        }
    }
    Ok(all)
}

/// The modules that have a state, of which a weight tells that they are there, with a dot behind.
fn modules(weight: &str) -> Vec<String> {
    if weight.starts_with(OPTIMIZER) {
        return Vec::new();
    }
    let found = MODULES.iter().filter_map(|(end, beside)| {
        let module = weight.strip_suffix(end)?;
        let word = module.rsplit('.').next()?;
        let own = word.ends_with(ENDS) || BEGINS.iter().any(|begin| word.starts_with(begin));
        match beside.is_empty() {
            true => own.then(|| format!("{module}.")),
            false => Some(format!("{module}{beside}")),
        }
    });
    found.collect()
}

/// Where the states of a module lie, one a layer and expert: offsets and shape, as Megatron spells them.
fn places(weight: &str, shape: &[u64]) -> Vec<String> {
    let part = weight.strip_prefix(LAYERS).unwrap_or(weight);
    let stacked = part.len() < weight.len() && !part.starts_with(|c: char| c.is_ascii_digit());
    let experts = part.contains(EXPERTS);
    let dims = usize::from(stacked) + usize::from(experts);
    let sizes = &shape[..dims.min(shape.len())];
    match sizes {
        [] => vec!["0_1".to_owned()],
        [layers] => (0..*layers)
            .map(|layer| format!("{layer}_{layers}"))
            .collect(),
        [layers, experts, ..] => {
            let pairs = (0..*layers).flat_map(|layer| (0..*experts).map(move |e| (layer, e)));
            pairs
                .map(|(layer, e)| format!("{layer}.{e}_{layers}.{experts}"))
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_by_weights_and_lie_by_layer_and_expert() {
        let of = |name: &str, shape: &[u64]| {
            let tensors = BTreeMap::from([(name, shape.to_vec())]);
            let all = values(&tensors, &Progress::default(), 1).unwrap();
            let names = all.into_keys().filter(|name| name != stand::VALUE);
            names.collect::<Vec<_>>()
        };
        assert_eq!(
            of("decoder.layers.mlp.linear_fc1.weight", &[2, 8, 4]),
            [
                "decoder.layers.mlp.linear_fc1._extra_state/shard_0_2",
                "decoder.layers.mlp.linear_fc1._extra_state/shard_1_2"
            ]
        );
        assert_eq!(
            of(
                "decoder.layers.mlp.experts.experts.linear_fc2.weight",
                &[1, 2, 8, 4]
            )[1],
            "decoder.layers.mlp.experts.experts.linear_fc2._extra_state/shard_0.1_1.2"
        );
        assert_eq!(
            of(
                "decoder.layers.0.self_attention.linear_proj.weight",
                &[8, 4]
            ),
            [
                "decoder.layers.0.self_attention.core_attention._extra_state/shard_0_1",
                "decoder.layers.0.self_attention.linear_proj._extra_state/shard_0_1"
            ]
        );
        assert_eq!(
            of("decoder.final_layernorm.weight", &[8]),
            ["decoder.final_layernorm._extra_state/shard_0_1"]
        );
        assert_eq!(
            of("mtp.layers.0.eh_proj.weight", &[8, 16]),
            ["mtp.layers.0.eh_proj._extra_state/shard_0_1"]
        );
        assert!(of("decoder.layers.mlp.router.weight", &[2, 4, 8]).is_empty());
        assert!(
            of(
                "optimizer.state.exp_avg.decoder.layers.mlp.linear_fc1.weight",
                &[2, 8]
            )
            .is_empty()
        );
    }
}
