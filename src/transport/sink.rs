//! Where built bytes go: into files, or against them.

use crate::catalog::{Catalog, Place};
use crate::fault::{Fault, Kind, Result};
use crate::host::bug::Bug;
use crate::host::planted::planted;
use crate::store::io::{Directory, WriteFile, kept_open};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

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

/// A rank and which of its files.
type Key = (u32, u32);
/// A file that several threads write.
type Shared = Arc<Mutex<Output>>;

/// Writes files that have been created and sized before.
pub struct FileSink<'a> {
    base: PathBuf,
    /// The directory itself: a run that stood still while another took its place must not write into
    /// that one's files of the same names.
    directory: Option<Directory>,
    catalog: &'a Catalog,
    /// Other nodes write the same files: what one of them keeps back no other one sees.
    shared: bool,
    outputs: RwLock<HashMap<Key, Shared>>,
    /// Files that are open, and how many may be.
    open: AtomicUsize,
    open_max: usize,
    /// Bytes that have not been written yet.
    waiting_bytes: AtomicUsize,
    /// Files that get their bytes in another way.
    passed_by: BTreeSet<Key>,
    passed_bytes: AtomicU64,
}

/// Shorter writes wait for what follows them, up to as many bytes.
const WRITE_BYTES_SMALL: usize = 64 << 10;
/// Most bytes that wait, of all files.
const WAITING_BYTES_MAX: usize = 24 << 20;

/// A file being written: neighbouring short writes are put together, whether it is open or not.
#[derive(Default)]
struct Output {
    file: Option<WriteFile>,
    /// Bytes that belong at `offset` and have not been written yet.
    offset: u64,
    bytes: Vec<u8>,
}

fn lock(output: &Mutex<Output>) -> MutexGuard<'_, Output> {
    output.lock().unwrap_or_else(PoisonError::into_inner)
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
            outputs: RwLock::default(),
            open: AtomicUsize::new(0),
            open_max: kept_open(),
            waiting_bytes: AtomicUsize::new(0),
            passed_by: BTreeSet::new(),
            passed_bytes: AtomicU64::new(0),
        }
    }

    /// The same, but nothing is written to these `files`, by rank and number.
    #[must_use]
    pub fn without(self, files: impl Iterator<Item = (u32, u32)>) -> Self {
        let passed_by = files.collect();
        FileSink { passed_by, ..self }
    }

    /// Bytes that were not written for that.
    #[must_use]
    pub fn passed_bytes(&self) -> u64 {
        self.passed_bytes.load(Ordering::Relaxed)
    }

    fn output(&self, place: Place) -> Arc<Mutex<Output>> {
        let key = (place.rank, place.file);
        let outputs = self.outputs.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(output) = outputs.get(&key) {
            return Arc::clone(output);
        }
        drop(outputs);
        let mut outputs = self.outputs.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(outputs.entry(key).or_default())
    }

    fn all(&self) -> Vec<(Key, Shared)> {
        let outputs = self.outputs.read().unwrap_or_else(PoisonError::into_inner);
        let all = outputs.iter();
        let all = all.map(|(key, output)| (*key, Arc::clone(output)));
        let mut all: Vec<(Key, Shared)> = all.collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }

    /// Writes `bytes` at `offset` of the file of `output`, now or together with what follows.
    fn write(&self, output: &mut Output, place: Place, bytes: &[u8], offset: u64) -> Result<()> {
        if bytes.len() >= WRITE_BYTES_SMALL {
            return self.write_now(output, place, bytes, offset);
        }
        let follows = output.offset + output.bytes.len() as u64 == offset;
        if !follows || output.bytes.len() + bytes.len() > WRITE_BYTES_SMALL {
            self.hand_over(output, place)?;
            output.offset = offset;
        }
        output.bytes.extend_from_slice(bytes);
        self.waiting_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Writes what waits.
    fn hand_over(&self, output: &mut Output, place: Place) -> Result<()> {
        if output.bytes.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut output.bytes);
        self.waiting_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
        self.write_now(output, place, &bytes, output.offset)
    }

    fn write_now(
        &self,
        output: &mut Output,
        place: Place,
        bytes: &[u8],
        offset: u64,
    ) -> Result<()> {
        let file = match &mut output.file {
            Some(file) => file,
            empty => {
                if self.open.load(Ordering::Relaxed) >= self.open_max {
                    self.close_some()?;
                }
                let inside = &self.catalog.file(place).path;
                let file = match &self.directory {
                    Some(directory) => WriteFile::open_in(directory, inside)?,
                    None => WriteFile::open(&self.base.join(inside))?,
                };
                self.open.fetch_add(1, Ordering::Relaxed);
                empty.insert(file)
            }
        };
        let lost = usize::from(planted(Bug::ByteLost) && bytes.len() > 1);
        file.write_at(&bytes[..bytes.len() - lost], offset)
    }

    /// Closes the files that nobody is writing to at the moment.
    fn close_some(&self) -> Result<()> {
        for (_, output) in self.all() {
            if let Ok(mut output) = output.try_lock()
                && let Some(file) = output.file.take()
            {
                self.open.fetch_sub(1, Ordering::Relaxed);
                self.show(&file)?;
            }
        }
        Ok(())
    }

    /// Shows all nodes what was written, if several write the file.
    fn show(&self, file: &WriteFile) -> Result<()> {
        if self.shared { file.sync() } else { Ok(()) }
    }

    fn hand_over_all(&self) -> Result<()> {
        let all = self.all().into_iter();
        { all }.try_for_each(|((rank, file), output)| {
            let entry = 0;
            self.hand_over(&mut lock(&output), Place { rank, file, entry })
        })
    }
}

impl Sink for FileSink<'_> {
    fn put(&self, place: Place, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.passed_by.contains(&(place.rank, place.file)) {
            let length = bytes.len() as u64;
            self.passed_bytes.fetch_add(length, Ordering::Relaxed);
            return Ok(());
        }
        let entry = self.catalog.entry(place);
        let output = self.output(place);
        let end = offset + bytes.len() as u64;
        let index = |value: u64| {
            usize::try_from(value).map_err(|_| Fault::new(Kind::Internal, "a buffer is too large"))
        };
        entry
            .locate(offset..end, |at, part| {
                let bytes = &bytes[index(part.start - offset)?..index(part.end - offset)?];
                self.write(&mut lock(&output), place, bytes, at)
            })
            .map_err(|fault| fault.tensor(&*entry.name).rank(place.rank))?;
        if self.waiting_bytes.load(Ordering::Relaxed) <= WAITING_BYTES_MAX {
            return Ok(());
        }
        self.hand_over_all()
    }

    fn flush(&self) -> Result<()> {
        self.hand_over_all()
    }

    fn finish(&self) -> Result<()> {
        if !planted(Bug::LastWindowKept) {
            self.hand_over_all()?;
        }
        self.all().into_iter().try_for_each(|(_, output)| {
            let file = lock(&output).file.take();
            file.map_or(Ok(()), |file| self.show(&file))
        })
    }
}
