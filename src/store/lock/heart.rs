//! The sign of life of a lock: a thread touches its file every other second.

use crate::host::identity::is_real;
use rustix::fs::{Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between two signs of life.
const BEAT: Duration = Duration::from_secs(2);

/// Beats until it is dropped.
#[derive(Debug)]
pub(super) struct Heart {
    ends: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Heart {
    /// Begins for the lock at `path`; none where no thread or file is to be had, which only makes the
    /// run look dead from other machines.
    pub(super) fn start(path: &Path) -> Option<Heart> {
        if !is_real() {
            return None;
        }
        // The file stays the same if another takes its name: nobody else's is ever touched.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(path, flags, Mode::empty()).ok()?;
        let ends = Arc::new((Mutex::new(false), Condvar::new()));
        let told = Arc::clone(&ends);
        let thread = std::thread::Builder::new()
            .name("sign of life".to_owned())
            .spawn(move || beat(&file, &told));
        Some(Heart {
            ends,
            thread: thread.ok(),
        })
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        *self.ends.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ends.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn beat(file: &OwnedFd, (ends, told): &(Mutex<bool>, Condvar)) {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    let mut ended = ends.lock().unwrap_or_else(PoisonError::into_inner);
    while !*ended {
        let waited = told.wait_timeout(ended, BEAT);
        ended = waited.unwrap_or_else(PoisonError::into_inner).0;
        if !*ended && let Err(error) = rustix::fs::futimens(file, &times) {
            tracing::debug!("no sign of life: {error}");
        }
    }
}
