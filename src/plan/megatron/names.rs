//! The names of both sides.

pub(super) use crate::plan::state::MASTER;

/// What stands before the parts of a layer.
pub(super) const LAYERS: &str = "decoder.layers.";
/// What stands before the parts of a layer for further tokens, and behind its number.
const FURTHER: (&str, &str) = ("mtp.layers.", "transformer_layer.");
/// What stands before an expert's own parts: in Megatron's names, and before its number in MindSpore's.
pub(super) const EXPERTS: &str = "mlp.experts.experts.";
pub(super) const LOCAL_EXPERTS: &str = "mlp.experts.local_experts.";
/// What MindSpore calls the tensors that have all experts of a layer, and an expert's part of each.
pub(super) const JOINED_EXPERTS: [(&str, &str); 2] = [
    ("mlp.experts.weight1", "linear_fc1.weight"),
    ("mlp.experts.weight2", "linear_fc2.weight"),
];

/// An optimizer's states: Megatron's beginning of a name, and MindSpore's. The first of several is written.
pub(super) const STATES: [(&str, &str); 4] = [
    ("optimizer.state.exp_avg.", "adam_m."),
    ("optimizer.state.exp_avg_sq.", "adam_v."),
    ("optimizer.state.param.", MASTER),
    ("optimizer.state.fp32_param.", MASTER),
];
/// What stands before the number of one of several optimizers, and that before its states.
const CHAINED: &str = "chained_";
/// That of moments, where masters are due.
pub(super) const MOMENT: &str = "adam_m.";

/// Parts that have the name of the module that uses them, and their own names. The first of several is
/// written.
const PARTS: [(&str, &str); 7] = [
    (
        "self_attention.linear_qkv.layer_norm_weight",
        "input_layernorm.weight",
    ),
    (
        "self_attention.linear_qkv.layer_norm_bias",
        "input_layernorm.bias",
    ),
    (
        "mlp.linear_fc1.layer_norm_weight",
        "pre_mlp_layernorm.weight",
    ),
    ("mlp.linear_fc1.layer_norm_bias", "pre_mlp_layernorm.bias"),
    (
        "mlp.shared_experts.gate_weight",
        "mlp.shared_experts.shared_experts_gate.weight",
    ),
    (
        "self_attention.linear_q_up_proj.layer_norm_weight",
        "self_attention.q_layernorm.weight",
    ),
    (
        "self_attention.linear_kv_up_proj.layer_norm_weight",
        "self_attention.kv_layernorm.weight",
    ),
];
/// How many of these are written, too: the others are read where there are such names.
const PARTS_WRITTEN: usize = 5;

/// A name in two: the beginning of a state on both sides, if it is one's under either name, and the weight.
pub(super) fn to_theirs(name: &str) -> (&'static str, &'static str, &str) {
    let (of_theirs, weight) = to_ours(name);
    let state = STATES.iter().find_map(|(theirs, ours)| match of_theirs {
        "" => Some((*theirs, *ours, name.strip_prefix(ours)?)),
        _ => (*ours == of_theirs).then_some((*theirs, *ours, weight)),
    });
    state.unwrap_or(("", "", name))
}

/// The same of Megatron's name.
pub(super) fn to_ours(name: &str) -> (&'static str, &str) {
    // One of several optimizers is told before its states.
    let chained = name.strip_prefix(CHAINED).and_then(number);
    let own = chained.map_or(name, |(_, own)| own);
    let state = STATES
        .iter()
        .find_map(|(theirs, ours)| Some((*ours, own.strip_prefix(theirs)?)));
    state.unwrap_or(("", name))
}

/// The part of a layer that is in a tensor of all layers.
pub(super) fn stacked_part(weight: &str) -> Option<&str> {
    let part = weight.strip_prefix(LAYERS)?;
    (!part.starts_with(|c: char| c.is_ascii_digit())).then_some(part)
}

/// The number and the part of a layer that has a name of its own.
pub(super) fn numbered(weight: &str) -> Option<(u64, &str)> {
    number(weight.strip_prefix(LAYERS)?)
}

