//! What a file is made of: shards with their CRCs, and the bytes around them.

use crate::store::Format;
use crate::store::io::ReadFile;
use crate::store::manifest::{FileRecord, Manifest};
use std::borrow::Cow;
use std::path::Path;

/// Bytes copied at once.
pub(super) const CHUNK_BYTES: usize = 4 << 20;

/// Byte ranges of a file, in order: begin, and end that isn't part of it.
pub(super) type Ranges<'m> = Cow<'m, [(u64, u64)]>;

/// What tells equal shards: name, length in bytes, CRC.
pub(super) type Key<'m> = (&'m str, u64, u64);

/// A shard in a file; or all of a file that has no tensors.
pub(super) struct Part<'m> {
    /// The tensor, if it is one.
    pub(super) tensor: Option<&'m str>,
    /// Where its bytes are.
    pub(super) ranges: Ranges<'m>,
    /// Its CRC.
    pub(super) crc: u64,
}

impl<'m> Part<'m> {
    /// Its length.
    pub(super) fn bytes(&self) -> u64 {
        length(&self.ranges)
    }

    /// What its copies have in common with it.
    pub(super) fn key(&self) -> Key<'m> {
        (self.tensor.unwrap_or_default(), self.bytes(), self.crc)
    }
}

/// Bytes of some ranges.
pub(super) fn length(ranges: &[(u64, u64)]) -> u64 {
    let lengths = ranges.iter().map(|(begin, end)| end.saturating_sub(*begin));
    lengths.fold(0, u64::saturating_add)
}

/// Whether a file's header can be read.
pub(super) fn is_sound(path: &Path) -> bool {
    let file = ReadFile::open(path);
    file.is_ok_and(|file| {
        let format = Format::recognise(&file);
        format.and_then(|format| format.read(&file)).is_ok()
    })
}

/// The parts of a file, in the order of its structure. Local.
pub(super) fn parts<'m>(manifest: &'m Manifest, record: &FileRecord) -> Vec<Part<'m>> {
    if record.structure.is_none() {
        return vec![Part {
            tensor: None,
            ranges: Cow::Owned(vec![(0, record.bytes)]),
            crc: record.crc64.0,
        }];
    }
    let shards = manifest.placed(record).iter().zip(&record.shards);
    shards
        .map(|((name, ranges), crc)| Part {
            tensor: Some(name),
            ranges: Cow::Borrowed(ranges),
            crc: crc.0,
        })
        .collect()
}

/// The bytes of a file of `bytes` that belong to no part, as ranges in order. Local.
pub(super) fn gaps(parts: &[Part<'_>], bytes: u64) -> Vec<(u64, u64)> {
    let mut taken: Vec<(u64, u64)> = parts.iter().flat_map(|part| part.ranges.to_vec()).collect();
    taken.sort_unstable();
    let mut gaps = Vec::new();
    let mut at = 0;
    for (begin, end) in taken {
        if begin > at {
            gaps.push((at, begin));
        }
        at = at.max(end);
    }
    if at < bytes {
        gaps.push((at, bytes));
    }
    gaps
}

/// The steps in which bytes at some ranges are copied to others: where from, where to, how many.
pub(super) fn steps(from: &[(u64, u64)], to: &[(u64, u64)]) -> Vec<(u64, u64, u64)> {
    let chunk = CHUNK_BYTES as u64;
    let mut steps = Vec::new();
    let (mut from, mut to) = (from.iter().copied(), to.iter().copied());
    let (mut source, mut target) = (from.next(), to.next());
    while let (Some((a, a_end)), Some((b, b_end))) = (source, target) {
        let bytes = (a_end.saturating_sub(a))
            .min(b_end.saturating_sub(b))
            .min(chunk);
        if bytes > 0 {
            steps.push((a, b, bytes));
        }
        source = if a + bytes >= a_end {
            from.next()
        } else {
            Some((a + bytes, a_end))
        };
        target = if b + bytes >= b_end {
            to.next()
        } else {
            Some((b + bytes, b_end))
        };
    }
    steps
}
