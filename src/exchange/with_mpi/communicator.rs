//! MPI calls on one communicator, their codes made faults and their buffers kept alive.

#![allow(unsafe_code)]

use super::check::check;
use super::ending;
use super::flight::Flight;
use crate::exchange::message::Message;
use crate::exchange::operation::Operation;
use crate::exchange::parts::{Parted, Parts, buffer};
use crate::exchange::pause::Patience;
use crate::fault::{Fault, Kind, Result};
use mpi::ffi;
use std::ffi::c_void;
use std::ops::Range;
use std::sync::atomic::AtomicU64;

/// One communicator over all processes (or those of a node); freed with the world.
#[derive(Clone, Copy)]
pub(in crate::exchange) struct Communicator {
    raw: ffi::MPI_Comm,
}

impl Communicator {
    /// *Local.* Wraps a live handle and makes its errors return.
    ///
    /// # Safety
    ///
    /// `raw` must stay live as long as copies of this are used.
    pub(in crate::exchange) unsafe fn from_raw(raw: ffi::MPI_Comm) -> Result<Self> {
        // SAFETY: the caller gives a live communicator; the handler is a constant.
        let code = unsafe { ffi::MPI_Comm_set_errhandler(raw, ffi::RSMPI_ERRORS_RETURN) };
        check(code, "MPI_Comm_set_errhandler")?;
        Ok(Communicator { raw })
    }

    /// *Local.* The handle, for calls of this room.
    pub(super) fn raw(self) -> ffi::MPI_Comm {
        self.raw
    }

    /// *Collective.* Another communicator over the same processes.
    pub(in crate::exchange) fn duplicate(self) -> Result<Self> {
        // SAFETY: the null communicator is a constant.
        let mut raw = unsafe { ffi::RSMPI_COMM_NULL };
        // SAFETY: `self` is live (promise of `from_raw`).
        let code = unsafe { ffi::MPI_Comm_dup(self.raw, &raw mut raw) };
        check(code, "MPI_Comm_dup")?;
        // SAFETY: just made, and freed only by `free`.
        unsafe { Communicator::from_raw(raw) }
    }

    /// *Collective.* The processes that share memory with this one, ordered by their numbers.
    pub(in crate::exchange) fn split_by_node(self, process: u32) -> Result<Self> {
        let key = c_int(process)?;
        // SAFETY: the null communicator is a constant.
        let mut raw = unsafe { ffi::RSMPI_COMM_NULL };
        // SAFETY: `self` is live; type and info are constants.
        let code = unsafe {
            ffi::MPI_Comm_split_type(
                self.raw,
                ffi::RSMPI_COMM_TYPE_SHARED,
                key,
                ffi::RSMPI_INFO_NULL,
                &raw mut raw,
            )
        };
        check(code, "MPI_Comm_split_type")?;
        // SAFETY: just made, and freed only by `free`.
        unsafe { Communicator::from_raw(raw) }
    }

    /// *Collective.* Frees it. No copy may be used afterwards.
    pub(in crate::exchange) fn free(mut self) -> Result<()> {
        // SAFETY: live, and by contract never used again.
        let code = unsafe { ffi::MPI_Comm_free(&raw mut self.raw) };
        check(code, "MPI_Comm_free")
    }

    /// *Local.* All processes of this run. MPI must have been started.
    pub(in crate::exchange) fn world() -> Result<Self> {
        // SAFETY: the world communicator lives as long as MPI does.
        unsafe { Communicator::from_raw(ffi::RSMPI_COMM_WORLD) }
    }

    /// *Local.* Number of this process, and how many there are.
    pub(in crate::exchange) fn place(self) -> Result<(u32, u32)> {
        let (mut process, mut size) = (0, 0);
        // SAFETY: `self` is live.
        unsafe {
            check(
                ffi::MPI_Comm_rank(self.raw, &raw mut process),
                "MPI_Comm_rank",
            )?;
            check(ffi::MPI_Comm_size(self.raw, &raw mut size), "MPI_Comm_size")?;
        }
        match (u32::try_from(process), u32::try_from(size)) {
            (Ok(process), Ok(size)) if process < size => Ok((process, size)),
            _ => Err(Fault::new(Kind::Mpi, "MPI gives this process no number")),
        }
    }

