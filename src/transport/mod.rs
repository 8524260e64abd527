//! Moves bytes from source files to destination files: windows, rounds, threads.
//!
//! The control plane (names, layouts, plans) ends here: a [`Mover`] is given the work of one process
//! as byte ranges and strided copies, readers to take bytes from and a sink to put them into.
//!
//! *Absent on purpose*: how files are found, where they are staged and when they are committed; what
//! a tensor means.

mod behind;
mod compute;
mod direct;
mod exchange;
mod fill;
mod ledger;
mod memory;
mod mover;
mod opened;
mod overflow;
mod parts;
mod proofs;
mod round;
mod rounds;
mod run;
mod sealed;
mod sink;
mod threads;
mod traced;
mod traffic;
mod witness;

pub use exchange::Exchange;
pub use fill::{Filler, IoMode, Readers};
pub(crate) use ledger::{Done, Ledger, Residues, read_journals};
pub use memory::{Buffer, MemorySink};
pub use mover::{Moved, Mover, Moving, Observer, survey};
pub(crate) use proofs::Proofs;
pub use run::run;
pub(crate) use sealed::{Stretch, joined};
pub use sink::{FileSink, Sink};
pub use threads::{THREADS_MAX, check_threads};
pub(crate) use traced::{Sums, Trace, Traced, Whole};
pub use traffic::{Asked, traffic};
pub use witness::Witness;
