//! Files written behind the training: by a thread that does nothing but file I/O.

use crate::catalog::FileSchema;
use crate::fault::{Fault, Kind, Result};
use crate::store::io::{self, WriteFile};
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

/// A file to be written: its structure and the bytes of its tensors, by name.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    /// Where it is to stand.
    pub path: PathBuf,
    /// What it holds.
    pub schema: Arc<FileSchema>,
    /// The bytes of each entry of the schema, in its order.
    pub bytes: Vec<Cow<'a, [u8]>>,
}

impl Draft<'_> {
    /// The same with bytes of its own.
    #[must_use]
    pub fn into_owned(self) -> Draft<'static> {
        let own = |bytes: Cow<'_, [u8]>| Cow::Owned(bytes.into_owned());
        Draft {
            path: self.path,
            schema: self.schema,
            bytes: self.bytes.into_iter().map(own).collect(),
        }
    }

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
        io::make_directory(directory)?;
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
pub fn replace(path: &std::path::Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("tmp");
    io::remove(&partial)?;
    io::write_small(&partial, bytes, true)?;
    io::rename(&partial, path)?;
    path.parent().map_or(Ok(()), io::sync_directory)
}

/// Drafts being written by a thread.
#[derive(Debug)]
pub struct Background {
    thread: JoinHandle<Result<()>>,
}

impl Background {
    /// Starts to write `drafts`.
    #[must_use]
    pub fn start(drafts: Vec<Draft<'static>>) -> Background {
        Background {
            thread: std::thread::spawn(move || drafts.iter().try_for_each(Draft::write)),
        }
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// As [`Draft::write`].
    pub fn wait(self) -> Result<()> {
        let ended = self.thread.join();
        ended.unwrap_or_else(|_| Err(Fault::new(Kind::Internal, "the writing thread has died")))
    }
}
