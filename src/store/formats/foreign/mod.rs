//! What is known by sight alone, a file each: what it is, and what to do with it.

pub(super) mod archive;
pub(super) mod damaged;
pub(super) mod deepspeed;
pub(super) mod distributed;
pub(super) mod encrypted;
pub(super) mod gguf;
pub(super) mod link;
pub(super) mod megatron;
pub(super) mod numpy;
pub(super) mod others;
pub(super) mod page;
pub(super) mod pickle;
pub(super) mod pointer;
pub(super) mod strategy;
pub(super) mod tensorflow;
pub(super) mod torch;
