//! What was read of parts of files that carry a checksum of their own: their CRCs are made on the way.

use crate::fault::{Kind, Result};
use crate::store::Format;
use crate::store::formats::Seal;
use crate::store::io::ReadFile;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Stretches remembered of a part, beyond which no more is.
const STRETCHES_MAX: usize = 4096;

/// Of bytes from one offset of a file on: where they end, and their CRC.
type Stretches = BTreeMap<u64, (u64, u32)>;

/// A stretch of bytes that was read: where it begins and ends in its file, and its CRC.
pub(crate) type Stretch = (u64, u64, u32);

/// A rank, and the number of its file.
type Key = (u32, u32);

/// What was read of all files, by rank and number; none for those that carry no checksum.
#[derive(Debug, Default)]
pub(super) struct SealedFiles(Mutex<HashMap<Key, Option<Arc<SealedReads>>>>);

impl SealedFiles {
    /// What was read of an open file before; nothing yet, if it is opened for the first time. Local.
    ///
    /// # Errors
    /// As [`Format::seals`].
    pub(super) fn of(
        &self,
        key: Key,
        file: &ReadFile,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Option<Arc<SealedReads>>> {
        let mut known = lock(&self.0);
        if let Some(known) = known.get(&key) {
            return Ok(known.clone());
        }
        let name = file.path().to_string_lossy();
        let seals = match Format::may_be_sealed(&name, metadata) {
            true => match Format::recognise(file) {
                Ok(format) => format.seals(file)?,
                Err(fault) if fault.kind == Kind::Io => return Err(fault),
                // It is known by what another file says of it.
                Err(_) => Vec::new(),
            },
            false => Vec::new(),
        };
        let new = (!seals.is_empty()).then(|| Arc::new(SealedReads::new(&seals)));
        known.insert(key, new.clone());
        Ok(new)
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<(Key, Arc<SealedReads>)> {
        let known = lock(&self.0);
        let read = known.iter().map(|(key, read)| Some((*key, read.clone()?)));
        read.flatten().collect()
    }
}

/// A part of a file that a checksum is of.
#[derive(Debug)]
struct Span {
    range: Range<u64>,
    /// Its number among those of all checksums of the file, one after the other.
    number: u32,
    read: Mutex<Stretches>,
}

/// A file with checksums of its own, and what was read so far of what they are of.
#[derive(Debug)]
pub(crate) struct SealedReads(Vec<Span>);

impl SealedReads {
    /// Nothing has been read yet.
    pub(super) fn new(seals: &[Seal]) -> SealedReads {
        let parts = seals.iter().flat_map(|seal| &seal.parts);
        let spans = (0u32..).zip(parts).map(|(number, part)| Span {
            range: part.range.clone(),
            number,
            read: Mutex::default(),
        });
        let mut spans: Vec<Span> = spans.filter(|span| !span.range.is_empty()).collect();
        spans.sort_by_key(|span| span.range.start);
        SealedReads(spans)
    }

    /// Takes note of `bytes`, which were read from `offset` on. Each byte counts once.
    pub(super) fn note(&self, offset: u64, bytes: &[u8]) {
        let end = offset.saturating_add(bytes.len() as u64);
        let first = self.0.partition_point(|span| span.range.end <= offset);
        for Span { range, read, .. } in self.0.iter().skip(first) {
            if range.start >= end {
                break;
            }
            let part = range.start.max(offset)..range.end.min(end);
            let new = uncovered(&lock(read), &part);
            for range in new {
                let begin = usize::try_from(range.start - offset).unwrap_or(usize::MAX);
                let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
                let Some(bytes) = bytes.get(begin..begin.saturating_add(length)) else {
                    continue;
                };
                let crc = crc32fast::hash(bytes);
                let mut read = lock(read);
                // Another thread may have read the same meanwhile.
                if uncovered(&read, &range) == [range.clone()] {
                    add(&mut read, range, crc);
                }
            }
        }
    }

    /// What was read of each part that was: its number, and begin, end and CRC of stretches in order.
    pub(crate) fn stretches(&self) -> Vec<(u32, Vec<Stretch>)> {
        let each = self.0.iter().map(|span| {
            let read = lock(&span.read);
            let stretches = read.iter().map(|(begin, (end, crc))| (*begin, *end, *crc));
            (span.number, stretches.collect::<Vec<Stretch>>())
        });
        each.filter(|(_, stretches)| !stretches.is_empty())
            .collect()
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What of `range` is in none of the stretches.
fn uncovered(read: &Stretches, range: &Range<u64>) -> Vec<Range<u64>> {
    let mut at = range.start;
    if let Some((_, (end, _))) = read.range(..=at).next_back() {
        at = at.max(*end);
    }
    let mut found = Vec::new();
    for (begin, (end, _)) in read.range(range.start..range.end) {
        if *begin > at {
            found.push(at..*begin);
        }
        at = at.max(*end);
    }
    if at < range.end {
        found.push(at..range.end);
    }
    found
}

/// Adds a stretch that none of the others meets, joined with its neighbours.
fn add(read: &mut Stretches, range: Range<u64>, crc: u32) {
    let (mut begin, mut end, mut crc) = (range.start, range.end, crc);
    let before = read
        .range(..begin)
        .next_back()
        .map(|(b, (e, c))| (*b, *e, *c));
    if let Some((first, _, own)) = before.filter(|(_, last, _)| *last == begin) {
        crc = joined((own, begin - first), (crc, end - begin));
        read.remove(&first);
        begin = first;
    }
    if let Some((last, own)) = read.get(&end).copied() {
        crc = joined((crc, end - begin), (own, last - end));
        read.remove(&end);
        end = last;
    }
    if read.len() < STRETCHES_MAX {
        read.insert(begin, (end, crc));
    }
}

/// The CRC of bytes and those that follow them, of each CRC and length.
pub(crate) fn joined((one, one_bytes): (u32, u64), (other, other_bytes): (u32, u64)) -> u32 {
    let mut sum = crc32fast::Hasher::new_with_initial_len(one, one_bytes);
    sum.combine(&crc32fast::Hasher::new_with_initial_len(other, other_bytes));
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_read_in_any_order_comes_to_the_crc_of_the_whole() {
        let bytes: Vec<u8> = (0..5000u32)
            .map(|n| n.to_le_bytes()[0].wrapping_mul(7))
            .collect();
        let seal = |range: Range<u64>| Seal::of(range, 0, None);
        let reads = SealedReads::new(&[seal(4200..4900), seal(100..4000)]);
        let mut state = 1u64;
        let mut roll = |sides: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % sides
        };
        let note = |begin: usize, end: usize| reads.note(begin as u64, &bytes[begin..end]);
        for _ in 0..40 {
            let begin = roll(4900);
            note(begin, (begin + 1 + roll(900)).min(5000));
        }
        for part in (0..10).rev() {
            note(part * 500, part * 500 + 500);
        }
        let crc = |range: Range<usize>| crc32fast::hash(&bytes[range]);
        let due = [
            (1, vec![(100, 4000, crc(100..4000))]),
            (0, vec![(4200, 4900, crc(4200..4900))]),
        ];
        assert_eq!(reads.stretches(), due);
    }
}
