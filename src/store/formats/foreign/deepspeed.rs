//! What DeepSpeed saves.

use crate::fault::Kind;
use crate::store::formats::row::{Entries, Foreign, Start};

/// A directory above a ZeRO checkpoint that doesn't tell which one is meant, or a file of one.
pub(in crate::store::formats) static ZERO: Foreign = Foreign {
    name: "DeepSpeed ZeRO checkpoints",
    kind: Kind::Unsupported,
    file,
    directory,
    hint: "give the directory that has its files, with the model's states beside the optimizer's, or the one \
           above, where `latest` names it",
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
