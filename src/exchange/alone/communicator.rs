//! Collective calls of one process: what it gives is what it gets.

#![allow(
    clippy::unused_self,
    clippy::unnecessary_wraps,
    clippy::needless_pass_by_value,
    reason = "the calls are those of the exchange by MPI"
)]

use super::flight::Flight;
use crate::exchange::message::Message;
use crate::exchange::operation::Operation;
use crate::exchange::parts::{Parted, Parts, buffer};
use crate::fault::{Fault, Kind, Result};
use std::ops::Range;

/// All processes: this one.
#[derive(Clone, Copy)]
pub(in crate::exchange) struct Communicator;

impl Communicator {
    /// The same process again.
    pub(in crate::exchange) fn duplicate(self) -> Result<Self> {
        Ok(self)
    }

    /// The processes that share memory with this one: itself.
    pub(in crate::exchange) fn split_by_node(self, _: u32) -> Result<Self> {
        Ok(self)
    }

    /// Nothing to free.
    pub(in crate::exchange) fn free(self) -> Result<()> {
        Ok(())
    }

    /// Number 0 of 1.
    pub(in crate::exchange) fn place(self) -> Result<(u32, u32)> {
        Ok((0, 1))
    }

    /// Ends this process.
    pub(in crate::exchange) fn abort_all(code: i32) -> ! {
        crate::exchange::world::leave(code)
    }

    /// This process has come.
    pub(in crate::exchange) fn barrier(self) -> Result<Flight<()>> {
        Ok(Flight::new(()))
    }

    /// It has the root's bytes: it is the root.
    pub(in crate::exchange) fn broadcast(
        self,
        _: u32,
        bytes: Vec<u8>,
        _: Range<usize>,
    ) -> Result<Flight<Vec<u8>>> {
        Ok(Flight::new(bytes))
    }

    /// One process's values are the sum, the largest and the smallest.
    pub(in crate::exchange) fn all_reduce(
        self,
        values: Vec<u64>,
        _: Operation,
    ) -> Result<Flight<(Vec<u64>, Vec<u64>)>> {
        let result = values.clone();
        Ok(Flight::new((values, result)))
    }

    /// Its own bytes, as `parts` tells.
    pub(in crate::exchange) fn all_gather(
        self,
        bytes: Vec<u8>,
        parts: Parts,
    ) -> Result<Flight<(Vec<u8>, Parted)>> {
        let mut result = Parted::new(buffer(parts.total)?, parts)?;
        let range = result.parts.range(0)?;
        result.bytes[range].copy_from_slice(&bytes);
        Ok(Flight::new((bytes, result)))
    }

    /// Its part to itself.
    pub(in crate::exchange) fn all_to_all(
        self,
        send: Parted,
        mut receive: Parted,
    ) -> Result<Flight<[Parted; 2]>> {
        let (mine, kept) = (send.parts.range(0)?, receive.parts.range(0)?);
        if mine.len() != kept.len() {
            return Err(Fault::new(
                Kind::Internal,
                "a part is not as long as it should be",
            ));
        }
        receive.bytes[kept].copy_from_slice(&send.bytes[mine]);
        Ok(Flight::new([send, receive]))
    }

    /// The same.
    pub(in crate::exchange) fn pairwise(
        self,
        _: u32,
        send: Parted,
        receive: Parted,
        _: i32,
    ) -> Result<Flight<[Parted; 2]>> {
        self.all_to_all(send, receive)
    }

    /// There is nobody to send to.
    pub(in crate::exchange) fn send(
        self,
        _: u32,
        _: i32,
        _: Vec<u8>,
        _: bool,
    ) -> Result<Flight<Vec<u8>>> {
        Err(nobody())
    }

    /// Nobody sends anything.
    pub(in crate::exchange) fn probe(self, _: i32) -> Result<Option<(u32, usize)>> {
        Ok(None)
    }

    /// There is nobody to receive from.
    pub(in crate::exchange) fn receive(self, _: u32, _: i32, _: usize) -> Result<Flight<Vec<u8>>> {
        Err(nobody())
    }

    /// Nobody sends anything.
    pub(in crate::exchange) fn receive_any(self, _: i32) -> Result<Option<Message>> {
        Ok(None)
    }
}

pub(super) fn nobody() -> Fault {
    Fault::new(
        Kind::Internal,
        "a message between processes of a program without MPI",
    )
}
