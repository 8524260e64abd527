//! PyTorch's distributed checkpoints, and Megatron-Core's, which are such: `.metadata`, a pickle that says
//! which chunk of which tensor lies where, and files in which each chunk is an archive of `torch.save`.

mod archive;
mod chunks;
mod content;
mod emit;
mod flat;
mod format;
mod hf;
mod hyper;
mod hyper_metadata;
mod metadata;
mod ranks;
mod row;
mod states;
#[cfg(test)]
mod tests;
mod write;

pub(super) use archive::archive_of;
pub use content::Content;
pub(super) use emit::Emit;
pub(super) use format::{Dcp, METADATA, METADATA_BYTES_MAX};
pub(super) use hf::HuggingFace;
pub(super) use hyper::HyperParallel;
pub(super) use row::Distcp;
pub(super) use write::{VALUES, arrange, metadata, one_behind_another};
