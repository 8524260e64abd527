//! MPI requests under way, together with the memory they read and write.

#![allow(unsafe_code)]

use super::check::check;
use crate::exchange::pause::{Patience, Pause};
use crate::fault::{Fault, Kind, Result};
use mpi::ffi;

/// Requests under way and the buffers they use, which stay here until all are complete.
///
/// Dropped before that, the buffers are leaked: MPI may still write into them.
pub(in crate::exchange) struct Flight<B> {
    requests: Vec<ffi::MPI_Request>,
    statuses: Vec<ffi::MPI_Status>,
    /// Bytes each request must have received; `None` for those that send.
    received_bytes: Vec<Option<usize>>,
    buffers: Option<B>,
    complete: bool,
}

impl<B> Flight<B> {
    /// *Local.* An empty flight around `buffers`.
    pub(in crate::exchange) fn new(buffers: B) -> Self {
        Flight {
            requests: Vec::new(),
            statuses: Vec::new(),
            received_bytes: Vec::new(),
            buffers: Some(buffers),
            complete: false,
        }
    }

    /// *Local.* Adds the request that `start` puts into its argument; `received_bytes` is what it
    /// must receive, if that is known.
    ///
    /// # Safety
    ///
    /// `start` must set the request, and let MPI use only memory that outlives the program or
    /// belongs to the buffers given to [`Flight::new`] and doesn't move with them.
    pub(in crate::exchange) unsafe fn add(
        &mut self,
        call: &str,
        received_bytes: Option<usize>,
        start: impl FnOnce(*mut ffi::MPI_Request) -> i32,
    ) -> Result<()> {
        // SAFETY: the null request is a constant of the library.
        let mut request = unsafe { ffi::RSMPI_REQUEST_NULL };
        check(start(&raw mut request), call)?;
        self.requests.push(request);
        self.received_bytes.push(received_bytes);
        Ok(())
    }

    /// *Local.* Whether all is complete; lets MPI make progress.
    pub(in crate::exchange) fn test(&mut self) -> Result<bool> {
        if self.complete {
            return Ok(true);
        }
        let count = i32::try_from(self.requests.len())
            .map_err(|_| Fault::new(Kind::Internal, "too many requests in one flight"))?;
        // SAFETY: a status is plain integers in every MPI, so zero is a value of it.
        let empty: ffi::MPI_Status = unsafe { std::mem::zeroed() };
        self.statuses.resize(self.requests.len(), empty);
        let mut flag = 0;
        // SAFETY: both arrays have `count` elements and the requests are live or null.
        let code = unsafe {
            ffi::MPI_Testall(
                count,
                self.requests.as_mut_ptr(),
                &raw mut flag,
                self.statuses.as_mut_ptr(),
            )
        };
        check(code, "MPI_Testall")?;
        if flag != 0 {
            self.complete = true;
            self.check_lengths()?;
        }
        Ok(self.complete)
    }

    /// *Local.* Waits until all is complete and gives the buffers back.
    pub(in crate::exchange) fn wait(mut self, patience: Patience) -> Result<B> {
        let mut pause = Pause::new(patience);
        while !self.test()? {
            pause.rest();
        }
        self.buffers
            .take()
            .ok_or_else(|| Fault::new(Kind::Internal, "the buffers of a flight are gone"))
    }

    /// *Local.* What was received must be as long as what was expected.
    fn check_lengths(&self) -> Result<()> {
        for (status, expected) in self.statuses.iter().zip(&self.received_bytes) {
            let Some(expected) = *expected else { continue };
            let mut count = 0;
            // SAFETY: the status was filled by a completed receive of this type.
            let code = unsafe { ffi::MPI_Get_count(status, ffi::RSMPI_UINT8_T, &raw mut count) };
            check(code, "MPI_Get_count")?;
            if usize::try_from(count).ok() != Some(expected) {
                return Err(Fault::new(
                    Kind::Internal,
                    format!(
                        "process {} sent {count} bytes, {expected} were expected",
                        status.MPI_SOURCE
                    ),
                ));
            }
        }
        Ok(())
    }
}

impl<B> Drop for Flight<B> {
    fn drop(&mut self) {
        if !self.complete && !self.requests.is_empty() {
            std::mem::forget(self.buffers.take());
        }
    }
}
