//! Weights that MindSpore has encrypted.

use crate::fault::Kind;
use crate::store::formats::ckpt::encryption;
use crate::store::formats::row::{Foreign, never};

/// An encrypted .ckpt file.
pub(in crate::store::formats) static MINDSPORE: Foreign = Foreign {
    name: "encrypted MindSpore checkpoints",
    kind: Kind::Unsupported,
    file: |start| encryption(start.bytes).map(|mode| format!("is encrypted ({mode})")),
    directory: never,
    hint: "load it with its key in MindSpore and save it without one",
};
