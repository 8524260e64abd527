//! Blocking calls of the MPI library. `exchange/library.rs` has checked that buffers fit.

#![allow(unsafe_code)]

use super::check::check;
use super::communicator::{Communicator, c_count, c_int, read, written};
use crate::exchange::parts::Parts;
use crate::fault::Result;
use mpi::ffi;

/// Messages of these calls; nothing else is under way while they are used.
const TAG: i32 = 7;

impl Communicator {
    /// *Collective.* Splits the processes in two; gives the communicator of this one's side.
    pub(in crate::exchange) fn split(self, inside: bool, process: u32) -> Result<Self> {
        let key = c_int(process)?;
        // SAFETY: the null communicator is a constant.
        let mut raw = unsafe { ffi::RSMPI_COMM_NULL };
        // SAFETY: `self` is live.
        let code = unsafe { ffi::MPI_Comm_split(self.raw(), i32::from(inside), key, &raw mut raw) };
        check(code, "MPI_Comm_split")?;
        // SAFETY: just made, and freed only by `free`.
        unsafe { Communicator::from_raw(raw) }
    }

    /// *Collective.* `MPI_Barrier`.
    pub(in crate::exchange) fn block_on_barrier(self) -> Result<()> {
        // SAFETY: `self` is live; no memory is involved.
        check(unsafe { ffi::MPI_Barrier(self.raw()) }, "MPI_Barrier")
    }

    /// *Local.* `MPI_Send`.
    pub(in crate::exchange) fn block_on_send(self, to: u32, bytes: &[u8]) -> Result<()> {
        let (start, count, to) = (read(bytes), c_count(bytes.len())?, c_int(to)?);
        // SAFETY: MPI reads `count` bytes of the slice and returns when it is done with them.
        let code = unsafe { ffi::MPI_Send(start, count, ffi::RSMPI_UINT8_T, to, TAG, self.raw()) };
        check(code, "MPI_Send")
    }

    /// *Local.* `MPI_Recv`.
    pub(in crate::exchange) fn block_on_receive(self, from: u32, bytes: &mut [u8]) -> Result<()> {
        let (start, count, from) = (written(bytes), c_count(bytes.len())?, c_int(from)?);
        // SAFETY: MPI writes at most `count` bytes of the slice and returns when all are there.
        let code = unsafe {
            let (byte, ignored) = (ffi::RSMPI_UINT8_T, ffi::RSMPI_STATUS_IGNORE);
            ffi::MPI_Recv(start, count, byte, from, TAG, self.raw(), ignored)
        };
        check(code, "MPI_Recv")
    }

    /// *Local.* Messages of `length` bytes both ways, all under way at once.
    pub(in crate::exchange) fn block_on_window(
        self,
        partner: u32,
        length: usize,
        send: &[u8],
        receive: &mut [u8],
    ) -> Result<()> {
        let (partner, count) = (c_int(partner)?, c_count(length)?);
        let mut requests = Vec::with_capacity((send.len() + receive.len()) / length.max(1));
        for message in receive.chunks_exact_mut(length.max(1)) {
            // SAFETY: the null request is a constant; the message has `count` bytes and stays
            // borrowed until all is complete below.
            unsafe {
                let (mut request, byte) = (ffi::RSMPI_REQUEST_NULL, ffi::RSMPI_UINT8_T);
                let start = message.as_mut_ptr().cast();
                let (comm, made) = (self.raw(), &raw mut request);
                let code = ffi::MPI_Irecv(start, count, byte, partner, TAG, comm, made);
                check(code, "MPI_Irecv")?;
                requests.push(request);
            }
        }
        for message in send.chunks_exact(length.max(1)) {
            // SAFETY: as above; MPI only reads.
            unsafe {
                let (mut request, byte) = (ffi::RSMPI_REQUEST_NULL, ffi::RSMPI_UINT8_T);
                let start = message.as_ptr().cast();
                let (comm, made) = (self.raw(), &raw mut request);
                let code = ffi::MPI_Isend(start, count, byte, partner, TAG, comm, made);
                check(code, "MPI_Isend")?;
                requests.push(request);
            }
        }
        let all = c_count(requests.len())?;
        // SAFETY: the array has `all` elements; an error of MPI ends the program (`Kind::Mpi`), so nothing is left
        // under way.
        let code =
            unsafe { ffi::MPI_Waitall(all, requests.as_mut_ptr(), ffi::RSMPI_STATUSES_IGNORE) };
        check(code, "MPI_Waitall")
    }