/// A number, and what stands behind its dot.
pub(super) fn number(text: &str) -> Option<(u64, &str)> {
    let (digits, rest) = text.split_once('.')?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    Some((digits.parse().ok().filter(|_| plain)?, rest))
}

/// What stands before a part of a layer that has a name of its own, and the part; any layer's.
pub(super) fn before_part(weight: &str) -> Option<(&str, &str)> {
    let part = match numbered(weight) {
        Some((_, part)) => part,
        None => number(weight.strip_prefix(FURTHER.0)?)?
            .1
            .strip_prefix(FURTHER.1)?,
    };
    Some((weight.strip_suffix(part)?, part))
}

/// What Megatron calls a part.
pub(super) fn part_of_theirs(part: &str) -> &str {
    let row = PARTS[..PARTS_WRITTEN].iter().find(|row| row.1 == part);
    row.map_or(part, |row| row.0)
}

/// Another name of a part, under which some of Megatron's layers have it, too: with `has`, which tells what else is
/// in the layer.
pub(super) fn also(part: &str, has: impl Fn(&str) -> bool) -> Option<&str> {
    const ROUTER: &str = "mlp.router.weight";
    const LATENT: &str = "self_attention.linear_kv_down_proj.weight";
    let latent = |name| has(LATENT).then_some(name);
    match part {
        "pre_mlp_layernorm.weight" | "pre_mlp_layernorm.bias" => {
            (has(ROUTER) || has(LATENT)).then_some(part)
        }
        "input_layernorm.weight" | "input_layernorm.bias" => latent(part),
        "self_attention.q_layernorm.weight" => latent(PARTS[5].0),
        "self_attention.kv_layernorm.weight" => latent(PARTS[6].0),
        _ => None,
    }
}

/// What MindSpore calls a part.
pub(super) fn part_of_ours(part: &str) -> &str {
    let row = PARTS.iter().find(|row| row.0 == part);
    row.map_or(part, |row| row.1)
}

/// Whether a weight has gates and ups, and what has as many columns as each of these has rows.
pub(super) fn down_of(part: &str) -> Option<String> {
    let base = ["linear_fc1.weight", "linear_fc1.bias"]
        .iter()
        .find_map(|end| part.strip_suffix(end))?;
    (base.is_empty() || base.ends_with('.')).then(|| format!("{base}linear_fc2.weight"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_apart_and_called_otherwise() {
        assert_eq!(
            to_theirs("adam_v.decoder.layers.3.x"),
            (
                "optimizer.state.exp_avg_sq.",
                "adam_v.",
                "decoder.layers.3.x"
            )
        );
        assert_eq!(
            to_ours("optimizer.state.fp32_param.a"),
            ("main_param.", "a")
        );
        assert_eq!(
            to_ours("chained_1.optimizer.state.exp_avg.a"),
            ("adam_m.", "a")
        );
        assert_eq!(
            to_theirs("chained_0.optimizer.state.fp32_param.a"),
            ("optimizer.state.param.", "main_param.", "a")
        );
        assert_eq!(numbered("decoder.layers.12.mlp.x"), Some((12, "mlp.x")));
        assert_eq!(numbered("decoder.layers.mlp.x"), None);
        assert_eq!(stacked_part("decoder.layers.mlp.x"), Some("mlp.x"));
        assert_eq!(stacked_part("decoder.layers.1.x"), None);
        assert_eq!(
            before_part("mtp.layers.0.transformer_layer.mlp.x"),
            Some(("mtp.layers.0.transformer_layer.", "mlp.x"))
        );
        assert_eq!(before_part("output_layer.weight"), None);
        assert_eq!(
            part_of_theirs("input_layernorm.weight"),
            "self_attention.linear_qkv.layer_norm_weight"
        );
        assert_eq!(
            part_of_theirs("self_attention.q_layernorm.weight"),
            "self_attention.q_layernorm.weight"
        );
        assert_eq!(
            down_of("mlp.shared_experts.linear_fc1.weight").as_deref(),
            Some("mlp.shared_experts.linear_fc2.weight")
        );
        assert_eq!(down_of("mlp.linear_fc2.weight"), None);
    }
}
