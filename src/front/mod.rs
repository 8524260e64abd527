//! The library's front door: jobs as a program starts them.
//!
//! *Absent on purpose*: logic. Each function names a [`Job`](crate::job::Job); the rooms below run it.

pub(crate) mod deriving;
mod models;
mod repair;
mod task;

pub(crate) use deriving::Deriving;
pub use models::{export, import};
pub use repair::{Repair, repair};
pub use task::{Shard, Task, convert, diff, load, reshard, split, unify, verify};
