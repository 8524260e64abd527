//! What Megatron-LM saves.

use crate::fault::Kind;
use crate::store::formats::row::{Entries, Foreign, Start};

/// A checkpoint with a directory a rank, or a file of it.
pub(in crate::store::formats) static RANKS: Foreign = Foreign {
    name: "parts of older Megatron checkpoints",
    kind: Kind::Unsupported,
    file,
    directory,
    hint: "give the directory that has all mp_rank_ directories, each with its model_optim_rng.pt",
};

fn file(start: &Start<'_>) -> Option<String> {
    let ours = ["model_optim_rng.pt", "model_rng.pt", "distrib_optim.pt"].contains(&start.name);
    (ours && start.with(b"PK\x03\x04"))
        .then(|| "is a rank's part of a Megatron checkpoint, a PyTorch archive".into())
}

fn directory(entries: &Entries) -> Option<String> {
    let found = entries.find(|name| name.starts_with("mp_rank_") && name.ends_with('/'))?;
    Some(format!("is a Megatron checkpoint: it has {found}"))
}
