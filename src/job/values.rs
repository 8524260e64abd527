//! Values of shards, by which copies are compared.

use crate::catalog::Place;
use crate::fault::memory::grow;
use crate::fault::{Fault, Kind, Result};
use crate::job::lying;
use crate::plan::copies::ranges;
use crate::source::Source;
use crate::store::io::ReadFile;
use crate::tensor::digest::{residue, shift};
use crate::transport::{Filler, Readers};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

/// The files of a source, the one that was read last kept open.
pub(super) struct Files<'a> {
    source: &'a Source,
    open: HashMap<(u32, u32), ReadFile>,
    /// For shards that lie with strides of their own.
    readers: &'a Readers<'a>,
    /// All of a shard is of interest, not some places of it.
    all: bool,
    buffer: Vec<u8>,
}

/// Bytes that are read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Files kept open at once.
const OPEN_MAX: usize = 128;

impl<'a> Files<'a> {
    /// None is open yet; of a shard all or some is compared.
    pub(super) fn new(source: &'a Source, readers: &'a Readers<'a>, all: bool) -> Self {
        Files {
            source,
            open: HashMap::new(),
            readers,
            all,
            buffer: Vec::new(),
        }
    }

    /// What is compared of a shard of `bytes` bytes.
    fn ranges(&self, salt: u64, bytes: u64) -> Vec<Range<u64>> {
        if !self.all {
            return ranges(salt, bytes);
        }
        let piece = |begin: u64| begin..(begin + PIECE_BYTES as u64).min(bytes);
        (0..bytes).step_by(PIECE_BYTES).map(piece).collect()
    }

    /// A value of what is compared of the shard at `place`.
    ///
    /// # Errors
    /// As reading it.
    pub(super) fn value(&mut self, place: Place, salt: u64) -> Result<u64> {
        let catalog = &self.source.catalog;
        let entry = catalog.entry(place);
        let held = &catalog.file(place).schema.held;
        if held.part(place.entry as usize).is_some() {
            return self.strided(place, salt);
        }
        let key = (place.rank, place.file);
        if !self.open.contains_key(&key) {
            if self.open.len() >= OPEN_MAX {
                self.open.clear();
            }
            let path = self.source.base.join(Path::new(&catalog.file(place).path));
            self.open.insert(key, ReadFile::open(&path)?);
        }
        let ranges = self.ranges(salt, entry.bytes());
        let Some(file) = self.open.get(&key) else {
            return Err(Fault::new(
                Kind::Internal,
                "a file that was opened isn't open",
            ));
        };
        let mut value = 0;
        let buffer = &mut self.buffer;
        for range in ranges {
            entry.locate(range, |offset, part| {
                let length = part.end - part.start;
                grow(buffer, usize::try_from(length).unwrap_or(usize::MAX))?;
                file.read_at(buffer, offset)
                    .map_err(|fault| fault.tensor(&*entry.name).rank(place.rank))?;
                value = shift(value, length) ^ residue(buffer);
                Ok(())
            })?;
        }
        Ok(value)
    }

    /// The same of a shard that doesn't lie row after row.
    fn strided(&mut self, place: Place, salt: u64) -> Result<u64> {
        let entry = self.source.catalog.entry(place);
        let copy = lying::in_rows(&self.source.catalog, place);
        let mut filler = Filler::new(self.readers);
        let mut value = 0;
        for range in self.ranges(salt, entry.shape.bytes(entry.dtype)?) {
            let length = range.end - range.start;
            grow(
                &mut self.buffer,
                usize::try_from(length).unwrap_or(usize::MAX),
            )?;
            lying::read(&mut filler, &copy, place, range.start, &mut self.buffer)?;
            value = shift(value, length) ^ residue(&self.buffer);
        }
        Ok(value)
    }
}
