//! Moves model weights between parallel layouts.
//!
//! Each process of an MPI program calls the same functions: it reads its part, the processes exchange
//! slices, each writes its part. [`World::start`] starts MPI, `World::from_communicator` joins a
//! program that has started it. Built without the feature `mpi` there is one process.
//!
//! ```
//! # fn main() -> shardloom::fault::Result<()> {
//! # std::env::set_current_dir("tests/data/reshard_8_to_4").unwrap();
//! # let room = tempfile::tempdir().unwrap();
//! # let full = room.path().join("full");
//! let world = shardloom::World::start()?;
//! let outcome = shardloom::unify("src", &full)
//!     .source_strategy("strategy/src.ckpt")
//!     .file_suffix("1_1")
//!     .run(&world)?;
//! assert_eq!(outcome.tensors, 10);
//! let equal = shardloom::diff("src", &full)
//!     .source_strategy("strategy/src.ckpt")
//!     .run(&world)?
//!     .equal;
//! assert_eq!(equal, Some(true));
//! world.finish()
//! # }
//! ```
//!
//! What a job is, is put together as a [`Task`] and done by [`Task::run`], or with the buffers of a
//! training loop by [`Task::into_buffers`] ([`memory`]). A training loop saves by a [`CheckpointMonitor`]
//! ([`monitor`]). What goes wrong is a [`Fault`] ([`fault`]).
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

pub use checkpoint::monitor::CheckpointMonitor;
pub use exchange::World;
pub use fault::Fault;
pub use front::{
    Repair, Task, convert, diff, export, import, load, repair, reshard, split, unify, verify,
};
pub use job::Outcome;
pub use store::Format;

/// What goes with [`Task::into_buffers`]: shards in the memory of the program.
pub mod memory {
    pub use crate::front::Shard;
    pub use crate::tensor::dtype::Dtype;
    pub use crate::transport::Buffer;
}

/// What goes with [`CheckpointMonitor`]: what it saves, and how.
pub mod monitor {
    pub use crate::checkpoint::monitor::{MonitorConfig, State, StateTensor};
}

// Files that other tests share call it by its name.
#[cfg(test)]
extern crate self as shardloom;

#[cfg(test)]
#[path = "../tests/virtual/mod.rs"]
mod virtual_cluster;
