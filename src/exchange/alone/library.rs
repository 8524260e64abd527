//! Blocking calls of one process: what it gives is what it gets.

#![allow(
    clippy::unused_self,
    clippy::unnecessary_wraps,
    reason = "the calls are those of the exchange by MPI"
)]

use super::communicator::{Communicator, nobody};
use crate::exchange::parts::Parts;
use crate::fault::Result;

impl Communicator {
    /// This process, on whichever side.
    pub(in crate::exchange) fn split(self, _: bool, _: u32) -> Result<Self> {
        Ok(self)
    }

    /// This process has come.
    pub(in crate::exchange) fn block_on_barrier(self) -> Result<()> {
        Ok(())
    }

    /// There is nobody to send to.
    pub(in crate::exchange) fn block_on_send(self, _: u32, _: &[u8]) -> Result<()> {
        Err(nobody())
    }

    /// Nobody sends anything.
    pub(in crate::exchange) fn block_on_receive(self, _: u32, _: &mut [u8]) -> Result<()> {
        Err(nobody())
    }

    /// There is nobody to talk to.
    pub(in crate::exchange) fn block_on_window(
        self,
        _: u32,
        _: usize,
        _: &[u8],
        _: &mut [u8],
    ) -> Result<()> {
        Err(nobody())
    }

    /// It has the bytes.
    pub(in crate::exchange) fn block_on_broadcast(self, _: &mut [u8]) -> Result<()> {
        Ok(())
    }

    /// The only part.
    pub(in crate::exchange) fn block_on_scatter(
        self,
        send: &[u8],
        receive: &mut [u8],
    ) -> Result<()> {
        receive.copy_from_slice(send);
        Ok(())
    }

    /// The only part.
    pub(in crate::exchange) fn block_on_gather(
        self,
        send: &[u8],
        receive: &mut [u8],
    ) -> Result<()> {
        self.block_on_scatter(send, receive)
    }

    /// The only part.
    pub(in crate::exchange) fn block_on_all_gather(
        self,
        send: &[u8],
        receive: &mut [u8],
    ) -> Result<()> {
        self.block_on_scatter(send, receive)
    }

    /// The only part.
    pub(in crate::exchange) fn block_on_scatter_v(
        self,
        (send, _): (&[u8], &Parts),
        receive: &mut [u8],
    ) -> Result<()> {
        self.block_on_scatter(send, receive)
    }

    /// The only part.
    pub(in crate::exchange) fn block_on_gather_v(
        self,
        send: &[u8],
        (receive, _): (&mut [u8], &Parts),
    ) -> Result<()> {
        self.block_on_scatter(send, receive)
    }

    /// The only part.
    pub(in crate::exchange) fn block_on_all_gather_v(
        self,
        send: &[u8],
        receive: (&mut [u8], &Parts),
    ) -> Result<()> {
        self.block_on_gather_v(send, receive)
    }

    /// The sum of one.
    pub(in crate::exchange) fn block_on_all_reduce(
        self,
        send: &[u64],
        receive: &mut [u64],
    ) -> Result<()> {
        receive.copy_from_slice(send);
        Ok(())
    }

    /// The sum of one.
    pub(in crate::exchange) fn block_on_reduce_scatter(
        self,
        send: &[u64],
        receive: &mut [u64],
    ) -> Result<()> {
        self.block_on_all_reduce(send, receive)
    }

    /// The only part.
    pub(in crate::exchange) fn block_on_all_to_all(
        self,
        send: &[u8],
        receive: &mut [u8],
        _: usize,
    ) -> Result<()> {
        self.block_on_scatter(send, receive)
    }

    /// The only part.
    pub(in crate::exchange) fn block_on_all_to_all_v(
        self,
        (send, sent): (&[u8], &Parts),
        (receive, received): (&mut [u8], &Parts),
    ) -> Result<()> {
        receive[received.range(0)?].copy_from_slice(&send[sent.range(0)?]);
        Ok(())
    }

    /// The only part, before the work.
    pub(in crate::exchange) fn start_all_to_all_v(
        self,
        send: (&[u8], &Parts),
        receive: (&mut [u8], &Parts),
        work: impl FnOnce(),
    ) -> Result<()> {
        self.block_on_all_to_all_v(send, receive)?;
        work();
        Ok(())
    }
}
