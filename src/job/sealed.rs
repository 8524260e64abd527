//! Whether the parts of source files that carry a checksum of their own are as that says.

use crate::exchange::{World, agree, exchange_values};
use crate::fault::Result;
use crate::source::{Source, seals};
use crate::store::Format;
use crate::store::formats::{Seal, crc_of};
use crate::store::io::ReadFile;
use crate::transport::{Readers, Stretch, joined};
use std::collections::BTreeMap;
use std::ops::Range;

/// What nobody has read of a part is read for its CRC alone, if it is one of so many parts of it at most, or
/// so many bytes.
const REST_SHARE: u64 = 16;
/// See [`REST_SHARE`].
const REST_BYTES: u64 = 1 << 20;

/// Of a rank's file by its number, and of one of the parts that its checksums are of: what was read.
type Read = (u32, u32, u32, Vec<Stretch>);

/// By its number, what was read of a part.
type Parts = BTreeMap<u32, Vec<Stretch>>;

/// Compares what all processes have read, if it is all that a checksum of a file is of, with that. Collective.
///
/// # Errors
/// The same on every process: [`crate::fault::Kind::Corrupt`] naming file, part and tensor.
pub(super) fn check(world: &World, source: &Source, readers: &Readers<'_>) -> Result<()> {
    let mut files = source.catalog.ranks.values().flatten();
    if !files.any(|file| Format::may_be_sealed(&file.path, &file.schema.metadata)) {
        return Ok(());
    }
    let mut mine = Vec::new();
    for ((rank, file), reads) in readers.sealed() {
        let Some(owner) = source.reach.owner(rank) else {
            continue;
        };
        for (number, stretches) in reads.stretches() {
            let read: Read = (rank, file, number, stretches);
            mine.push((owner, read));
        }
    }
    let read = exchange_values(world, Ok(mine))?;
    let mut files: BTreeMap<(u32, u32), Parts> = BTreeMap::new();
    for (rank, file, number, stretches) in read {
        let of_file = files.entry((rank, file)).or_default();
        of_file.entry(number).or_default().extend(stretches);
    }
    let checked = files
        .into_iter()
        .try_for_each(|(at, parts)| check_file(source, at, parts));
    agree(world, checked)
}

/// Compares what was read of one file. Local.
fn check_file(source: &Source, (rank, number): (u32, u32), mut parts: Parts) -> Result<()> {
    let files = source.catalog.ranks.get(&rank);
    let Some(shard) = files.and_then(|files| files.get(number as usize)) else {
        return Ok(());
    };
    let file = ReadFile::open(&source.base.join(&shard.path))?;
    let mut number = 0;
    for seal in Format::recognise(&file)?.seals(&file)? {
        let chains = seal.parts.iter().map(|part| {
            let read = parts.remove(&number).unwrap_or_default();
            number += 1;
            chain(&part.range, read)
        });
        let chains: Vec<Vec<Stretch>> = chains.collect();
        if crc(&file, &seal, &chains)?.is_some_and(|crc| crc != seal.crc) {
            let fault = seals::named(seal.broken(&file), &seal, Some(&shard.schema));
            return Err(fault.rank(rank).hint(HINT));
        }
    }
    Ok(())
}

/// What can be done.
const HINT: &str = "nothing was put in place. Copy the file anew from where it came; if it was changed on purpose, \
                    --verify none takes it as it is";

/// Of what several have read, stretches of `range` in order of which none overlaps another.
fn chain(range: &Range<u64>, mut read: Vec<Stretch>) -> Vec<Stretch> {
    read.sort_unstable_by_key(|(begin, end, _)| (*begin, std::cmp::Reverse(*end)));
    let mut at = range.start;
    read.retain(|(begin, end, _)| {
        let follows = *begin >= at && *end <= range.end;
        at = if follows { *end } else { at };
        follows
    });
    read
}

/// The CRC of what `seal` is of, made of what was read of it; what is missing is read here if it is little, else
/// there is none. Local.
fn crc(file: &ReadFile, seal: &Seal, chains: &[Vec<Stretch>]) -> Result<Option<u32>> {
    let read: u64 = chains
        .iter()
        .flatten()
        .map(|(begin, end, _)| end - begin)
        .sum();
    let missing = seal.bytes().saturating_sub(read);
    if read == 0 || missing > (seal.bytes() / REST_SHARE).max(REST_BYTES) {
        return Ok(None);
    }
    let mut sum = (crc32fast::hash(&[]), 0);
    for (part, chain) in seal.parts.iter().zip(chains) {
        sum = follow(
            sum,
            (crc32fast::hash(&part.before), part.before.len() as u64),
        );
        let mut at = part.range.start;
        let ends = [(part.range.end, part.range.end, crc32fast::hash(&[]))];
        for (begin, end, crc) in chain.iter().chain(&ends) {
            if at < *begin {
                sum = follow(sum, (crc_of(file, at..*begin)?, begin - at));
            }
            sum = follow(sum, (*crc, end - begin));
            at = *end;
        }
    }
    Ok(Some(sum.0))
}

/// CRC and length of bytes and those that follow them.
fn follow(one: (u32, u64), other: (u32, u64)) -> (u32, u64) {
    (joined(one, other), one.1 + other.1)
}
