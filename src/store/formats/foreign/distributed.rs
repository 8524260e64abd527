//! What torch.distributed.checkpoint saves; Megatron-Core and FSDP save it too.

use crate::fault::Kind;
use crate::fault::plain::first;
use crate::store::formats::row::{Entries, Foreign, Start};

/// Directories that a message names.
const ROOMS_NAMED: usize = 3;

/// A distributed checkpoint of PyTorch that has no metadata, or a file of one.
pub(in crate::store::formats) static TORCH: Foreign = Foreign {
    name: "unfinished PyTorch distributed checkpoints",
    kind: Kind::Unsupported,
    file,
    directory,
    hint: "give the one directory that has .metadata and all files; without .metadata the save was \
           interrupted",
};

fn file(start: &Start<'_>) -> Option<String> {
    let ours = start.name == ".metadata" && start.with(b"\x80") || start.name.ends_with(".distcp");
    ours.then(|| "is a part of a PyTorch distributed checkpoint (torch.distributed)".into())
}

fn directory(entries: &Entries) -> Option<String> {
    let what = "is a PyTorch distributed checkpoint (torch.distributed)";
    let files: Vec<&str> = entries.all(|name| name.ends_with(".distcp")).collect();
    let Some(found) = files.first() else {
        return entries
            .find(|name| name == ".metadata")
            .map(|_| format!("{what} of which only .metadata is here, and no .distcp file"));
    };
    let mut rooms: Vec<&str> = files
        .iter()
        .filter_map(|file| Some(file.rsplit_once('/')?.0))
        .collect();
    rooms.sort_unstable();
    rooms.dedup();
    Some(match &rooms[..] {
        _ if !found.contains('/') => format!("{what} without a whole .metadata: it has {found}"),
        [room] => format!("has a PyTorch distributed checkpoint in {room}"),
        _ => format!(
            "has PyTorch distributed checkpoints in {}",
            first(&rooms, ROOMS_NAMED)
        ),
    })
}
