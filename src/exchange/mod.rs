//! Bytes between processes. It knows no tensor and no file, and is the only room with MPI.
//!
//! * [`World`]: all processes of this run; nobody leaves it silently.
//! * [`Topology`]: which processes share a node.
//! * `agree`, [`Alarm`]: how all learn of the first error.
//! * [`exchange_bytes`], [`broadcast_bytes`], [`all_gather_bytes`], [`all_reduce`]: control
//!   messages of any size.
//! * [`DataRound`]: the non-blocking all-to-all that carries tensor bytes, below 2^31
//!   bytes a round.
//! * [`Library`]: the MPI library's own blocking calls, for measuring beside these.
//! * [`Progress`]: process 0 learns how far all are.
//!
//! Each function is *collective* (all processes call it, in the same order) or *local*. Collective
//! ones wait by polling with short sleeps, so that waiting processes leave the cores to others.
//! Only the thread that started the world may call them.
//!
//! By MPI (`with_mpi`) or, without the feature `mpi`, for one process (`alone`), or, in the crate's own tests,
//! between virtual processes (`in_memory`): the same calls.
//!
//! Three communicators keep what may overlap apart: control messages, data rounds, signals (alarm
//! and progress). So processes that gave up a data round can still agree on why.
//!
//! *Absent on purpose*: tensors, layouts and files: bytes are bytes here.

#[cfg(not(any(feature = "mpi", test)))]
mod alone;
#[cfg(all(feature = "mpi", not(test)))]
mod with_mpi;

#[cfg(not(any(feature = "mpi", test)))]
use alone as backend;
#[cfg(test)]
use in_memory as backend;
#[cfg(all(feature = "mpi", not(test)))]
use with_mpi as backend;

mod agree;
mod all_to_all;
mod control;
mod environment;
mod launcher;
mod library;
mod message;
mod operation;
mod parts;
mod pause;
mod progress;
mod threads;
mod topology;
mod values;
mod wire;
mod world;

pub use agree::{Alarm, agree};
pub use all_to_all::{DataRound, Packed, Traffic};
pub use control::{all_gather_bytes, all_reduce, barrier, broadcast_bytes, exchange_bytes};
pub use launcher::launched_together;
pub use library::{Counts, Library};
pub use operation::Operation;
pub use progress::Progress;
pub use threads::Threads;
pub use topology::Topology;
pub use values::{all_gather, all_gather_agreed, exchange_values};
pub use wire::{decode, encode};
pub use world::World;

#[cfg(test)]
pub(crate) mod in_memory;
