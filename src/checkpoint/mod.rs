//! The checkpoints that a training job writes, one after the other, into the same rank directories.
//!
//! [`monitor`] watches them being made; [`rotation`] tells which may go. Which there are, and which one a
//! job would resume from, the room of sources tells.

pub mod background;
mod fence;
pub mod monitor;
mod monitor_config;
mod retention;
pub mod rotation;
mod state;
