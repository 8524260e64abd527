//! Files written behind the training: by a thread that does nothing but file I/O.

use crate::catalog::FileSchema;
use crate::fault::memory::room;
use crate::fault::{Fault, Kind, Result};
use crate::host::threads::{Launched, launch};
use crate::store::io::{self, WriteFile};
use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The bytes of a tensor.
#[derive(Clone, Debug)]
pub enum Bytes<'a> {
    /// The training's own: they change with the next step.
    Borrowed(&'a [u8]),
    /// Few, made for the file.
    Made(Vec<u8>),
    /// A copy, which several files may have.
    Copied(Arc<Vec<u8>>),
}

impl Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Borrowed(bytes) => bytes,
            Bytes::Made(bytes) => bytes,
            Bytes::Copied(bytes) => bytes,
        }
    }
}

/// A file to be written: its structure and the bytes of its tensors, by name.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    /// Where it is to stand.
    pub path: PathBuf,
    /// What it holds.
    pub schema: Arc<FileSchema>,
    /// The bytes of each entry of the schema, in its order.
    pub bytes: Vec<Bytes<'a>>,
}

impl Draft<'_> {
    /// Writes the file beside its place, flushes it, and puts it there by one rename.
    ///
    /// # Errors
    /// [`Kind::NoSpace`], [`Kind::Io`]; then nothing new stands there.
    pub fn write(&self) -> Result<()> {
        let Some(directory) = self.path.parent() else {
            return Err(Fault::new(
                Kind::Internal,
                "a checkpoint file needs a directory",
            ));
        };
        io::make_directory_for_good(directory)?;
        let mut name = self.path.file_name().unwrap_or_default().to_os_string();
        name.push(".tmp");
        let partial = self.path.with_file_name(name);
        io::remove(&partial)?;
        let file = WriteFile::create(&partial, self.schema.size)?;
        for (offset, bytes) in &self.schema.literals {
            file.write_at(bytes, *offset)?;
        }
        for (entry, bytes) in self.schema.entries.iter().zip(&self.bytes) {
            if entry.bytes() != bytes.len() as u64 {
                let message = format!(
                    "has {} bytes, its shape asks for {}",
                    bytes.len(),
                    entry.bytes()
                );
                return Err(Fault::new(Kind::Shape, message).tensor(&*entry.name));
            }
            if let Some(segment) = entry.segments.first() {
                file.write_at(bytes, segment.start)?;
            }
        }
        file.sync()?;
        io::rename(&partial, &self.path)?;
        io::sync_directory(directory)
    }
}

/// Writes small `bytes` to `path`, replacing what stands there in one step.
///
/// # Errors
/// [`Kind::NoSpace`], [`Kind::Io`].
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("tmp");
    io::remove(&partial)?;
    io::write_small(&partial, bytes, true)?;
    io::rename(&partial, path)?;
    path.parent().map_or(Ok(()), io::sync_directory)
}

/// Memory that copies were written from, by length, to be filled again: new memory costs a fault a page at
/// its first touch, which takes longer than the copy itself.
#[derive(Debug, Default)]
pub struct Buffers {
    free: BTreeMap<usize, Vec<Vec<u8>>>,
}

impl Buffers {
    /// `drafts` with bytes of their own. Bytes that several of them have are copied once. Memory that
    /// isn't of use is given back.
    ///
    /// # Errors
    /// [`Kind::Memory`].
    pub fn copy(&mut self, drafts: Vec<Draft<'_>>) -> Result<Vec<Draft<'static>>> {
        let mut copied: HashMap<(*const u8, usize), Arc<Vec<u8>>> = HashMap::new();
        let drafts = drafts.into_iter().map(|draft| {
            let own = |bytes: Bytes<'_>| match bytes {
                Bytes::Made(bytes) => Ok(Bytes::Made(bytes)),
                Bytes::Copied(bytes) => Ok(Bytes::Copied(bytes)),
                Bytes::Borrowed(bytes) => {
                    let place = (bytes.as_ptr(), bytes.len());
                    let copy = match copied.entry(place) {
                        Entry::Occupied(copy) => copy.into_mut(),
                        Entry::Vacant(new) => new.insert(self.fill(bytes)?),
                    };
                    Ok(Bytes::Copied(Arc::clone(copy)))
                }
            };
            let bytes = draft.bytes.into_iter().map(own).collect::<Result<_>>();
            Ok(Draft {
                bytes: bytes.map_err(|fault| fault.file(draft.path.display().to_string()))?,
                path: draft.path,
                schema: draft.schema,
            })
        });
        let drafts = drafts.collect();
        self.free.clear();
        drafts
    }

