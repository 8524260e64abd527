//! Where built bytes go: into files, or against them.

use crate::catalog::{Catalog, Place};
use crate::fault::{Fault, Kind, Result};
use crate::store::io::{Directory, WriteFile, kept_open};
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

    /// Hands to the system what it has kept back. Others may go on meanwhile.
    ///
    /// # Errors
    /// As the store's.
    fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// Takes note that nothing more comes from this process.
    ///
    /// # Errors
    /// As the store's.
    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

/// Writes files that have been created and sized before.
pub struct FileSink<'a> {
    base: PathBuf,
    /// The directory itself: a run that stood still while another took its place must not write into
    /// that one's files of the same names.
    directory: Option<Directory>,
    catalog: &'a Catalog,
    /// Other nodes write the same files: what one of them keeps back no other one sees.
    shared: bool,
    open: Mutex<HashMap<(u32, u32), Arc<Output>>>,
    open_max: usize,
}

/// Shorter writes wait for what follows them, up to as many bytes.
const WRITE_BYTES_SMALL: usize = 64 << 10;

/// A file being written: neighbouring short writes are put together.
struct Output {
    file: WriteFile,
    waiting: Mutex<Waiting>,
}

/// Bytes that belong at `offset` and have not been written yet.
#[derive(Default)]
struct Waiting {
    offset: u64,
    bytes: Vec<u8>,
    /// Nobody flushes this file any more: write at once.
    closed: bool,
}

impl Output {
    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        if bytes.len() >= WRITE_BYTES_SMALL {
            return self.file.write_at(bytes, offset);
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.closed {
            return self.file.write_at(bytes, offset);
        }
        let follows = waiting.offset + waiting.bytes.len() as u64 == offset;
        if !follows || waiting.bytes.len() + bytes.len() > WRITE_BYTES_SMALL {
            self.flush(&mut waiting)?;
            waiting.offset = offset;
        }
        waiting.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&self, waiting: &mut Waiting) -> Result<()> {
        if !waiting.bytes.is_empty() {
            self.file.write_at(&waiting.bytes, waiting.offset)?;
            waiting.bytes.clear();
        }
        Ok(())
    }

    /// Hands on what was kept back; to all nodes, if the file is `shared` by several.
    fn finish(&self, shared: bool) -> Result<()> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.closed = true;
        self.flush(&mut waiting)?;
        if shared { self.file.sync() } else { Ok(()) }
    }
}

impl<'a> FileSink<'a> {
    /// A sink for the files of `catalog` in `base`, which other nodes write, too, if they are `shared`.
    #[must_use]
    pub fn new(base: &Path, catalog: &'a Catalog, shared: bool) -> Self {
        FileSink {
            base: base.to_path_buf(),
            // Where this process writes nothing there may be none.
            directory: Directory::open(base).ok(),
            catalog,
            shared,
            open: Mutex::new(HashMap::new()),
            open_max: kept_open(),
        }
    }

    fn open(&self, place: Place) -> Result<Arc<Output>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (place.rank, place.file);
        if let Some(file) = open.get(&key) {
            return Ok(file.clone());
        }
        let inside = &self.catalog.file(place).path;
        let file = match &self.directory {
            Some(directory) => WriteFile::open_in(directory, inside)?,
            None => WriteFile::open(&self.base.join(inside))?,
        };
        let file = Arc::new(Output {
            file,
            waiting: Mutex::default(),
        });
        if open.len() >= self.open_max {
            for (_, file) in open.drain() {
                file.finish(self.shared)?;
            }
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
                file.write(bytes, at)
            })
            .map_err(|fault| fault.tensor(&*entry.name).rank(place.rank))
    }

    fn flush(&self) -> Result<()> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().try_for_each(|file| {
            file.flush(&mut file.waiting.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }

    fn finish(&self) -> Result<()> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().try_for_each(|file| file.finish(self.shared))
    }
}
