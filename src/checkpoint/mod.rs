//! The checkpoints that a training job writes, one after the other, into the same rank directories.
//!
//! [`mod@survey`] tells which there are and which of them all ranks have; [`mod@latest`] which one a job would
//! resume from; [`rotation`] which may go.

pub mod background;
mod iterations;
pub mod latest;
pub mod meta;
pub mod monitor;
mod monitor_config;
mod retention;
pub mod rotation;
mod state;
pub mod survey;

pub use survey::{Checkpoint, Survey, survey};
