//! The measured calls, which no virtual process makes.

#![allow(
    clippy::unused_self,
    reason = "the calls are those of the exchange by MPI"
)]

use super::communicator::Communicator;
use crate::exchange::parts::Parts;
use crate::fault::{Fault, Kind, Result};

fn unmeasured() -> Fault {
    Fault::new(Kind::Mpi, "nothing is measured in a virtual cluster")
}

impl Communicator {
    /// Not here.
    pub(in crate::exchange) fn block_on_barrier(self) -> Result<()> {
        Err(unmeasured())
    }

    /// Not here.
    pub(in crate::exchange) fn block_on_send(self, _: u32, _: &[u8]) -> Result<()> {
        Err(unmeasured())
    }

    /// Not here.
    pub(in crate::exchange) fn block_on_receive(self, _: u32, _: &mut [u8]) -> Result<()> {
        Err(unmeasured())
    }

    /// Not here.
    pub(in crate::exchange) fn block_on_window(
        self,
        _: u32,
        _: usize,
        _: &[u8],
        _: &mut [u8],
    ) -> Result<()> {
        Err(unmeasured())
    }

    /// Not here.
    pub(in crate::exchange) fn block_on_broadcast(self, _: &mut [u8]) -> Result<()> {
        Err(unmeasured())
    }

    /// Not here.
    pub(in crate::exchange) fn block_on_scatter(self, _: &[u8], _: &mut [u8]) -> Result<()> {
        Err(unmeasured())
    }

    /// Not here.
    pub(in crate::exchange) fn block_on_gather(self, _: &[u8], _: &mut [u8]) -> Result<()> {
        Err(unmeasured())
    }

    /// Not here.
    pub(in crate::exchange) fn block_on_all_gather(self, _: &[u8], _: &mut [u8]) -> Result<()> {
        Err(unmeasured())
    }

    /// Not here.
    pub(in crate::exchange) fn block_on_scatter_v(
        self,
        _: (&[u8], &Parts),
        _: &mut [u8],
    ) -> Result<()> {
        Err(unmeasured())
    }

    /// Not here.
    pub(in crate::exchange) fn block_on_gather_v(
        self,
        _: &[u8],
        _: (&mut [u8], &Parts),
    ) -> Result<()> {
        Err(unmeasured())
    }

    /// Not here.
    pub(in crate::exchange) fn block_on_all_gather_v(
        self,
        _: &[u8],
        _: (&mut [u8], &Parts),
    ) -> Result<()> {
        Err(unmeasured())
    }

    /// Not here.
    pub(in crate::exchange) fn block_on_all_reduce(self, _: &[u64], _: &mut [u64]) -> Result<()> {
        Err(unmeasured())
    }

    /// Not here.
    pub(in crate::exchange) fn block_on_reduce_scatter(
        self,
        _: &[u64],
        _: &mut [u64],
    ) -> Result<()> {
        Err(unmeasured())
    }

    /// Not here.
    pub(in crate::exchange) fn block_on_all_to_all(
        self,
        _: &[u8],
        _: &mut [u8],
        _: usize,
    ) -> Result<()> {
        Err(unmeasured())
    }

    /// Not here.
    pub(in crate::exchange) fn block_on_all_to_all_v(
        self,
        _: (&[u8], &Parts),
        _: (&mut [u8], &Parts),
    ) -> Result<()> {
        Err(unmeasured())
    }

    /// Not here.
    pub(in crate::exchange) fn start_all_to_all_v(
        self,
        _: (&[u8], &Parts),
        _: (&mut [u8], &Parts),
        _: impl FnOnce(),
    ) -> Result<()> {
        Err(unmeasured())
    }
}
