//! The directory of a zip archive that lies within a file, as `torch.save` writes it: entries are stored,
//! and known by the central directory alone, for local headers have no sizes.

use crate::fault::memory::zeroed;
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::seal::Seal;
use crate::store::io::ReadFile;
use std::collections::BTreeMap;
use std::ops::Range;

/// Longest comment at the end of an archive.
const COMMENT_BYTES: u64 = 66;
/// That and the records at the end.
const TAIL_BYTES: u64 = 22 + 20 + 56 + COMMENT_BYTES;
/// Longest central directory that is read.
const DIRECTORY_BYTES_MAX: u64 = 64 << 20;
/// Length of a local header without name and extra field.
const LOCAL_BYTES: u64 = 30;

/// An entry of an archive: its bytes in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Where its local header is.
    header: u64,
    /// Its length.
    pub(super) length: u64,
    /// Its CRC-32; 0 where whoever wrote it made none.
    pub(super) crc: u32,
    name_bytes: u64,
}

/// The entries of an archive by name, and the range of the file that it is.
#[derive(Debug)]
pub(super) struct Archive {
    range: Range<u64>,
    /// Where the central directory begins: nothing stored reaches into it.
    directory: u64,
    pub(super) entries: BTreeMap<String, Stored>,
}

fn corrupt(message: impl Into<String>) -> Fault {
    Fault::new(Kind::Corrupt, message)
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<u64> {
    let end = at.checked_add(N);
    let part = end.and_then(|end| bytes.get(at..end));
    let part = part.ok_or_else(|| corrupt("its zip archive's directory is cut off"))?;
    Ok(part
        .iter()
        .rev()
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
}

fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn part(file: &ReadFile, range: Range<u64>) -> Result<Vec<u8>> {
    let mut bytes = zeroed(index(range.end.saturating_sub(range.start)))?;
    file.read_at(&mut bytes, range.start)?;
    Ok(bytes)
}

impl Archive {
    /// Reads the directory of the archive that is bytes `range` of `file`. Local.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for what is cut off, twice there or outside; [`Kind::Unsupported`] for compressed
    /// or encrypted entries; [`Kind::Io`].
    pub(super) fn read(file: &ReadFile, range: Range<u64>) -> Result<Archive> {
        let truncated = || {
            let message = "is no whole PyTorch file: its zip archive has no end (truncated?)";
            corrupt(message).hint("was it copied or downloaded whole?")
        };
        if range.end > file.size() || range.start > range.end {
            return Err(corrupt(format!(
                "bytes {} to {} are meant, the file has {}",
                range.start,
                range.end,
                file.size()
            )));
        }
        let tail_at = range.start.max(range.end.saturating_sub(TAIL_BYTES));
        let tail = part(file, tail_at..range.end)?;
        let mut ends = (0..tail.len())
            .rev()
            .filter(|at| tail[*at..].starts_with(b"PK\x05\x06"));
        let end = ends.next().ok_or_else(truncated)?;
        let mut count = number::<2>(&tail, end + 10)?;
        let mut size = number::<4>(&tail, end + 12)?;
        let mut begin = number::<4>(&tail, end + 16)?;
        let mut limit = tail_at + end as u64 - range.start;
        let locator = end
            .checked_sub(20)
            .filter(|at| tail[*at..].starts_with(b"PK\x06\x07"));
        if let Some(locator) = locator {
            let record = number::<8>(&tail, locator + 8)?;
            let fits = record.checked_add(56).is_some_and(|end| end <= limit);
            if !fits {
                return Err(corrupt("its zip archive's end names a place outside"));
            }
            let bytes = part(file, range.start + record..range.start + record + 56)?;
            if !bytes.starts_with(b"PK\x06\x06") {
                return Err(corrupt(
                    "its zip archive's end names a place where nothing is",
                ));
            }
            count = number::<8>(&bytes, 32)?;
            size = number::<8>(&bytes, 40)?;
            begin = number::<8>(&bytes, 48)?;
            limit = record;
        }
        if size > DIRECTORY_BYTES_MAX || begin.checked_add(size).is_none_or(|end| end > limit) {
            return Err(corrupt(
                "its zip archive's directory reaches outside the archive",
            ));
        }
        let bytes = part(file, range.start + begin..range.start + begin + size)?;
        let entries = entries(&bytes, count, begin)?;
        Ok(Archive {
            directory: range.start + begin,
            range,
            entries,
        })
    }

    /// The archive that ends at byte `end` of a file in which several follow each other; none if none does. Local.
    ///
    /// # Errors
    /// As [`Archive::read`].
    pub(super) fn ending_at(file: &ReadFile, end: u64) -> Result<Option<Archive>> {
        let at = end.saturating_sub(TAIL_BYTES - COMMENT_BYTES);
        let tail = part(file, at..end)?;
        let from_end = |bytes: usize| tail.len().checked_sub(bytes).and_then(|at| tail.get(at..));
        let Some(last) = from_end(22).filter(|last| last.starts_with(b"PK\x05\x06")) else {
            return Ok(None);
        };
        let wide = from_end(42).filter(|wide| wide.starts_with(b"PK\x06\x07"));
        let (record, behind) = match wide {
            Some(wide) => (number::<8>(wide, 8)?, 22 + 20 + 56),
            None => {
                let directory = number::<4>(last, 12)?.checked_add(number::<4>(last, 16)?);
                (directory.unwrap_or_default(), 22)
            }
        };
        let begin = end
            .checked_sub(behind)
            .and_then(|end| end.checked_sub(record));
        let archive = begin.map(|begin| Archive::read(file, begin..end));
        archive.transpose()
    }

    /// Where the archive begins in its file.
    pub(super) fn begin(&self) -> u64 {
        self.range.start
    }

    /// What the archive says of the CRCs of its entries. Local.
    ///
    /// # Errors
    /// As [`Archive::bytes`].
    pub(super) fn seals(&self, file: &ReadFile) -> Result<Vec<Seal>> {
        let entries = self.entries.iter();
        let sealed = entries.filter(|(_, stored)| stored.crc != 0 && stored.length > 0);
        let seals: Result<Vec<Seal>> = sealed
            .map(|(name, stored)| {
                let range = self.bytes(file, name, stored)?;
                Ok(Seal::of(range, stored.crc, Some(name.clone())))
            })
            .collect();
        seals
    }

    /// The one entry whose name ends in `/name`, and what stands before that.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if there are none or several.
    pub(super) fn only(&self, name: &str) -> Result<(&str, &Stored)> {
        let found = self.entries.iter().filter_map(|(path, stored)| {
            let folder = path.strip_suffix(name)?;
            (folder.ends_with('/') && folder.matches('/').count() == 1).then_some((folder, stored))
        });
        let found: Vec<_> = found.collect();
        match found[..] {
            [one] => Ok(one),
            [] => Err(corrupt(format!("its zip archive has no {name}"))),
            _ => Err(corrupt(format!("its zip archive has several {name}"))),
        }
    }

    /// Where the bytes of an entry are in the file. Local.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if its local header isn't there or says otherwise, or it reaches outside.
    pub(super) fn bytes(&self, file: &ReadFile, name: &str, stored: &Stored) -> Result<Range<u64>> {
        let fault = |message: &str| corrupt(format!("{name} of its zip archive {message}"));
        let header = self.range.start.checked_add(stored.header);
        let header = header.filter(|at| {
            at.checked_add(LOCAL_BYTES)
                .is_some_and(|end| end <= self.directory)
        });
        let header = header.ok_or_else(|| fault("lies outside it"))?;
        let local = part(file, header..header + LOCAL_BYTES)?;
        if !local.starts_with(b"PK\x03\x04") || number::<2>(&local, 8)? != 0 {
            return Err(fault("isn't where the directory says"));
        }
        if number::<2>(&local, 26)? != stored.name_bytes {
            return Err(fault("has another name in place"));
        }
        let named = part(
            file,
            (header + LOCAL_BYTES).min(self.directory)
                ..(header + LOCAL_BYTES + stored.name_bytes).min(self.directory),
        )?;
        if named != name.as_bytes() {
            return Err(fault("has another name in place"));
        }
        let begin = header + LOCAL_BYTES + stored.name_bytes + number::<2>(&local, 28)?;
        let end = begin
            .checked_add(stored.length)
            .filter(|end| *end <= self.directory);
        let end = end.ok_or_else(|| fault("has more bytes than the file (truncated?)"))?;
        Ok(begin..end)
    }
}

/// The entries of a central directory of `count` entries that begins at byte `begin` of its archive.
fn entries(bytes: &[u8], count: u64, begin: u64) -> Result<BTreeMap<String, Stored>> {
    let mut entries = BTreeMap::new();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at..].starts_with(b"PK\x01\x02") {
            return Err(corrupt(
                "its zip archive's directory has no entry where one begins",
            ));
        }
        let (flags, method) = (number::<2>(bytes, at + 8)?, number::<2>(bytes, at + 10)?);
        let mut packed = number::<4>(bytes, at + 20)?;
        let mut length = number::<4>(bytes, at + 24)?;
        let name_bytes = number::<2>(bytes, at + 28)?;
        let extra_bytes = number::<2>(bytes, at + 30)?;
        let comment_bytes = number::<2>(bytes, at + 32)?;
        let mut header = number::<4>(bytes, at + 42)?;
        let name_at = at + 46;
        let extra_at = name_at + index(name_bytes);
        let name = bytes
            .get(name_at..extra_at)
            .and_then(|name| std::str::from_utf8(name).ok());
        let name = name.ok_or_else(|| corrupt("its zip archive's directory is cut off"))?;
        let extra = bytes.get(extra_at..extra_at + index(extra_bytes));
        let extra = extra.ok_or_else(|| corrupt("its zip archive's directory is cut off"))?;
        widen(extra, [&mut length, &mut packed, &mut header])?;
        if method != 0 || flags & 1 != 0 {
            let message = format!(
                "{name} of its zip archive is {}; what torch.save writes isn't",
                if flags & 1 != 0 {
                    "encrypted"
                } else {
                    "compressed"
                }
            );
            let fault = Fault::new(Kind::Unsupported, message);
            return Err(fault.hint("load and save it again in Python"));
        }
        if packed != length {
            return Err(corrupt(format!(
                "{name} of its zip archive has two lengths"
            )));
        }
        let inside = header.checked_add(length).is_some_and(|end| end <= begin);
        if !inside {
            return Err(corrupt(format!(
                "{name} of its zip archive lies outside it (truncated?)"
            )));
        }
        let crc = u32::try_from(number::<4>(bytes, at + 16)?).unwrap_or_default();
        let stored = Stored {
            header,
            length,
            crc,
            name_bytes,
        };
        if entries.insert(name.to_owned(), stored).is_some() {
            return Err(corrupt(format!("its zip archive has {name} twice")));
        }
        at = extra_at + index(extra_bytes) + index(comment_bytes);
    }
    if entries.len() as u64 != count {
        return Err(corrupt(
            "its zip archive has another number of entries than it says",
        ));
    }
    Ok(entries)
}

/// Takes the longer numbers of a ZIP64 record for those that say so.
fn widen(extra: &[u8], numbers: [&mut u64; 3]) -> Result<()> {
    let mut at = 0;
    let mut record: &[u8] = &[];
    while at + 4 <= extra.len() {
        let (kind, length) = (number::<2>(extra, at)?, index(number::<2>(extra, at + 2)?));
        if kind == 1 {
            record = extra.get(at + 4..at + 4 + length).unwrap_or_default();
        }
        at += 4 + length;
    }
    let mut at = 0;
    for wide in numbers {
        if *wide == 0xffff_ffff {
            *wide = number::<8>(record, at)?;
            at += 8;
        }
    }
    Ok(())
}
