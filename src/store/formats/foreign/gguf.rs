//! What llama.cpp reads.

use crate::fault::Kind;
use crate::store::formats::row::{Foreign, Start};

/// A GGUF file, or one of its forerunners.
pub(in crate::store::formats) static GGUF: Foreign = Foreign {
    name: "GGUF",
    kind: Kind::Unsupported,
    file,
    directory: |entries| {
        let found = entries.find(|name| name.ends_with(".gguf"))?;
        Some(format!("has GGUF files alone, as {found}"))
    },
    hint: "its weights are packed for llama.cpp: take the model's safetensors",
};

fn file(start: &Start<'_>) -> Option<String> {
    let magics: [&[u8]; 4] = [b"GGUF", b"tjgg", b"fmgg", b"lmgg"];
    let ours = magics.iter().any(|magic| start.with(magic));
    ours.then(|| "is a GGUF file".into())
}
