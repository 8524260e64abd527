//! MPI's own end, and what is done where it doesn't come.
//!
//! Debian's MPICH 4.0.2 (UCX 1.13) stays in `MPI_Finalize` and in `MPI_Abort` for ever where large messages have gone
//! between nodes by TCP, whatever the program is.

#![allow(unsafe_code)]

use super::watch::Watch;
use std::ffi::c_int;
use std::io::{Write, stderr};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// How long the library may take, and for each process that ends with this one.
const TIME: Duration = Duration::from_secs(10);
const EACH: Duration = Duration::from_millis(20);

unsafe extern "C" {
    /// Of the C library: ends the process, and runs nothing of it any more.
    fn _exit(code: c_int) -> !;
}

/// *Local.* Ends this process with `code`, after `words` on standard error, if what this gives isn't dropped in time.
pub(super) fn watch(processes: u32, code: i32, words: Option<&'static str>) -> Watch {
    Watch::begin("ending", move |over| {
        if over.recv_timeout(TIME + EACH * processes) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        if let Some(words) = words {
            let _ = writeln!(stderr(), "{words}");
        }
        // SAFETY: it takes a number and doesn't return; who begins an ending has nothing left to write.
        unsafe { _exit(code) }
    })
}
