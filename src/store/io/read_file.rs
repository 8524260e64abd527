//! A file open for reading.

use crate::fault::memory::zeroed;
use crate::fault::{Fault, Kind, Result};
use crate::host::bug::Bug;
use crate::host::planted::planted;
use crate::store::io::gate::{Wary, gate};
use crate::store::io::named::named;
use crate::store::io::stamp::Stamp;
use crate::store::io::trace;
use rustix::fs::Advice;
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of the smallest page.
const PAGE_BYTES: u64 = 4 << 10;

fn kind_of(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a named pipe",
        _ if kind.is_socket() => "a socket",
        _ if kind.is_block_device() || kind.is_char_device() => "a device",
        _ => "something else",
    }
}

/// The size and the identity of a file, which must be a regular one.
fn regular(path: &Path, metadata: &Metadata) -> Result<(u64, u64)> {
    if !metadata.is_file() {
        let message = format!("is {}, not a regular file", kind_of(metadata.file_type()));
        return Err(Fault::new(Kind::Io, message).file(path.display().to_string()));
    }
    let mut hasher = DefaultHasher::new();
    (metadata.ino(), metadata.ctime(), metadata.ctime_nsec()).hash(&mut hasher);
    Ok((metadata.len(), hasher.finish()))
}

/// A file open for reading at any offset.
#[derive(Debug)]
pub struct ReadFile {
    file: File,
    path: PathBuf,
    size: u64,
    identity: u64,
    stamp: Stamp,
}

impl ReadFile {
    /// Opens `path`, which must be a regular file.
    ///
    /// # Errors
    /// [`Kind::Io`] with the file's name.
    pub fn open(path: &Path) -> Result<Self> {
        named("can't open", path, gate())?;
        // A pipe that nobody writes to would be waited for.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
        ReadFile::of(named("can't open", path, file)?, path)
    }

    fn of(file: File, path: &Path) -> Result<Self> {
        trace::opened(&file);
        let metadata = named("can't read its size", path, file.metadata())?;
        let (size, identity) = regular(path, &metadata)?;
        Ok(ReadFile {
            file,
            path: path.to_path_buf(),
            size,
            identity,
            stamp: Stamp::from(&metadata),
        })
    }

    /// The same past the system's page cache (`O_DIRECT`): offsets and lengths of reads, and where their
    /// buffers lie, must be multiples of 4 KiB. None where the file system knows no such reading.
    ///
    /// # Errors
    /// As [`ReadFile::open`].
    pub fn open_direct(path: &Path) -> Result<Option<Self>> {
        named("can't open", path, gate())?;
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::DIRECT;
        let flags = flags.bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(None),
            file => named("can't open", path, file)?,
        };
        ReadFile::of(file, path).map(Some)
    }

    /// Whether the byte at `offset` is in the system's page cache; none where it isn't told.
    #[must_use]
    pub fn is_cached(&self, offset: u64) -> Option<bool> {
        let (mut byte, now) = ([0], rustix::io::ReadWriteFlags::NOWAIT);
        let bytes = &mut [io::IoSliceMut::new(&mut byte)];
        match rustix::io::preadv2(&self.file, bytes, offset, now) {
            Ok(read) => Some(read > 0),
            Err(rustix::io::Errno::AGAIN) => Some(false),
            Err(_) => None,
        }
    }

    /// How it stood when it was opened.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// What [`ReadFile::size`] and [`ReadFile::identity`] of the file at `path` are, without opening it.
    ///
    /// # Errors
    /// As [`ReadFile::open`], but for what may be looked at and not read.
    pub fn glance(path: &Path) -> Result<(u64, u64)> {
        named("can't look at", path, gate())?;
        let metadata = named("can't look at", path, std::fs::metadata(path))?;
        regular(path, &metadata)
    }

    /// The same on all nodes that see this file on storage that they share, another for its copies:
    /// a hash of the inode's number and the time of its last change.
    #[must_use]
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// Size in bytes when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size in bytes now.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn size_now(&self) -> Result<u64> {
        let metadata = named("can't read its size", &self.path, self.file.metadata())?;
        Ok(metadata.len())
    }

    /// Lets the system drop the pages of bytes `range`, which are not needed again. It may not.
    pub fn forget(&self, range: std::ops::Range<u64>) {
        let begin = range.start / PAGE_BYTES * PAGE_BYTES;
        let end = range.end.next_multiple_of(PAGE_BYTES);
        let length = std::num::NonZeroU64::new(end - begin);
        if let Err(error) = rustix::fs::fadvise(&self.file, begin, length, Advice::DontNeed) {
            tracing::debug!("{}: pages are not dropped: {error}", self.path.display());
        }
    }

    /// The open file itself, for mapping.
    #[must_use]
    pub fn inner(&self) -> &File {
        &self.file
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`Kind::Io`]; a file that ends early is an error too ("has shrunk").
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let hiccup = named("can't read", &self.path, gate())?;
        let file = Wary::new(&self.file, hiccup);
        read_exact(&file, buffer, offset).map_err(|error| {
            let fault = if error.kind() == io::ErrorKind::UnexpectedEof {
                let message = format!(
                    "ends before byte {}; it has shrunk since it was opened",
                    offset + buffer.len() as u64
                );
                Fault::new(Kind::Io, message)
            } else {
                Fault::io("can't read", &error)
            };
            fault.file(self.path.display().to_string())
        })
    }

    /// The whole file, if it is no longer than `limit_bytes`.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if it is longer, [`Kind::Io`].
    pub fn read_all(&self, limit_bytes: u64) -> Result<Vec<u8>> {
        let length = usize::try_from(self.size)
            .ok()
            .filter(|_| self.size <= limit_bytes);
        let Some(length) = length else {
            let message = format!(
                "is {} bytes long, at most {limit_bytes} are read",
                self.size
            );
            return Err(Fault::new(Kind::Corrupt, message).file(self.path.display().to_string()));
        };
        let mut bytes =
            zeroed(length).map_err(|fault| fault.file(self.path.display().to_string()))?;
        self.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// Fills `buffer`, however often that must be tried.
fn read_exact(file: &impl FileExt, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    if planted(Bug::ShortIsWhole) || planted(Bug::InterruptFatal) {
        return match file.read_at(buffer, offset) {
            Err(error) if planted(Bug::InterruptFatal) => Err(error),
            Ok(_) if planted(Bug::ShortIsWhole) => Ok(()),
            _ => file.read_exact_at(buffer, offset),
        };
    }
    file.read_exact_at(buffer, offset)
}
