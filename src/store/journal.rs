//! A journal: records appended one after the other, each with its length and CRC, so that one that
//! was cut short is known as such.

use crate::fault::Result;
use crate::store::io::{ReadFile, WriteFile};
use crate::tensor::digest::checksum;
use std::path::Path;

/// Largest journal that is read.
const BYTES_MAX: u64 = 8 << 30;

/// A journal open for appending.
#[derive(Debug)]
pub struct Journal {
    file: WriteFile,
    length: u64,
}

impl Journal {
    /// Begins a journal at `path`, where nothing must stand.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Io`].
    pub fn create(path: &Path) -> Result<Journal> {
        let file = WriteFile::create(path, 0)?;
        Ok(Journal { file, length: 0 })
    }

    /// Appends a record; with `flush` it is on the disk afterwards.
    ///
    /// # Errors
    /// [`crate::fault::Kind::NoSpace`], [`crate::fault::Kind::Io`].
    pub fn append(&mut self, record: &[u8], flush: bool) -> Result<()> {
        let mut bytes = Vec::with_capacity(record.len() + 16);
        bytes.extend((record.len() as u64).to_le_bytes());
        bytes.extend(checksum(record).to_le_bytes());
        bytes.extend_from_slice(record);
        self.file.write_at(&bytes, self.length)?;
        self.length += bytes.len() as u64;
        if flush { self.file.sync() } else { Ok(()) }
    }
}

/// The whole records of the journal at `path`.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub fn read(path: &Path) -> Result<Vec<Vec<u8>>> {
    Ok(records(&ReadFile::open(path)?.read_all(BYTES_MAX)?))
}

fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
    while let Some((head, rest)) = bytes.split_at_checked(16) {
        let length = number(&head[..8]).and_then(|length| usize::try_from(length).ok());
        let record = length.and_then(|length| rest.split_at_checked(length));
        match record {
            // A file that has its size and not its bytes yet is zeros, which would be a record of nothing.
            Some((record, rest))
                if !record.is_empty() && number(&head[8..]) == Some(checksum(record)) =>
            {
                records.push(record.to_vec());
                bytes = rest;
            }
            _ => break,
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves P131
    #[test]
    fn a_record_that_was_cut_short_is_left_out() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("journal");
        let mut journal = Journal::create(&path).unwrap();
        let wanted = [b"one".to_vec(), b"2".to_vec(), b"three".to_vec()];
        for record in &wanted {
            journal.append(record, true).unwrap();
        }
        assert_eq!(read(&path).unwrap(), wanted);
        let bytes = ReadFile::open(&path).unwrap().read_all(1000).unwrap();
        for length in 0..bytes.len() {
            let found = records(&bytes[..length]);
            assert_eq!(found, wanted[..found.len()]);
            assert!(found.len() < 3);
            let mut zeros = bytes[..length].to_vec();
            zeros.resize(bytes.len() + 64, 0);
            assert_eq!(records(&zeros), found);
        }
    }
}
