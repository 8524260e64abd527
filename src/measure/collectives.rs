//! Bytes between the processes, by the primitives that jobs use.

use crate::exchange::{
    DataRound, Packed, Traffic, World, agree, all_gather_bytes, broadcast_bytes,
};
use crate::fault::memory::{room, zeroed};
use crate::fault::{Fault, Kind, Result};
use crate::measure::bench::{Measured, Repeat, Row, all_right, byte, row, time};

/// Smallest message.
const BYTES_MIN: u64 = 4 << 10;
/// Rounds carry less than 2^31 bytes.
const BYTES_MAX: u64 = 1 << 30;

/// Measures each primitive at sizes from 4 KiB to `max_bytes`, each four times the last. Collective.
///
/// # Errors
/// [`Kind::Differs`] if wrong bytes arrive, [`Kind::Mpi`].
pub fn collectives(world: &World, repeat: Repeat, max_bytes: u64) -> Result<Measured> {
    let mut rows = Vec::new();
    let mut bytes = BYTES_MIN.min(max_bytes);
    while bytes <= max_bytes.min(BYTES_MAX) {
        rows.push(pairs(world, repeat, bytes)?);
        rows.push(all_to_all(world, repeat, bytes, Traffic::Dense)?);
        rows.push(all_to_all(world, repeat, bytes, Traffic::Sparse)?);
        rows.push(gather(world, repeat, bytes)?);
        rows.push(broadcast(world, repeat, bytes)?);
        bytes *= 4;
    }
    rows.sort_by(|a, b| a.operation.cmp(&b.operation).then(a.bytes.cmp(&b.bytes)));
    Ok(Measured::new("collectives", world, repeat, rows))
}

/// The share of what a process gives that leaves it.
fn leaving(world: &World) -> f64 {
    f64::from(world.size() - 1) / f64::from(world.size())
}

/// Neighbours 0 and 1, 2 and 3 … send each other a message; a last one without a neighbour rests.
fn pairs(world: &World, repeat: Repeat, bytes: u64) -> Result<Row> {
    let partner = world.process() ^ 1;
    let counts = |process: u32| if process == partner { bytes } else { 0 };
    let seconds = rounds(world, repeat, Traffic::Sparse, "point to point", counts)?;
    Ok(row("point to point".into(), bytes, bytes, 1.0, seconds))
}

/// Each process sends each an equal part of `bytes`.
fn all_to_all(world: &World, repeat: Repeat, bytes: u64, traffic: Traffic) -> Result<Row> {
    let name = match traffic {
        Traffic::Dense => "all to all, dense",
        Traffic::Sparse => "all to all, sparse",
    };
    let part = bytes / u64::from(world.size());
    let seconds = rounds(world, repeat, traffic, name, |_| part)?;
    let moved = part * u64::from(world.size());
    Ok(row(name.into(), bytes, moved, leaving(world), seconds))
}

/// Rounds in which this process sends `counts(p)` bytes to process p and gets as many.
fn rounds(
    world: &World,
    repeat: Repeat,
    traffic: Traffic,
    name: &str,
    counts: impl Fn(u32) -> u64,
) -> Result<[f64; 3]> {
    let narrow = |process| u32::try_from(counts(process)).map_err(|_| too_large());
    let counts = (0..world.size()).map(narrow).collect::<Result<Vec<u32>>>();
    let counts = agree(world, counts)?;
    let length = counts.iter().map(|count| *count as usize).sum();
    let buffers = zeroed(length).and_then(|receive| {
        let mut send = Vec::new();
        room(&mut send, length)?;
        Ok((send, receive))
    });
    let (send, receive) = agree(world, buffers)?;
    let mut send = Packed {
        bytes: send,
        counts: counts.clone(),
    };
    for (to, count) in (0u32..).zip(&counts) {
        let part = (0..*count as usize).map(|index| byte(world.process(), to, index));
        send.bytes.extend(part);
    }
    let receive = Packed {
        bytes: receive,
        counts,
    };
    let mut buffers = Some((send, receive));
    let seconds = time(world, repeat, || {
        let (send, receive) = buffers.take().unwrap_or_default();
        buffers = Some(DataRound::start(world, traffic, send, receive)?.wait()?);
        Ok(())
    })?;
    let (_, received) = buffers.unwrap_or_default();
    let mut wrong = 0;
    let mut rest = received.bytes.as_slice();
    for (from, count) in (0u32..).zip(&received.counts) {
        let (part, after) = rest.split_at(*count as usize);
        wrong += differing(part, from, world.process());
        rest = after;
    }
    all_right(world, name, wrong)?;
    Ok(seconds)
}

/// Every process gets a part of `bytes` from each.
fn gather(world: &World, repeat: Repeat, bytes: u64) -> Result<Row> {
    let part = bytes / u64::from(world.size());
    let length = usize::try_from(part).map_err(|_| too_large());
    let length = agree(world, length)?;
    let mine: Vec<u8> = (0..length).map(|i| byte(world.process(), 0, i)).collect();
    let mut gathered = Vec::new();
    let seconds = time(world, repeat, || {
        gathered = all_gather_bytes(world, &mine)?;
        Ok(())
    })?;
    let parts = (0u32..).zip(&gathered);
    let wrong = parts.map(|(from, part)| differing(part, from, 0)).sum();
    all_right(world, "all gather", wrong)?;
    let moved = part * u64::from(world.size());
    Ok(row(
        "all gather".into(),
        bytes,
        moved,
        leaving(world),
        seconds,
    ))
}

/// Process 0 sends all the same `bytes`.
fn broadcast(world: &World, repeat: Repeat, bytes: u64) -> Result<Row> {
    let length = usize::try_from(bytes).map_err(|_| too_large());
    let length = agree(world, length)?;
    let mut buffer = match world.process() {
        0 => (0..length).map(|index| byte(0, 0, index)).collect(),
        _ => Vec::new(),
    };
    let seconds = time(world, repeat, || {
        buffer = broadcast_bytes(world, 0, std::mem::take(&mut buffer))?;
        Ok(())
    })?;
    all_right(world, "broadcast", differing(&buffer, 0, 0))?;
    Ok(row("broadcast".into(), bytes, bytes, 1.0, seconds))
}

fn differing(part: &[u8], from: u32, to: u32) -> u64 {
    let wrong = part.iter().enumerate();
    wrong
        .filter(|(index, value)| **value != byte(from, to, *index))
        .count() as u64
}

fn too_large() -> Fault {
    Fault::new(Kind::Usage, "messages of this size are too large")
}
