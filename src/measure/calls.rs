//! How each operation is done: by the primitives that jobs use, and by the MPI library's own call.
//!
//! Every function here is collective.

use crate::exchange::{
    self, DataRound, Traffic, World, all_gather_bytes, all_reduce, broadcast_bytes,
};
use crate::fault::Result;
use crate::measure::operation::{Buffers, library, narrow};
use std::time::{Duration, Instant};

/// Between two looks at what travels while this process works.
const LOOK: Duration = Duration::from_micros(20);

/// Rounds that jobs use.
pub(super) mod shardloom {
    use super::{
        Buffers, DataRound, Instant, LOOK, Result, Traffic, World, all_gather_bytes, all_reduce,
        broadcast_bytes, exchange, work,
    };

    /// One message after the other.
    pub(in crate::measure) fn in_turn(world: &World, buffers: &mut Buffers) -> Result<()> {
        for round in &mut buffers.rounds {
            let (send, receive) = std::mem::take(round);
            *round = DataRound::start(world, Traffic::Sparse, send, receive)?.wait()?;
        }
        Ok(())
    }

    /// All messages at once.
    pub(in crate::measure) fn at_once(world: &World, buffers: &mut Buffers) -> Result<()> {
        let mut flights = Vec::with_capacity(buffers.rounds.len());
        for (send, receive) in buffers.rounds.drain(..) {
            flights.push(DataRound::start(world, Traffic::Sparse, send, receive)?);
        }
        for flight in flights {
            buffers.rounds.push(flight.wait()?);
        }
        Ok(())
    }

    /// All messages but the last at once, then that one.
    pub(in crate::measure) fn one_way(world: &World, buffers: &mut Buffers) -> Result<()> {
        let Some((send, receive)) = buffers.rounds.pop() else {
            return Ok(());
        };
        at_once(world, buffers)?;
        let last = DataRound::start(world, Traffic::Sparse, send, receive)?;
        buffers.rounds.push(last.wait()?);
        Ok(())
    }

    /// One collective.
    pub(in crate::measure) fn dense(world: &World, buffers: &mut Buffers) -> Result<()> {
        for round in &mut buffers.rounds {
            let (send, receive) = std::mem::take(round);
            *round = DataRound::start(world, Traffic::Dense, send, receive)?.wait()?;
        }
        Ok(())
    }

    /// One collective, and work while it travels.
    pub(in crate::measure) fn overlapped(world: &World, buffers: &mut Buffers) -> Result<()> {
        let ends = Instant::now() + buffers.work;
        for round in &mut buffers.rounds {
            let (send, receive) = std::mem::take(round);
            let mut flight = DataRound::start(world, Traffic::Dense, send, receive)?;
            while Instant::now() < ends {
                work(LOOK.min(ends.saturating_duration_since(Instant::now())));
                flight.test()?;
            }
            *round = flight.wait()?;
        }
        Ok(())
    }

    pub(in crate::measure) fn broadcast(world: &World, buffers: &mut Buffers) -> Result<()> {
        for (send, receive) in &mut buffers.rounds {
            let bytes = if world.process() == 0 { send } else { receive };
            bytes.bytes = broadcast_bytes(world, 0, std::mem::take(&mut bytes.bytes))?;
        }
        Ok(())
    }

    pub(in crate::measure) fn all_gather(world: &World, buffers: &mut Buffers) -> Result<()> {
        for (send, _) in &buffers.rounds {
            buffers.gathered = all_gather_bytes(world, &send.bytes)?;
        }
        Ok(())
    }

    pub(in crate::measure) fn reduce(world: &World, buffers: &mut Buffers) -> Result<()> {
        buffers.sums.copy_from_slice(&buffers.words);
        all_reduce(world, &mut buffers.sums, exchange::Operation::Sum)
    }

    pub(in crate::measure) fn barrier(world: &World, _: &mut Buffers) -> Result<()> {
        exchange::barrier(world)
    }
}

/// The MPI library's calls.
pub(super) mod native {
    use super::{Buffers, Result, World, library, narrow, work};

    /// There and back: who sends first is the first.
    pub(in crate::measure) fn ping_pong(world: &World, buffers: &mut Buffers) -> Result<()> {
        let partner = buffers.place.all - 1 - buffers.place.me;
        let first = buffers.place.me == 0;
        let (send, receive) = buffers.only()?;
        let library = library(world);
        if first {
            library.send(partner, send)?;
            library.receive(partner, receive)
        } else {
            library.receive(partner, receive)?;
            library.send(partner, send)
        }
    }

