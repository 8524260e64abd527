//! The exchange between the processes of an MPI program.

mod check;
mod communicator;
mod ending;
mod flight;
mod library;
mod orphan;
mod session;
mod watch;

pub(super) use communicator::Communicator;
pub(super) use flight::Flight;
pub(super) use session::{Session, hostname, library, threads};
