//! MPI from start to end.

use super::communicator::Communicator;
use super::{ending, orphan};
use crate::exchange::environment;
use crate::exchange::threads::Threads;
use crate::fault::{Fault, Kind, Result};
use mpi::environment::{Threading, Universe, initialize_with_threading};

/// MPI, as long as this program uses it.
pub(in crate::exchange) struct Session {
    /// None where the program around this library has started MPI, and ends it.
    universe: Option<Universe>,
}

impl Session {
    /// *Collective.* Starts MPI, while `lives` says that the launcher does; gives all processes.
    #[allow(unsafe_code)]
    pub(in crate::exchange) fn start(
        threads: Threads,
        lives: impl Fn() -> bool + Send + 'static,
    ) -> Result<(Session, Communicator)> {
        // SAFETY: by contract of `World::start` there is no other thread yet.
        unsafe { environment::prepare() };
        let _watch = orphan::watch(lives);
        let wanted = match threads {
            Threads::One => Threading::Single,
            Threads::Several => Threading::Funneled,
        };
        let Some((universe, threading)) = initialize_with_threading(wanted) else {
            return Err(Fault::new(Kind::Mpi, "MPI is started already")
                .hint("World::from_communicator joins a program that has started it"));
        };
        let session = Session {
            universe: Some(universe),
        };
        supports_threads(threading, wanted)?;
        Ok((session, Communicator::world()?))
    }

    /// *Local.* Joins a program that has started MPI.
    pub(in crate::exchange) fn join(
        host: &impl mpi::traits::Communicator,
    ) -> Result<(Session, Communicator)> {
        supports_threads(mpi::environment::threading_support(), Threading::Funneled)?;
        Ok((Session { universe: None }, Communicator::of_host(host)))
    }

    /// *Local.* Some processes of a session that has been started.
    pub(in crate::exchange) fn part() -> Session {
        Session { universe: None }
    }

    /// Whether this session has started MPI, and so ends it.
    pub(in crate::exchange) fn is_own(&self) -> bool {
        self.universe.is_some()
    }

    /// *Collective.* Ends MPI, where this session has started it. With `code` this process ends with that if the library
    /// doesn't come to its end, and says so on the first of `processes`.
    pub(in crate::exchange) fn end(self, code: Option<u8>, process: u32, processes: u32) {
        let words = (process == 0).then_some(
            "note: all is done; the MPI library doesn't come to its own end, and the processes end without it",
        );
        let _ending = match (&self.universe, code) {
            (Some(_), Some(code)) => Some(ending::watch(processes, code.into(), words)),
            _ => None,
        };
        drop(self.universe);
    }

    /// Leaves MPI as it is: ending it would wait for the others.
    pub(in crate::exchange) fn forget(self) {
        std::mem::forget(self.universe);
    }

    /// *Local.* Whether MPI has ended, so that nothing may be asked of it.
    pub(in crate::exchange) fn has_ended() -> bool {
        mpi::environment::is_finalized()
    }
}

fn supports_threads(threading: Threading, wanted: Threading) -> Result<()> {
    if threading < wanted {
        let message = "this MPI library can't live in a process with several threads";
        return Err(Fault::new(Kind::Unsupported, message)
            .hint("start MPI with MPI_Init_thread and MPI_THREAD_FUNNELED, or more"));
    }
    Ok(())
}

/// *Local.* Name of this machine.
pub(in crate::exchange) fn hostname() -> String {
    mpi::environment::processor_name().unwrap_or_else(|_| "unnamed".to_owned())
}

/// *Local.* What MPI allows.
pub(in crate::exchange) fn threads() -> Threads {
    match mpi::environment::threading_support() {
        Threading::Single => Threads::One,
        _ => Threads::Several,
    }
}

/// *Local.* What the MPI library says of itself.
pub(in crate::exchange) fn library() -> String {
    mpi::environment::library_version().unwrap_or_default()
}
