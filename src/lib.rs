//! Moves model weights between parallel layouts.
//!
//! Each process of an MPI program calls the same functions: it reads its part, the processes exchange
//! slices, each writes its part. [`World::start`] starts MPI, `World::from_communicator` joins a
//! program that has started it. Built without the feature `mpi` there is one process.
//!
//! ```no_run
//! # fn main() -> shardloom::Result<()> {
//! let world = shardloom::World::start()?;
//! shardloom::unify("output/checkpoint", "full")
//!     .source_strategy("output/strategy")
//!     .file_suffix("1_20")
//!     .run(&world)?;
//! let equal = shardloom::diff("output/checkpoint", "full")
//!     .source_strategy("output/strategy")
//!     .file_suffix("1_20")
//!     .run(&world)?
//!     .equal;
//! assert_eq!(equal, Some(true));
//! world.finish()
//! # }
//! ```
//!
//! What a job is, is put together as a [`Task`] and done by [`Task::run`], or with the buffers of a
//! training loop by [`Task::into_buffers`]. A training loop saves by a [`CheckpointMonitor`].
//!
//! Below is one pipeline, told on a page by `docs/architecture.md`; its rooms are public for the
//! program's own tests and tools, and may change at any time.

#[doc(hidden)]
pub mod catalog;
#[doc(hidden)]
pub mod checkpoint;
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod course;
#[doc(hidden)]
pub mod destination;
#[doc(hidden)]
pub mod exchange;
#[doc(hidden)]
pub mod fault;
mod front;
#[doc(hidden)]
pub mod host;
#[doc(hidden)]
pub mod job;
#[doc(hidden)]
pub mod layout;
#[doc(hidden)]
pub mod measure;
#[doc(hidden)]
pub mod model;
#[doc(hidden)]
pub mod plan;
#[doc(hidden)]
pub mod report;
#[doc(hidden)]
pub mod source;
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
pub mod strategy;
#[doc(hidden)]
pub mod tensor;
#[doc(hidden)]
pub mod transport;
#[doc(hidden)]
pub mod view;

pub use checkpoint::monitor::{CheckpointMonitor, MonitorConfig, State, StateTensor};
pub use exchange::World;
pub use fault::{Fault, Kind, Result};
pub use front::{
    Repair, Shard, Task, convert, diff, export, import, load, repair, reshard, split, unify, verify,
};
pub use job::Outcome;
pub use store::Format;
pub use tensor::dtype::Dtype;
pub use transport::Buffer;

#[cfg(test)]
#[path = "../tests/virtual/mod.rs"]
mod virtual_cluster;
