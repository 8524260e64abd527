//! What torch.distributed.checkpoint saves; Megatron-Core and FSDP save it too.

use crate::fault::Kind;
use crate::store::formats::row::{Entries, Foreign, Start};

/// A distributed checkpoint of PyTorch that has no metadata, or a file of one.
pub(in crate::store::formats) static TORCH: Foreign = Foreign {
    name: "unfinished PyTorch distributed checkpoints",
    kind: Kind::Unsupported,
    file,
    directory,
    hint: "give the directory that has .metadata and all files; without .metadata the save was \
           interrupted",
};

fn file(start: &Start<'_>) -> Option<String> {
    let ours = start.name == ".metadata" && start.with(b"\x80") || start.name.ends_with(".distcp");
    ours.then(|| "is a part of a PyTorch distributed checkpoint (torch.distributed)".into())
}

fn directory(entries: &Entries) -> Option<String> {
    let what = "is a PyTorch distributed checkpoint (torch.distributed)";
    match entries.find(|name| name.ends_with(".distcp")) {
        Some(found) => {
            let inside = found.rsplit_once('/');
            Some(match inside {
                Some((inside, _)) => format!("has a PyTorch distributed checkpoint in {inside}"),
                None => format!("{what} without a whole .metadata: it has {found}"),
            })
        }
        None => entries
            .find(|name| name == ".metadata")
            .map(|_| format!("{what} of which only .metadata is here, and no .distcp file")),
    }
}