    /// *Local.* Ends all processes of this run. MPI must have been started and not ended.
    pub(in crate::exchange) fn abort_all(code: i32) -> ! {
        let _ending = ending::watch(0, code, None);
        // SAFETY: allowed at any time between start and end of MPI.
        unsafe { ffi::MPI_Abort(ffi::RSMPI_COMM_WORLD, code) };
        std::process::abort()
    }

    /// *Local.* The communicator of a program that has started MPI itself.
    pub(in crate::exchange) fn of_host(host: &impl mpi::traits::Communicator) -> Self {
        Communicator { raw: host.as_raw() }
    }

    /// *Collective.* Complete when all processes have started it.
    pub(in crate::exchange) fn barrier(self) -> Result<Flight<()>> {
        let mut flight = Flight::new(());
        // SAFETY: no memory is involved.
        unsafe {
            flight.add("MPI_Ibarrier", None, |request| {
                ffi::MPI_Ibarrier(self.raw, request)
            })?;
        }
        Ok(flight)
    }

    /// *Collective.* The part `range` of the root's bytes, into the same part on the others.
    pub(in crate::exchange) fn broadcast(
        self,
        root: u32,
        mut bytes: Vec<u8>,
        range: Range<usize>,
    ) -> Result<Flight<Vec<u8>>> {
        let part = bytes.get_mut(range).ok_or_else(out_of_range)?;
        let (start, count) = (written(part), c_count(part.len())?);
        let root = c_int(root)?;
        let mut flight = Flight::new(bytes);
        // SAFETY: `start` has `count` bytes on the heap of the vector that the flight keeps.
        unsafe {
            flight.add("MPI_Ibcast", None, |request| {
                ffi::MPI_Ibcast(start, count, ffi::RSMPI_UINT8_T, root, self.raw, request)
            })?;
        }
        Ok(flight)
    }

    /// *Collective.* Element by element over all processes; the result is the second vector.
    pub(in crate::exchange) fn all_reduce(
        self,
        values: Vec<u64>,
        operation: Operation,
    ) -> Result<Flight<(Vec<u64>, Vec<u64>)>> {
        let mut result = vec![0_u64; values.len()];
        let count = c_count(values.len())?;
        let (from, to) = (read(&values), written(&mut result));
        let mut flight = Flight::new((values, result));
        // SAFETY: both vectors have `count` elements and are kept by the flight; types, operations
        // are constants.
        unsafe {
            let operation = match operation {
                Operation::Sum => ffi::RSMPI_SUM,
                Operation::Max => ffi::RSMPI_MAX,
                Operation::Min => ffi::RSMPI_MIN,
                Operation::Xor => ffi::RSMPI_BXOR,
            };
            flight.add("MPI_Iallreduce", None, |request| {
                ffi::MPI_Iallreduce(
                    from,
                    to,
                    count,
                    ffi::RSMPI_UINT64_T,
                    operation,
                    self.raw,
                    request,
                )
            })?;
        }
        Ok(flight)
    }

    /// *Collective.* Every process's bytes, as `parts` tells.
    pub(in crate::exchange) fn all_gather(
        self,
        bytes: Vec<u8>,
        parts: Parts,
    ) -> Result<Flight<(Vec<u8>, Parted)>> {
        let mut result = Parted::new(buffer(parts.total)?, parts)?;
        let count = c_count(bytes.len())?;
        let (from, to) = (read(&bytes), written(&mut result.bytes));
        let counts = result.parts.counts.as_ptr();
        let offsets = result.parts.offsets.as_ptr();
        let mut flight = Flight::new((bytes, result));
        // SAFETY: the parts lie inside the result; all vectors are kept by the flight.
        unsafe {
            let byte = ffi::RSMPI_UINT8_T;
            flight.add("MPI_Iallgatherv", None, |request| {
                ffi::MPI_Iallgatherv(
                    from, count, byte, to, counts, offsets, byte, self.raw, request,
                )
            })?;
        }
        Ok(flight)
    }