    /// *Collective.* `MPI_Bcast` from the first process.
    pub(in crate::exchange) fn block_on_broadcast(self, bytes: &mut [u8]) -> Result<()> {
        let (start, count) = (written(bytes), c_count(bytes.len())?);
        // SAFETY: the slice has `count` bytes.
        let code = unsafe { ffi::MPI_Bcast(start, count, ffi::RSMPI_UINT8_T, 0, self.raw()) };
        check(code, "MPI_Bcast")
    }

    /// *Collective.* `MPI_Scatter` from the first process.
    pub(in crate::exchange) fn block_on_scatter(
        self,
        send: &[u8],
        receive: &mut [u8],
    ) -> Result<()> {
        let (from, to, count) = (read(send), written(receive), c_count(receive.len())?);
        // SAFETY: the root's slice has a part of `count` bytes for each process, the other one is that
        // long.
        let code = unsafe {
            let byte = ffi::RSMPI_UINT8_T;
            ffi::MPI_Scatter(from, count, byte, to, count, byte, 0, self.raw())
        };
        check(code, "MPI_Scatter")
    }

    /// *Collective.* `MPI_Gather` to the first process.
    pub(in crate::exchange) fn block_on_gather(
        self,
        send: &[u8],
        receive: &mut [u8],
    ) -> Result<()> {
        let (from, to, count) = (read(send), written(receive), c_count(send.len())?);
        // SAFETY: the root's slice has room for `count` bytes of each process, the other one is that
        // long.
        let code = unsafe {
            let byte = ffi::RSMPI_UINT8_T;
            ffi::MPI_Gather(from, count, byte, to, count, byte, 0, self.raw())
        };
        check(code, "MPI_Gather")
    }

    /// *Collective.* `MPI_Allgather`.
    pub(in crate::exchange) fn block_on_all_gather(
        self,
        send: &[u8],
        receive: &mut [u8],
    ) -> Result<()> {
        let (from, to, count) = (read(send), written(receive), c_count(send.len())?);
        // SAFETY: `receive` has room for `count` bytes of each process.
        let code = unsafe {
            let byte = ffi::RSMPI_UINT8_T;
            ffi::MPI_Allgather(from, count, byte, to, count, byte, self.raw())
        };
        check(code, "MPI_Allgather")
    }

    /// *Collective.* `MPI_Scatterv` from the first process.
    pub(in crate::exchange) fn block_on_scatter_v(
        self,
        (send, sent): (&[u8], &Parts),
        receive: &mut [u8],
    ) -> Result<()> {
        let (from, to, count) = (read(send), written(receive), c_count(receive.len())?);
        let (counts, offsets) = (sent.counts.as_ptr(), sent.offsets.as_ptr());
        // SAFETY: the parts lie inside the root's slice, the other one has `count` bytes.
        let code = unsafe {
            let byte = ffi::RSMPI_UINT8_T;
            ffi::MPI_Scatterv(from, counts, offsets, byte, to, count, byte, 0, self.raw())
        };
        check(code, "MPI_Scatterv")
    }

    /// *Collective.* `MPI_Gatherv` to the first process.
    pub(in crate::exchange) fn block_on_gather_v(
        self,
        send: &[u8],
        (receive, received): (&mut [u8], &Parts),
    ) -> Result<()> {
        let (from, to, count) = (read(send), written(receive), c_count(send.len())?);
        let (counts, offsets) = (received.counts.as_ptr(), received.offsets.as_ptr());
        // SAFETY: the parts lie inside the root's slice, the other one has `count` bytes.
        let code = unsafe {
            let byte = ffi::RSMPI_UINT8_T;
            ffi::MPI_Gatherv(from, count, byte, to, counts, offsets, byte, 0, self.raw())
        };
        check(code, "MPI_Gatherv")
    }

