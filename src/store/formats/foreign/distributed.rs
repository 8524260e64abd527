//! What torch.distributed.checkpoint saves; Megatron-Core and FSDP save it too.

use crate::fault::Kind;
use crate::store::formats::row::{Entries, Foreign, Start};

/// A distributed checkpoint of PyTorch, or a file of it.
pub(in crate::store::formats) static TORCH: Foreign = Foreign {
    name: "PyTorch distributed checkpoints",
    kind: Kind::Unsupported,
    file,
    directory,
    hint: "make one file of it with python -m torch.distributed.checkpoint.format_utils \
           dcp_to_torch DIR model.pt, and save that as safetensors",
};

fn file(start: &Start<'_>) -> Option<String> {
    let ours = start.name == ".metadata" && start.with(b"\x80") || start.name.ends_with(".distcp");
    ours.then(|| "is a part of a PyTorch distributed checkpoint (torch.distributed)".into())
}

fn directory(entries: &Entries) -> Option<String> {
    let found = entries.find(|name| name.ends_with(".distcp"))?;
    Some(format!(
        "is a PyTorch distributed checkpoint (torch.distributed): it has {found}"
    ))
}
