//! Threads of a process, and the channels between them.

#[cfg(not(test))]
pub use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
#[cfg(not(test))]
pub use std::thread::{JoinHandle as Launched, Scope, ScopedJoinHandle as Handle, scope};

#[cfg(test)]
pub(crate) use super::cluster::channel::{Receiver, Sender, channel, sync_channel};
#[cfg(test)]
pub(crate) use super::cluster::thread::{Handle, Launched, launch, scope, spawn};
#[cfg(test)]
pub use std::{sync::mpsc::RecvTimeoutError, thread::Scope};

/// Starts a thread that runs `work` until the end of `scope`.
///
/// # Errors
/// The system starts none.
#[cfg(not(test))]
pub fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> std::io::Result<Handle<'scope, T>> {
    std::thread::Builder::new().spawn_scoped(scope, work)
}

/// Starts a thread of this name that runs `work` for as long as that takes.
///
/// # Errors
/// The system starts none.
#[cfg(not(test))]
pub fn launch<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<Launched<T>> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(work)
}