    /// Many messages one way, and a word back.
    pub(in crate::measure) fn one_way(world: &World, buffers: &mut Buffers) -> Result<()> {
        let Some(lane) = buffers.lanes.first() else {
            return Ok(());
        };
        let Some(peer) = lane.send.first().map(|part| part.peer) else {
            return Ok(());
        };
        let sends = lane.send.len() >= lane.receive.len() && buffers.place.me < peer;
        let parts = if sends { &lane.send } else { &lane.receive };
        let length = narrow(parts.first().map_or(0, |part| part.bytes))?;
        let messages = parts.len().min(buffers.place.window as usize);
        let library = library(world);
        let (send, receive) = buffers.only()?;
        if sends {
            library.window(peer, length, &send[..length * messages], &mut [])?;
            library.receive(peer, receive)
        } else {
            library.window(peer, length, &[], &mut receive[..length * messages])?;
            library.send(peer, send)
        }
    }

    /// Many messages both ways.
    pub(in crate::measure) fn both_ways(world: &World, buffers: &mut Buffers) -> Result<()> {
        let part = buffers.lanes.first().and_then(|lane| lane.send.first());
        let Some((peer, length)) = part.map(|part| (part.peer, part.bytes)) else {
            return Ok(());
        };
        let (send, receive) = buffers.only()?;
        library(world).window(peer, narrow(length)?, send, receive)
    }

    pub(in crate::measure) fn broadcast(world: &World, buffers: &mut Buffers) -> Result<()> {
        let (send, receive) = buffers.only()?;
        library(world).broadcast(if world.process() == 0 { send } else { receive })
    }

    pub(in crate::measure) fn scatter(world: &World, buffers: &mut Buffers) -> Result<()> {
        let (send, receive) = buffers.only()?;
        library(world).scatter(send, receive)
    }

    pub(in crate::measure) fn gather(world: &World, buffers: &mut Buffers) -> Result<()> {
        let (send, receive) = buffers.only()?;
        library(world).gather(send, receive)
    }

    pub(in crate::measure) fn all_gather(world: &World, buffers: &mut Buffers) -> Result<()> {
        let (send, receive) = buffers.only()?;
        library(world).all_gather(send, receive)
    }

    pub(in crate::measure) fn scatter_v(world: &World, buffers: &mut Buffers) -> Result<()> {
        let (send, receive, counts) = buffers.parts()?;
        library(world).scatter_v(send, receive, counts)
    }

    pub(in crate::measure) fn gather_v(world: &World, buffers: &mut Buffers) -> Result<()> {
        let (send, receive, counts) = buffers.parts()?;
        library(world).gather_v(send, receive, counts)
    }

    pub(in crate::measure) fn all_gather_v(world: &World, buffers: &mut Buffers) -> Result<()> {
        let (send, receive, counts) = buffers.parts()?;
        library(world).all_gather_v(send, receive, counts)
    }

    pub(in crate::measure) fn all_to_all(world: &World, buffers: &mut Buffers) -> Result<()> {
        let (send, receive) = buffers.only()?;
        library(world).all_to_all(send, receive)
    }

    pub(in crate::measure) fn all_to_all_v(world: &World, buffers: &mut Buffers) -> Result<()> {
        let (send, receive, counts) = buffers.parts()?;
        library(world).all_to_all_v(send, receive, counts)
    }

    pub(in crate::measure) fn overlapped(world: &World, buffers: &mut Buffers) -> Result<()> {
        let time = buffers.work;
        let (send, receive, counts) = buffers.parts()?;
        library(world).all_to_all_v_while(send, receive, counts, || work(time))
    }

    pub(in crate::measure) fn all_reduce(world: &World, buffers: &mut Buffers) -> Result<()> {
        library(world).all_reduce(&buffers.words, &mut buffers.sums)
    }

    pub(in crate::measure) fn reduce_scatter(world: &World, buffers: &mut Buffers) -> Result<()> {
        library(world).reduce_scatter(&buffers.words, &mut buffers.sums)
    }

    pub(in crate::measure) fn barrier(world: &World, _: &mut Buffers) -> Result<()> {
        library(world).barrier()
    }
}

/// Keeps this core busy for `time`.
fn work(time: Duration) {
    let ends = Instant::now() + time;
    let mut value = 1_u64;
    while Instant::now() < ends {
        for _ in 0..64 {
            value = std::hint::black_box(value.wrapping_mul(6_364_136_223_846_793_005));
        }
    }
}
