//! Measures: plans without data, and what this machine can do.
//!
//! * [`simulate`]: what a job would cost on a cluster that isn't at hand. Local.
//! * [`collectives`], [`storage`], [`reshard`]: the limits of this one, by the program's own
//!   primitives. Collective.
//! * [`doctor`]: what of it a job would stumble over. Collective.
//!
//! *Absent on purpose*: loops of its own that move tensors: a measured reshard is a job.

pub mod baseline;
pub mod bench;
mod calls;
mod chosen;
mod coldness;
pub mod collectives;
mod contents;
pub mod doctor;
pub mod each;
pub mod everything;
mod found;
mod lanes;
mod lives;
mod metadata;
mod operation;
mod operations;
pub mod pairs;
mod replay;
pub mod reshard;
mod sampling;
pub mod shapes;
pub mod simulate;
mod simulated;
pub mod storage;
pub mod traffic;
