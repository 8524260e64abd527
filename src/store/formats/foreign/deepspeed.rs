//! What DeepSpeed saves.

use crate::fault::Kind;
use crate::store::formats::row::{Entries, Foreign, Start};

/// A ZeRO checkpoint, or a file of it.
pub(in crate::store::formats) static ZERO: Foreign = Foreign {
    name: "DeepSpeed ZeRO checkpoints",
    kind: Kind::Unsupported,
    file,
    directory,
    hint: "the zero_to_fp32.py beside it makes full weights: python zero_to_fp32.py . OUT \
           --safe_serialization",
};

fn ours(name: &str) -> bool {
    name.ends_with("_optim_states.pt") || name.ends_with("_model_states.pt")
}

fn file(start: &Start<'_>) -> Option<String> {
    let zero = ours(start.name) && start.with(b"PK\x03\x04");
    zero.then(|| "is a part of a DeepSpeed checkpoint, a PyTorch archive".into())
}

fn directory(entries: &Entries) -> Option<String> {
    let found = entries.find(ours)?;
    Some(format!("is a DeepSpeed checkpoint: it has {found}"))
}
