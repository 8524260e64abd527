//! The exchange between the virtual processes of a test (`host::cluster`): in memory, within the rules of MPI.
//!
//! Messages of one pair and tag stay in order; all else may overtake. A collective is complete on a process
//! when those have come whose part it needs, and some time has passed. What MPI leaves open (whether a send
//! waits for its receive, whether a root waits for the others) is drawn. Whatever must not be is found: processes
//! whose collectives differ in kind, order or size, messages cut short, requests and messages left.
//!
//! Of thousands one may be real and the others imagined.

mod board;
mod communicator;
mod flight;
mod imagined;
mod library;
mod post;
mod session;

pub(super) use communicator::Communicator;
pub(super) use flight::Flight;
pub(crate) use imagined::{imagine, imagining};
pub(super) use imagined::{speak_of, told};
pub(super) use session::{Session, hostname, library, threads};
