//! The MPI library's own blocking calls, for measuring beside the ones that jobs use.
//!
//! They wait as the library does, which may take a core. Lengths are checked against the buffers here,
//! and stay below 2^31 bytes.

use super::backend::Communicator;
use super::parts::Parts;
use super::world::World;
use crate::fault::{Fault, Kind, Result};

/// The library's calls over the processes of a world.
#[derive(Clone, Copy)]
pub struct Library<'w> {
    world: &'w World,
    data: Communicator,
}

/// Parts of two buffers, one for each process, in bytes.
#[derive(Debug)]
pub struct Counts {
    send: Parts,
    receive: Parts,
}

impl Counts {
    /// *Local.* What is sent to each process, and what comes from each.
    ///
    /// # Errors
    /// [`Kind::Internal`] for 2^31 bytes or more.
    pub fn new(send: &[u32], receive: &[u32]) -> Result<Counts> {
        let parts = |counts: &[u32]| {
            let wide = |count: &u32| usize::try_from(*count).unwrap_or(usize::MAX);
            Parts::new(counts.iter().map(wide))
        };
        Ok(Counts {
            send: parts(send)?,
            receive: parts(receive)?,
        })
    }
}

impl<'w> Library<'w> {
    /// *Local.* Calls among the processes of `world`.
    #[must_use]
    pub fn of(world: &'w World) -> Self {
        Library {
            world,
            data: world.data,
        }
    }

    /// *Collective.* Returns when all have come here.
    pub fn barrier(self) -> Result<()> {
        self.data.block_on_barrier()
    }

    /// *Local.* Sends `bytes`; the other receives as many.
    pub fn send(self, to: u32, bytes: &[u8]) -> Result<()> {
        self.data.block_on_send(to, bytes)
    }

    /// *Local.* Receives as many bytes as the buffer holds.
    pub fn receive(self, from: u32, bytes: &mut [u8]) -> Result<()> {
        self.data.block_on_receive(from, bytes)
    }

    /// *Local.* Sends and receives messages of `length` bytes to and from `partner`, all in flight
    /// at once, until all are through. Either buffer may be empty.
    pub fn window(
        self,
        partner: u32,
        length: usize,
        send: &[u8],
        receive: &mut [u8],
    ) -> Result<()> {
        self.data.block_on_window(partner, length, send, receive)
    }

    /// *Collective.* The first process's bytes, to all; as many everywhere.
    pub fn broadcast(self, bytes: &mut [u8]) -> Result<()> {
        self.data.block_on_broadcast(bytes)
    }

    /// *Collective.* Equal parts of the first process's `send`, one to each.
    pub fn scatter(self, send: &[u8], receive: &mut [u8]) -> Result<()> {
        if self.world.process() == 0 {
            self.fits(send.len(), receive.len())?;
        }
        self.data.block_on_scatter(send, receive)
    }

    /// *Collective.* What all `send`, as many bytes each, to the first process.
    pub fn gather(self, send: &[u8], receive: &mut [u8]) -> Result<()> {
        if self.world.process() == 0 {
            self.fits(receive.len(), send.len())?;
        }
        self.data.block_on_gather(send, receive)
    }

    /// *Collective.* What all `send`, as many bytes each, to all.
    pub fn all_gather(self, send: &[u8], receive: &mut [u8]) -> Result<()> {
        self.fits(receive.len(), send.len())?;
        self.data.block_on_all_gather(send, receive)
    }

    /// *Collective.* Parts of any length of the first process's `send`, one to each.
    pub fn scatter_v(self, send: &[u8], receive: &mut [u8], counts: &Counts) -> Result<()> {
        self.parts_fit(send, receive, counts)?;
        self.data.block_on_scatter_v((send, &counts.send), receive)
    }

    /// *Collective.* What all `send`, any number of bytes each, to the first process.
    pub fn gather_v(self, send: &[u8], receive: &mut [u8], counts: &Counts) -> Result<()> {
        self.parts_fit(send, receive, counts)?;
        self.data
            .block_on_gather_v(send, (receive, &counts.receive))
    }

    /// *Collective.* What all `send`, any number of bytes each, to all.
    pub fn all_gather_v(self, send: &[u8], receive: &mut [u8], counts: &Counts) -> Result<()> {
        self.parts_fit(send, receive, counts)?;
        self.data
            .block_on_all_gather_v(send, (receive, &counts.receive))
    }

    /// *Collective.* Sums of all processes' `send`, element by element, to all.
    pub fn all_reduce(self, send: &[u64], receive: &mut [u64]) -> Result<()> {
        if send.len() != receive.len() {
            return Err(unfit());
        }
        self.data.block_on_all_reduce(send, receive)
    }

    /// *Collective.* Sums of all processes' `send`, a part of them to each.
    pub fn reduce_scatter(self, send: &[u64], receive: &mut [u64]) -> Result<()> {
        self.fits(send.len(), receive.len())?;
        self.data.block_on_reduce_scatter(send, receive)
    }

    /// *Collective.* Equal parts of `send`, one to each, and of `receive`, one from each.
    pub fn all_to_all(self, send: &[u8], receive: &mut [u8]) -> Result<()> {
        let part = send.len() / self.world.processes().max(1);
        self.fits(send.len(), part)?;
        self.fits(receive.len(), part)?;
        self.data.block_on_all_to_all(send, receive, part)
    }

    /// *Collective.* Parts of any length to and from each.
    pub fn all_to_all_v(self, send: &[u8], receive: &mut [u8], counts: &Counts) -> Result<()> {
        self.parts_fit(send, receive, counts)?;
        let (sent, received) = (&counts.send, &counts.receive);
        self.data
            .block_on_all_to_all_v((send, sent), (receive, received))
    }

    /// *Collective.* The same, started before `work` and waited for after it.
    pub fn all_to_all_v_while(
        self,
        send: &[u8],
        receive: &mut [u8],
        counts: &Counts,
        work: impl FnOnce(),
    ) -> Result<()> {
        self.parts_fit(send, receive, counts)?;
        let (sent, received) = (&counts.send, &counts.receive);
        self.data
            .start_all_to_all_v((send, sent), (receive, received), work)
    }

    /// *Local.* There is a part for each process, inside the buffers.
    fn parts_fit(self, send: &[u8], receive: &[u8], counts: &Counts) -> Result<()> {
        let all = self.world.processes();
        let (sent, received) = (&counts.send, &counts.receive);
        let short = sent.total > send.len() || received.total > receive.len();
        if short || sent.counts.len() != all || received.counts.len() != all {
            return Err(unfit());
        }
        Ok(())
    }

    /// *Local.* `whole` must be `part` for each process.
    fn fits(self, whole: usize, part: usize) -> Result<()> {
        match part.checked_mul(self.world.processes()) {
            Some(length) if length == whole => Ok(()),
            _ => Err(unfit()),
        }
    }
}

/// What is wrong on one process leaves the others in the call: it is a fault that ends all.
fn unfit() -> Fault {
    Fault::new(Kind::Mpi, "buffers don't fit the call that is measured")
}
