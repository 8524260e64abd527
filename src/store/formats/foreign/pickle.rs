//! Python's own format.

use crate::fault::Kind;
use crate::store::formats::row::{Foreign, never};

/// A pickle, of protocol 2 to 5.
pub(in crate::store::formats) static PICKLE: Foreign = Foreign {
    name: "Python pickles",
    kind: Kind::Unsupported,
    file: |start| {
        let ours = matches!(start.bytes, [0x80, 2..=5, next, ..] if *next != 0);
        ours.then(|| "is a Python pickle".into())
    },
    directory: never,
    hint: "load it where you trust it, and save its tensors as safetensors",
};
