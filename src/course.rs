//! Where this run is: what it does, how many bytes it has moved, and what it would leave if it ended now.
//!
//! For whoever asks from outside, by a signal; the run itself only tells and never asks.
//!
//! *Absent on purpose*: what a job is; it says in words where it is.

pub mod pace;

use crate::host::identity::{self, SLOTS, slot};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// What a run would leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Leaves {
    /// Nothing: it has written nothing, or isn't to write at all.
    #[default]
    Nothing,
    /// Files in a directory that is not in place.
    Staged(PathBuf),
    /// Its result may have been put in place just now, by another process.
    Unknown,
    /// Its result, in place; and what that has replaced, if it still is somewhere.
    Placed(Option<PathBuf>),
}

/// Where a run is.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// What it does.
    pub phase: &'static str,
    /// Bytes moved, of how many, in this phase.
    pub bytes: (u64, u64),
    /// The same in the last phase that counted any.
    pub counted: (u64, u64),
    /// Where its result goes, once that is known.
    pub destination: Option<PathBuf>,
    /// The lock beside it.
    pub lock: Option<PathBuf>,
    /// The file that its messages go to.
    pub log: Option<PathBuf>,
    /// What it would leave.
    pub leaves: Leaves,
    /// Files and directories that something is only tried or measured with: they go with the run.
    pub scratch: Vec<PathBuf>,
    /// Whether it has begun to tell how it ended.
    pub told: bool,
}

/// A file or directory that something is only tried or measured with, as long as this lives.
#[derive(Debug)]
pub struct Scratch(PathBuf);

static COURSE: Mutex<Course> = Mutex::new(Course {
    phase: "starting",
    bytes: (0, 0),
    counted: (0, 0),
    destination: None,
    lock: None,
    log: None,
    leaves: Leaves::Nothing,
    scratch: Vec::new(),
    told: false,
});
/// Whether the run is ended by a thread of its own, and by which.
static ENDING: AtomicBool = AtomicBool::new(false);
static ENDED_BY: OnceLock<ThreadId> = OnceLock::new();
static RUN: Mutex<String> = Mutex::new(String::new());
static PLACING: [Mutex<()>; SLOTS] = [const { Mutex::new(()) }; SLOTS];

fn course() -> MutexGuard<'static, Course> {
    COURSE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the run its id, which is the same on all its processes.
pub fn run_is(id: &str) {
    id.clone_into(&mut RUN.lock().unwrap_or_else(PoisonError::into_inner));
}

/// The run's id; empty where it has none, as in a library.
#[must_use]
pub fn run() -> String {
    RUN.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Tells what the run does from now on.
pub fn phase(phase: &'static str) {
    tracing::info!("{phase}");
    pace::phase(phase);
    identity::phase(phase);
    let mut course = course();
    course.phase = phase;
    course.bytes = (0, 0);
}

/// Tells how many bytes have been moved, of how many.
pub fn moved(done: u64, total: u64) {
    let mut course = course();
    course.bytes = (done, total);
    course.counted = course.bytes;
}

/// Tells where the result goes, and which lock is held for it.
pub fn writes(destination: &Path, lock: &Path) {
    let mut course = course();
    course.destination = Some(destination.to_path_buf());
    course.lock = Some(lock.to_path_buf());
    course.leaves = Leaves::Nothing;
}

/// Tells which file the run's messages go to.
pub fn logs(path: &Path) {
    course().log = Some(path.to_path_buf());
}

/// Tells what would be left from now on.
pub fn leaves(leaves: Leaves) {
    course().leaves = leaves;
}

/// Tells that the run says now how it has ended.
pub fn tells() {
    course().told = true;
}

/// Tells of a file or directory, which need not be there yet, that is of no use to anybody after the run: if a signal
/// ends it, `path` is removed with all below it.
#[must_use]
pub fn tries_with(path: &Path) -> Scratch {
    course().scratch.push(path.to_path_buf());
    Scratch(path.to_path_buf())
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut course = course();
        let place = course.scratch.iter().position(|path| *path == self.0);
        if let Some(place) = place {
            course.scratch.swap_remove(place);
        }
    }
}

/// Ends all work with files but this thread's.
pub fn ends() {
    let _ = ENDED_BY.set(thread::current().id());
    ENDING.store(true, Ordering::Release);
}

/// Lets a call pass, unless another thread ends the run: then this one does nothing any more.
pub fn pass() {
    if !ENDING.load(Ordering::Acquire) || ENDED_BY.get() == Some(&thread::current().id()) {
        return;
    }
    loop {
        thread::park();
    }
}

/// Held while a result is put in place: whoever wants to end the run waits for it.
pub fn placing() -> MutexGuard<'static, ()> {
    PLACING[slot()]
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Where the run is now.
#[must_use]
pub fn now() -> Course {
    course().clone()
}

/// Where the run is, not in the middle of putting a result in place unless that takes longer than
/// `patience`. While the second value is held, it doesn't begin to either.
#[must_use]
pub fn settled(patience: Duration) -> (Course, Option<MutexGuard<'static, ()>>) {
    let begun = Instant::now();
    loop {
        match PLACING[slot()].try_lock() {
            Ok(held) => return (now(), Some(held)),
            Err(TryLockError::Poisoned(held)) => return (now(), Some(held.into_inner())),
            Err(TryLockError::WouldBlock) if begun.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(TryLockError::WouldBlock) => return (now(), None),
        }
    }
}
