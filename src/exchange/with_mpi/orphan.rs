//! A process whose launcher ends while MPI starts, ends too.
//!
//! Once MPI has started it sees to that itself. Before, `PMIx_Init` (Open MPI 4.1, PMIx 4.2) may wait for ever for an
//! answer that nobody gives any more.

use super::watch::Watch;
use rustix::process::{Signal, getpid, kill_process};
use std::io::{Write, stderr};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// How often the launcher is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How often it has to be gone: MPI may end this process first, with words of its own.
const TIMES: u32 = 2;

/// *Local.* Begins to look at the launcher, until what this gives is dropped; `lives` says whether it does.
pub(super) fn watch(lives: impl Fn() -> bool + Send + 'static) -> Watch {
    Watch::begin("launcher", |over| look(lives, over))
}

fn look(lives: impl Fn() -> bool, over: &Receiver<()>) {
    let mut gone = 0;
    while gone < TIMES {
        if over.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        gone = if lives() { 0 } else { gone + 1 };
    }
    // The launcher may have been who would have shown it.
    let _ = writeln!(
        stderr(),
        "error: the launcher has ended while MPI was starting, and this process with it"
    );
    // As a launcher would do it that could.
    let _ = kill_process(getpid(), Signal::TERM);
}
