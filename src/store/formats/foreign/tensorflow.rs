//! What TensorFlow and Keras save.

use crate::fault::Kind;
use crate::store::formats::row::Foreign;

/// An HDF5 file, or a directory that TensorFlow has written.
pub(in crate::store::formats) static HDF5: Foreign = Foreign {
    name: "HDF5",
    kind: Kind::Unsupported,
    file: |start| {
        let ours = start.with(b"\x89HDF\r\n\x1a\n");
        ours.then(|| "is an HDF5 file, as TensorFlow and Keras save it".into())
    },
    directory: |entries| {
        let ours = |name: &str| {
            [".h5", ".hdf5", ".keras"]
                .iter()
                .any(|ending| name.ends_with(ending))
                || name == "saved_model.pb"
                || name.contains(".data-00000-of-")
        };
        let found = entries.find(ours)?;
        Some(format!("has TensorFlow or HDF5 files alone, as {found}"))
    },
    hint: "load it in its framework and save its tensors as safetensors",
};
