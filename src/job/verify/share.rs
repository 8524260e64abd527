//! A process's part of the bytes to check, and what the parts come to.

use crate::exchange::decode;
use crate::fault::Result;
use crate::job::verify::reader::Reader;
use crate::plan::ratio::portion;
use crate::store::manifest::{FileRecord, Manifest};
use crate::tensor::digest::residue_of_crc;
use std::collections::BTreeMap;
use std::path::Path;

/// One of several equal parts of a manifest's files, by bytes.
pub(super) struct Share {
    /// Which.
    pub(super) index: u64,
    /// Of how many.
    pub(super) of: u64,
}

/// Residues by file number.
pub(super) type Sums = BTreeMap<usize, u64>;

impl Share {
    /// The bytes of all files, one after the other, that this share has. Local.
    pub(super) fn range(&self, manifest: &Manifest) -> std::ops::Range<u64> {
        let total: u64 = manifest.files.iter().map(|file| file.bytes).sum();
        let bound = |index: u64| portion(total, index, self.of.max(1));
        bound(self.index)..bound(self.index + 1)
    }

    /// The files that this share reads of. Local.
    pub(super) fn files<'m>(&self, manifest: &'m Manifest) -> Vec<&'m FileRecord> {
        let range = self.range(manifest);
        let mut before = 0;
        let mut files = Vec::new();
        for record in &manifest.files {
            let after = before + record.bytes;
            if range.start < after && before < range.end {
                files.push(record);
            }
            before = after;
        }
        files
    }

    /// What this share contributes to the residue of each file; and the files that can't be as they
    /// should. `told` hears of the bytes of each read. Local: what can't be read is no error here.
    pub(super) fn sums(
        &self,
        directory: &Path,
        manifest: &Manifest,
        told: &mut dyn FnMut(u64),
    ) -> (Sums, u64, Vec<usize>) {
        let total: u64 = manifest.files.iter().map(|file| file.bytes).sum();
        let std::ops::Range { start: begin, end } = self.range(manifest);
        let mut reader = Reader::default();
        let mut sums = Sums::new();
        let mut wrong = Vec::new();
        let mut read = 0;
        let mut before = 0;
        for (number, record) in manifest.files.iter().enumerate() {
            let after = before + record.bytes;
            let (from, to) = (
                begin.max(before) - before,
                end.min(after).max(before) - before,
            );
            // Each file's beginning is somebody's; who has it looks at the header, too.
            let starts = (begin..end).contains(&before)
                || (record.bytes == 0 && before == total && self.index == 0);
            if from < to || starts {
                let part = reader.part(
                    directory,
                    manifest,
                    record,
                    starts,
                    from..to.max(from),
                    told,
                );
                match part {
                    Some(part) => {
                        sums.insert(number, part);
                        read += to.saturating_sub(from);
                    }
                    None => wrong.push(number),
                }
            }
            before = after;
        }
        (sums, read, wrong)
    }
}

/// The files that are not as their manifest says.
pub(super) fn suspects(manifest: &Manifest, messages: &[(u32, Vec<u8>)]) -> Result<Vec<usize>> {
    let mut sums = Sums::new();
    let mut suspects = std::collections::BTreeSet::new();
    for (_, message) in messages {
        let (parts, wrong): (Sums, Vec<usize>) = decode(message)?;
        for (number, part) in parts {
            *sums.entry(number).or_default() ^= part;
        }
        suspects.extend(wrong);
    }
    for (number, file) in manifest.files.iter().enumerate() {
        let expected = residue_of_crc(file.crc64.0, file.bytes);
        if sums.get(&number).copied().unwrap_or(0) != expected {
            suspects.insert(number);
        }
    }
    Ok(suspects.into_iter().collect())
}
