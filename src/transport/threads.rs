//! Starting worker threads, which the system may refuse.

use crate::fault::{Fault, Kind, Result};
use crate::host::threads;
pub(super) use crate::host::threads::{
    Handle, Receiver, RecvTimeoutError, Scope, Sender, channel, scope, sync_channel,
};

/// Starts a thread that runs `work` until the end of `scope`.
///
/// # Errors
/// [`Kind::Io`] if the system starts none.
pub(super) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<Handle<'scope, T>> {
    threads::spawn(scope, work).map_err(|error| {
        Fault::io("can't start a thread", &error).hint(
            "fewer --threads; `ulimit -u`, `ulimit -v` and a container's limits say how many there \
             may be",
        )
    })
}

/// Most worker threads of a process.
pub const THREADS_MAX: usize = 1024;

/// Checks a number of threads that was asked for.
///
/// # Errors
/// [`Kind::Usage`].
pub fn check_threads(threads: usize) -> Result<()> {
    if threads <= THREADS_MAX {
        return Ok(());
    }
    let message = format!("--threads {threads}: a process has at most {THREADS_MAX}");
    Err(Fault::new(Kind::Usage, message).hint("0 takes the node's cores"))
}
