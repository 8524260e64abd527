//! A file being written.

use crate::fault::Result;
use crate::store::io::directory::Directory;
use crate::store::io::gate::{Hiccup, Wary, able, gate, is_lack};
use crate::store::io::late::patiently;
use crate::store::io::limits::check_size;
use crate::store::io::named::named;
use crate::store::io::trace;
use rustix::fs::{Mode, OFlags, openat};
use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file being written at any offset.
#[derive(Debug)]
pub struct WriteFile {
    /// None while it rests.
    file: Option<File>,
    path: PathBuf,
}

impl WriteFile {
    /// Creates `path`, which must not exist, with the permissions that any new file gets, and reserves
    /// `size` bytes for it.
    ///
    /// # Errors
    /// [`crate::fault::Kind::NoSpace`] if the disk hasn't room for it, [`crate::fault::Kind::Io`].
    pub fn create(path: &Path, size: u64) -> Result<Self> {
        Self::create_without(path, size, 0)
    }

    /// The same without the permissions `denied`.
    ///
    /// # Errors
    /// As [`WriteFile::create`].
    pub fn create_without(path: &Path, size: u64, denied: u32) -> Result<Self> {
        check_size(path, size)?;
        named("can't create", path, gate())?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o666 & !denied)
            .open(path);
        let file = named("can't create", path, file)?;
        trace::created(path, &file);
        if size > 0 {
            let hiccup = Cell::new(named("can't reserve space", path, gate())?);
            let flags = rustix::fs::FallocateFlags::empty();
            // Unlike the standard library's calls this one isn't repeated when a signal ends it.
            let reserved = rustix::io::retry_on_intr(|| {
                if hiccup.replace(Hiccup::None) == Hiccup::Interrupted {
                    return Err(rustix::io::Errno::INTR);
                }
                if in_memory(&file) {
                    // Reserving there means clearing pages that are then written again.
                    return Err(rustix::io::Errno::OPNOTSUPP);
                }
                able("reserve")?;
                rustix::fs::fallocate(&file, flags, 0, size)
            });
            match reserved {
                Ok(()) => {}
                Err(errno) if is_lack(errno) => {
                    named("can't set its size", path, set_size(&file, size))?;
                }
                Err(errno) => {
                    named(
                        &format!("can't reserve {size} bytes"),
                        path,
                        Err(errno.into()),
                    )?;
                }
            }
            trace::sized(&file, size);
        }
        Ok(WriteFile {
            file: Some(file),
            path: path.to_path_buf(),
        })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file that some process has created, for writing; another node may see it late.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        named("can't open for writing", path, gate())?;
        let file = named(
            "can't open for writing",
            path,
            patiently(|| OpenOptions::new().write(true).open(path)),
        )?;
        trace::opened(&file);
        Ok(WriteFile {
            file: Some(file),
            path: path.to_path_buf(),
        })
    }

    /// Opens the file at `inside` of `directory`, wherever that is now, for writing.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Io`].
    pub fn open_in(directory: &Directory, inside: &str) -> Result<Self> {
        let path = directory.path.join(inside);
        let action = "can't open for writing";
        named(action, &path, gate())?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let open = || openat(&directory.handle, inside, flags, Mode::empty());
        // Another node may have created it.
        let opened = patiently(|| rustix::io::retry_on_intr(open).map_err(std::io::Error::from));
        let file = File::from(named(action, &path, opened)?);
        trace::opened(&file);
        let file = Some(file);
        Ok(WriteFile { file, path })
    }

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// [`crate::fault::Kind::NoSpace`], [`crate::fault::Kind::Io`].
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let action = "can't write";
        check_size(&self.path, offset.saturating_add(bytes.len() as u64))?;
        let hiccup = named(action, &self.path, gate())?;
        self.with(|file| {
            let wary = Wary::new(file, hiccup);
            named(action, &self.path, wary.write_all_at(bytes, offset))?;
            trace::written(file, offset, bytes);
            Ok(())
        })
    }

    /// Lets the descriptor go; the file is opened again whenever it is used.
    #[must_use]
    pub fn resting(self) -> Self {
        WriteFile { file: None, ..self }
    }

    fn with<T>(&self, act: impl FnOnce(&File) -> Result<T>) -> Result<T> {
        if let Some(file) = &self.file {
            return act(file);
        }
        let again = OpenOptions::new().write(true).open(&self.path);
        let again = named("can't open for writing", &self.path, again)?;
        trace::opened(&again);
        act(&again)
    }

    /// Waits until the bytes are on the disk.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Io`]: the bytes may be lost.
    pub fn sync(&self) -> Result<()> {
        named("can't flush", &self.path, gate())?;
        let flush = |file: &File| trace::flushed(file, || file.sync_all());
        self.with(|file| named("can't flush", &self.path, flush(file)))
    }
}

/// Sets the size of a new file, by its last byte where there is no other way.
fn set_size(file: &File, size: u64) -> std::io::Result<()> {
    let set = able("truncate").and_then(|()| rustix::fs::ftruncate(file, size));
    match set {
        Err(errno) if is_lack(errno) => file.write_all_at(&[0], size.saturating_sub(1)),
        set => set.map_err(std::io::Error::from),
    }
}

/// Whether a file's bytes live in memory only (tmpfs, ramfs).
fn in_memory(file: &File) -> bool {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    const RAMFS_MAGIC: u64 = 0x8584_58f6;
    let kind = rustix::fs::fstatfs(file)
        .ok()
        .and_then(|stat| u64::try_from(stat.f_type).ok());
    matches!(kind, Some(TMPFS_MAGIC | RAMFS_MAGIC))
}

/// Writes a small file anew, flushed if `flush`.
///
/// # Errors
/// [`crate::fault::Kind::NoSpace`], [`crate::fault::Kind::Io`].
pub fn write_small(path: &Path, bytes: &[u8], flush: bool) -> Result<()> {
    write_small_without(path, bytes, flush, 0)
}

/// The same, without the permissions `denied`.
///
/// # Errors
/// As [`write_small`].
pub fn write_small_without(path: &Path, bytes: &[u8], flush: bool, denied: u32) -> Result<()> {
    let file = WriteFile::create_without(path, 0, denied)?;
    file.write_at(bytes, 0)?;
    if flush { file.sync() } else { Ok(()) }
}
