//! What a process has of its machine: the time, threads, a number of its own; and how it was built.
//!
//! In the crate's own tests it may be one of several virtual processes of one test (`cluster`), which take
//! turns under one seed. Elsewhere each of these is the system's, and nothing stands between.
//!
//! *Absent on purpose*: files, which are `store::io`'s, and messages, which are `exchange`'s.

pub mod bug;
pub mod build;
pub mod clock;
#[cfg(test)]
pub(crate) mod cluster;
pub mod identity;
pub mod planted;
pub mod threads;
