//! What torch.save writes.

use crate::fault::Kind;
use crate::store::formats::row::{Entries, Foreign, Start, never};

/// What to do with either.
const HINT: &str = "save it as safetensors, in Python: from safetensors.torch import save_file; \
                    save_file(torch.load(FILE, weights_only=True), \"model.safetensors\")";

/// The magic number of torch before 1.6, pickled.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e";

/// A zip archive with a pickle in it: `.pt`, `.pth`, `.bin`.
pub(in crate::store::formats) static ZIP: Foreign = Foreign {
    name: "PyTorch files",
    kind: Kind::Unsupported,
    file: zip,
    directory,
    hint: HINT,
};

/// What torch before 1.6 wrote.
pub(in crate::store::formats) static LEGACY: Foreign = Foreign {
    name: "old PyTorch files",
    kind: Kind::Unsupported,
    file: |start| {
        let ours = start.with(MAGIC);
        ours.then(|| "is a PyTorch file of the old kind, a pickle".into())
    },
    directory: never,
    hint: HINT,
};

fn ends(name: &str) -> bool {
    let endings = [".bin", ".pt", ".pth"];
    endings.iter().any(|ending| name.ends_with(ending))
}

fn zip(start: &Start<'_>) -> Option<String> {
    let ours = start.with(b"PK\x03\x04") && (start.has("data.pkl") || ends(start.name));
    ours.then(|| "is a PyTorch file (a zip archive with a pickle)".into())
}

fn directory(entries: &Entries) -> Option<String> {
    let weights = |name: &str| ends(name) && !name.starts_with("training_args");
    let found = entries.find(weights)?;
    Some(format!(
        "has PyTorch files alone, as {found}, and no safetensors"
    ))
}
