//! Threads of a virtual process: each a task of its cluster.

use super::{Seat, Status, live, lock, seat, wake};
use std::cell::RefCell;
use std::thread::{Builder, JoinHandle, Result, Scope, ScopedJoinHandle};

thread_local! {
    /// The tasks started in each scope that this thread is in.
    static STARTED: RefCell<Vec<Vec<usize>>> = const { RefCell::new(Vec::new()) };
}

/// A thread that was started.
pub(crate) struct Handle<'scope, T> {
    task: Option<usize>,
    inner: ScopedJoinHandle<'scope, Result<T>>,
}

impl<T> Handle<'_, T> {
    /// Waits for its end.
    pub(crate) fn join(self) -> Result<T> {
        wait(self.task);
        self.inner.join().and_then(|ended| ended)
    }
}

/// As `std::thread::scope`.
pub(crate) fn scope<'env, F, T>(act: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    std::thread::scope(|scope| {
        STARTED.with_borrow_mut(|started| started.push(Vec::new()));
        let result = act(scope);
        let tasks = STARTED.with_borrow_mut(Vec::pop).unwrap_or_default();
        tasks.into_iter().for_each(|task| wait(Some(task)));
        result
    })
}

/// Starts a thread that runs `work` until the end of `scope`.
///
/// # Errors
/// The system starts none.
pub(crate) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> std::io::Result<Handle<'scope, T>> {
    let (task, child) = child();
    if let Some(task) = task {
        STARTED.with_borrow_mut(|started| started.last_mut().map(|all| all.push(task)));
    }
    let inner = Builder::new().spawn_scoped(scope, move || live_if(child, work))?;
    // The new one may come on at once.
    wake();
    Ok(Handle { task, inner })
}

/// A thread that was started for as long as its work takes.
#[derive(Debug)]
pub(crate) struct Launched<T> {
    task: Option<usize>,
    inner: JoinHandle<Result<T>>,
}

impl<T> Launched<T> {
    /// Waits for its end.
    pub(crate) fn join(self) -> Result<T> {
        wait(self.task);
        self.inner.join().and_then(|ended| ended)
    }

    /// Whether it has ended.
    pub(crate) fn is_finished(&self) -> bool {
        match (self.task, seat()) {
            (Some(task), Some(seat)) => {
                lock(&seat.cluster.state).tasks[task].status == Status::Ended
            }
            _ => self.inner.is_finished(),
        }
    }
}

/// Starts a thread of this name that runs `work` for as long as that takes.
///
/// # Errors
/// The system starts none.
pub(crate) fn launch<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<Launched<T>> {
    let (task, child) = child();
    let thread = Builder::new().name(name.to_owned());
    let inner = thread.spawn(move || live_if(child, work))?;
    wake();
    Ok(Launched { task, inner })
}

/// A new task of this process and its seat; none outside a cluster.
fn child() -> (Option<usize>, Option<Seat>) {
    let child = seat().map(|seat| {
        let (task, turn) = lock(&seat.cluster.state).task(seat.process);
        Seat { task, turn, ..seat }
    });
    (child.as_ref().map(|child| child.task), child)
}

/// Lives as the task of a seat, if there is one.
fn live_if<T>(child: Option<Seat>, work: impl FnOnce() -> T) -> Result<T> {
    match child {
        Some(child) => live(child, work),
        None => Ok(work()),
    }
}

/// Waits for the end of a task of this process.
fn wait(task: Option<usize>) {
    let (Some(task), Some(seat)) = (task, seat()) else {
        return;
    };
    loop {
        let ended = lock(&seat.cluster.state).tasks[task].status == Status::Ended;
        if ended || !super::is_alive() {
            return;
        }
        super::rest(None);
    }
}