    /// *Collective.* `MPI_Allgatherv`.
    pub(in crate::exchange) fn block_on_all_gather_v(
        self,
        send: &[u8],
        (receive, received): (&mut [u8], &Parts),
    ) -> Result<()> {
        let (from, to, count) = (read(send), written(receive), c_count(send.len())?);
        let (counts, offsets) = (received.counts.as_ptr(), received.offsets.as_ptr());
        // SAFETY: the parts lie inside `receive`, `send` has `count` bytes.
        let code = unsafe {
            let byte = ffi::RSMPI_UINT8_T;
            ffi::MPI_Allgatherv(from, count, byte, to, counts, offsets, byte, self.raw())
        };
        check(code, "MPI_Allgatherv")
    }

    /// *Collective.* `MPI_Allreduce` by sum.
    pub(in crate::exchange) fn block_on_all_reduce(
        self,
        send: &[u64],
        receive: &mut [u64],
    ) -> Result<()> {
        let (from, to, count) = (read(send), written(receive), c_count(send.len())?);
        // SAFETY: both slices have `count` elements.
        let code = unsafe {
            let (word, sum) = (ffi::RSMPI_UINT64_T, ffi::RSMPI_SUM);
            ffi::MPI_Allreduce(from, to, count, word, sum, self.raw())
        };
        check(code, "MPI_Allreduce")
    }

    /// *Collective.* `MPI_Reduce_scatter_block` by sum.
    pub(in crate::exchange) fn block_on_reduce_scatter(
        self,
        send: &[u64],
        receive: &mut [u64],
    ) -> Result<()> {
        let (from, to, count) = (read(send), written(receive), c_count(receive.len())?);
        // SAFETY: `send` has `count` elements for each process, `receive` has that many.
        let code = unsafe {
            let (word, sum) = (ffi::RSMPI_UINT64_T, ffi::RSMPI_SUM);
            ffi::MPI_Reduce_scatter_block(from, to, count, word, sum, self.raw())
        };
        check(code, "MPI_Reduce_scatter_block")
    }

    /// *Collective.* `MPI_Alltoall`.
    pub(in crate::exchange) fn block_on_all_to_all(
        self,
        send: &[u8],
        receive: &mut [u8],
        part: usize,
    ) -> Result<()> {
        let (from, to, count) = (read(send), written(receive), c_count(part)?);
        // SAFETY: both slices have `count` bytes for each process.
        let code = unsafe {
            let byte = ffi::RSMPI_UINT8_T;
            ffi::MPI_Alltoall(from, count, byte, to, count, byte, self.raw())
        };
        check(code, "MPI_Alltoall")
    }

    /// *Collective.* `MPI_Alltoallv`.
    pub(in crate::exchange) fn block_on_all_to_all_v(
        self,
        (send, sent): (&[u8], &Parts),
        (receive, received): (&mut [u8], &Parts),
    ) -> Result<()> {
        let (from, to) = (read(send), written(receive));
        // SAFETY: the parts lie inside the slices.
        let code = unsafe {
            let byte = ffi::RSMPI_UINT8_T;
            ffi::MPI_Alltoallv(
                from,
                sent.counts.as_ptr(),
                sent.offsets.as_ptr(),
                byte,
                to,
                received.counts.as_ptr(),
                received.offsets.as_ptr(),
                byte,
                self.raw(),
            )
        };
        check(code, "MPI_Alltoallv")
    }

    /// *Collective.* The same, started before `work` and waited for after it.
    pub(in crate::exchange) fn start_all_to_all_v(
        self,
        (send, sent): (&[u8], &Parts),
        (receive, received): (&mut [u8], &Parts),
        work: impl FnOnce(),
    ) -> Result<()> {
        let (from, to) = (read(send), written(receive));
        // SAFETY: the null request is a constant; the parts lie inside the slices, which stay borrowed
        // until the request is complete.
        let code = unsafe {
            let (mut request, byte) = (ffi::RSMPI_REQUEST_NULL, ffi::RSMPI_UINT8_T);
            let code = ffi::MPI_Ialltoallv(
                from,
                sent.counts.as_ptr(),
                sent.offsets.as_ptr(),
                byte,
                to,
                received.counts.as_ptr(),
                received.offsets.as_ptr(),
                byte,
                self.raw(),
                &raw mut request,
            );
            check(code, "MPI_Ialltoallv")?;
            work();
            let mut status: ffi::MPI_Status = std::mem::zeroed();
            ffi::MPI_Wait(&raw mut request, &raw mut status)
        };
        check(code, "MPI_Wait")
    }
}
