//! What the files of a ZeRO checkpoint are called.

/// The form that ZeRO's checkpoints are made into for other numbers of ranks, as `--format` has it.
pub(super) const UNIVERSAL: &str = "deepspeed-universal";

/// How the names of DeepSpeed's files begin.
const BEGINNINGS: [&str; 6] = [
    "mp_rank_",
    "zero_pp_rank_",
    "bf16_zero_pp_rank_",
    "fp16_zero_pp_rank_",
    "expp_rank_",
    "layer_",
];

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The model's states: weights, and the shapes of what the optimizer has flat.
    Model,
    /// The optimizer's.
    Optimizer,
}

/// A file of a ZeRO checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) side: Side,
    /// Its rank among those that share the optimizer's state; none for what is the same on all.
    pub(super) rank: Option<u32>,
    /// Its rank among those that share each weight.
    pub(super) of_weight: u32,
}

/// Whether a file of this name is one that DeepSpeed writes.
pub(super) fn is_ours(name: &str) -> bool {
    let begins = BEGINNINGS.iter().any(|begin| name.starts_with(begin));
    begins
        && ["_optim_states.pt", "_model_states.pt", "-model_states.pt"]
            .iter()
            .any(|end| name.ends_with(end))
}

fn digits(text: &str) -> Option<u32> {
    let ok = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    ok.then(|| text.parse().ok())?
}

/// What the name of a file says: `bf16_zero_pp_rank_3_mp_rank_00_optim_states.pt`; none for another name.
pub(super) fn file(name: &str) -> Option<File> {
    let (stem, side) = match (
        name.strip_suffix("_model_states.pt"),
        name.strip_suffix("_optim_states.pt"),
    ) {
        (Some(stem), _) => (stem, Side::Model),
        (None, Some(stem)) => (stem, Side::Optimizer),
        (None, None) => return None,
    };
    let stem = stem.strip_prefix("bf16_").unwrap_or(stem);
    let stem = stem.strip_prefix("fp16_").unwrap_or(stem);
    if let Some(rest) = stem.strip_prefix("zero_pp_rank_") {
        let (rank, of_weight) = rest.split_once("_mp_rank_")?;
        return Some(File {
            side,
            rank: Some(digits(rank)?),
            of_weight: digits(of_weight)?,
        });
    }
    let of_weight = digits(stem.strip_prefix("mp_rank_")?)?;
    let rank = None;
    (side == Side::Model).then_some(File {
        side,
        rank,
        of_weight,
    })
}

/// The tensor and the kind of the file at `zero/NAME/KIND.pt` of a universal checkpoint.
pub(super) fn of_universal(path: &str) -> Option<(&str, &str)> {
    let (name, file) = path.strip_prefix("zero/")?.split_once('/')?;
    let kind = file
        .strip_suffix(".pt")
        .filter(|kind| !kind.contains('/'))?;
    Some((name, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_side_and_ranks() {
        let told = |name: &str| file(name).map(|file| (file.side, file.rank, file.of_weight));
        let (model, optimizer) = (Side::Model, Side::Optimizer);
        for (name, due) in [
            ("mp_rank_00_model_states.pt", Some((model, None, 0))),
            (
                "zero_pp_rank_3_mp_rank_01_model_states.pt",
                Some((model, Some(3), 1)),
            ),
            (
                "bf16_zero_pp_rank_12_mp_rank_00_optim_states.pt",
                Some((optimizer, Some(12), 0)),
            ),
            (
                "zero_pp_rank_0_mp_rank_00_optim_states.pt",
                Some((optimizer, Some(0), 0)),
            ),
            ("layer_01-model_00-model_states.pt", None),
            ("layer_0_expert_3_mp_rank_00_model_states.pt", None),
            ("expp_rank_0_mp_rank_00_optim_states.pt", None),
            ("model.pt", None),
        ] {
            assert_eq!(told(name), due, "{name}");
        }
        assert_eq!(of_universal("zero/a.b/fp32.pt"), Some(("a.b", "fp32")));
        assert_eq!(of_universal("zero/optimizer_state.pt"), None);
    }
}
