//! Control messages: small as a rule, of any size all the same.
//!
//! What is longer than the world's chunk limit travels in several calls.

use super::backend::{Communicator, Flight};
use super::operation::Operation;
use super::parts::{Parts, buffer};
use super::pause::{Patience, Pause};
use super::world::World;
use crate::fault::{Fault, Kind, Result};
use crate::host::bug::Bug;
use crate::host::planted::planted;

/// Tags of [`exchange_bytes`]: a length, and bytes; two of each, used in turns.
const TAG_LENGTH: [i32; 2] = [1, 2];
const TAG_BYTES: [i32; 2] = [3, 4];

/// *Collective.* Returns when all processes have come here.
pub fn barrier(world: &World) -> Result<()> {
    world.control.barrier()?.wait(Patience::Long)
}

/// *Collective.* Puts into `values` what `operation` makes of the `values` of all processes,
/// element by element. All give the same number of values.
pub fn all_reduce(world: &World, values: &mut [u64], operation: Operation) -> Result<()> {
    reduce_over(world.control, world.chunk_bytes_max, values, operation)
}

/// *Collective over `communicator`.* As [`all_reduce`].
pub(super) fn reduce_over(
    communicator: Communicator,
    chunk_bytes_max: usize,
    values: &mut [u64],
    operation: Operation,
) -> Result<()> {
    for chunk in values.chunks_mut((chunk_bytes_max / size_of::<u64>()).max(1)) {
        let flight = communicator.all_reduce(chunk.to_vec(), operation)?;
        let (_, result) = flight.wait(Patience::Long)?;
        chunk.copy_from_slice(&result);
    }
    Ok(())
}

/// *Collective.* The `bytes` of process `root`, on every process; what others give is not used.
pub fn broadcast_bytes(world: &World, root: u32, bytes: Vec<u8>) -> Result<Vec<u8>> {
    let mine = world.process() == root;
    let length = if mine { bytes.len() } else { 0 };
    let flight = world.control.broadcast(root, length_bytes(length), 0..8)?;
    let length = length_of(&flight.wait(Patience::Long)?)?;
    let mut bytes = if mine { bytes } else { buffer(length)? };
    for start in (0..length).step_by(world.chunk_bytes_max) {
        let end = start.saturating_add(world.chunk_bytes_max).min(length);
        let flight = world.control.broadcast(root, bytes, start..end)?;
        bytes = flight.wait(Patience::Long)?;
    }
    Ok(bytes)
}

/// *Collective.* What each process gives, by process, on every process. Mind the memory: all of it
/// is everywhere.
pub fn all_gather_bytes(world: &World, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    #[cfg(test)]
    if let Some(all) = super::in_memory::told(world.process(), world.size(), bytes) {
        return Ok(all);
    }
    let processes = world.processes();
    // Short messages go along with their lengths.
    let along = along_bytes(world);
    let parts = Parts::new(std::iter::repeat_n(LENGTH_BYTES + along, processes))?;
    let mut first = length_bytes(bytes.len());
    first.extend_from_slice(&bytes[..bytes.len().min(along)]);
    first.resize(LENGTH_BYTES + along, 0);
    let flight = world.control.all_gather(first, parts)?;
    let (_, first) = flight.wait(Patience::Long)?;
    let mut lengths = Vec::with_capacity(processes);
    let mut gathered: Vec<Vec<u8>> = Vec::with_capacity(processes);
    for told in first.bytes.chunks_exact(LENGTH_BYTES + along) {
        let (length, beginning) = told.split_at(LENGTH_BYTES);
        let length = length_of(length)?;
        gathered.push(beginning[..length.min(along)].to_vec());
        lengths.push(length);
    }
    let piece = (world.chunk_bytes_max / processes).max(1);
    let longest = lengths.iter().copied().max().unwrap_or(0);
    for start in (along..longest).step_by(piece) {
        let cut = |length: usize| start.min(length)..start.saturating_add(piece).min(length);
        let parts = Parts::new(lengths.iter().map(|length| cut(*length).len()))?;
        let mine = bytes[cut(bytes.len())].to_vec();
        let flight = world.control.all_gather(mine, parts)?;
        let (_, all) = flight.wait(Patience::Long)?;
        for (process, whole) in gathered.iter_mut().enumerate() {
            whole.extend_from_slice(&all.bytes[all.parts.range(process)?]);
        }
    }
    Ok(gathered)
}

/// Bytes of a message's length.
const LENGTH_BYTES: usize = 8;
/// Most bytes that all processes together send along with their messages' lengths, and most of one.
const ALONG_BYTES_MAX: (usize, usize) = (64 << 10, 248);

/// *Local.* Bytes of each process that go along with the length: the same on every process.
fn along_bytes(world: &World) -> usize {
    let (together, one) = ALONG_BYTES_MAX;
    (together.min(world.chunk_bytes_max) / world.processes().max(1)).min(one)
}