    fn fill(&mut self, bytes: &[u8]) -> Result<Arc<Vec<u8>>> {
        let free = self.free.get_mut(&bytes.len()).and_then(Vec::pop);
        Ok(Arc::new(match free {
            Some(mut buffer) => {
                buffer.copy_from_slice(bytes);
                buffer
            }
            None => {
                let mut buffer = Vec::new();
                room(&mut buffer, bytes.len())?;
                buffer.extend_from_slice(bytes);
                buffer
            }
        }))
    }

    /// Takes the memory of `drafts` back.
    pub fn reclaim(&mut self, drafts: Vec<Draft<'static>>) {
        for bytes in drafts.into_iter().flat_map(|draft| draft.bytes) {
            // Of a copy that several files have, the last one gives it.
            if let Bytes::Copied(copy) = bytes
                && let Some(buffer) = Arc::into_inner(copy)
            {
                self.free.entry(buffer.len()).or_default().push(buffer);
            }
        }
    }
}

/// What is done of an earlier checkpoint before the next is written.
#[derive(Clone, Debug, Default)]
pub struct Chores {
    /// Files that are replaced in one step by small bytes.
    pub replaced: Vec<(PathBuf, Vec<u8>)>,
    /// Files that go.
    pub removed: Vec<PathBuf>,
    /// Directories that go, with all that they hold.
    pub removed_directories: Vec<PathBuf>,
}

impl Chores {
    /// Does them.
    ///
    /// # Errors
    /// [`Kind::NoSpace`], [`Kind::Io`]; they may be done again.
    pub fn run(&self) -> Result<()> {
        for (path, bytes) in &self.replaced {
            replace(path, bytes)?;
        }
        self.removed.iter().try_for_each(|path| io::remove(path))?;
        let mut directories = self.removed_directories.iter();
        directories.try_for_each(|path| io::remove_directory(path))
    }
}

/// Drafts that were written, or not, and why.
type Written = (Result<()>, Vec<Draft<'static>>);

/// Drafts being written by a thread.
#[derive(Debug)]
pub(super) enum Background {
    /// By it.
    Thread(Launched<Written>),
    /// By the caller, since the system gave no thread.
    Ended(Written),
}

impl Background {
    /// Starts to do `chores` and then to write `drafts`. Where the system starts no thread, that is done
    /// before this returns.
    #[must_use]
    pub(super) fn start(chores: Chores, drafts: Vec<Draft<'static>>) -> Background {
        let write = |(chores, drafts): (Chores, Vec<Draft<'static>>)| -> Written {
            let written = chores
                .run()
                .and_then(|()| drafts.iter().try_for_each(Draft::write));
            (written, drafts)
        };
        let work = Arc::new(Mutex::new((chores, drafts)));
        let taken = Arc::clone(&work);
        let take = |work: &Mutex<(Chores, Vec<Draft<'static>>)>| {
            std::mem::take(&mut *work.lock().unwrap_or_else(PoisonError::into_inner))
        };
        match launch("checkpoint", move || write(take(&taken))) {
            Ok(thread) => Background::Thread(thread),
            Err(error) => {
                tracing::warn!("no thread for a checkpoint: {error}; training waits for it");
                Background::Ended(write(take(&work)))
            }
        }
    }

    /// Whether the thread has ended.
    #[must_use]
    pub(super) fn ended(&self) -> bool {
        match self {
            Background::Thread(thread) => thread.is_finished(),
            Background::Ended(_) => true,
        }
    }

    /// Waits for the end, and gives the copies' memory to `buffers`.
    ///
    /// # Errors
    /// As [`Draft::write`] and [`Chores::run`].
    pub(super) fn wait(self, buffers: &mut Buffers) -> Result<()> {
        let joined = match self {
            Background::Thread(thread) => thread.join().ok(),
            Background::Ended(written) => Some(written),
        };
        let Some((written, drafts)) = joined else {
            return Err(Fault::new(Kind::Internal, "the writing thread has died"));
        };
        buffers.reclaim(drafts);
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(bytes: &[u8]) -> Draft<'_> {
        Draft {
            path: PathBuf::from("x"),
            schema: Arc::new(FileSchema::new(Vec::new(), BTreeMap::new(), Vec::new(), 0).unwrap()),
            bytes: vec![Bytes::Borrowed(bytes)],
        }
    }

    #[test]
    fn fills_the_same_memory_again() {
        let (state, mut buffers) = (vec![7_u8; 1000], Buffers::default());
        let place = |drafts: &[Draft<'_>]| drafts[0].bytes[0].as_ptr();
        let first = buffers.copy(vec![draft(&state), draft(&state)]).unwrap();
        let memory = place(&first);
        assert_eq!(place(&first[1..]), memory, "copied once");
        assert_ne!(memory, state.as_ptr());
        buffers.reclaim(first);
        let state = vec![8_u8; 1000];
        let second = buffers.copy(vec![draft(&state)]).unwrap();
        assert_eq!(place(&second), memory);
        assert_eq!(&*second[0].bytes[0], &state[..]);
        assert!(buffers.free.is_empty());
    }
}
