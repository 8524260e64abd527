//! NumPy's arrays.

use crate::fault::Kind;
use crate::store::formats::row::{Foreign, Start};

/// A .npy or .npz file.
pub(in crate::store::formats) static NUMPY: Foreign = Foreign {
    name: "NumPy arrays",
    kind: Kind::Unsupported,
    file,
    directory: |entries| {
        let ours = |name: &str| name.ends_with(".npy") || name.ends_with(".npz");
        let found = entries.find(ours)?;
        Some(format!("has NumPy files alone, as {found}"))
    },
    hint: "save it as safetensors, in Python: from safetensors.numpy import save_file; \
           save_file(dict(numpy.load(FILE)), \"model.safetensors\")",
};

fn file(start: &Start<'_>) -> Option<String> {
    let zipped = start.with(b"PK\x03\x04") && start.has(".npy");
    (zipped || start.with(b"\x93NUMPY")).then(|| "is a NumPy file".into())
}