    /// *Collective.* Part p of the first buffer to process p, and from it part p of the second.
    pub(in crate::exchange) fn all_to_all(
        self,
        send: Parted,
        mut receive: Parted,
    ) -> Result<Flight<[Parted; 2]>> {
        let (from, to) = (read(&send.bytes), written(&mut receive.bytes));
        let (counts, offsets) = (send.parts.counts.as_ptr(), send.parts.offsets.as_ptr());
        let into_counts = receive.parts.counts.as_ptr();
        let into_offsets = receive.parts.offsets.as_ptr();
        let mut flight = Flight::new([send, receive]);
        // SAFETY: the parts lie inside their buffers (`Parted`); the flight keeps all vectors.
        unsafe {
            let byte = ffi::RSMPI_UINT8_T;
            flight.add("MPI_Ialltoallv", None, |request| {
                ffi::MPI_Ialltoallv(
                    from,
                    counts,
                    offsets,
                    byte,
                    to,
                    into_counts,
                    into_offsets,
                    byte,
                    self.raw,
                    request,
                )
            })?;
        }
        Ok(flight)
    }

    /// *Local.* As [`Communicator::all_to_all`], by one message to and from each process with any
    /// bytes. This process's own part, where it has one, is copied.
    pub(in crate::exchange) fn pairwise(
        self,
        process: u32,
        send: Parted,
        mut receive: Parted,
        tag: i32,
    ) -> Result<Flight<[Parted; 2]>> {
        let myself = usize::try_from(process).map_err(|_| out_of_range())?;
        let (mine, kept) = (send.parts.range(myself)?, receive.parts.range(myself)?);
        if mine.len() != kept.len() {
            return Err(out_of_range());
        }
        receive.bytes[kept].copy_from_slice(&send.bytes[mine]);
        let (from, to) = (send.bytes.as_ptr(), receive.bytes.as_mut_ptr());
        let (sends, receives) = (send.parts.others(myself)?, receive.parts.others(myself)?);
        let mut flight = Flight::new([send, receive]);
        for (other, range) in receives {
            let (other, count) = (c_count(other)?, c_count(range.len())?);
            // SAFETY: the range lies inside the buffer (`Parted`), which the flight keeps.
            unsafe {
                let (to, byte) = (to.add(range.start).cast(), ffi::RSMPI_UINT8_T);
                flight.add("MPI_Irecv", Some(range.len()), |request| {
                    ffi::MPI_Irecv(to, count, byte, other, tag, self.raw, request)
                })?;
            }
        }
        for (other, range) in sends {
            let (other, count) = (c_count(other)?, c_count(range.len())?);
            // SAFETY: as above; MPI only reads.
            unsafe {
                let (from, byte) = (from.add(range.start).cast(), ffi::RSMPI_UINT8_T);
                flight.add("MPI_Isend", None, |request| {
                    ffi::MPI_Isend(from, count, byte, other, tag, self.raw, request)
                })?;
            }
        }
        Ok(flight)
    }

