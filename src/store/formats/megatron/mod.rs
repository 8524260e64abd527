//! Megatron-Core's checkpoints: what it calls `torch_dist`, PyTorch's distributed checkpoints under its own
//! names; and the older directories of a file for each rank.

mod beside;
mod format;
mod part;
mod ranks;
mod split;
mod stand;

pub(super) use format::Megatron;
pub use format::RELEASE;
pub(super) use ranks::MegatronRanks;
