//! The checkpoints that a training job writes, one after the other, into the same rank directories.
//!
//! [`monitor`] watches them being made; [`rotation`] tells which may go. Which there are, and which one a
//! job would resume from, the room of sources tells.
//!
//! *Absent on purpose*: MPI and `std::fs` themselves; a second way to merge or to reshard: those are
//! jobs.

pub mod background;
mod fence;
mod guarded;
pub mod led;
mod merging;
pub mod monitor;
mod monitor_config;
mod retention;
pub mod rotation;
mod shelf;
mod state;
