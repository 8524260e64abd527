//! What other programs save, told by the names in a directory.

use crate::fault::Kind;
use crate::store::formats::row::Foreign;

/// What ends the names of files, and whose they are.
const ENDINGS: [(&str, &str); 8] = [
    (".msgpack", "Flax"),
    ("manifest.ocdbt", "Orbax (JAX)"),
    ("_CHECKPOINT_METADATA", "Orbax (JAX)"),
    (".onnx", "ONNX"),
    (".pkl", "pickle"),
    (".tar", "archive"),
    (".gz", "archive"),
    (".zip", "archive"),
];

/// A directory with nothing but such files.
pub(in crate::store::formats) static OTHERS: Foreign = Foreign {
    name: "Flax, Orbax and ONNX",
    kind: Kind::Unsupported,
    file: |_| None,
    directory: |entries| {
        let (found, whose) = ENDINGS.iter().find_map(|(ending, whose)| {
            let found = entries.find(|name| name.ends_with(ending))?;
            Some((found, whose))
        })?;
        Some(format!("has {whose} files alone, as {found}"))
    },
    hint: "unpack an archive; load what is another program's there, and save its tensors as safetensors",
};
