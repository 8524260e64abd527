//! A virtual process joins its cluster.

use super::board::Board;
use super::communicator::Communicator;
use crate::exchange::threads::Threads;
use crate::fault::{Fault, Kind, Result};
use crate::host::cluster;
use crate::host::cluster::desk::at_board;

/// A process's part in a run.
pub(in crate::exchange) struct Session;

impl Session {
    /// Joins.
    pub(in crate::exchange) fn start(
        _: Threads,
        _: impl Fn() -> bool,
    ) -> Result<(Session, Communicator)> {
        match at_board(|_: &mut Board, _| ()) {
            Some(()) => Ok((Session, Communicator::world())),
            None => Err(Fault::new(
                Kind::Mpi,
                "this thread is no process of a cluster",
            )),
        }
    }

    /// Some processes of a run.
    pub(in crate::exchange) fn part() -> Session {
        Session
    }

    /// Ends.
    #[allow(clippy::unused_self, reason = "as with MPI")]
    pub(in crate::exchange) fn end(self, _: Option<u8>, _: u32, _: u32) {}

    /// Whether it ends all: nobody needs it.
    #[allow(clippy::unused_self, reason = "as with MPI")]
    pub(in crate::exchange) fn is_own(&self) -> bool {
        false
    }

    /// Leaves it.
    #[allow(clippy::unused_self, reason = "as with MPI")]
    pub(in crate::exchange) fn forget(self) {}

    /// Whether it has ended.
    pub(in crate::exchange) fn has_ended() -> bool {
        false
    }
}

/// Name of the node.
pub(in crate::exchange) fn hostname() -> String {
    format!("node-{}", cluster::node().unwrap_or_default())
}

/// Each process is a thread.
pub(in crate::exchange) fn threads() -> Threads {
    Threads::Several
}

/// What stands for the MPI library.
pub(in crate::exchange) fn library() -> String {
    "a virtual cluster".to_owned()
}