/// *Collective.* Brings each message of `outgoing` to its process; gives those that came here with
/// the process they came from, ordered by it (and as they were sent).
///
/// Only those who have something to say to each other talk; nobody needs to know who that is. A
/// process may send itself messages, several to the same one, and empty ones.
pub fn exchange_bytes(world: &World, outgoing: Vec<(u32, Vec<u8>)>) -> Result<Vec<(u32, Vec<u8>)>> {
    // A process is at most one exchange ahead of another: two tags keep them apart.
    let turn = world.exchanges.get();
    world
        .exchanges
        .set(if planted(Bug::OneTag) { turn } else { 1 - turn });
    let mut incoming = Incoming::default();
    let mut sends = Vec::new();
    for (destination, bytes) in outgoing {
        if destination == world.process() {
            incoming.local.push((destination, bytes));
        } else if destination < world.size() {
            send_in_pieces(world, destination, turn, bytes, &mut sends)?;
        } else {
            let message = format!("a message to process {destination}, which does not exist");
            return Err(Fault::new(Kind::Internal, message));
        }
    }
    // All my messages have been met by a receive, then everybody's have: nothing can come any more.
    let mut pause = Pause::new(Patience::Long);
    let mut all_met: Option<Flight<()>> = None;
    loop {
        if incoming.accept(world, turn)? {
            pause = Pause::new(Patience::Long);
            continue;
        }
        match &mut all_met {
            Some(barrier) => {
                if barrier.test()? || planted(Bug::UnmetReturn) {
                    return incoming.finish();
                }
            }
            None => {
                while let Some(last) = sends.last_mut() {
                    if !last.test()? {
                        break;
                    }
                    sends.pop();
                }
                if sends.is_empty() {
                    all_met = Some(world.control.barrier()?);
                }
            }
        }
        pause.rest();
    }
}

/// *Local.* Starts to send the length of `bytes`, then the bytes in pieces below the limit.
fn send_in_pieces(
    world: &World,
    destination: u32,
    turn: usize,
    bytes: Vec<u8>,
    sends: &mut Vec<Flight<Vec<u8>>>,
) -> Result<()> {
    let mut start = |tag: i32, bytes: Vec<u8>| -> Result<()> {
        sends.push(world.control.send(destination, tag, bytes, true)?);
        Ok(())
    };
    start(TAG_LENGTH[turn], length_bytes(bytes.len()))?;
    if bytes.len() <= world.chunk_bytes_max {
        if !bytes.is_empty() {
            start(TAG_BYTES[turn], bytes)?;
        }
        return Ok(());
    }
    for piece in bytes.chunks(world.chunk_bytes_max) {
        start(TAG_BYTES[turn], piece.to_vec())?;
    }
    Ok(())
}

/// What has come, or begun to come, in one exchange.
#[derive(Default)]
struct Incoming {
    local: Vec<(u32, Vec<u8>)>,
    pieces: Vec<(u32, Vec<Flight<Vec<u8>>>)>,
}

impl Incoming {
    /// *Local.* Begins to receive one announced message; whether there was one.
    fn accept(&mut self, world: &World, turn: usize) -> Result<bool> {
        let Some(message) = world.control.receive_any(TAG_LENGTH[turn])? else {
            return Ok(false);
        };
        let length = length_of(&message.bytes)?;
        let mut pieces = Vec::new();
        for start in (0..length).step_by(world.chunk_bytes_max) {
            let piece = world.chunk_bytes_max.min(length - start);
            pieces.push(
                world
                    .control
                    .receive(message.source, TAG_BYTES[turn], piece)?,
            );
        }
        self.pieces.push((message.source, pieces));
        Ok(true)
    }

    /// *Local.* Waits for the rest and joins the pieces.
    fn finish(self) -> Result<Vec<(u32, Vec<u8>)>> {
        let mut messages = self.local;
        for (source, pieces) in self.pieces {
            let mut whole = Vec::new();
            for piece in pieces {
                let bytes = piece.wait(Patience::Short)?;
                if whole.is_empty() {
                    whole = bytes;
                } else {
                    whole.extend_from_slice(&bytes);
                }
            }
            messages.push((source, whole));
        }
        messages.sort_by_key(|(source, _)| *source);
        Ok(messages)
    }
}

fn length_bytes(length: usize) -> Vec<u8> {
    u64::try_from(length)
        .unwrap_or(u64::MAX)
        .to_le_bytes()
        .to_vec()
}

fn length_of(bytes: &[u8]) -> Result<usize> {
    bytes
        .try_into()
        .ok()
        .and_then(|bytes| usize::try_from(u64::from_le_bytes(bytes)).ok())
        .ok_or_else(|| Fault::new(Kind::Internal, "the length of a message is no length"))
}
