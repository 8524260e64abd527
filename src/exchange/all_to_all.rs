//! The all-to-all that carries tensor bytes, one round at a time, several under way.

use super::backend::Flight;
use super::parts::{Parted, Parts};
use super::pause::Patience;
use super::world::World;
use crate::fault::{Fault, Kind, Result};

/// Tag of sparse rounds. Messages between two processes don't overtake each other, so one will do.
const TAG_ROUND: i32 = 1;

/// How many partners the processes have. All give the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Most talk to most: one collective.
    Dense,
    /// Each talks to a few: messages between partners alone.
    Sparse,
}

/// A buffer with a part for each process, one after the other.
///
/// For three processes `counts: [2, 0, 1]` says that `bytes[0..2]` is process 0's part and
/// `bytes[2..3]` is process 2's. The buffer may be longer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// The parts.
    pub bytes: Vec<u8>,
    /// Their lengths in bytes, by process.
    pub counts: Vec<u32>,
}

/// A round under way. Its buffers come back from [`DataRound::wait`].
///
/// Dropped before that (only on the way to [`agree`](super::agree()) on a fault), it leaks them,
/// and no later round of this world can be relied upon.
#[must_use]
pub struct DataRound<'w> {
    flight: Flight<[Parted; 2]>,
    send_counts: Vec<u32>,
    receive_counts: Vec<u32>,
    _world: &'w World,
}

impl<'w> DataRound<'w> {
    /// *Collective.* Starts to bring part p of `send` to process p, and its part for this process
    /// to part p of `receive`. The counts of both sides must be the same.
    ///
    /// All processes start the same rounds in the same order; it returns at once. A fault on one
    /// process (2^31 bytes or more, buffers too short) leaves the others in the round: they come
    /// out by an [`Alarm`](super::Alarm).
    pub fn start(
        world: &'w World,
        traffic: Traffic,
        send: Packed,
        receive: Packed,
    ) -> Result<Self> {
        let outgoing = Parted::new(send.bytes, parts(world, &send.counts)?)?;
        let incoming = Parted::new(receive.bytes, parts(world, &receive.counts)?)?;
        let (data, process) = (world.data, world.process());
        Ok(DataRound {
            flight: match traffic {
                Traffic::Dense => data.all_to_all(outgoing, incoming)?,
                Traffic::Sparse => data.pairwise(process, outgoing, incoming, TAG_ROUND)?,
            },
            send_counts: send.counts,
            receive_counts: receive.counts,
            _world: world,
        })
    }

    /// *Local.* Whether it is complete. Bytes move while this is called: call it often.
    pub fn test(&mut self) -> Result<bool> {
        self.flight.test()
    }

    /// *Local.* Waits until it is complete; gives back what was sent and what was received. Others
    /// must have started it, else it never ends.
    pub fn wait(self) -> Result<(Packed, Packed)> {
        let [sent, received] = self.flight.wait(Patience::Short)?;
        let packed = |bytes, counts| Packed { bytes, counts };
        Ok((
            packed(sent.bytes, self.send_counts),
            packed(received.bytes, self.receive_counts),
        ))
    }
}

/// *Local.* The parts that `counts` speaks of, one for each process.
fn parts(world: &World, counts: &[u32]) -> Result<Parts> {
    if counts.len() != world.processes() {
        let (have, need) = (counts.len(), world.size());
        return Err(Fault::new(
            Kind::Internal,
            format!("a round has {have} parts for {need} processes"),
        ));
    }
    Parts::new(
        counts
            .iter()
            .map(|count| usize::try_from(*count).unwrap_or(usize::MAX)),
    )
}