    /// *Local.* Sends `bytes` to one process; complete when its memory is free again, or with
    /// `until_received` when the other has begun to receive.
    pub(in crate::exchange) fn send(
        self,
        destination: u32,
        tag: i32,
        bytes: Vec<u8>,
        until_received: bool,
    ) -> Result<Flight<Vec<u8>>> {
        let (start, count) = (read(&bytes), c_count(bytes.len())?);
        let destination = c_int(destination)?;
        let mut flight = Flight::new(bytes);
        // SAFETY: `start` has `count` bytes on the heap of the vector that the flight keeps.
        unsafe {
            let byte = ffi::RSMPI_UINT8_T;
            flight.add("MPI_Isend", None, |request| {
                if until_received {
                    ffi::MPI_Issend(start, count, byte, destination, tag, self.raw, request)
                } else {
                    ffi::MPI_Isend(start, count, byte, destination, tag, self.raw, request)
                }
            })?;
        }
        Ok(flight)
    }

    /// *Local.* Whether a message with `tag` has arrived: its source and length.
    pub(in crate::exchange) fn probe(self, tag: i32) -> Result<Option<(u32, usize)>> {
        let (mut flag, mut count) = (0, 0);
        // SAFETY: a status is plain integers; MPI fills it when the flag is set.
        let status = unsafe {
            let mut status: ffi::MPI_Status = std::mem::zeroed();
            let any = ffi::RSMPI_ANY_SOURCE;
            let code = ffi::MPI_Iprobe(any, tag, self.raw, &raw mut flag, &raw mut status);
            check(code, "MPI_Iprobe")?;
            if flag == 0 {
                return Ok(None);
            }
            let code = ffi::MPI_Get_count(&raw const status, ffi::RSMPI_UINT8_T, &raw mut count);
            check(code, "MPI_Get_count")?;
            status
        };
        let source = u32::try_from(status.MPI_SOURCE).map_err(|_| out_of_range())?;
        let length = usize::try_from(count).map_err(|_| out_of_range())?;
        Ok(Some((source, length)))
    }

    /// *Local.* Starts to receive `length` bytes from `source`.
    pub(in crate::exchange) fn receive(
        self,
        source: u32,
        tag: i32,
        length: usize,
    ) -> Result<Flight<Vec<u8>>> {
        let mut bytes = buffer(length)?;
        let (start, count, from) = (written(&mut bytes), c_count(length)?, c_int(source)?);
        let mut flight = Flight::new(bytes);
        // SAFETY: `start` has `count` bytes on the heap of the vector that the flight keeps.
        unsafe {
            let byte = ffi::RSMPI_UINT8_T;
            flight.add("MPI_Irecv", Some(length), |request| {
                ffi::MPI_Irecv(start, count, byte, from, tag, self.raw, request)
            })?;
        }
        Ok(flight)
    }

    /// *Local.* Receives a message that has arrived with `tag`, if any.
    pub(in crate::exchange) fn receive_any(self, tag: i32) -> Result<Option<Message>> {
        let Some((source, length)) = self.probe(tag)? else {
            return Ok(None);
        };
        let bytes = self.receive(source, tag, length)?.wait(Patience::Short)?;
        Ok(Some(Message { source, bytes }))
    }
}

/// Memory that stands for nothing: an empty vector has no memory, but an address all the same. For
/// bytes that is 1, which OpenMPI takes for `MPI_IN_PLACE` (and so it does equal addresses to read
/// and to write): it would send what lies elsewhere.
static NOTHING: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Where MPI reads `values`.
pub(super) fn read<T>(values: &[T]) -> *const c_void {
    if values.is_empty() {
        (&raw const NOTHING[0]).cast()
    } else {
        values.as_ptr().cast()
    }
}

/// Where MPI writes `values`.
pub(super) fn written<T>(values: &mut [T]) -> *mut c_void {
    if values.is_empty() {
        NOTHING[1].as_ptr().cast()
    } else {
        values.as_mut_ptr().cast()
    }
}

pub(super) fn c_int(number: u32) -> Result<i32> {
    i32::try_from(number).map_err(|_| out_of_range())
}

pub(super) fn c_count(length: usize) -> Result<i32> {
    i32::try_from(length).map_err(|_| out_of_range())
}

fn out_of_range() -> Fault {
    Fault::new(Kind::Internal, "a message's bounds are out of range")
}
