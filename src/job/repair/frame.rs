//! The bytes of a file around its tensors: header, gaps, a checksum at the end. They are taken from
//! a file of equal structure, or laid out anew; that they are right, the file's CRC tells.

use crate::job::repair::copies::Copies;
use crate::job::repair::design::design;
use crate::job::repair::parts::Part;
use crate::store::Format;
use crate::store::ckpt::{TRAILER_BYTES, crc_trailer};
use crate::store::io::{ReadFile, WriteFile};
use crate::store::manifest::FileRecord;
use crate::tensor::digest::{finish, residue, shift};

/// Files of a kind that are tried.
const TRIES_MAX: usize = 8;
/// Checksums at the end that are made anew: each takes a look at the whole file.
const CHECKSUMS_MAX: usize = 4;

/// A file whose tensors are in place already.
pub(super) struct Bare<'a> {
    /// The file by its number in the manifest.
    pub(super) number: usize,
    /// Its record.
    pub(super) record: &'a FileRecord,
    /// Its tensors.
    pub(super) parts: &'a [Part<'a>],
    /// The ranges around them.
    pub(super) gaps: &'a [(u64, u64)],
    /// What the tensors contribute to the file's residue.
    pub(super) residue: u64,
    /// The file.
    pub(super) target: &'a WriteFile,
}

/// The bytes around the tensors, gap by gap, and what people are told of where they are from; none if
/// they were the file's own.
pub(super) type Frame = (Vec<Vec<u8>>, Option<String>);

impl Bare<'_> {
    /// Finds the bytes that make the file what it was. Local.
    pub(super) fn frame(&self, copies: &Copies<'_>) -> Option<Frame> {
        if self.gaps.is_empty() {
            return Some((Vec::new(), None));
        }
        let mut checksums = Vec::new();
        for (donor, file) in self.candidates(copies) {
            let Some(found) = read(&copies.path(donor, file), self.gaps) else {
                continue;
            };
            if let Some((found, renewed)) = self.right(found, &mut checksums) {
                // A checksum made anew is a repair, though all it was made of was there.
                let own = (donor, file) == (0, self.number) && !renewed;
                return Some((found, (!own).then(|| copies.shown(donor, file))));
            }
        }
        let designed = design(copies, self.record, self.parts, self.gaps);
        let (found, _) = designed
            .into_iter()
            .find_map(|found| self.right(found, &mut checksums))?;
        Some((found, Some("the layout".into())))
    }

    /// Files that may have the same bytes there, by donor and number.
    fn candidates(&self, copies: &Copies<'_>) -> Vec<(usize, usize)> {
        let mut found = vec![(0, self.number)];
        let placed = copies
            .donors
            .first()
            .map(|donor| donor.manifest.placed(self.record));
        for (donor, other) in copies.donors.iter().enumerate() {
            let alike = other.manifest.files.iter().enumerate();
            let alike = alike.filter(|(file, record)| {
                record.bytes == self.record.bytes
                    && Some(other.manifest.placed(record)) == placed
                    && !(donor == 0 && copies.suspects.contains(file))
            });
            let mut alike: Vec<(bool, usize)> = alike
                .map(|(file, record)| (record.path != self.record.path, file))
                .collect();
            alike.sort_unstable();
            found.extend(
                alike
                    .into_iter()
                    .take(TRIES_MAX)
                    .map(|(_, file)| (donor, file)),
            );
            if donor == 0 {
                let others = copies.suspects.iter().filter(|file| **file != self.number);
                found.extend(others.map(|file| (0, *file)));
            }
        }
        found
    }

    /// `found`, if the file has its CRC with it; else with a new checksum at its end, if so, and that
    /// it is new.
    fn right(&self, mut found: Vec<Vec<u8>>, tried: &mut Vec<u64>) -> Option<(Vec<Vec<u8>>, bool)> {
        if self.proves(&found) {
            return Some((found, false));
        }
        let format = Format::of(&self.record.path)?;
        let (begin, end) = *self.gaps.last()?;
        let ends = end == self.record.bytes && end - begin >= TRAILER_BYTES;
        if !format.has_checksum() || !ends {
            return None;
        }
        let trailer = usize::try_from(TRAILER_BYTES).ok()?;
        let last = found.last_mut()?;
        let body = last.len().checked_sub(trailer)?;
        last.truncate(body);
        let sum = self.contribution(&found);
        if tried.contains(&sum) || tried.len() >= CHECKSUMS_MAX {
            return None;
        }
        tried.push(sum);
        write(self.target, self.gaps, &found).ok()?;
        let file = ReadFile::open(self.target.path()).ok()?;
        let checksum = crc_trailer(&file, end - TRAILER_BYTES).ok()?;
        found.last_mut()?.extend_from_slice(&checksum);
        self.proves(&found).then_some((found, true))
    }

    fn proves(&self, found: &[Vec<u8>]) -> bool {
        let whole = self.residue ^ self.contribution(found);
        finish(whole, self.record.bytes) == self.record.crc64.0
    }

    fn contribution(&self, found: &[Vec<u8>]) -> u64 {
        let pairs = self.gaps.iter().zip(found);
        pairs.fold(0, |sum, ((begin, _), bytes)| {
            let after = self.record.bytes.saturating_sub(begin + bytes.len() as u64);
            sum ^ shift(residue(bytes), after)
        })
    }
}

/// The bytes of a file at `gaps`; none if it hasn't as many. Local.
fn read(path: &std::path::Path, gaps: &[(u64, u64)]) -> Option<Vec<Vec<u8>>> {
    let file = ReadFile::open(path).ok()?;
    if gaps.iter().any(|(_, end)| *end > file.size()) {
        return None;
    }
    let one = |(begin, end): &(u64, u64)| {
        let mut bytes = vec![0; usize::try_from(end - begin).ok()?];
        file.read_at(&mut bytes, *begin).ok()?;
        Some(bytes)
    };
    gaps.iter().map(one).collect()
}

/// Writes bytes at `gaps`. Local.
pub(super) fn write(
    target: &WriteFile,
    gaps: &[(u64, u64)],
    bytes: &[Vec<u8>],
) -> crate::fault::Result<()> {
    for ((begin, _), bytes) in gaps.iter().zip(bytes) {
        target.write_at(bytes, *begin)?;
    }
    Ok(())
}
