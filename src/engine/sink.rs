//! Where built bytes go: into files, or against them.

use crate::catalog::{Catalog, Place};
use crate::fault::{Fault, Kind, Result};
use crate::store::io::WriteFile;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Takes the bytes of destination tensors, in any order, each exactly once.
pub trait Sink: Sync {
    /// Takes `bytes`, which belong at `offset` of the tensor at `place`.
    ///
    /// # Errors
    /// As the store's.
    fn put(&self, place: Place, offset: u64, bytes: &[u8]) -> Result<()>;
}

/// Writes files that have been created and sized before.
pub struct FileSink<'a> {
    base: PathBuf,
    catalog: &'a Catalog,
    open: Mutex<HashMap<(u32, u32), Arc<WriteFile>>>,
}

/// Files kept open for writing.
const OPEN_MAX: usize = 512;

impl<'a> FileSink<'a> {
    /// A sink for the files of `catalog` in `base`.
    #[must_use]
    pub fn new(base: &Path, catalog: &'a Catalog) -> Self {
        FileSink {
            base: base.to_path_buf(),
            catalog,
            open: Mutex::new(HashMap::new()),
        }
    }

    fn open(&self, place: Place) -> Result<Arc<WriteFile>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (place.rank, place.file);
        if let Some(file) = open.get(&key) {
            return Ok(file.clone());
        }
        let file = Arc::new(WriteFile::open(
            &self.base.join(&self.catalog.file(place).path),
        )?);
        if open.len() >= OPEN_MAX {
            open.clear();
        }
        open.insert(key, file.clone());
        Ok(file)
    }
}

impl Sink for FileSink<'_> {
    fn put(&self, place: Place, offset: u64, bytes: &[u8]) -> Result<()> {
        let entry = self.catalog.entry(place);
        let file = self.open(place)?;
        let end = offset + bytes.len() as u64;
        let index = |value: u64| {
            usize::try_from(value).map_err(|_| Fault::new(Kind::Internal, "a buffer is too large"))
        };
        entry
            .locate(offset..end, |at, part| {
                let bytes = &bytes[index(part.start - offset)?..index(part.end - offset)?];
                file.write_at(bytes, at)
            })
            .map_err(|fault| fault.tensor(&*entry.name).rank(place.rank))
    }
}
