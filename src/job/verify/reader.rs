//! Reads files for their sums, and says what is wrong with one.

use crate::catalog::Entry;
use crate::fault::memory::provide;
use crate::fault::{Fault, Kind, Result};
use crate::job::outcome::BadFile;
use crate::store::Format;
use crate::store::io::ReadFile;
use crate::store::manifest::{FileRecord, Manifest, Placed, structure};
use crate::tensor::digest::{Joiner, finish, residue, shift};
use std::path::Path;

/// Bytes read at once.
const CHUNK_BYTES: usize = 4 << 20;

/// Reads files in chunks.
#[derive(Default)]
pub(in crate::job) struct Reader {
    buffer: Vec<u8>,
    joiner: Joiner,
}

impl Reader {
    /// The contribution of a range of a file; none if it can't be as it should. `told` hears of the bytes of
    /// each read.
    pub(super) fn part(
        &mut self,
        directory: &Path,
        manifest: &Manifest,
        record: &FileRecord,
        header: bool,
        range: std::ops::Range<u64>,
        told: &mut dyn FnMut(u64),
    ) -> Option<u64> {
        let file = ReadFile::open(&directory.join(&record.path)).ok()?;
        if file.size() != record.bytes {
            return None;
        }
        if header {
            check_header(&file, record, manifest.placed(record)).ok()?;
        }
        let end = range.end;
        let part = self.residue_telling(&file, range, told).ok()?;
        Some(shift(part, record.bytes - end))
    }

    /// The residue of a range of a file.
    pub(in crate::job) fn residue(
        &mut self,
        file: &ReadFile,
        range: std::ops::Range<u64>,
    ) -> Result<u64> {
        self.residue_telling(file, range, &mut |_| {})
    }

    /// The CRC of an entry's bytes, however they lie in the file.
    pub(in crate::job) fn crc(&mut self, file: &ReadFile, entry: &Entry) -> Result<u64> {
        let (mut sum, mut length) = (0, 0);
        for part in &entry.segments {
            let bytes = part.end - part.start;
            sum = shift(sum, bytes) ^ self.residue(file, part.clone())?;
            length += bytes;
        }
        Ok(finish(sum, length))
    }

    /// The residue of a range; `told` hears of the bytes of each read.
    fn residue_telling(
        &mut self,
        file: &ReadFile,
        range: std::ops::Range<u64>,
        told: &mut dyn FnMut(u64),
    ) -> Result<u64> {
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let chunk = length.min(CHUNK_BYTES);
        provide(&mut self.buffer, chunk)?;
        let (mut at, mut sum) = (range.start, 0);
        while at < range.end {
            let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
            let bytes = &mut self.buffer[..left.min(CHUNK_BYTES)];
            file.read_at(bytes, at)?;
            sum = self.joiner.shift(sum, bytes.len() as u64) ^ residue(bytes);
            at += bytes.len() as u64;
            told(bytes.len() as u64);
        }
        Ok(sum)
    }
}

/// Whether a file's own header says what the manifest says. Local.
///
/// # Errors
/// [`Kind::Corrupt`] if it doesn't, or can't be read; [`Kind::Io`].
pub(in crate::job) fn check_header(
    file: &ReadFile,
    record: &FileRecord,
    placed: &[Placed],
) -> Result<()> {
    if record.structure.is_none() {
        return Ok(());
    }
    let format = Format::recognise(file)?;
    if !format.tells_itself() {
        return Ok(());
    }
    let mut found = structure(&format.read(file)?);
    let mut placed = placed.to_vec();
    found.sort();
    placed.sort();
    if found == placed {
        return Ok(());
    }
    Err(Fault::new(
        Kind::Corrupt,
        "the header has other tensors than were written",
    ))
}

fn bad(record: &FileRecord, tensor: Option<&str>, reason: String) -> BadFile {
    BadFile {
        file: record.path.clone(),
        tensor: tensor.map(str::to_owned),
        reason,
    }
}

/// Which of a file's tensors that are `wanted` are not as they were written. Local.
pub(in crate::job) fn bad_shards(
    directory: &Path,
    manifest: &Manifest,
    record: &FileRecord,
    wanted: &dyn Fn(&str) -> bool,
) -> Vec<BadFile> {
    let placed = manifest.placed(record);
    if !placed.iter().any(|(name, _)| wanted(name)) {
        return Vec::new();
    }
    let file = match ReadFile::open(&directory.join(&record.path)) {
        Ok(file) => file,
        Err(fault) => return vec![bad(record, None, fault.message)],
    };
    let mut found = Vec::new();
    let mut reader = Reader::default();
    let shards = placed.iter().zip(&record.shards);
    for ((name, ranges), crc) in shards.filter(|((name, _), _)| wanted(name)) {
        let (mut sum, mut length) = (0, 0);
        let mut reason = None;
        for (begin, end) in ranges {
            if *end > file.size() {
                reason = Some(format!(
                    "the file ends at byte {}, the tensor at {end}",
                    file.size()
                ));
                break;
            }
            match reader.residue(&file, *begin..*end) {
                Ok(part) => sum = shift(sum, end - begin) ^ part,
                Err(fault) => {
                    reason = Some(fault.message);
                    break;
                }
            }
            length += end - begin;
        }
        if reason.is_none() && finish(sum, length) != crc.0 {
            reason = Some("its bytes have another CRC than when they were written".into());
        }
        if let Some(reason) = reason {
            found.push(bad(record, Some(name), reason));
        }
    }
    found
}

/// What is wrong with a file, tensor by tensor. Local.
#[must_use]
pub fn find_bad(directory: &Path, manifest: &Manifest, record: &FileRecord) -> Vec<BadFile> {
    let mut found = bad_shards(directory, manifest, record, &|_| true);
    let bad = |tensor: Option<&str>, reason: String| bad(record, tensor, reason);
    let file = match ReadFile::open(&directory.join(&record.path)) {
        Ok(file) => file,
        Err(fault) => return vec![bad(None, fault.message)],
    };
    let mut reader = Reader::default();
    let placed = manifest.placed(record);
    if file.size() != record.bytes {
        let reason = format!(
            "has {} bytes, was written with {}",
            file.size(),
            record.bytes
        );
        found.push(bad(None, reason));
    } else if let Err(fault) = check_header(&file, record, placed) {
        found.push(bad(
            None,
            format!("the header is damaged: {}", fault.message),
        ));
    } else if found.is_empty() {
        match reader.residue(&file, 0..file.size()) {
            Ok(sum) if finish(sum, record.bytes) == record.crc64.0 => {}
            Ok(_) => {
                let reason = "bytes outside of its tensors are not as they were written";
                found.push(bad(None, reason.into()));
            }
            Err(fault) => found.push(bad(None, fault.message)),
        }
    }
    found
}
