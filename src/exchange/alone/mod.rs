//! The exchange of a program without MPI: one process, which has nobody to talk to.

mod communicator;
mod flight;
mod library;
mod session;

pub(super) use communicator::Communicator;
pub(super) use flight::Flight;
pub(super) use session::{Session, hostname, library, threads};
