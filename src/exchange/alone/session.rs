//! What there is to start and to end: nothing.

use super::communicator::Communicator;
use crate::exchange::environment::launched_processes;
use crate::exchange::threads::Threads;
use crate::fault::{Fault, Kind, Result};

/// A run of one process.
pub(in crate::exchange) struct Session;

impl Session {
    /// Begins. A launcher that has started several processes meant them to work together.
    pub(in crate::exchange) fn start(
        _: Threads,
        _: impl Fn() -> bool,
    ) -> Result<(Session, Communicator)> {
        match launched_processes() {
            Some(processes) if processes > 1 => {
                let message = format!(
                    "{processes} processes were started, and this program is built without MPI"
                );
                Err(Fault::new(Kind::Mpi, message)
                    .hint("start it alone, or build it with the feature `mpi`"))
            }
            _ => Ok((Session, Communicator)),
        }
    }

    /// This process alone, again.
    pub(in crate::exchange) fn part() -> Session {
        Session
    }

    /// Whether it ends what it has started.
    #[allow(clippy::unused_self, reason = "as with MPI")]
    pub(in crate::exchange) fn is_own(&self) -> bool {
        true
    }

    /// Ends.
    #[allow(clippy::unused_self, reason = "as with MPI")]
    pub(in crate::exchange) fn end(self, _: Option<u8>, _: u32, _: u32) {}

    /// Leaves it.
    #[allow(clippy::unused_self, reason = "as with MPI")]
    pub(in crate::exchange) fn forget(self) {}

    /// There is nothing that could have ended.
    pub(in crate::exchange) fn has_ended() -> bool {
        false
    }
}

/// Name of this machine.
pub(in crate::exchange) fn hostname() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// There is nothing to allow them.
pub(in crate::exchange) fn threads() -> Threads {
    Threads::Several
}

/// There is no MPI library.
pub(in crate::exchange) fn library() -> String {
    "no MPI".to_owned()
}
